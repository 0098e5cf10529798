"""Runs that are stopped, crowded and starved, then resumed, and compared bit for bit with runs that nothing happened to.

    python benchmarks/soak.py --save benchmarks/results/soak.json

Each run is trained twice. One is left alone. The other is stopped one to three times by SIGKILL, SIGTERM or Ctrl-C at a random moment and resumed
after each. In turn a run also meets one of these: a second writer, a full disk, a folder that can't be written. A full disk is a tmpfs that is too
small, or a limit on the size of a file where nothing can be mounted; a read-only folder is that tmpfs made read-only, or permissions. What the
machine doesn't allow is left out, and the table says so. `--seed` fixes all that is drawn; when a signal arrives depends on the machine.
"""
import argparse
import json
import multiprocessing as mp
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from table import machine
from tqdm.auto import tqdm

from moola.core.command import stoppable
from moola.core.config import VARIANTS, make_config
from moola.core.errors import MoolaError
from moola.data.simulate import simulate_bars
from moola.models.checkpoint import load_checkpoint
from moola.training.fit import fit
from moola.training.folder import is_run
from moola.training.run import RUN_FILES, TABLES, Run
from moola.training.start import ANSWERS

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
EXTRA = ("second writer", "full disk", "read-only folder")
OWN = {"output", "resume", "overwrite", "git", "started", "ended", "timings", "trained_s"}  # of a run's place and hour, not of its result
REFUSED, BROKEN = 3, 4  # how a process ends on a MoolaError, and on an error of the system
CTX = mp.get_context("forkserver")


def train(params, go, said, limit):
    "What a process does: train, or resume what is there, and leave its last words."
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    folder = Path(params["output"])
    if go: go.wait()
    begun = dict(resume=True) if (folder/"last.pt").exists() else dict(overwrite=is_run(folder))
    try:
        with stoppable(): fit(make_config(**params, **begun))
    except KeyboardInterrupt: os._exit(130)
    except (MoolaError, OSError) as e:
        Path(said).write_text(f"{type(e).__name__}: {e}")
        os._exit(REFUSED if isinstance(e, MoolaError) else BROKEN)


class Writer:
    "A process that trains into a folder."
    def __init__(self, params, folder, go=None, limit=0):
        self.go = go   # kept until the process has it
        self.said = Path(tempfile.mkstemp(prefix="soak-")[1])
        self.process = CTX.Process(target=train, args=(params | dict(output=str(folder)), go, str(self.said), limit))
        self.process.start()

    def end(self, timeout=None):
        "Its exit code and its words, or None where it goes on."
        self.process.join(timeout)
        if self.process.exitcode is None: return None
        words = self.said.read_text() if self.said.exists() else ""
        self.said.unlink(missing_ok=True)
        return self.process.exitcode, words


def plain(o, skip=OWN):
    "A comparable form: tensors as bytes, what belongs to place and hour left out."
    if isinstance(o, dict): return {k: plain(v) for k, v in o.items() if k not in skip}
    if isinstance(o, (list, tuple)): return [plain(v) for v in o]
    if torch.is_tensor(o): return str(o.dtype), tuple(o.shape), o.cpu().numpy().tobytes()
    return o.tobytes() if isinstance(o, np.ndarray) else o


def content(folder, name):
    "A file of a run without what depends on place and hour."
    path = folder/name
    if name == ANSWERS: return path.read_bytes() if path.exists() else b""
    if name in TABLES: return pd.read_csv(path, dtype=str).drop(columns="epoch_time", errors="ignore").to_csv()
    if name.endswith(".pt"): return plain(load_checkpoint(path))
    return plain(json.loads(path.read_text())) if name.endswith(".json") else pd.read_parquet(path).to_csv()


def differing(a, b):
    "The files in which two runs differ."
    return [f for f in (*RUN_FILES, ANSWERS) if content(a, f) != content(b, f)]


def draw(rng, i, bars):
    "The parameters of run i; `bars` is a file of bars for a variant that has teachers."
    variant = rng.choice(list(VARIANTS))
    taught = dict(background=str(bars), background_windows=40, teachers=2) if VARIANTS[variant].teachers else {}
    return dict(variant=variant, epochs=rng.randint(6, 14), n_windows=rng.choice([24, 32]), hidden=8, pastes=rng.choice([0, 2]),
                mirror=rng.random() < .5, batch_size=16, seed=i, device="cpu", progress=False, **taught)


def stop_once(params, folder, rng, seconds, counts):
    "Stop a writer at a random moment; false where it was done before."
    name = rng.choice(list(SIGNALS))
    w, moment = Writer(params, folder), rng.uniform(0, seconds)
    if (over := w.end(moment)) is not None:
        assert over == (0, ""), over
        return False
    os.kill(w.process.pid, SIGNALS[name])
    code = w.end()[0]
    if code == 0: return False  # it had just ended
    counts[name] += 1
    done = folder/"epoch_metrics.csv"
    n = max(0, done.read_text().count("\n")-1) if done.exists() else 0
    counts["before an epoch" if n == 0 else "in the closing" if n == params["epochs"] else "between epochs"] += 1
    if name == "SIGKILL": assert code == -signal.SIGKILL
    return True


def second_writer(params, folder, counts):
    "Two start at once, and exactly one of them trains."
    go = CTX.Event()
    both = [Writer(params, folder, go) for _ in range(2)]
    time.sleep(.2)
    go.set()
    ends = [w.end() for w in both]
    assert sorted(code for code, _ in ends) in ([0, REFUSED], [0, 0]), ends
    counts["second writer" if any("in use" in words for _, words in ends) else "second writer, which came after the end"] += 1


class Disk:
    "A file system of a chosen size, where one can be mounted."
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.mounted = not self._run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder)

    @staticmethod
    def _run(*words): return shutil.which(words[0]) is None or subprocess.run([str(w) for w in words], capture_output=True).returncode

    def allow(self, option): assert not self._run("mount", "-o", f"remount,{option}", self.folder)

    def close(self):
        if self.mounted: self._run("umount", "--lazy", self.folder)


def full_disk(params, folder, disk, rng, need, counts):
    "Train where there isn't room for the run, then make room."
    share = rng.uniform(.2, .9)
    if disk.mounted: disk.allow(f"size={int(need*share)//4096*4096}")
    code, words = Writer(params, folder, limit=0 if disk.mounted else int(need*share/4)).end()
    if disk.mounted: disk.allow("size=64m")
    assert code in (0, REFUSED, BROKEN) and (code == 0 or words), (code, words)
    assert not list(folder.glob("*.part"))
    counts["full disk" if code else "disk that was large enough"] += 1


def read_only(params, folder, disk, counts):
    "Try to train where nothing can be written: one sentence, and nothing changes."
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    disk.allow("ro") if disk.mounted else folder.chmod(0o555)
    code, words = Writer(params, folder).end()
    disk.allow("rw") if disk.mounted else folder.chmod(0o755)
    assert code in (REFUSED, BROKEN) and words, (code, words)
    assert before == {p.name: p.read_bytes() for p in folder.iterdir()}
    counts["read-only folder"] += 1


def run_once(i, seed, root):
    "Train run i alone and troubled: the files in which they differ, what happened, and what was left out."
    params, rng, counts, notes = draw(random.Random(f"{seed} {i}"), i, root/"bars.parquet"), random.Random(f"{seed} {i} trouble"), Counter(), set()
    disk, whole = Disk(root/f"disk-{i}"), root/f"whole-{i}"
    torn = disk.folder/"torn"
    try:
        began = time.perf_counter()
        assert (ended := Writer(params, whole).end()) == (0, ""), ended
        seconds, extra = time.perf_counter()-began, EXTRA[i % len(EXTRA)]
        if extra == "full disk":
            full_disk(params, torn, disk, rng, sum(p.stat().st_size for p in whole.iterdir()), counts)
            if not disk.mounted: notes.add("full disk: a limit on the size of a file, for nothing can be mounted")
        for _ in range(rng.randint(1, 3)):
            if not stop_once(params, torn, rng, seconds, counts): break
        finished = (torn/"metadata.json").exists() and Run(torn).metadata["status"] == "finished"
        if extra == "read-only folder" and torn.exists() and not finished:
            if disk.mounted or os.geteuid(): read_only(params, torn, disk, counts)
            else: notes.add("read-only folder: left out, for nothing can be mounted, and permissions don't hold root back")
        if not finished and extra == "second writer": second_writer(params, torn, counts)
        if not finished: assert (ended := Writer(params, torn).end())[0] == 0 or "already has its" in ended[1], ended
        bad = differing(whole, torn)
        if left := {p.name for p in torn.iterdir()} - {*RUN_FILES, ANSWERS}: bad.append(f"left: {left}")
    except Exception as e: bad = [f"{type(e).__name__}: {e}"]
    if not bad:
        shutil.rmtree(torn)
        shutil.rmtree(whole)
        disk.close()
    return bad, counts, notes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first run, to do some again (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="runs at once (default: %(default)s)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the figures as JSON")
    o = parser.parse_args()
    CTX.set_forkserver_preload(["pandas", "moola.training.fit", "torch._dynamo"])  # whatever a training imports, once
    root, counts, notes, bad = Path(tempfile.mkdtemp(prefix="soak-")), Counter(), set(), {}
    bars = simulate_bars(5000, seed=o.seed)
    bars.assign(timestamp=bars.timestamp - pd.Timedelta("3650D")).to_parquet(root/"bars.parquet")  # clear of the labelled windows
    with ThreadPool(o.at_once) as pool, tqdm(total=o.runs, unit="run") as bar:
        for i, (wrong, found, noted) in pool.imap_unordered(lambda i: (i, run_once(i, o.seed, root)), range(o.first, o.first+o.runs)):
            counts, notes = counts + found, notes | noted
            if wrong: bad[i] = wrong
            bar.update()
            if wrong: bar.write(f"run {i}: {wrong}")
    figures = dict(runs=o.runs, **{"equal bit for bit": o.runs-len(bad)}, **dict(sorted(counts.items())))
    print("\n".join(f"{n:5} {k}" for k, n in figures.items()), *sorted(notes), sep="\n")
    about = dict(seed=o.seed, machine=machine("torch"), notes=sorted(notes))
    if o.save: o.save.write_text(json.dumps(dict(about=about, figures=figures, differing=bad), indent=1) + "\n")
    if bad: raise SystemExit(f"{len(bad)} of {o.runs} runs differ: their folders are in {root}")
    shutil.rmtree(root)


if __name__ == "__main__": main()
