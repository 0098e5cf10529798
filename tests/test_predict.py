"Scanning bars: what no page has room to show."
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.core.names import DISPLACEMENT, FEATURES, LABELS, OHLC, W
from moola.data.bars import cut_windows, segment_bars
from moola.data.features import build_displacement, build_features
from moola.data.simulate import simulate_bars
from moola.detection.command import moola_predict
from moola.detection.detector import Detector, load_predictor
from moola.detection.ensemble import predict_windows
from moola.detection.scan import scan
from moola.metrics.calibration import calibrate_prob
from moola.models.checkpoint import model_from_checkpoint
from moola.models.jade import Jade
from moola.training.fit import fit

COLUMNS = ["start_time", "end_time", "start_bar", "end_bar", "bars", "probability", "confidence", "direction", "move",
           "move_atr", "window_type", "type_probability", "coverage", "session", "touches_gap"]


def detector_of(n_features=13, seed=0, names=None, layers=1, right_context=-1):
    "A detector of one network with large random weights, so that its answers differ from bar to bar."
    torch.manual_seed(seed)
    model = Jade(n_features, hidden=8, layers=layers, right_context=right_context).eval().requires_grad_(False)
    for p in model.parameters(): p.mul_(3)
    return Detector([model], names or (FEATURES + DISPLACEMENT)[:n_features], "origin", .5, 2, torch.device("cpu"), [f"network {seed}"])


def with_gaps(n, cuts, seed=0):
    "Simulated bars with a minute missing before each row of `cuts`."
    bars = simulate_bars(n, seed)
    later = np.zeros(n, "int64")
    for c in cuts: later[c:] += 1
    start = np.datetime64("2024-01-07T18:00", "us")
    return bars.assign(timestamp=start + (np.arange(n) + later) * np.timedelta64(1, "m"))


def plainly(bars, detector, stride=1, from_bar=23, to_bar=85, right_context=19):
    "Probability, live and number of windows of every bar: one window after the other, by the network itself."
    ohlc, starts = cut_windows(bars, stride)
    x = np.concatenate([build_features(ohlc, detector.swing_rule), build_displacement(ohlc)], -1)
    x = torch.as_tensor(x[..., [(FEATURES + DISPLACEMENT).index(f) for f in detector.features]])
    with torch.no_grad(): p = torch.stack([m(x)["span"].sigmoid() for m in detector.models]).mean(0).double().numpy()
    total, count, live = np.zeros(len(bars)), np.zeros(len(bars), int), np.full(len(bars), np.nan)
    for s, row in zip(starts, p):
        total[s+from_bar:s+to_bar+1] += row[from_bar:to_bar+1]
        count[s+from_bar:s+to_bar+1] += 1
        live[s+W-1-right_context] = row[W-1-right_context]
    with np.errstate(invalid="ignore"): return total / count, live, count


def check(bars, detector, **options):
    "The scan of `bars` agrees with `plainly`."
    batch, threads = options.pop("batch", 64), options.pop("threads", 1)
    found = scan(bars, detector, progress=False, batch=batch, threads=threads, **options).probabilities
    prob, live, count = plainly(bars, detector, **options)
    np.testing.assert_array_equal(found.windows, count)
    np.testing.assert_allclose(found.probability, prob, atol=1e-5)
    np.testing.assert_allclose(found.live, live, atol=1e-5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stride=st.integers(1, 20), batch=st.integers(1, 90), threads=st.integers(1, 3), right_context=st.integers(0, 104),
       place=st.tuples(st.integers(0, 40), st.integers(60, 104)), cuts=st.lists(st.integers(1, 259), max_size=2), seed=st.integers(0, 99))
def test_scan_is_the_mean_of_its_windows(stride, batch, threads, right_context, place, cuts, seed):
    bars = with_gaps(260, [120, *cuts] if max(cuts, default=0) > 225 else cuts, seed)
    lengths = np.diff(sorted({0, *cuts, 260}))
    if lengths.max() < W: return
    check(bars, detector_of(), stride=stride, batch=batch, threads=threads, right_context=right_context, from_bar=place[0], to_bar=place[1])


@pytest.mark.parametrize("names", [FEATURES[:12], FEATURES, FEATURES + DISPLACEMENT, ("position_encoding", "range_z"), ("move_5", "open_norm")])
def test_scan_reads_the_features_of_the_run(names): check(simulate_bars(230, 3), detector_of(len(names), names=names))


def test_scan_of_two_layers(): check(simulate_bars(230, 3), detector_of(layers=2))


@pytest.mark.parametrize("limit,right,place", [(0, 0, 85), (5, 5, 85), (5, 8, 85), (40, 40, 64), (5, 2, 102)])
def test_scan_of_networks_that_look_ahead_a_little(limit, right, place):
    "The network's own limit makes `live` possible at a place that was learned, and binds `probability` too."
    bars, detector = simulate_bars(300, 3), detector_of(right_context=limit)
    found = scan(bars, detector, progress=False, right_context=right).probabilities
    prob, live, count = plainly(bars, detector, right_context=W-1-place)
    np.testing.assert_allclose(found.probability, prob, atol=1e-5)
    np.testing.assert_allclose(found.live, live, atol=1e-5)
    other = bars.copy()
    other.loc[200:, OHLC] = simulate_bars(300, 8).loc[200:, OHLC].to_numpy()
    again = scan(other, detector, progress=False, right_context=right).probabilities
    np.testing.assert_allclose(found.probability[:200-limit], again.probability[:200-limit], atol=1e-6)
    np.testing.assert_allclose(found.live[:200-right], again.live[:200-right], atol=1e-6)
    assert scan(bars, detector, progress=False).about["right_context"] == limit


def test_scan_of_several_networks():
    a, b = detector_of(seed=1), detector_of(seed=2)
    both = replace(a, models=a.models + b.models)
    bars = simulate_bars(300, 5)
    check(bars, both)
    mean = (predict_windows(bars[OHLC][:W], a) + predict_windows(bars[OHLC][:W], b)) / 2
    np.testing.assert_allclose(predict_windows(bars[OHLC][:W], both), mean, atol=1e-6)


def middle_of(found, share=.5):
    "A threshold that this share of the bars reaches, halfway between two probabilities."
    p = np.unique(found.probabilities.probability.dropna())
    i = int((1-share)*(len(p)-1))
    return float(p[i] + p[i+1])/2


SPAN_CASES = dict(stride=st.integers(1, 20), share=st.floats(.01, .95), gap=st.integers(0, 3), places=st.tuples(st.integers(0, 40), st.integers(60, 104)),
                  cuts=st.lists(st.integers(1, 399), max_size=2), seed=st.integers(0, 50),
                  right_context=st.sampled_from([-1, 4]), layers=st.sampled_from([1, 2]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(**SPAN_CASES)
def test_spans_are_what_their_columns_say(stride, share, gap, places, cuts, seed, right_context, layers):
    "Runs of marked bars within a stretch; confidence and window type as computed plainly, window by window."
    bars = with_gaps(400, cuts, seed)
    segments = segment_bars(bars)
    if np.diff(segments).max() < W or (layers > 1 and right_context >= 0): return
    detector = replace(detector_of(seed=seed, layers=layers, right_context=right_context), calibration=(.7, -.4))
    options = dict(stride=stride, from_bar=places[0], to_bar=places[1])
    threshold = middle_of(detector.scan(bars, **options), share)
    found = detector.scan(bars, threshold=threshold, max_gap=gap, **options)
    p, spans = found.probabilities.probability.to_numpy(), found.spans
    ohlc, starts = cut_windows(bars, stride)
    with torch.no_grad(): types = detector.models[0](torch.as_tensor(build_features(ohlc)))["type"].softmax(-1)[:, 1].numpy()
    stretch = np.repeat(np.arange(len(segments)), np.diff(segments)[:, 0])
    assert list(spans) == COLUMNS
    assert (spans.bars == spans.end_bar - spans.start_bar + 1).all()
    assert (spans.start_bar.to_numpy()[1:] > spans.end_bar.to_numpy()[:-1]).all()
    for s in spans.itertuples():
        rows = slice(s.start_bar, s.end_bar+1)
        assert p[s.start_bar] >= threshold - 1e-6
        assert p[s.end_bar] >= threshold - 1e-6
        assert stretch[s.start_bar] == stretch[s.end_bar]
        assert s.bars >= 2
        assert s.probability == pytest.approx(p[rows].mean(), abs=1e-5)
        assert s.confidence == pytest.approx(calibrate_prob(p[rows], .7, -.4).mean(), abs=1e-4)
        held = (starts + places[0] <= s.start_bar) & (s.end_bar <= starts + places[1])
        if not held.any():
            assert pd.isna(s.window_type)
            assert np.isnan(s.type_probability)
            continue
        mean = types[held].mean()
        assert s.type_probability == pytest.approx(max(mean, 1-mean), abs=1e-4)
        if abs(mean - .5) > 1e-4: assert s.window_type == LABELS[int(mean > .5)]


def test_detector_on_tables_of_vendors():
    "The same bars by other names give the same spans; zones stay, and the table is left alone."
    bars, detector = simulate_bars(300, 3), detector_of()
    vendor = bars.set_index("timestamp").tz_localize("Asia/Tokyo").rename(columns=str.upper).assign(**{"Adj Close": 1.})
    before = vendor.copy()
    threshold = middle_of(detector.scan(bars))
    a, b = (detector.predict(t, threshold=threshold) for t in (bars, vendor))
    assert len(a)
    pd.testing.assert_frame_equal(a.drop(columns=COLUMNS[:2]), b.drop(columns=COLUMNS[:2]))
    assert str(b.end_time.dt.tz) == "Asia/Tokyo"
    pd.testing.assert_frame_equal(vendor, before)


def test_networks_without_types_or_calibration():
    torch.manual_seed(0)
    detector = replace(detector_of(), models=[Jade(13, ("span", "countdown"), hidden=8).eval()])
    found = detector.scan(simulate_bars(300, 3), threshold=.01)
    assert len(found.spans)
    assert found.spans[["confidence", "window_type", "type_probability"]].isna().all(axis=None)
    assert found.probabilities.confidence.isna().all()
    assert len(found.words) == 3   # bars that no window read, no calibration, no types
    assert found.spans.dtypes.equals(detector.predict(simulate_bars(300, 3), threshold=1.).dtypes)


@pytest.mark.parametrize("k", [0, 3, 19, 60])
def test_live_looks_no_further_than_its_right_context(k):
    bars = simulate_bars(420, 7)
    now = 300
    other = bars.copy()
    other.loc[now:, OHLC] = simulate_bars(420, 8).loc[now:, OHLC].to_numpy()
    a, b = (scan(o, detector_of(), progress=False, right_context=k).probabilities.live for o in (bars, other))
    np.testing.assert_array_equal(a[:now-k], b[:now-k])
    assert (a[now-k:now-k+40] != b[now-k:now-k+40]).any()


def test_bfloat16_agrees():
    bars = simulate_bars(600, 9)
    a, b = (scan(bars, detector_of(), progress=False, precision=p).probabilities for p in ("float32", "bf16"))
    assert a.probability.std() > .005
    assert (a.probability - b.probability).abs().max() < .02
    assert (a.live - b.live).abs().max() < .05


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision,apart", [("float32", 1e-3), ("bf16", .02)])
def test_cuda_agrees(precision, apart):
    bars, cpu = with_gaps(5000, [700, 760, 2500]), detector_of()
    a = scan(bars, cpu, progress=False).probabilities
    b = scan(bars, replace(cpu, device=torch.device("cuda")), progress=False, precision=precision, batch=512, threads=4).probabilities
    assert (a.probability - b.probability).abs().max() < apart
    np.testing.assert_array_equal(a.windows, b.windows)


def test_spans_stay_inside_stretches():
    found = scan(with_gaps(900, [300, 301, 600]), detector_of(), threshold=.01, progress=False)
    stretch = np.searchsorted([300, 301, 600], found.spans[["start_bar", "end_bar"]], side="right")
    assert (stretch[:, 0] == stretch[:, 1]).all()
    assert set(stretch[:, 0]) == {0, 2, 3}
    marked = found.probabilities.probability.notna()
    assert marked.sum() == found.spans.bars.sum()
    s = found.spans.iloc[0]
    assert found.probabilities.timestamp[s.start_bar] == s.start_time
    assert found.probabilities.timestamp[s.end_bar] == s.end_time


def resident():
    "Memory of this process in MB."
    import psutil
    return psutil.Process().memory_info().rss / 2**20


def test_memory_grows_with_the_bars_alone():
    "Ten times as many bars take little more: their windows at once would be 13 float32 times 105 a bar, over 200 MB."
    bars, detector = simulate_bars(44_000, 1), detector_of()
    peak = [0., 0.]
    for i, n in enumerate((4_400, 44_000)):
        done = threading.Event()

        def watch(i=i, done=done):
            while not done.wait(.01): peak[i] = max(peak[i], resident())
        thread = threading.Thread(target=watch)
        thread.start()
        scan(bars[:n], detector, progress=False, check=False, stride=3, threads=1)
        done.set()
        thread.join()
    assert peak[1] - peak[0] < 60


def test_threads_are_given_back():
    before = torch.get_num_threads()
    scan(simulate_bars(200, 1), detector_of(), progress=False, threads=2)
    with pytest.raises(MoolaError, match="threshold"): scan(simulate_bars(200, 1), detector_of(), threshold=2., progress=False)
    assert torch.get_num_threads() == before


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")/"tiny"
    return fit(make_config("position_encoding", output=str(folder), epochs=2, n_windows=40, device="cpu", progress=False)).folder


def test_load(run_folder, tmp_path):
    detector = load_predictor(run_folder, "cpu")
    c = torch.load(run_folder/"best_model.pt", weights_only=True)
    assert (detector.threshold, detector.features, detector.swing_rule) == (c["threshold"], tuple(c["features"]), "origin")
    x = torch.rand(3, W, 13)
    with torch.no_grad(): torch.testing.assert_close(detector.models[0](x)["span"], model_from_checkpoint(c)(x)["span"])
    (tmp_path/"best_model.pt").write_bytes(b"no checkpoint")
    with pytest.raises(MoolaError, match="cannot be read as a checkpoint"): load_predictor(tmp_path)
    torch.save({"model": {}}, tmp_path/"best_model.pt")
    with pytest.raises(MoolaError, match="has no config, features, threshold"): load_predictor(tmp_path)
    torch.save(c | {"config": c["config"] | {"swing_rule": "close"}}, tmp_path/"best_model.pt")
    with pytest.raises(MoolaError, match="differ in swing_rule"): load_predictor([run_folder, tmp_path], "cpu")
    with pytest.raises(MoolaError, match="at least one model"): load_predictor([])


@pytest.mark.parametrize("suffix", [".parquet", ".csv.gz"])
def test_command(suffix, run_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bars = with_gaps(1400, [150])
    bars["timestamp"] = bars.timestamp.dt.tz_localize("America/New_York")
    bars.to_parquet("nq.parquet")
    words = f"nq.parquet --model {run_folder} --model {run_folder} --device cpu --quiet --out sub/spans{suffix} --probabilities bars{suffix}"
    moola_predict(f"{words} --threshold .3 --drift drift.csv --drift-plot drift.png --about about.json".split())
    assert "Scan of 1,400 bars in 2 stretches" in capsys.readouterr().out
    read = pd.read_parquet if suffix == ".parquet" else partial(pd.read_csv, parse_dates=["start_time", "end_time"])
    spans, about = read(f"sub/spans{suffix}"), json.loads((tmp_path/"about.json").read_text())
    p = pd.read_parquet(f"bars{suffix}") if suffix == ".parquet" else pd.read_csv(f"bars{suffix}", parse_dates=["timestamp"])
    detector = Detector.load(run_folder, "cpu")
    prob, live, _ = plainly(bars, detector)
    np.testing.assert_allclose(p.probability, prob, atol=1e-5)
    np.testing.assert_allclose(p.live, live, atol=1e-5)
    assert (p.timestamp == bars.timestamp).all()
    assert list(spans) == COLUMNS
    assert (spans.start_time.to_numpy() == bars.timestamp[spans.start_bar].to_numpy()).all()
    assert (spans.end_time.to_numpy() == bars.timestamp[spans.end_bar].to_numpy()).all()
    if suffix == ".parquet": assert str(spans.start_time.dt.tz) == "America/New_York"
    assert (about["spans"], about["threshold"], about["calibrated"], about["types"]) == (len(spans), .3, True, True)
    assert pd.read_csv("drift.csv").feature.tolist() == list(detector.features)
    assert (tmp_path/"drift.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="is already there"): moola_predict(words.split())
    moola_predict(f"{words} --threshold 1 --overwrite".split())
    out = capsys.readouterr().out
    assert "Nothing was found: no 2 bars in a row reach the threshold 1.000" in out
    assert list(read(f"sub/spans{suffix}")) == COLUMNS
    if suffix == ".parquet": assert read(f"sub/spans{suffix}").dtypes.equals(spans.dtypes)


def test_command_without_files(run_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate_bars(300, 1).to_csv("b.csv", index=False)
    moola_predict(f"b.csv --model {run_folder} --device cpu --quiet".split())
    assert "Nothing was written: name a file with --out." in capsys.readouterr().out
    assert [f.name for f in tmp_path.iterdir()] == ["b.csv"]


def test_default_model(run_folder, tmp_path, monkeypatch):
    "The promoted model of the project, which lies in artifacts/production, is taken where none is named."
    monkeypatch.chdir(tmp_path)
    (tmp_path/"settings.ini").write_text("")
    place = tmp_path/"artifacts/production"
    place.mkdir(parents=True)
    shutil.copy(run_folder/"best_model.pt", place/"model.pt")
    simulate_bars(300, 1).to_csv("b.csv", index=False)
    moola_predict("b.csv --device cpu --quiet --about a.json".split())
    assert json.loads((tmp_path/"a.json").read_text())["runs"] == [str(place)]
    monkeypatch.setattr("moola.__file__", str(tmp_path/"elsewhere/moola/__init__.py"))
    (place/"model.pt").unlink()
    with pytest.raises(SystemExit, match="there is no model in"): moola_predict(["b.csv"])


def test_a_student_reads_what_no_window_fits(tmp_path, monkeypatch, capsys):
    "It needs 63 bars in a row; a window, and so the comparison with the training, needs 105."
    monkeypatch.chdir(tmp_path)
    bars = simulate_bars(400, 1)
    pieces = dict(short=bars[:70], holed=bars[bars.index % 80 != 0])
    for name, b in pieces.items():
        b.to_csv(f"{name}.csv", index=False)
        moola_predict([f"{name}.csv", *f"--model student --quiet --probabilities {name}.parquet".split()])
        assert "away from" not in capsys.readouterr().err
        read = pd.read_parquet(f"{name}.parquet").probability.notna()
        assert read.sum() == {"short": 39, "holed": 5*48}[name]
    for words, message in (("short.csv --drift d.csv", "short.csv has 70 bars: a window needs 105"), ("holed.csv --drift d.csv", "no 105 bars without a gap")):
        with pytest.raises(SystemExit, match=message): moola_predict([*words.split(), "--model", "student", "--quiet"])
    bars[:50].to_csv("few.csv", index=False)
    with pytest.raises(SystemExit, match="few.csv has 50 bars: a student needs 63"): moola_predict("few.csv --model student --quiet".split())


WRONG = {"b.csv --model nowhere": "there is no model nowhere", "nowhere.csv --model RUN": "there is no file nowhere.csv",
         "b.csv --model .": "holds no best_model.pt", "few.csv --model RUN": "few.csv has 104 bars: a window needs 105",
         "thin.csv --model RUN": "thin.csv has no column close", "b.csv --model RUN --device cuda:99": "device 'cuda:99' was asked for",
         "b.csv --model RUN --device tpu": "unknown device 'tpu'", "b.csv --model RUN --stride 0": "stride is 0",
         "b.csv --model RUN --threshold 1.5": "threshold is 1.5", "b.csv --model RUN --right-context 105": "right_context is 105",
         "b.csv --model RUN --out b.xls": "should end in .csv", "b.csv --model RUN --out b.csv": "b.csv holds the bars",
         "b.csv --model RUN --out few.csv": "is already there", "b.csv --model RUN --drift-plot d.csv": "should end in .png",
         "b.csv --model RUN --out a.csv --probabilities a.csv": "two results cannot go to one file", "b.csv --model RUN --out a.csv --probabilities ./x/../a.csv": "two results cannot go to one file",
         "b.csv --model RUN --out few.csv/a.csv": "is a file, not a folder", f"b.csv --model RUN --out {'a'*300}.csv": "has a name of 304 letters",
         "b.csv --model RUN --min-confidence nan": "min_confidence is nan", "b.csv --model RUN --session noon": "give hours such as", "b.csv --model RUN --out d": "d should end in"}


@pytest.mark.parametrize("words,message", WRONG.items())
def test_wrong_input_is_one_sentence(words, message, run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bars = simulate_bars(110, 1)
    bars.to_csv("b.csv", index=False)
    bars[:104].to_csv("few.csv", index=False)
    bars.drop(columns="close").to_csv("thin.csv", index=False)
    with pytest.raises(SystemExit) as e: moola_predict([*words.replace("RUN", str(run_folder)).split(), "--quiet"])
    assert e.value.code.startswith("moola_predict: ")
    assert message in e.value.code
    assert "\n" not in e.value.code
    assert sorted(f.name for f in tmp_path.iterdir()) == ["b.csv", "few.csv", "thin.csv"]


def test_stopped_scan_writes_nothing(run_folder, tmp_path):
    "Ctrl-C, as from a terminal, while windows are read."
    simulate_bars(200_000, 1).to_parquet(tmp_path/"long.parquet")
    code = "import sys; from moola.detection.command import moola_predict; moola_predict(sys.argv[1:])"
    command = [sys.executable, "-c", code, "long.parquet", "--model", str(run_folder), "--device", "cpu", "--threads", "1", "--out", "spans.csv"]
    screen, terminal = pty.openpty() # a progress bar shows on a terminal only
    termios.tcsetwinsize(screen, (24, 100))
    p = subprocess.Popen(command, cwd=tmp_path, stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    seen = b""
    while b"bars/s" not in seen: seen += os.read(screen, 1000)
    os.killpg(p.pid, signal.SIGINT)
    p.wait(timeout=60)
    err = (seen + os.read(screen, 10000)).decode()
    os.close(screen)
    assert p.returncode == 130
    assert "stopped; nothing was written" in err
    assert sorted(f.name for f in tmp_path.iterdir()) == ["long.parquet"]


def test_import_is_light(run_folder):
    "Prediction drags in no training, plotting or table library before it is used, and help needs no torch."
    code = "import sys, moola.detection.detector; print(*(m for m in ('matplotlib','seaborn','sklearn','moola.training','papermill') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
    code = """import sys, pandas as pd, moola.detection.detector
from moola.data.simulate import simulate_bars
d = moola.detection.detector.Detector.load(sys.argv[1], "cpu")
d.predict(simulate_bars(300, 1)), d.drift(simulate_bars(300, 1))
print(*(m for m in ('matplotlib','seaborn','sklearn','moola.training.fit','moola.views.curves','papermill') if m in sys.modules))"""
    assert subprocess.run([sys.executable, "-c", code, run_folder], capture_output=True, text=True, check=True).stdout.split() == []
    code = "import sys, moola.detection.command as c; c.predict_parser().format_help(); print(*(m for m in ('torch','pandas') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
