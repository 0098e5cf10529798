"What is left of the move, and finished models on bars in a row: what the pages have no room to show."
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.core.files import write_table
from moola.core.names import OHLC
from moola.data.bars import cut_windows
from moola.data.plant import simulate_labelled_bars, simulate_windows
from moola.data.read import read_bars
from moola.data.windows import write_windows
from moola.detection.detector import Detector
from moola.evaluation.alarms import BESIDE, HORIZONS, MEASURES, after_alarms, alarm_table, plot_alarms, raise_alarms, random_alarms, rule_alarms, score_alarms
from moola.evaluation.bars import bar_spans, bars_report, evaluate_bars, read_labels, score_bars
from moola.evaluation.command import moola_evaluate
from moola.models.series import SeriesNet
from moola.models.student import save_student
from moola.training.fit import fit


@pytest.fixture(scope="module")
def labelled(): return simulate_labelled_bars(18, 3)


@pytest.fixture(scope="module")
def few(): return simulate_labelled_bars(8, 3)


@pytest.fixture(scope="module")
def folder(few, tmp_path_factory):
    "Bars, labels and an untrained student, as files."
    d, labelled = tmp_path_factory.mktemp("rows"), few
    write_table(labelled.bars, d/"bars.csv")
    time = labelled.bars.timestamp
    write_table(pd.DataFrame(dict(start_time=time[labelled.spans[:, 0]].array, end_time=time[labelled.spans[:, 1]-1].array)), d/"labels.csv")
    torch.manual_seed(0)
    save_student(d/"student.pt", SeriesNet(right_context=3))
    (d/"settings.ini").touch()
    return d


@pytest.fixture(scope="module")
def student(folder): return Detector.load(folder/"student.pt", "cpu")


def some_alarms(labelled, n=60):
    row = np.sort(np.random.default_rng(1).choice(np.arange(50, len(labelled.bars)-1), n, replace=False))
    return alarm_table(labelled.bars, row, row-3)


def test_after_one_by_one(labelled):
    "Counted plainly; what would cross a gap is missing."
    bars, alarms = labelled.bars, some_alarms(labelled)
    after = after_alarms(bars, alarms, labelled.spans)
    o, h, lo, c = bars[OHLC].to_numpy().T
    gap = np.flatnonzero(bars.timestamp.diff() > pd.Timedelta("1min"))
    for a, f in zip(alarms.itertuples(), after.itertuples()):
        on = [(s, e) for s, e in labelled.spans if s <= a.row and e > a.start]
        assert f.true == bool(on)
        if on: assert f.left == pytest.approx((c[on[0][1]-1]-c[min(a.row, on[0][1]-1)])/(c[on[0][1]-1]-o[on[0][0]]))
        else: assert np.isnan(f.left)
        assert a.way == (1 if c[a.row] >= o[a.start] else -1)
        inside = {k: not any(a.row < g <= a.row+k for g in gap) and a.row+k < len(bars) for k in HORIZONS}
        for k in HORIZONS: assert np.isnan(getattr(f, f"move_{k}")) != inside[k]
        if not inside[20]: continue
        against = min(0, (lo[a.row+1:a.row+21]-c[a.row]).min() if a.way > 0 else (c[a.row]-h[a.row+1:a.row+21]).min())
        move = a.way*(c[a.row+20]-c[a.row])
        assert f.against*move == pytest.approx(f.move_20*against)   # both in one ATR
        assert f.against <= min(f.move_20, 0) + 1e-9


def test_price_level_and_mirror_change_nothing(labelled):
    "Scaled bars give the same numbers, and so do mirrored ones, whose alarms point the other way."
    bars, alarms = labelled.bars, some_alarms(labelled)
    one = after_alarms(bars, alarms, labelled.spans)
    other = after_alarms(bars.assign(**{k: 3*bars[k] for k in OHLC}), alarms, labelled.spans)
    pd.testing.assert_frame_equal(one, other)
    top = 2*bars.high.max()
    mirrored = bars.assign(open=top-bars.open, high=top-bars.low, low=top-bars.high, close=top-bars.close)
    pd.testing.assert_frame_equal(one, after_alarms(mirrored, alarms.assign(way=-alarms.way), labelled.spans), check_exact=False, rtol=1e-6)


def test_random_times_share_hours(labelled):
    alarms = some_alarms(labelled)
    others = random_alarms(labelled.bars, alarms, copies=5)
    hour = labelled.bars.timestamp.dt.hour.to_numpy()
    assert (hour[others.row] == np.repeat(hour[alarms.row], 5)).all()
    assert (others.way.to_numpy() == np.repeat(alarms.way, 5)).all()
    assert not random_alarms(labelled.bars, alarms, seed=1).equals(random_alarms(labelled.bars, alarms, seed=2))
    assert len(random_alarms(labelled.bars, alarms[:0])) == 0


def test_rule(labelled):
    "As many alarms as are wanted, or a few less, never close together, and only from bars that have closed."
    for n in (1, 7, 40):
        found = rule_alarms(labelled.bars, n)
        assert .6*n <= len(found) <= n
        assert (np.diff(found.row) > 10).all()
    found, cut = rule_alarms(labelled.bars, 30), int(rule_alarms(labelled.bars, 30).row.iloc[20])
    assert set(found.row[:21]) == set(rule_alarms(labelled.bars[:cut+1], 21).row)
    flat = labelled.bars.assign(**dict.fromkeys(OHLC, 100.))
    assert len(rule_alarms(flat, 5)) == 0


def test_alarms_come_when_the_stream_says(labelled, student):
    "Each at the first word about a span, at a bar that had closed."
    bars = labelled.bars[:700]
    found = raise_alarms(bars, student, threshold=.3)
    stream, plain = student.stream(types=False, threshold=.3, bar="1min"), []
    for r, b in enumerate(bars.itertuples()): plain += [(r, e.start_bar) for e in stream.push(b).events if e.kind == "new"]
    assert found[["row", "start"]].to_numpy().tolist() == [list(p) for p in plain]
    assert (found.start <= found.row).all()


def test_perfect_alarms(labelled):
    "Alarms at the labels' first bars are all true, leave most of the move, and are above random times."
    found = score_alarms(labelled.bars, labelled.spans, {"perfect": alarm_table(labelled.bars, labelled.spans[:, 0], labelled.spans[:, 0])})
    t = found.table.set_index(["system", "measure"])
    assert t.loc[("perfect", "true"), "value"] == 1
    assert t.loc[("perfect", "left"), "value"] > .5
    assert t.loc[("perfect", "true"), "low"] > t.loc[("random times", "true"), "high"]
    known = found.table.dropna()
    assert ((known.low <= known.value) & (known.value <= known.high)).all()
    assert "not a backtest" in repr(found)
    assert len(plot_alarms(found)[1]) == len(MEASURES)


def test_no_alarms(labelled):
    "A detector that never says a word is shown as one."
    found = score_alarms(labelled.bars, labelled.spans, {"silent": some_alarms(labelled)[:0]})
    assert "none" in repr(found)
    assert list(found.table.system.unique()) == ["silent", *BESIDE]
    plot_alarms(found)
    with pytest.raises(MoolaError, match="no system"): score_alarms(labelled.bars, labelled.spans, {})


def test_labels(few, folder, tmp_path):
    labelled = few
    bars = read_bars(folder/"bars.csv")
    table = read_labels(folder/"labels.csv")
    np.testing.assert_array_equal(bar_spans(bars, table), labelled.spans)
    np.testing.assert_array_equal(bar_spans(bars, table[::-1]), labelled.spans)
    winter = pd.DataFrame({k: table[k].str.cat(np.where(table.index % 2, "+01:00", "+00:00")) for k in table})
    ahead = bars.assign(timestamp=bars.timestamp.dt.tz_localize("UTC"))
    np.testing.assert_array_equal(bar_spans(ahead, winter[::2]), labelled.spans[::2])
    hour = pd.to_datetime(winter.start_time, utc=True)
    assert (ahead.timestamp[bar_spans(ahead, winter)[:, 0]].array == hour.sort_values().array).all()
    for bad, message in ((table.assign(end_time="soon"), "end_time holds 'soon': times are wanted"), (table.assign(start_time=[None, *table.start_time[1:]]), "start_time is missing in row 0"),
                         (table[:0], "has no expansion"), (table.rename(columns=dict(start_time="end_time", end_time="start_time")), "ends before it starts"),
                         (pd.concat([table, table.assign(end_time=table.start_time)]), "overlap"), (table.assign(end_time="2031-01-01 10:00"), "times are those of no bar")):
        with pytest.raises(MoolaError, match=message): bar_spans(bars, bad, "labels.csv")
    (tmp_path/"labels.parquet").write_bytes(b"no parquet")
    (tmp_path/"empty.csv").touch()
    for name in ("labels.parquet", "empty.csv"):
        with pytest.raises(MoolaError, match=f"{name} cannot be read as labels"): read_labels(tmp_path/name)


def test_scores(labelled, student):
    "A scan that knows the labels gets everything right; one threshold of false alarms a day."
    class Oracle:
        "What a scan of the labels would be."
        def __init__(self, p): self.p = p
        def scan(self, bars, **_):
            found = student.scan(bars, types=False)
            spans = pd.DataFrame(dict(start_bar=labelled.spans[:, 0], end_bar=labelled.spans[:, 1]-1, confidence=1.))
            return type("Found", (), dict(spans=spans, probabilities=found.probabilities.assign(probability=self.p, confidence=self.p), about=found.about))
    p = np.zeros(len(labelled.bars))
    for a, b in labelled.spans: p[a:b] = .9
    s = score_bars(labelled.bars, labelled.spans, Oracle(p))
    assert s["average_precision"].value == pytest.approx(1)
    assert (s["event_f1"], s["false_alarms_a_day"], s["span_labelled"]) == (1, 0, 1)
    assert s["base_rate"] == pytest.approx(np.diff(labelled.spans).sum()/len(p))
    a, b = labelled.spans[0] + 60
    p[a:b] = .95
    assert score_bars(labelled.bars, labelled.spans, Oracle(p))["false_alarms_a_day"] > 0
    with pytest.raises(MoolaError, match="too few"): score_bars(labelled.bars[:300], labelled.spans[:1], student)
    assert "unknown" in bars_report("x", s | dict(span_confidence=float("nan")))


def run(folder, argv, monkeypatch):
    monkeypatch.chdir(folder)
    try: moola_evaluate(argv.split())
    except SystemExit as e: return e.code


ROWS = "--bars bars.csv --labels labels.csv student.pt --device cpu --progress False"


def test_command(folder, monkeypatch, capsys):
    "It prints, draws, writes, and replaces nothing without being told."
    assert run(folder, f"{ROWS} --alarms-per-day 5 --table numbers.csv", monkeypatch) is None
    said = capsys.readouterr().out
    for words in ("student.pt: average precision", "random times", "plain rule", "not a backtest", "Written: artifacts/evaluations/bars.png, numbers.csv"): assert words in said
    assert (folder/"artifacts/evaluations/bars.png").read_bytes().startswith(b"\x89PNG")
    assert set(pd.read_csv(folder/"numbers.csv").measure) == set(MEASURES)
    before = (folder/"numbers.csv").read_bytes()
    assert "already there: add --overwrite" in run(folder, f"{ROWS} --plot other.png --table numbers.csv", monkeypatch)
    assert not (folder/"other.png").exists()
    assert (folder/"numbers.csv").read_bytes() == before
    assert run(folder, f"{ROWS} --alarms-per-day 2 --table numbers.csv --overwrite", monkeypatch) is None
    assert (folder/"numbers.csv").read_bytes() != before


@pytest.mark.parametrize(("argv", "message"), [
    ("student.pt", "on labelled windows, --data FILE, or on bars in a row"), ("--labels labels.csv student.pt", "--bars is missing"),
    ("--bars bars.csv", "--labels is missing"), ("--bars no.csv --labels labels.csv", "there is no file no.csv"),
    ("--bars bars.csv --labels labels.csv no", "there is no model no"), (f"{ROWS} --folds 3", "--folds is for cross-validation"), (f"{ROWS} --nulls", "--nulls is for cross"),
    (f"{ROWS} --hidden 8", "--hidden is for cross-validation"), (f"{ROWS} --plot x.svg", "--plot x.svg should end in .png"),
    (f"{ROWS} --table labels.csv --overwrite --plot y.png", "holds the labels"),
    (f"{ROWS} --patience 5 --plot y.png", "patience is for models that read windows"), ("--plot y.png --device cpu --bars bars.csv --labels labels.csv student.pt student.pt", "named twice"),
    (f"{ROWS} --threshold 2 --plot y.png", "threshold"), ("--bars bars.csv --labels bars.csv student.pt --plot y.png", "has no column end_time")])
def test_refusals(folder, argv, message, monkeypatch):
    said = run(folder, argv, monkeypatch)
    assert said.startswith("moola_evaluate: ")
    assert message in said
    assert "\n" not in said
    assert not (folder/"y.png").exists()


def test_bars_that_a_model_has_learned_from(tmp_path):
    "The report says so where windows that a run learned from were cut from these bars, and nothing where they were not."
    series, other = (simulate_labelled_bars(24, seed=k) for k in (3, 4))
    ohlc, starts = cut_windows(series.bars, 210)
    w = simulate_windows(len(ohlc), seed=1)
    write_windows(replace(w, ohlc=ohlc, rows=w.rows.assign(timestamp=series.bars.timestamp.to_numpy()[starts[w.window]])), tmp_path/"windows.parquet")
    run = fit(make_config("recommended", data=str(tmp_path/"windows.parquet"), output=str(tmp_path/"run"), epochs=1, hidden=8, pastes=0, device="cpu", progress=False))
    def seen(series, name):
        times = series.bars.timestamp.to_numpy()
        series.bars.to_csv(tmp_path/f"{name}.csv", index=False)
        pd.DataFrame(dict(start_time=times[series.spans[:, 0]], end_time=times[series.spans[:, 1]-1])).to_csv(tmp_path/f"{name}_labels.csv", index=False)
        found, _ = evaluate_bars(tmp_path/f"{name}.csv", tmp_path/f"{name}_labels.csv", [run.folder], device="cpu", progress=False)
        return found["run"]["seen"], bars_report("run", found["run"])
    share, words = seen(series, "own")
    test = run.metadata["data"]["split"]["test"]
    assert abs(share - 105*(len(ohlc)-test)/len(series.bars)) < .01 and f"learned from these very bars, {share:.1%}" in words
    share, words = seen(other, "other")
    assert share == 0 and "flatter" not in words


def test_models_have_their_own_names(folder):
    torch.manual_seed(1)
    (folder/"b").mkdir(exist_ok=True)
    save_student(folder/"b"/"student.pt", SeriesNet(right_context=3))
    found, after = evaluate_bars(folder/"bars.csv", folder/"labels.csv", [folder/"student.pt", folder/"b"/"student.pt"], device="cpu", progress=False, alarms_per_day=5.)
    assert list(found) == ["student.pt", str(folder/"b"/"student.pt")]
    assert list(after.table.system.unique()) == [*found, *BESIDE]
