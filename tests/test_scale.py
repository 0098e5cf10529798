"Jobs on a cluster of Dask's: folders of bars, and workers and schedulers that die."
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import pandas as pd
import pytest

pytest.importorskip("distributed")

from moola.core.errors import MoolaError
from moola.data.read import read_bars
from moola.data.simulate import simulate_bars
from moola.detection.detector import Detector
from moola.models.included import included_model
from moola.scale.cluster import open_cluster, run_jobs
from moola.scale.command import moola_scan
from moola.scale.folder import bars_files, read_manifest, scan_folder

FEW = dict(model="recommended", stride=63, device="cpu")


@contextmanager
def in_process():
    "A scheduler and a worker in this process: quick, and all else is as ever."
    from distributed import Client
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None, set_as_default=False) as client: yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Three instruments, one of them broken."
    d = tmp_path_factory.mktemp("bars")
    (d/"fx").mkdir()
    simulate_bars(400, seed=1).to_csv(d/"ES.csv", index=False)
    bars = simulate_bars(400, seed=2)
    bars.assign(timestamp=bars.timestamp.dt.tz_localize("America/New_York")).to_parquet(d/"fx/EURUSD.parquet")
    (d/"broken.csv").write_text("time,open,high,low,close\n2024-01-02 10:00,1,2,3,4\n")
    (d/"notes.txt").write_text("no bars")
    return d


def counted():
    "What a scan gives out, by instrument."
    seen = []
    return seen, lambda todo, line: seen.append(line["instrument"]) if line else None


def test_a_folder_is_scanned_once(folder, tmp_path):
    "Spans are those of the detector; a broken file has its sentence; a second start does only what is missing or changed."
    out = tmp_path/"out"
    table = scan_folder(folder, out, connect=in_process, probabilities=True, **FEW).set_index("instrument")
    assert dict(table.status) == {"ES": "done", "broken": "failed", "fx/EURUSD": "done"}
    assert "high" in table.error["broken"] and "broken.csv" in table.error["broken"]
    found = Detector.load(included_model(), "cpu").scan(read_bars(folder/"ES.csv"), stride=63)
    spans = pd.read_parquet(out/"spans")
    assert table.spans["ES"] == len(found.spans) == (spans.instrument.astype(str) == "ES").sum()
    assert list(spans[spans.instrument.astype(str) == "ES"].start_bar) == list(found.spans.start_bar)
    by_bar = pd.read_parquet(out/"probabilities", filters=[("instrument", "==", "ES")])
    assert by_bar.probability.to_numpy() == pytest.approx(found.probabilities.probability.to_numpy(), nan_ok=True)

    seen, tick = counted()
    os.utime(folder/"ES.csv")   # touched, with the same bytes
    scan_folder(folder, out, connect=in_process, probabilities=True, tick=tick, **FEW)
    assert seen == ["broken"]
    (out/"spans/instrument=fx%2FEURUSD/part.parquet").unlink()
    bars = pd.read_csv(folder/"ES.csv")
    bars.iloc[:-1].to_csv(folder/"ES.csv", index=False)
    with (out/"manifest.csv").open("a") as f: f.write("ES,half a li")   # as a killed scan leaves it
    again = scan_folder(folder, out, connect=in_process, probabilities=True, tick=tick, **FEW).set_index("instrument")
    assert set(seen[1:]) == {"ES", "fx/EURUSD", "broken"} and again.bars["ES"] == 399
    assert len(read_manifest(out)) == 3 == len(pd.read_csv(out/"manifest.csv"))


def test_results_of_two_models_do_not_mix(folder, tmp_path):
    out = tmp_path/"out"
    scan_folder(folder, out, connect=in_process, **FEW)
    with pytest.raises(MoolaError, match="was scanned with other options"): scan_folder(folder, out, connect=in_process, threshold=.9, **FEW)
    table = scan_folder(folder, out, connect=in_process, threshold=.99, overwrite=True, **FEW)
    assert json.loads((out/"about.json").read_text())["options"]["threshold"] == .99 and (table.status == "done").sum() == 2
    (tmp_path/"mine").mkdir()
    (tmp_path/"mine/letter.txt").touch()
    with pytest.raises(MoolaError, match="holds other files"): scan_folder(folder, tmp_path/"mine", connect=in_process, **FEW)
    with pytest.raises(MoolaError, match="lies in the folder of the bars"): scan_folder(folder, folder/"out", connect=in_process, **FEW)


@pytest.mark.parametrize("options, sentence", [(dict(threshold=2), "threshold is 2"), (dict(stride=0), "stride is 0"), (dict(model="none"), "there is no model"),
                                               (dict(treshold=.5), "has no option 'treshold'")])
def test_what_no_file_could_be_scanned_with(folder, tmp_path, options, sentence):
    "It is said once, before any work, and nothing is left behind."
    with pytest.raises(MoolaError, match=sentence): scan_folder(folder, tmp_path/"out", connect=in_process, **FEW | options)
    assert not (tmp_path/"out").exists()


def test_two_files_of_one_instrument(tmp_path):
    for name in ("A.csv", "A.parquet"): (tmp_path/name).touch()
    with pytest.raises(MoolaError, match="are one instrument, A"): bars_files(tmp_path)
    with pytest.raises(MoolaError, match="there is no folder"): bars_files(tmp_path/"none")
    with pytest.raises(MoolaError, match="is one file: moola_predict"): bars_files(tmp_path/"A.csv")


def test_the_command(folder, tmp_path, capsys):
    "On a real local cluster; the exit code says that a file failed."
    with pytest.raises(SystemExit) as e: moola_scan([str(folder), "--out", str(tmp_path/"out"), "--workers", "1", "--model", "recommended", "--stride", "63", "--device", "cpu"])
    assert "1 of 3 files failed" in e.value.code and "broken.csv" in e.value.code
    said = capsys.readouterr()
    assert "3 files: 3 scanned now, 0 unchanged" in said.out and "Dashboard: http://127.0.0.1" in said.err
    for words, sentence in ((["--cluster", "nowhere"], "is no place"), (["--cluster", "tcp://127.0.0.1:9"], "can't be used")):
        with pytest.raises(SystemExit, match=sentence): moola_scan([str(folder), "--out", str(tmp_path/"other"), *words])


def test_workers_may_die(tmp_path):
    "A worker that is killed in mid-job has its job done elsewhere; a job that kills every worker gets a sentence, and so does one that raises."
    def work(what, marker):
        import os
        import signal
        if what == "raise": raise KeyError("no such column")
        if what == "always" or (what == "once" and not os.path.exists(marker)):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return what
    jobs = [(k, (k, str(tmp_path/k))) for k in ("once", "always", "raise", "fine")]
    got = dict(run_jobs(partial(open_cluster, workers=2, device="cpu"), work, jobs))
    assert (got["once"], got["fine"]) == ("once", "fine")
    assert "died three times" in str(got["always"]) and "KeyError" in str(got["raise"])


def dask(*words):
    return subprocess.Popen([sys.executable, "-m", *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_a_scheduler_is_restarted(free_port, tmp_path):
    "What has no answer is handed in anew to the scheduler that comes back."
    def work(i):
        import time
        time.sleep(.2)
        return i**2
    address = f"tcp://127.0.0.1:{free_port}"
    def scheduler(): return dask("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(free_port), "--no-dashboard")
    def worker(): return dask("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1",
                              "--local-directory", str(tmp_path))
    started, got = [scheduler(), worker()], {}
    try:
        for key, value in run_jobs(partial(open_cluster, address), work, ((i, (i,)) for i in range(6))):
            got[key] = value
            if len(got) == 2:
                started[0].kill()
                started[0].wait()
                started += [scheduler(), worker()]
    finally:
        for p in started: p.kill()
        for p in started: p.wait()
    assert got == {i: i**2 for i in range(6)}


@pytest.fixture
def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
