"Runs that can be trusted: one owner, one place, one identity, and a sentence for whatever goes wrong."
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import start

from moola.core.command import command
from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.core.files import in_use, lock_folder, unlock_folder
from moola.data.plant import simulate_windows
from moola.data.windows import read_windows, write_windows
from moola.models.checkpoint import load_checkpoint
from moola.training import recorder
from moola.training.command import moola_train
from moola.training.fit import fit
from moola.training.folder import choose_folder, claim_folder
from moola.training.run import RUN_FILES, Run

BIN = Path(sys.executable).parent
TINY = dict(variant="stones_only", n_windows=24, hidden=8, device="cpu", progress=False)


def tiny(folder, **params): return make_config(**(TINY | dict(epochs=2, output=str(folder)) | params))


def clean_env(): return {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}


def wait_for(table, lines, p):
    "Wait until a table has so many lines."
    for _ in range(3000):
        if table.exists() and len(table.read_text().splitlines()) >= lines: return
        assert p.poll() is None, p.communicate()
        time.sleep(.1)
    raise AssertionError(f"{table} has no {lines} lines")


def timed(windows, shift=0):
    "The same windows with times, a day apart."
    t = pd.Timestamp("2026-01-05") + pd.to_timedelta(windows.window + shift, "D")
    windows.rows = windows.rows.assign(timestamp=t)
    return windows


def test_one_owner(tmp_path):
    "While a run is going its folder is refused to others; killed, it has stopped where it was, and can be resumed."
    run = tmp_path/"run"
    p = start("moola_train", "--output", run, "--variant", "stones_only", "--n-windows", 24, "--hidden", 8, "--epochs", 5000, "--device", "cpu", cwd=tmp_path)
    wait_for(run/"epoch_metrics.csv", 4, p)
    assert in_use(run) and Run(run).metadata["status"] == "running"
    for more in (dict(), dict(overwrite=True), dict(resume=True, epochs=5000)):
        with pytest.raises(MoolaError, match=r"is in use by process \d+ since"): fit(tiny(run, **more))
    os.killpg(p.pid, signal.SIGKILL)
    p.communicate(timeout=60)
    for _ in range(100):   # the kernel ends with the process that started it
        if not in_use(run): break
        time.sleep(.1)
    n = len(pd.read_csv(run/"epoch_metrics.csv", on_bad_lines="skip"))
    assert f"stopped after {n} of 5000 epochs; --resume goes on" in repr(Run(run))
    done = load_checkpoint(run/"last.pt")["epoch"]
    with pytest.raises(MoolaError, match="already has its"): fit(tiny(run, epochs=1, resume=True))
    assert len(fit(tiny(run, epochs=done+1, resume=True)).epochs) == done+1


def test_names_of_two_starts_differ(tmp_path, monkeypatch):
    "Whoever claims second takes the next number, also while the first has written nothing yet."
    monkeypatch.chdir(tmp_path)
    (tmp_path/"settings.ini").touch()
    config = make_config(**TINY)
    assert [claim_folder(config).name for _ in range(3)] == ["stones_only", "stones_only-2", "stones_only-3"]


@pytest.mark.parametrize("change, column", [("drop times", "timestamp"), ("move times", "timestamp"), ("base", "base_window_id")])
def test_identity(change, column, tmp_path):
    "Other times or bases are other data: the split depends on them."
    windows = timed(simulate_windows(40, seed=1))
    fit(tiny(tmp_path/"run"), windows)
    if change == "drop times": windows.rows = windows.rows.drop(columns="timestamp")
    elif change == "move times": timed(windows, 1)
    else: windows.rows = windows.rows.assign(base_window_id="b")
    with pytest.raises(MoolaError, match=f"was begun with another {column}: the split depends on it"): fit(tiny(tmp_path/"run", epochs=4, resume=True), windows)
    assert not in_use(tmp_path/"run")


def test_moved_data_and_stored_split(tmp_path, monkeypatch):
    "The path isn't part of a run; the split is, and is used as it was stored."
    for name in ("a.parquet", "b.parquet"): write_windows(simulate_windows(30, seed=3), tmp_path/name)
    fit(tiny(tmp_path/"run", data=str(tmp_path/"a.parquet")))
    (tmp_path/"a.parquet").unlink()
    monkeypatch.setattr("moola.training.start.split_of", lambda *a: pytest.fail("the split was made anew"))
    run = fit(tiny(tmp_path/"run", data=str(tmp_path/"b.parquet"), epochs=3, resume=True))
    assert len(run.epochs) == 3
    windows, split = read_windows(tmp_path/"b.parquet"), load_checkpoint(run.folder/"last.pt")["split"]
    assert run.predictions()[0].tolist() == windows.ids[split["valid"].numpy()].tolist()
    from moola.data.splits import split_windows
    other = split_windows(windows, valid_fraction=.3)
    with pytest.raises(MoolaError, match="another split"): fit(tiny(run.folder, data=str(tmp_path/"b.parquet"), epochs=4, resume=True), windows, other)


def test_closed_by_resume(tmp_path):
    "A run that was killed after its last epoch needs no other epoch to be finished."
    whole = fit(tiny(tmp_path/"whole", epochs=3))
    fit(tiny(tmp_path/"run", epochs=3))
    (tmp_path/"run/predictions.parquet").unlink()
    m = json.loads((tmp_path/"run/metadata.json").read_text())
    (tmp_path/"run/metadata.json").write_text(json.dumps(m | dict(status="running", epochs_done=0)))
    run = fit(tiny(tmp_path/"run", epochs=3, resume=True))
    assert run.metadata["status"] == "finished" and len(run.epochs) == 3
    np.testing.assert_array_equal(run.predictions()[1], whole.predictions()[1])


def test_resumes_the_newest_by_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"settings.ini").touch()
    for name, begun in (("stones_only", "2026-01-02"), ("stones_only-2", "2026-01-03"), ("stones_only_other", "2026-01-04")):
        folder = tmp_path/"artifacts"/name
        folder.mkdir(parents=True)
        (folder/"last.pt").touch()
        (folder/"metadata.json").write_text(json.dumps(dict(started=begun)))
    os.utime(tmp_path/"artifacts/stones_only")   # read last
    assert choose_folder(make_config(**TINY, resume=True)).name == "stones_only-2"


def papermill(tmp_path, root, output, *more, **env):
    words = [w for k, v in dict(variant="stones_only", n_windows=24, hidden=8, epochs=1, device="cpu").items() for w in ("-p", k, v)]
    p = start("papermill", root/"nbs/train.ipynb", output, *words, *more, cwd=tmp_path, PWD=str(tmp_path), **env)
    out = "".join(p.communicate(timeout=200))
    return p.returncode, out


@pytest.mark.parametrize("output, more", [("first/out.ipynb", ["--cwd", "/"]), ("{variant}/train.ipynb", ["--inject-output-path"])])
def test_run_lies_beside_its_notebook(output, more, tmp_path, root):
    "However papermill is told where to write; pictures come whatever MPLBACKEND says, and the run keeps its own copy."
    folder = tmp_path/Path(output.format(variant="stones_only")).parent
    folder.mkdir()
    (folder/"log.txt").touch()
    rc, out = papermill(tmp_path, root, output, *more, MPLBACKEND="Agg")
    assert rc == 0, out
    assert str(folder) in out and Run(folder).metadata["status"] == "finished"
    assert (folder/"executed.ipynb").read_text().count("image/png") == 4
    if "cwd" in more[0]: return
    rc, out = papermill(tmp_path, root, output, *more)
    assert rc and "already holds a run" in out
    assert (folder/"executed.ipynb").read_text().count("image/png") == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_close_a_run(number, tmp_path):
    "A signal to the command alone stops its kernel too, and the run is closed; under nohup SIGHUP stops nothing."
    hup = signal.signal(signal.SIGHUP, signal.SIG_IGN if number == signal.SIGTERM else signal.SIG_DFL)   # inherited: ignored below nohup
    p = start("moola_train", "--output", tmp_path/"run", "--variant", "stones_only", "--n-windows", 24, "--hidden", 8, "--epochs", 5000, "--device", "cpu", cwd=tmp_path)
    signal.signal(signal.SIGHUP, hup)
    wait_for(tmp_path/"run/epoch_metrics.csv", 3, p)
    if number == signal.SIGTERM:
        p.send_signal(signal.SIGHUP)
        wait_for(tmp_path/"run/epoch_metrics.csv", 9, p)
    p.send_signal(number)
    _, err = p.communicate(timeout=200)
    assert p.returncode == 128 + number and err == "moola_train: stopped\n"
    assert Run(tmp_path/"run").metadata["status"] == "interrupted" and not in_use(tmp_path/"run")


def test_training_outlives_its_reader(tmp_path):
    "Whoever reads the lines may go: the training goes on."
    words = f"moola_train --output {tmp_path}/run --variant stones_only --n-windows 24 --hidden 8 --epochs 30 --device cpu | head -1"
    out = subprocess.run(["bash", "-c", words], cwd=tmp_path, env=clean_env() | dict(PATH=f"{BIN}:{os.environ['PATH']}"), capture_output=True, text=True, timeout=200)
    assert "Traceback" not in out.stderr and len(out.stdout.splitlines()) == 1
    for _ in range(300):
        if (tmp_path/"run/metadata.json").exists() and Run(tmp_path/"run").metadata["status"] == "finished": break
        time.sleep(.1)
    assert len(Run(tmp_path/"run").epochs) == 30


def test_failed_starts_leave_nothing(tmp_path):
    "Neither folder nor notebook stays of a run that didn't begin, and the notebook of an earlier run stays as it was."
    p = start("moola_train", "--output", tmp_path/"new", "--valid-fraction", ".01", "--n-windows", "8", cwd=tmp_path)
    out, err = p.communicate(timeout=120)
    assert p.returncode and len(err.splitlines()) == 1 and not (tmp_path/"new").exists()
    with pytest.raises(MoolaError, match="'cuda:9' was asked for"): fit(tiny(tmp_path/"new", device="cuda:9"))
    assert not (tmp_path/"new").exists()
    (tmp_path/"file").touch()
    assert said(moola_train, "--output", tmp_path/"file") == f"moola_train: {tmp_path}/file is a file: name a folder as output"


@pytest.mark.parametrize("error, said", [
    (OSError(28, "No space left on device", "a.csv"), "a.csv: no space left on device: free some space, or write elsewhere"),
    (PermissionError(13, "Permission denied", "/x"), "/x: permission denied: write to another folder"), (MoolaError("no"), "no")])
def test_command_sentences(error, said, capsys):
    @command
    def moola_some(argv): raise error
    with pytest.raises(SystemExit, match=said): moola_some([])


def test_full_disk_and_broken_pipe():
    "A command whose output can't be written ends in a sentence, or quietly."
    code = "from moola.core.command import command\n@command\ndef moola_some(argv): print('line\\n'*100000)\nmoola_some()"
    for to, words, rc in (("/dev/full", "moola_some: no space left on device: free some space, or write elsewhere", 1), (None, "", 0)):
        line = f"'{sys.executable}' -c \"$CODE\" " + (f"> {to}" if to else "| head -1 > /dev/null")
        p = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=os.environ | dict(CODE=code), capture_output=True, text=True, timeout=60)
        assert p.stderr.strip() == words and p.returncode == rc


@pytest.fixture
def disk(tmp_path):
    "A small file system; `disk.again(option)` mounts it anew, as full or read-only."
    folder = tmp_path/"disk"
    folder.mkdir()
    def mount(*options): return subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if (made := mount("-t", "tmpfs", "-o", "size=64m", "tmpfs")).returncode: pytest.skip(f"nothing can be mounted: {made.stderr.strip()}")
    yield folder, lambda option: mount("-o", f"remount,{option}")
    subprocess.run(["umount", "--lazy", folder], check=True)


def said(f, *words):
    "The sentence that a command ends with."
    with pytest.raises(SystemExit) as e: f([str(w) for w in words])
    assert isinstance(e.value.code, str) and "\n" not in e.value.code
    return e.value.code


def test_read_only_and_full_disk(disk, tmp_path):
    "Training, report, predict and export end in one sentence, leave nothing, and a run goes on when there is room again."
    from moola.data.simulate import simulate_bars
    from moola.detection.command import moola_export, moola_predict
    from moola.views.command import moola_report
    folder, again = disk
    whole = fit(tiny(tmp_path/"whole", epochs=3))
    run = fit(tiny(folder/"run")).folder
    simulate_bars(300, 1).to_csv(tmp_path/"b.csv", index=False)
    predict = [tmp_path/"b.csv", "--model", run, "--device", "cpu", "--quiet", "--out", folder/"a.csv", "--probabilities", folder/"b.csv"]
    names = sorted(p.name for p in run.iterdir())
    again("ro")
    for f, words in ((moola_report, [run]), (moola_predict, predict), (moola_export, [run, folder/"m.onnx"])): assert "read-only file system" in said(f, *words).lower()
    for more in (dict(overwrite=True), dict(resume=True, epochs=3)):
        with pytest.raises(MoolaError, match="run cannot be written to: read-only file system"): fit(tiny(run, **more))
    again("rw")
    used = sum(-(-p.stat().st_size//4096)*4096 for p in run.iterdir())
    again(f"size={used+8192}")
    for f, words in ((moola_report, [run]), (moola_predict, predict)): assert "no space left on device" in said(f, *words)
    with pytest.raises(OSError, match="No space left on device.*last.pt|No space left on device.*best_model.pt"): fit(tiny(run, resume=True, epochs=3))
    assert sorted(p.name for p in run.iterdir()) == names and sorted(p.name for p in folder.iterdir()) == ["run"]
    again("size=64m")
    np.testing.assert_array_equal(fit(tiny(run, resume=True, epochs=3)).predictions()[1], whole.predictions()[1])


def test_last_names_no_model_that_was_not_written(small_run, tmp_path, monkeypatch):
    "Where the best model can't be written, the state that names it isn't either, and a resumed run ends like an undisturbed one."
    whole, run = fit(tiny(tmp_path/"whole", epochs=3)), tmp_path/"run"
    assert whole.metadata["best"]["epoch"] == 3, "the third epoch has to be the best"
    shutil.copytree(small_run, run)
    def full(path, state, save=recorder.save_checkpoint):
        if path.name == "best_model.pt": raise OSError(28, "No space left on device", str(path))
        save(path, state)
    with monkeypatch.context() as m, pytest.raises(OSError, match="best_model.pt"):
        m.setattr(recorder, "save_checkpoint", full)
        fit(tiny(run, resume=True, epochs=3))
    assert load_checkpoint(run/"last.pt")["epoch"] == 2
    np.testing.assert_array_equal(fit(tiny(run, resume=True, epochs=3)).predictions()[1], whole.predictions()[1])


@pytest.mark.parametrize("name, when, done", [("_epoch_row", "before", 2), ("_keep", "before", 2), ("save", "before", 2), ("save", "after", 3), ("_keep", "after", 3)])
def test_interrupted_between_table_and_checkpoint(name, when, done, small_run, tmp_path, monkeypatch):
    "Wherever Ctrl-C comes, tables, metadata and last.pt speak of the same epochs, and the run goes on from there."
    run, method = tmp_path/"run", getattr(recorder.Recorder, name)
    shutil.copytree(small_run, run)
    def interrupted(self, *args):
        if when == "after": method(self, *args)
        raise KeyboardInterrupt
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(recorder.Recorder, name, interrupted)
        fit(tiny(run, resume=True, epochs=4))
    last, metadata = load_checkpoint(run/"last.pt"), Run(run).metadata
    assert last["epoch"] == metadata["epochs_done"] == len(Run(run).epochs) == done and metadata["status"] == "interrupted"
    assert last["best"] == metadata["best"] and load_checkpoint(run/"best_model.pt")["epoch"] == last["best"]["epoch"]
    assert len(fit(tiny(run, resume=True, epochs=4)).epochs) == 4


@pytest.mark.parametrize("table, text, words", [("epoch_metrics", "", "is damaged"), ("epoch_metrics", "a,b\n1,2\n", "has no column epoch"),
    ("epoch_metrics", "epoch,train_loss,val_loss,span_f1\n2,1,1,0\n", "lacks epoch 1"),
    ("gradient_stats", "a,b\n1,2\n", "has no column epoch"), ("loss_components", None, "lacks loss_components.csv")])
def test_foreign_tables_are_not_trained_on(table, text, words, small_run, tmp_path):
    "A resumed run checks its tables before the first step."
    shutil.copytree(small_run, tmp_path/"run")
    path = tmp_path/"run"/f"{table}.csv"
    path.write_text(text) if text is not None else path.unlink()
    with pytest.raises(MoolaError, match=words): fit(tiny(tmp_path/"run", resume=True, epochs=3))
    assert load_checkpoint(tmp_path/"run/last.pt")["epoch"] == 2


@pytest.fixture(scope="module")
def small_run(tmp_path_factory): return fit(tiny(tmp_path_factory.mktemp("small")/"run")).folder


def test_run_of_a_newer_moola(small_run, tmp_path):
    shutil.copytree(small_run, tmp_path/"run")
    m = json.loads((tmp_path/"run/metadata.json").read_text())
    m["versions"]["moola"], m["config"]["momentum"] = "9.0", 3
    (tmp_path/"run/metadata.json").write_text(json.dumps(m))
    with pytest.raises(MoolaError, match="written by moola 9.0, and this is .*: update moola"): _ = Run(tmp_path/"run").config


@pytest.mark.parametrize("text", ["{", "{}", "[1]", ""])
def test_damaged_metadata(text, tmp_path):
    (tmp_path/"metadata.json").write_text(text)
    with pytest.raises(MoolaError, match=r"metadata\.json is damaged"): _ = Run(tmp_path).metadata


def test_damaged_tables(tmp_path):
    (tmp_path/"metadata.json").write_text(json.dumps(dict(status="finished", config={})))
    for text, said in (("", "is damaged"), ("a,b\n1,2\n", "no column epoch")):
        (tmp_path/"epoch_metrics.csv").write_text(text)
        with pytest.raises(MoolaError, match=said): _ = Run(tmp_path).epochs
    (tmp_path/"predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(MoolaError, match=r"predictions\.parquet is damaged"): Run(tmp_path).predictions()


def test_threads_change_no_number(tmp_path):
    "The default computes with one thread, whatever torch is set to; `threads` is put back."
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        a, b = fit(tiny(tmp_path/"a")), fit(tiny(tmp_path/"b", threads=1))
        assert torch.get_num_threads() == 2
    finally: torch.set_num_threads(before)
    assert "1 threads" in a.metadata["device"]
    pd.testing.assert_frame_equal(*(r.epochs.drop(columns="epoch_time") for r in (a, b)))


def test_lock_is_freed_and_leaves_nothing(tmp_path):
    unlock_folder(lock_folder(tmp_path))
    assert not in_use(tmp_path) and not list(tmp_path.iterdir())
    run = fit(tiny(tmp_path/"run"))
    assert {p.name for p in run.folder.iterdir()} == set(RUN_FILES)


def test_cache_where_nothing_can_be_written(tmp_path):
    "Without a place to write to, compiled code goes to the folder for temporary files."
    from moola.core import compiled
    assert compiled.place_for_cache(tmp_path, Path("/nowhere")) is None
    real, compiled._writable = compiled._writable, lambda folder: False
    try: assert "moola-numba" in compiled.place_for_cache(tmp_path, tmp_path).name
    finally: compiled._writable = real


def test_last_line_of_make_train(root):
    "`make train` ends with what `recommended` would reach, from the stored benchmark."
    def said(variant): return subprocess.run([sys.executable, root/".ci/reached.py", variant], check=True, capture_output=True, text=True).stdout
    assert said("position_encoding").endswith("make train VARIANT=recommended\n") and "0.76" in said("position_encoding")
    assert said("recommended") == said("stones_only") == ""
