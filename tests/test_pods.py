"Workers behind ssh: two pods, that is two folders behind a real sshd on the loopback."
import getpass
import json
import os
import shutil
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest

pytest.importorskip("distributed")

from test_pod import STRANGE, Server, server  # noqa: F401  (a fixture)
from test_scale import FEW, in_process
from test_sweep import TINY

import moola
from moola.core.errors import MoolaError
from moola.core.files import make_folder
from moola.data.simulate import simulate_bars
from moola.pod.target import find_targets
from moola.scale.cluster import run_jobs
from moola.scale.command import moola_scan, moola_sweep
from moola.scale.folder import read_manifest, scan_folder
from moola.scale.pods import Pods, open_pods
from moola.training.run import Run


def pod_toml(folder, server, **changes):  # noqa: F811
    "Two pods in a project folder, each with a folder of its own."
    (folder/"settings.ini").touch()
    shared = dict(host="127.0.0.1", port=server.port, user=getpass.getuser(), key=str(server.key), ssh_config=str(server.folder/"ssh_config"), python=sys.executable,
                  install=False, patience=20) | changes
    tables = ["[[pod]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in (shared | dict(folder=str(folder/f"pod {i} {STRANGE}"))).items()) for i in range(2)]
    (folder/"pod.toml").write_text("".join(tables))
    return find_targets(str(folder/"pod.toml"), {})


def workers_of(folder):
    "Processes that run moola from one of the pods' folders."
    found = []
    for p in Path("/proc").glob("[0-9]*/environ"):
        try: mine = f"PYTHONPATH={folder}/pod " in p.read_text(errors="replace")
        except OSError: continue
        if mine: found.append(int(p.parent.name))
    return found


@pytest.fixture(scope="module")
def project(server, tmp_path_factory):  # noqa: F811
    return tmp_path_factory.mktemp("pods")


@pytest.fixture(scope="module")
def pods(server, project):  # noqa: F811
    "Two pods with a worker each, with the package in place."
    said = []
    pods = Pods(pod_toml(project, server), workers=1, device="cpu", tell=said.append)
    assert len(pods.places) == 2 and not pods.cards, said
    home = Path(moola.__file__).parent
    for file in home.rglob("*.nb[ci]"):   # what this machine has compiled is not compiled again
        for p in pods.places: shutil.copy2(file, make_folder(Path(p.folder)/p.package/"moola"/file.parent.relative_to(home)))
    yield pods
    until = time.monotonic() + 30
    while workers_of(project) and time.monotonic() < until: time.sleep(.2)
    assert not workers_of(project), "a worker outlives its scheduler"


@pytest.fixture(scope="module")
def client(pods):
    with open_pods(pods) as client:
        client.wait_for_workers(2, timeout=120)
        yield client


def tunnels(): return {c.pid for c in psutil.Process().children() if c.name() == "ssh"}


@pytest.fixture
def ready(pods, client, project, monkeypatch):
    "The pods of the project's pod.toml, with workers that are there already."
    monkeypatch.chdir(project)
    monkeypatch.setattr("moola.scale.pods.Pods", lambda *args: pods)
    monkeypatch.setattr("moola.scale.pods.open_pods", lambda pods: nullcontext(client))


def look():
    "A job that says where it was done. It travels by value: pods have no tests."
    def where(seconds):
        import os
        import time

        import moola
        time.sleep(seconds)
        return moola.__file__, os.getpid()
    return where


def test_jobs_run_on_both(client, project):
    "With the package that was sent, of a folder with any name."
    got = dict(run_jobs(lambda: nullcontext(client), look(), ((i, (.3,)) for i in range(12))))
    assert sorted(got) == list(range(12)) and len({pid for _, pid in got.values()}) == 2
    assert {Path(f).parents[3] for f, _ in got.values()} == {project/f"pod {i} {STRANGE}" for i in range(2)}


def test_a_folder_is_sent(ready, tmp_path):
    "A pod sees no file of this machine, and the spans are those of a scan here; a broken file has its sentence, with its own name."
    (tmp_path/"bars").mkdir()
    for i in range(2): simulate_bars(400, seed=i).to_csv(tmp_path/f"bars/{i}.csv", index=False)
    (tmp_path/"bars/broken.csv").write_text("time,open,high,low,close\n2024-01-02 10:00,1,2,3,4\n")
    here = scan_folder(tmp_path/"bars", tmp_path/"here", connect=in_process, probabilities=True, **FEW)
    words = ["--out", str(tmp_path/"there"), "--cluster", "ssh", "--workers", "1", "--model", "recommended", "--stride", "63", "--device", "cpu", "--probabilities"]
    with pytest.raises(SystemExit, match="1 of 3 files failed"): moola_scan([str(tmp_path/"bars"), *words])
    for part in ("spans", "probabilities"):
        pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path/where/part) for where in ("here", "there")))
    there = read_manifest(tmp_path/"there")
    assert there["broken"]["error"] == here.set_index("instrument").error["broken"] and str(tmp_path/"bars/broken.csv") == there["broken"]["file"]
    assert all(there[n]["sha256"] == s for n, s in zip(here.instrument, here.sha256))
    seen = []
    scan_folder(tmp_path/"bars", tmp_path/"there", carry=True, probabilities=True, tick=lambda todo, line: seen.append(todo),
                connect=in_process, **FEW)
    assert seen[0] == 1   # the broken one


def test_a_sweep_on_pods(ready, tmp_path, capsys):
    "The sweep's folder is here, and the runs of both pods lie in it."
    plan = TINY | dict(seeds=2, grid=dict(lr=[1e-4]))
    (tmp_path/"grid.yaml").write_text(json.dumps(plan))
    moola_sweep([str(tmp_path/"grid.yaml"), "--output", str(tmp_path/"out"), "--cluster", "ssh"])
    assert "4 runs now" in capsys.readouterr().out
    assert set(pd.read_csv(tmp_path/"out/runs.csv").status) == {"finished"}
    assert Run(tmp_path/"out/runs/recommended,seed=42").config.output == str(tmp_path/"out/runs/recommended,seed=42")


def test_a_connection_breaks(pods):
    "The job of a worker whose ssh is killed is done elsewhere, and another worker comes up."
    before, got, seen = tunnels(), {}, []
    def opened(client):
        client.wait_for_workers(2, timeout=120)
        seen.append(client)
    for key, value in run_jobs(partial(open_pods, pods), look(), ((i, (.5,)) for i in range(8)), opened=opened):
        got[key] = value
        if len(got) == 2: os.kill((tunnels() - before).pop(), signal.SIGKILL)
        if len(got) == 8: seen[0].wait_for_workers(2, timeout=60)
    assert sorted(got) == list(range(8)) and len(seen) == 1


def test_stopped_in_the_middle(pods):
    "Nothing goes on over there: the fixture looks."
    before = tunnels()
    jobs = run_jobs(partial(open_pods, pods), look(), [("quick", (0,)), ("long", (600,)), ("longer", (600,))])
    assert next(jobs)[0] == "quick"
    jobs.close()
    assert tunnels() == before


def test_a_pod_that_cannot_be_used(server, tmp_path):  # noqa: F811
    "It is named; alone, it is an error."
    said = []
    targets = pod_toml(tmp_path, server)
    away = replace(targets[0], port=1, patience=0)
    with pytest.raises(MoolaError, match="nothing listens at"): Pods([away], device="cpu", tell=said.append)
    with pytest.raises(MoolaError, match="no python3.99 on the pod"): Pods([replace(targets[1], python="python3.99")], device="cpu", tell=said.append)
    with pytest.raises(MoolaError, match="memory is 'much'"): Pods(targets, memory="much")
    with pytest.raises(MoolaError, match="it must be 1 or more"): Pods(targets, workers=0)


def test_no_ports_through_ssh(pods, server, tmp_path):  # noqa: F811
    "An sshd that forwards nothing is told from a worker that ends."
    closed = Server(tmp_path/"closed", more="AllowTcpForwarding no")
    try:
        target = replace(pods.places[0].target, port=closed.port, key=str(closed.key), known_hosts=str(tmp_path/"known"), patience=0)
        stub = SimpleNamespace(places=[pods.places[0]._replace(target=target)], tell=lambda text: None)
        with pytest.raises(MoolaError, match="AllowTcpForwarding"), open_pods(stub): pass
    finally: closed.stop()
