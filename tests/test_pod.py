"moola_pod against a real OpenSSH server and rsync on the loopback, with a throw-away key, on a high port."
import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moola.data.plant import simulate_windows
from moola.data.simulate import simulate_bars
from moola.data.windows import write_windows
from moola.pod import remote, remote_machine
from moola.pod.command import moola_pod
from moola.pod.connection import Patience, Pod, pinned
from moola.pod.target import find_target
from moola.training.run import Run

NEEDED = {"sshd": shutil.which("sshd") or shutil.which("/usr/sbin/sshd"), "ssh": shutil.which("ssh"), "rsync": shutil.which("rsync")}
MISSING = [name for name, path in NEEDED.items() if not path]
if MISSING and not os.environ.get("CI"): pytest.skip(f"no {' and no '.join(MISSING)} on this machine", allow_module_level=True)

STRANGE = "it's; $(touch pwned) \"b\" [1]*"  # a name that no shell may see


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def make_key(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


class Server:
    "An OpenSSH server for this user."
    def __init__(self, folder, port=None, host_key=None, more=""):
        self.folder, self.port = folder, port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0: Path("/run/sshd").mkdir(exist_ok=True)
        self.key = folder/"key" if (folder/"key").exists() else make_key(folder/"key")
        host_key = host_key or (folder/"host" if (folder/"host").exists() else make_key(folder/"host"))
        (folder/"sshd_config").write_text("\n".join([f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {host_key}", f"PidFile {folder}/pid",
            f"AuthorizedKeysFile {self.key}.pub", "StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no",
            "PermitRootLogin prohibit-password", more]) + "\n")
        (folder/"ssh_config").touch()
        self.process = subprocess.Popen([NEEDED["sshd"], "-D", "-e", "-f", folder/"sshd_config"], stderr=(folder/"log").open("ab"))
        self.wait()

    def wait(self):
        for _ in range(100):
            assert self.process.poll() is None, (self.folder/"log").read_text()
            try: return socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError: time.sleep(.05)
        raise AssertionError("sshd does not answer")

    def stop(self):
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    assert not MISSING, f"CI has to bring {MISSING}: see .ci/run"
    s = Server(tmp_path_factory.mktemp("sshd"))
    yield s
    s.stop()


class Laptop:
    "A project folder with a pod.toml, and moola_pod in it."
    def __init__(self, folder, server, capsys):
        self.folder, self.server, self.capsys = folder, server, capsys
        self.there = folder.parent/f"pod {STRANGE}"
        (folder/"settings.ini").touch()
        self.target()

    def target(self, **changes):
        "Write pod.toml; `None` leaves a field out."
        s = self.server
        fields = dict(host="127.0.0.1", port=s.port, user=getpass.getuser(), key=str(s.key), ssh_config=str(s.folder/"ssh_config"), folder=str(self.there),
                      python=sys.executable, install=False, patience=20) | changes
        (self.folder/"pod.toml").write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in fields.items() if v is not None))
        return find_target({}, str(self.folder/"pod.toml"), {})

    def __call__(self, *words, code=0):
        "What moola_pod prints; with a code other than 0, the sentence with which it ends."
        self.capsys.readouterr()
        try: moola_pod([str(w) for w in words])
        except SystemExit as e: ended = e.code
        else: ended = 0
        out = self.capsys.readouterr()
        self.err = out.err
        number = 1 if isinstance(ended, str) else ended or 0
        assert number == code, f"{ended}\n{out.out}\n{out.err}"
        return ended if isinstance(ended, str) else out.out

    def job(self, name, code):
        "A run on the pod that executes a line of Python in place of papermill."
        job = Path(remote.job_folder(str(self.there), name))
        (self.there/"artifacts"/name).mkdir(parents=True)
        job.mkdir(parents=True)
        (job/"pod.json").write_text(json.dumps(dict(run=name, token=name, origin=name, params={}, started=time.time())))
        (job/"spec.json").write_text(json.dumps(dict(command=[sys.executable, "-c", code], cwd=str(job), env=dict(MOOLA_POD_JOB=str(job)))))
        subprocess.run([sys.executable, "-c", "import sys; from moola.pod.remote_job import launch; launch(sys.argv[1])", job], check=True)
        self.jobs.append(job)
        return job

    jobs = []


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    "A folder on the pod in which runs were trained before, so that moola's functions are compiled there."
    return tmp_path_factory.mktemp("used")/f"pod {STRANGE}"


@pytest.fixture
def laptop(server, tmp_path, capsys, monkeypatch):
    (tmp_path/"laptop").mkdir()
    monkeypatch.chdir(tmp_path/"laptop")
    for k in [k for k in os.environ if k.startswith(("MOOLA_POD_", "RUNPOD_"))]: monkeypatch.delenv(k)
    lap = Laptop(tmp_path/"laptop", server, capsys)
    yield lap
    for job in (lap.there/"jobs").glob("*"):
        for pid in remote.processes(str(job)): os.kill(pid, signal.SIGKILL)
    assert not list(tmp_path.rglob("pwned")) and not Path.home().joinpath("pwned").exists()


class Proxy:
    "A way to the server that can be slow, and that breaks."
    def __init__(self, port, cuts=(), rate=None, then="open"):
        self.to, self.cuts, self.rate, self.then, self.count, self.bytes = port, list(cuts), rate, then, 0, []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try: client = self.socket.accept()[0]
            except OSError: return
            self.count += 1
            limit = self.cuts.pop(0) if self.cuts else None
            if limit is None and self.then == "closed": client.close(); continue
            there = socket.create_connection(("127.0.0.1", self.to))
            self.bytes.append(0)
            for a, b in ((client, there), (there, client)): threading.Thread(target=self.pump, args=(a, b, len(self.bytes)-1, limit), daemon=True).start()

    def pump(self, a, b, i, limit):
        try:
            while data := a.recv(8192):
                self.bytes[i] += len(data)
                if limit and self.bytes[i] > limit: break
                b.sendall(data)
                if self.rate: time.sleep(len(data)/self.rate)
        except OSError: pass
        for s in (a, b):
            try: s.shutdown(socket.SHUT_RDWR)
            except OSError: pass

    def close(self): self.socket.close()


def wait_for(condition, seconds=240, every=.1):
    until = time.time() + seconds
    while time.time() < until:
        if value := condition(): return value
        time.sleep(every)
    raise AssertionError("it did not happen")


def same_files(here, there):
    "Every file that is there is here, byte for byte, but for what a killed process had half written."
    names = [p.relative_to(there) for p in there.rglob("*") if p.is_file() and p.suffix != ".part" and ".ipynb_checkpoints" not in p.parts]
    assert names
    for n in names: assert (here/n).read_bytes() == (there/n).read_bytes(), n
    return len(names)


def test_help_is_quick():
    "--help needs neither torch nor pandas, and less than a second."
    code = "import sys; sys.argv = ['moola_pod', *sys.argv[1:]]\nfrom moola.pod.command import moola_pod\ntry: moola_pod()\nfinally: " \
           "print([m for m in ('torch', 'pandas', 'papermill') if m in sys.modules])"
    for words in (["--help"], ["train", "--help"]):
        before = os.times()
        out = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True).stdout
        after = os.times()
        assert out.splitlines()[-1] == "[]"
        assert after.children_user - before.children_user < 1
    assert "--batch-size" in out and "--host" in out and "--detach" in out


def test_whole_path(laptop):
    "One command: check, push, train two epochs, follow, pull and compare; with names that a shell would take apart."
    data = laptop.folder/"my data"/f"{STRANGE}.parquet"
    data.parent.mkdir()
    write_windows(simulate_windows(24), data)
    laptop.target(folder=str(laptop.there), host=f"{getpass.getuser()}@127.0.0.1", user=None)
    words = ["--variant", "position_encoding", "--data", str(data), "--epochs", 2, "--device", "cpu", "--output", STRANGE]
    out = laptop("run", *words, "--every", .5)
    lines = out.splitlines()
    found = {line[5:14].strip(): line for line in lines if line.startswith(("ok  ", "note", "FAIL"))}
    assert "accepted now" in found["host key"] and "13 a bar, position_encoding" in found["features"] and "pos_weight 13.1" in found["weight"]
    assert "24 windows, 24 spans" in found["data"] and "are to be pushed" in found["files"]
    assert any(line.startswith("Epoch 1/2: train_loss=") for line in lines) and any(line.startswith("Epoch 2/2: train_loss=") for line in lines)
    assert f"Run {STRANGE}" in lines and "nothing to compare it with" in lines[-1]

    here = laptop.folder/"artifacts"/STRANGE
    assert same_files(here, laptop.there/"artifacts"/STRANGE) >= 12
    run = Run(here)
    assert run.metadata["status"] == "finished" and len(run.epochs) == 2
    assert (run.config.variant, run.config.epochs, run.config.device, run.config.pos_weight) == ("position_encoding", 2, "cpu", 13.1)
    assert run.config.data == f"my data/{STRANGE}.parquet" and run.config.output == f"artifacts/{STRANGE}"
    assert json.loads((here/"pod.json").read_text())["params"]["epochs"] == 2
    assert "Epoch 2/2" in (here/"pod.log").read_text()

    sent = [p for k in ("packages", "data") for p in (laptop.there/k).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    own = [p.as_posix() for p in sent if "moola" in p.relative_to(laptop.there).parts]
    assert len(sent) == len(own)+1 and all(p.endswith((".py", "/moola/notebooks/train.ipynb")) for p in own)
    assert {p.name for p in laptop.there.iterdir()} == {"packages", "data", "jobs", "artifacts"}

    # all that was sent is there: a second push sends nothing, and check says so
    assert "sent     0 of" in laptop("push", *words)
    assert "are there as they are here" in laptop("check", *words)
    assert laptop("train", *words, code=1).endswith("already: name another output")
    assert "finished, epoch 2 of 2, best F1" in laptop("status", STRANGE)


def trainers(job):
    "The papermill processes that the job started. A child that one of them is just starting still bears its words until it becomes another program."
    def parent(pid): return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    def words(pid): return Path(f"/proc/{pid}/cmdline").read_bytes()
    found = {}
    for pid in remote.processes(job):
        with contextlib.suppress(OSError):  # over meanwhile
            if b"papermill" in words(pid): found[pid] = parent(pid)
    return [pid for pid, of in found.items() if of not in found]


def test_unlabelled_bars_go_along(laptop, used):
    "A taught network is trained there, from a folder of bars that is sent with it."
    laptop.there = used
    folder = laptop.folder/"my bars"
    folder.mkdir()
    for seed in (1, 2): simulate_bars(3000, seed).assign(timestamp=lambda d: d.timestamp + np.timedelta64(7300, "D")).to_csv(folder/f"{seed}.csv", index=False)
    laptop.target(folder=str(laptop.there))
    tiny = ["--teachers", 1, "--epochs", 1, "--hidden", 8, "--pastes", 1, "--n-windows", 24, "--device", "cpu", "--background-windows", 20]
    out = laptop("run", "--variant", "taught", "--background", str(folder), *tiny, "--output", "taught", "--every", .5)
    assert "bars     my bars, " in out and "20 of " in out and "labelled by 1 teacher" in out
    run = Run(laptop.folder/"artifacts"/"taught")
    assert run.metadata["status"] == "finished" and run.config.background == "my bars" and np.load(run.folder/"answers.npy").shape == (20, 105)


def test_two_runs_one_killed_and_resumed(laptop, used, monkeypatch):
    "Two runs at once leave each other alone; the one whose process is killed is pulled, resumed and stopped."
    common = ["--n-windows", 24, "--device", "cpu"]
    assert "nothing was pushed to" in laptop("train", *common, code=1)
    laptop.there = used
    laptop.target()
    laptop("push", *common)
    laptop.target(install=True)
    assert "there is no environment in" in laptop("train", *common, code=1)
    laptop.target()
    data = write_windows(simulate_windows(20), laptop.folder/"a.parquet")
    assert laptop("train", *common, "--data", data, code=1).endswith("a.parquet is not on the pod, as it is here now: push first")
    assert laptop("train", *common, "--variant", "stones_only", "--epochs", 5000, "--output", "long", "--detach") == "Run long\n"
    assert laptop("train", *common, "--variant", "position_encoding", "--epochs", 2, "--output", "short", "--detach") == "Run short\n"
    wait_for(lambda: remote.progress(str(laptop.there), "long")["epoch"] >= 2)
    out = laptop("status", "long")
    assert "long: running, epoch" in out and " of 5000, best F1" in out and " left" in out

    laptop("pull", "artifacts/long")  # while it is going
    here, there = laptop.folder/"artifacts/long", laptop.there/"artifacts/long"
    table = (here/"epoch_metrics.csv").read_bytes()
    assert table.count(b"\n") >= 2 and (there/"epoch_metrics.csv").read_bytes().startswith(table)

    assert "Epoch 2/2: train_loss=" in laptop("logs", "short")  # to its end
    job = remote.job_folder(str(laptop.there), "long")
    trainer, = trainers(job)
    os.kill(trainer, signal.SIGKILL)
    said = laptop("logs", "long", code=1)
    assert "the run long was killed" in said
    status = laptop("status")
    assert "long: killed, epoch" in status and "short: finished, epoch 2 of 2" in status
    wait_for(lambda: not remote.processes(job))  # the kernel ends too
    laptop("pull", "long")
    same_files(here, there)
    assert Run(here).metadata["status"] == "stopped"  # it had no time to write another word, and its lock is free
    before = pd.read_csv(here/"epoch_metrics.csv", on_bad_lines="skip").epoch.max()

    # asked twice, as when the answer is lost, it starts once
    import moola.pod.run as pod_run
    monkeypatch.setattr(pod_run.uuid, "uuid4", lambda: type("U", (), dict(hex="feedbeef")))
    resume = ["train", *common, "--variant", "stones_only", "--epochs", 5000, "--output", "long", "--resume", "--detach"]
    for _ in range(2): laptop(*resume)
    assert laptop(*[w for w in resume if w != "--resume"], code=0) == "Run long\n"  # the same token: nothing new
    assert len(trainers(job)) == 1
    wait_for(lambda: remote.progress(str(laptop.there), "long")["epoch"] > before+1)
    assert laptop("stop", "long").startswith("long: stopped, epoch")
    assert remote.processes(job) == []
    laptop("pull", "long")
    run = Run(here)
    assert run.metadata["status"] == "interrupted" and (here/"predictions.parquet").exists()
    assert run.epochs.epoch.tolist() == list(range(1, len(run.epochs)+1)) and len(run.epochs) > before
    assert (here/"pod.log").read_text().count("Chance levels of") == 2
    assert same_files(laptop.folder/"artifacts/long", there) and not (laptop.folder/"artifacts/short").exists()


def test_log_goes_on(laptop):
    "A connection that breaks in the middle of a log is made anew, and no line is lost or shown twice."
    proxy = Proxy(laptop.server.port, cuts=[None, 60_000])
    laptop.job("talk", "import time\nfor i in range(300): print(f'Epoch {i}/300: ' + 'x'*300, flush=True); time.sleep(.01)")
    laptop.target(port=proxy.port)
    out = laptop("logs", "talk")
    assert "broke" in laptop.err and "trying again in 1 s" in laptop.err
    assert [line.split(":")[0] for line in out.splitlines()] == [f"Epoch {i}/300" for i in range(300)]
    proxy.close()


def test_transfer_goes_on(laptop):
    "A transfer that breaks goes on where it was, and a pod that is gone leaves what came so far, and a sentence."
    job = laptop.job("big", "print('MoolaError: done for')\nraise SystemExit(1)")
    wait_for(lambda: (job/"exit").exists())
    (laptop.there/"artifacts/big/best_model.pt").write_bytes(os.urandom(1_500_000))
    gone = Proxy(laptop.server.port, cuts=[10**9, 10**9, 10**9, 400_000], rate=4e6, then="closed")  # place, listing, pod.json, and a part of the rest
    laptop.target(port=gone.port, patience=3)
    said = laptop("pull", "big", code=1)
    assert "gave up after" in said and "are in artifacts/big so far" in said
    assert (laptop.folder/"artifacts/big/pod.json").exists() and not (laptop.folder/"artifacts/big/best_model.pt").exists()
    gone.close()

    again = Proxy(laptop.server.port, cuts=[10**9, 10**9, 10**9, 700_000], rate=4e6)
    laptop.target(port=again.port)
    laptop("pull", "big")
    assert "trying again" in laptop.err
    same_files(laptop.folder/"artifacts/big", laptop.there/"artifacts/big")
    assert sum(again.bytes[3:]) < 1_500_000  # in three pieces, none of them twice
    assert not (laptop.folder/"artifacts/big/.rsync-partial").exists()
    assert "failed" in laptop("status", "big") and laptop("logs", "big", code=1) == "moola_pod: the run big failed: done for"
    again.close()


def test_nothing_here_is_lost(laptop):
    "What is newer here is kept, what is only here stays, and another run's folder is not touched."
    job = laptop.job("notes", "print('done')")
    wait_for(lambda: (job/"exit").exists())
    there, here = laptop.there/"artifacts/notes", laptop.folder/"artifacts/notes"
    (there/"epoch_metrics.csv").write_text("epoch\n1\n")
    (there/"sub").mkdir()
    (there/"sub"/"a\nb.txt").write_text("deep")
    laptop("pull", "notes")
    assert (here/"sub"/"a\nb.txt").read_text() == "deep"
    (here/"mine.txt").write_text("mine")
    (here/"epoch_metrics.csv").write_text("epoch\n1\n# my remark\n")
    later = time.time() + 60
    os.utime(here/"epoch_metrics.csv", (later, later))
    (there/"epoch_metrics.csv").write_text("epoch\n1\n2\n")
    out = laptop("pull", "notes")
    assert "kept     epoch_metrics.csv: newer here than on the pod" in out
    assert "remark" in (here/"epoch_metrics.csv").read_text() and (here/"mine.txt").exists()
    os.utime(here/"epoch_metrics.csv", (1, 1))
    laptop("pull", "notes")
    assert (here/"epoch_metrics.csv").read_text() == "epoch\n1\n2\n"

    # the same size and time, and other bytes: only a checksum tells
    stat = (there/"epoch_metrics.csv").stat()
    (here/"epoch_metrics.csv").write_text("epoch\n1\n3\n")
    os.utime(here/"epoch_metrics.csv", ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    laptop("pull", "notes")
    same_files(here, there)

    other = laptop.folder/"artifacts/other"
    other.mkdir()
    (other/"metadata.json").write_text("{}")
    assert "holds another run" in laptop("pull", "notes", "--to", other, code=1)
    assert [p.name for p in other.iterdir()] == ["metadata.json"]
    laptop("pull", "notes", "--to", laptop.folder/"else where")
    assert (laptop.folder/"else where/epoch_metrics.csv").exists()


def test_host_key(laptop, tmp_path):
    "The first contact pins the host's key, another key is refused, and the sentence says how to forget the old one."
    s = Server(tmp_path/"sshd")
    laptop.server = s
    target = laptop.target()
    assert pinned(target) == []
    assert laptop("status") == "there is no run on the pod yet\n"
    first, = pinned(target)
    shown = subprocess.run(["ssh-keygen", "-lf", s.folder/"host.pub"], capture_output=True, text=True, check=True).stdout
    assert first.split()[1] in shown
    laptop("status")
    s.stop()
    s = Server(tmp_path/"sshd", s.port, make_key(tmp_path/"other"))
    try:
        said = laptop("status", code=1)
        assert "is not the one that was accepted before" in said and "ssh-keygen -f" in said
        assert "trying again" not in laptop.err and pinned(target) == [first]
        for words in (["push", "--n-windows", 24], ["pull"], ["stop"], ["logs"]): assert "host key" in laptop(*words, code=1)
        out = laptop("check", "--n-windows", 24, code=1)
        assert "must be put right first: ssh" in out
        subprocess.run(["sh", "-c", said[said.index("ssh-keygen"):]], check=True, capture_output=True)
        laptop("status")
        assert pinned(target) != [first] and len(pinned(target)) == 1
    finally: s.stop()


def test_wrong_key(laptop, tmp_path):
    "A key that the pod does not know is an error at once."
    laptop.target(key=str(make_key(tmp_path/"a \"key\" of 100%")))
    said = laptop("push", "--n-windows", 24, code=1)
    assert "accepts none of the keys" in said and "trying again" not in laptop.err
    (tmp_path/"a \"key\" of 100%").unlink()
    assert "there is no key" in laptop("status", code=1)


def test_key_with_a_strange_name(laptop, tmp_path):
    "The key's name, like any other, may hold what it likes."
    for suffix in ("", ".pub"): shutil.copy2(f"{laptop.server.key}{suffix}", tmp_path/f"a \"key's\" of 100%{suffix}")
    laptop.target(key=str(tmp_path/"a \"key's\" of 100%"))
    job = laptop.job("one", "print('done')")
    wait_for(lambda: (job/"exit").exists())
    laptop("pull", "one")  # through rsync, which takes ssh's words apart by itself
    assert (laptop.folder/"artifacts/one/pod.log").read_text() == "done\n"


def test_wrong_port(laptop):
    "A port where nothing listens, and one where something else does, are tried for a while and then named."
    laptop.target(port=free_port(), patience=1.5)
    said = laptop("status", code=1)
    assert "nothing listens at" in said and "mapped port" in said and "trying again in 1 s" in laptop.err
    busy = socket.create_server(("127.0.0.1", 0))
    def serve():
        while True:
            try: c = busy.accept()[0]
            except OSError: return
            c.recv(100)
            c.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            c.close()
    threading.Thread(target=serve, daemon=True).start()
    laptop.target(port=busy.getsockname()[1], patience=0)
    assert "does not answer as an SSH server does" in laptop("status", code=1)
    busy.close()
    laptop.target(host="no-such-host.invalid", patience=0)
    assert "cannot be resolved" in laptop("status", code=1)


def test_pod_lacks_things(laptop, tmp_path):
    "No rsync, no Python, an old Python: each is one sentence."
    tools = tmp_path/"tools"
    tools.mkdir()
    for name in ("sh", "env"): (tools/name).symlink_to(shutil.which(name))
    s = Server(tmp_path/"sshd", more=f"SetEnv PATH={tools}")
    laptop.server = s
    try:
        laptop.target()
        assert "FAIL rsync     missing" in laptop_output(laptop, "check", "--n-windows", 24)
        assert laptop("push", "--n-windows", 24, code=1) == "moola_pod: there is no rsync on the pod: apt-get install rsync there"
        job = laptop.job("one", "print('done')")
        wait_for(lambda: (job/"exit").exists())
        assert "there is no rsync on the pod" in laptop("pull", "one", code=1)
        laptop.target(python="no such; python")
        assert "there is no no such; python on the pod" in laptop("status", code=1)
    finally: s.stop()


def laptop_output(laptop, *words):
    "What a failing command printed before its sentence."
    laptop.capsys.readouterr()
    with pytest.raises(SystemExit): moola_pod([str(w) for w in words])
    return laptop.capsys.readouterr().out


def test_old_python(laptop, tmp_path):
    "A Python that is too old is named."
    old = tmp_path/"old python"
    old.write_text("#!/bin/sh\ncat >/dev/null\nprintf '\\036moola {\"kind\": \"hello\", \"python\": [3, 8]}\\n'\n")
    old.chmod(0o755)
    laptop.target(python=str(old))
    assert laptop("status", code=1) == "moola_pod: Python on the pod is 3.8, and moola needs 3.11 or newer: name another with --python"


@pytest.fixture
def small_disk(tmp_path):
    "A file system of 300 kB."
    folder = tmp_path/"small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode: pytest.skip(f"no small file system can be mounted: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_full_disk(laptop, small_disk, monkeypatch):
    "A full disk is named, there before anything is sent and while it is, and here."
    laptop.target(folder=str(small_disk/"moola"))
    assert "the disk there is full: 0.3 MB are free" in laptop("push", "--n-windows", 24, code=1)
    assert "FAIL disk" in laptop_output(laptop, "check", "--n-windows", 24)
    text = Path(remote_machine.__file__).read_text()
    lying = small_disk.parent/"lying.py"
    lying.write_text(text.replace("if free < need:", "if False:"))
    monkeypatch.setattr(remote_machine, "__file__", str(lying))
    assert laptop("push", "--n-windows", 24, code=1) == "moola_pod: the disk there is full"
    monkeypatch.undo()
    monkeypatch.chdir(laptop.folder)
    laptop.target()
    job = laptop.job("big", "print('done')")
    wait_for(lambda: (job/"exit").exists())
    (laptop.there/"artifacts/big/best_model.pt").write_bytes(os.urandom(600_000))
    shutil.rmtree(small_disk/"moola", ignore_errors=True)
    said = laptop("pull", "big", "--to", small_disk/"run", code=1)
    assert "the disk here is full" in said and "so far" in said
    (laptop.folder/"taken").write_text("notes")
    assert "taken is a file: fetch the run with --to" in laptop("pull", "big", "--to", laptop.folder/"taken", code=1)
    full = laptop.job("full", "import os; open(os.path.join(os.environ['MOOLA_POD_JOB'], 'pod.log'), 'a').write('OSError: [Errno 28] No space left on device'); os.kill(os.getpid(), 9)")
    wait_for(lambda: (full/"exit").exists())
    assert remote.reason(str(full)).startswith("the disk of the pod is full")


def test_an_empty_host_is_refused_in_a_sentence(laptop):
    (laptop.folder/"pod.toml").write_text('host = ""\n')
    assert "host is ''" in laptop("check", code=1) and "usage" not in laptop.err


def test_detach(laptop):
    "Ctrl-C ends the log and not the run; stop ends a run that does not listen, with all its processes."
    job = laptop.job("stubborn", "import signal, subprocess, sys, time\nfor s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, signal.SIG_IGN)\n"
                     "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], start_new_session=True)\n"
                     "print('here', flush=True)\ntime.sleep(300)")
    code = "from moola.pod.command import moola_pod; moola_pod()"
    p = subprocess.Popen([sys.executable, "-c", code, "logs", "stubborn"], cwd=laptop.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "here\n"
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=20)
    assert p.returncode == 0 and "The run stubborn goes on" in err and "Traceback" not in err
    assert laptop("logs", "--no-follow") == "here\n"
    assert remote.state(str(job))["state"] == "running" and len(remote.processes(str(job))) == 2
    pod = Pod(laptop.target())
    assert pod.ask("stop", folder=str(laptop.there), run="stubborn", patience=.5)["state"] == "stopped"
    assert remote.processes(str(job)) == []


def test_ssh_config(laptop):
    "Aliases, ports and keys of ssh's own configuration are respected."
    s = laptop.server
    config = laptop.folder/"my config"
    config.write_text(f"Host gpu-box\n  HostName 127.0.0.1\n  Port {s.port}\n  User {getpass.getuser()}\n  IdentityFile {s.key}\n  IdentitiesOnly yes\n")
    target = laptop.target(host="gpu-box", port=None, user=None, key=None, ssh_config=str(config))
    job = laptop.job("one", "print('done')")
    wait_for(lambda: (job/"exit").exists())
    assert laptop("logs") == "done\n"
    laptop("pull")
    assert (laptop.folder/"artifacts/one/pod.log").read_text() == "done\n"
    assert len(pinned(target)) == 1
    laptop.target(host=f"ssh 127.0.0.1 -p {s.port} -i {s.key} -l {getpass.getuser()}", port=None, user=None, key=None)
    assert "one: finished" in laptop("status")


def wheel(folder, name, requires=()):
    "A wheel with one module."
    info = f"{name}-1.0.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {r}" for r in requires), ""]
    with zipfile.ZipFile(folder/f"{name}-1.0-py3-none-any.whl", "w") as z:
        z.writestr(f"{name}.py", "value = 7\n")
        z.writestr(f"{info}/METADATA", "\n".join(lines))
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(f"{info}/RECORD", "")


def test_environment(laptop):
    "An environment sees the image's packages, gets what is missing from a folder of wheels, and is made once."
    folder = laptop.there
    (folder/"wheels").mkdir(parents=True)
    wheel(folder/"wheels", "tinydep")
    pod = Pod(laptop.target(install=True))
    ask = dict(folder=str(folder), wheels="wheels")
    python = pod.ask("install", requirements=["tinydep", "pip"], **ask)
    assert Path(python) == folder/".venv/bin/python"
    assert subprocess.run([python, "-c", "import tinydep; print(tinydep.value)"], capture_output=True, text=True, check=True).stdout == "7\n"
    assert "include-system-site-packages = true" in (folder/".venv/pyvenv.cfg").read_text()
    assert not list((Path(sys.prefix)/"lib").rglob("tinydep*"))
    made = (folder/".venv/.moola-requirements").stat().st_mtime_ns
    pod.ask("install", requirements=["tinydep", "pip"], **ask)
    assert (folder/".venv/.moola-requirements").stat().st_mtime_ns == made
    marker = folder/".venv/.moola-requirements"
    marker.write_text(marker.read_text().replace(sys.version.split()[0], "3.11.0"))  # as after another image
    (folder/".venv/stale").touch()
    pod.ask("install", requirements=["tinydep", "pip"], **ask)
    assert not (folder/".venv/stale").exists() and (folder/".venv/bin/python").exists()
    with pytest.raises(ValueError, match="could not install what is missing .*: .*nosuchdep"): pod.ask("install", requirements=["nosuchdep"], **ask)


def test_torch_is_held(tmp_path):
    "What belongs to torch is named in the constraints of an installation."
    held = [r for r in remote_machine.ask_python(sys.executable, remote_machine.FREEZE, 0) if r.startswith(remote_machine.HELD)]
    assert any(r.startswith("torch==") for r in held)
    assert not [r for r in held if r.startswith(("numpy", "pandas"))]


def test_gpu(tmp_path, monkeypatch):
    "nvidia-smi's numbers are averaged; without it, or with a broken one, there are no GPUs."
    program = tmp_path/"nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    count = tmp_path/"count"
    program.write_text(f"#!/bin/sh\necho x >> {count}\nn=$(wc -l < {count})\n"
                       "echo \"NVIDIA RTX 4090, $((n*20)), 2150, 24564\"\necho 'NVIDIA A2, [N/A], 1, 100'\n")
    program.chmod(0o755)
    first, second = remote.gpus(3)
    assert first == dict(name="NVIDIA RTX 4090", utilisation=40, memory_used=2150, memory_total=24564)
    assert second["utilisation"] is None
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'\nexit 9\n")
    assert remote.gpus() == []


def test_patience_is_for_what_was_met():
    "An address that never answered is given up sooner than one that did."
    from moola.core.errors import MoolaError
    from moola.pod.connection import Lost
    def tries(met):
        now = [0.]
        p = Patience(120, lambda _: None, lambda s: now.__setitem__(0, now[0]+s), lambda: now[0])
        p.met = met
        def lost(): raise Lost("gone")
        with pytest.raises(MoolaError): p.keep(lost)
        return now[0]
    assert tries(False) <= 10 < 60 < tries(True) <= 120
