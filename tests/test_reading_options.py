"A file that leaves a choice is refused by every command that reads bars with the name of the option that settles it, and the option is there."
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from moola import simulate_bars
from moola.detection.command import moola_export, moola_predict
from moola.evaluation.command import moola_evaluate
from moola.labels.command import _bench, label_parser
from moola.release.command import moola_promote
from moola.scale.folder import scan_folder
from moola.transfer.distil_command import moola_distil
from moola.transfer.pretrain_command import moola_pretrain

DAY_FIRST = ["--time-format", "DMY", "--columns", "close=Mid"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Bars of 3 April, or of 4 March, whose close nobody would find."
    folder = tmp_path_factory.mktemp("bars")
    bars = simulate_bars(1300, seed=3)
    times = pd.date_range("2024-04-03 09:00", periods=1300, freq="30s").strftime("%d/%m/%Y %H:%M:%S")
    bars.assign(timestamp=times).rename(columns=dict(close="Mid")).to_csv(folder/"odd.csv", index=False)
    (folder/"labels.csv").write_text("start_time,end_time\n2024-04-03 10:00,2024-04-03 10:06\n2024-04-03 14:00,2024-04-03 14:08\n")
    return folder


@contextmanager
def in_process():
    "A scheduler and a worker in this process."
    distributed = pytest.importorskip("distributed")
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None, set_as_default=False) as client: yield client


def words_of(folder, out):
    "A call of each command, without the options of reading."
    odd, short = str(folder/"odd.csv"), ["--device", "cpu"]
    return {moola_predict: [odd, *short, "--out", f"{out}/spans.csv", "--quiet"],
            moola_pretrain: [odd, *short, "--epochs", "1", "--steps", "1", "--hidden", "4", "--batch-size", "4", "--output", f"{out}/pre", "--progress", "no"],
            moola_distil: ["--bars", odd, *short, "--epochs", "1", "--stride", "63", "--channels", "4", "--output", f"{out}/student"],
            moola_evaluate: ["--bars", odd, "--labels", str(folder/"labels.csv"), *short, "--plot", f"{out}/after.png", "--progress", "no"],
            moola_export: ["--bars", odd, f"{out}/model.onnx"]}


@pytest.mark.parametrize("command", words_of(Path(), ""), ids=lambda c: c.__name__)
def test_commands(command, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = words_of(folder, tmp_path)[command]
    with pytest.raises(SystemExit, match="columns="): command(words)
    with pytest.raises(SystemExit, match=r"\(--time-format\)"): command([*words, "--columns", "close=Mid"])
    with pytest.raises(SystemExit, match="it takes pairs such as close=Last,open=1"): command([*words, "--columns", "Mid"])
    command([*words, *DAY_FIRST])


def test_the_bench_and_a_folder(folder, tmp_path):
    given = vars(label_parser().parse_args([str(folder/"odd.csv"), "--labels", str(tmp_path/"l.parquet"), *DAY_FIRST]))
    bench = _bench(**{k: v for k, v in given.items() if k not in ("port", "no_browser", "check")})
    assert bench.name == "odd" and str(bench.bars.timestamp.iloc[0]) == "2024-04-03 09:00:00"
    (tmp_path/"in").mkdir()
    (tmp_path/"in/odd.csv").write_bytes((folder/"odd.csv").read_bytes())
    table = scan_folder(tmp_path/"in", tmp_path/"out", connect=in_process, time_format="DMY", columns="close=Mid")
    assert table.status.tolist() == ["done"] and table.bars.sum() == 1300
    again = scan_folder(tmp_path/"in", tmp_path/"out2", connect=in_process, time_format="DMY", columns=dict(close="Mid"))
    assert again.spans.tolist() == table.spans.tolist()


def test_without_bars(tmp_path, monkeypatch):
    "Where no bars are read there is nothing to settle."
    monkeypatch.chdir(tmp_path)
    for command, words in ((moola_evaluate, []), (moola_export, ["m.onnx"]), (moola_promote, ["run"])):
        with pytest.raises(SystemExit, match="--zone says how a file of bars is read: it goes with --bars"): command([*words, "--zone", "UTC"])
