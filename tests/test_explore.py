"The explorer: its answers against plain loops."
import json
import shutil
import threading

import numpy as np
import pandas as pd
import pytest

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.data.bars import cut_windows
from moola.data.plant import simulate_windows
from moola.data.simulate import simulate_bars
from moola.data.spans import iou
from moola.metrics.decode import threshold_spans
from moola.training.fit import fit
from moola.views.explore import explore
from moola.views.gallery import window_table
from moola.views.outcomes import SHOWS, Explored, Knobs, explored_run, explored_windows, matching, neighbour, outcomes, part_words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A small finished run."
    out = tmp_path_factory.mktemp("artifacts")/"small"
    return fit(make_config("baseline_100ep", n_windows=80, epochs=12, batch_size=8, lr=.01, pos_weight=4., device="cpu", progress=False,
                           output=str(out))).folder


@pytest.fixture
def spoiled(folder, tmp_path): return shutil.copytree(folder, tmp_path/"spoiled")


@pytest.fixture
def noise():
    "Windows with several spans or none, read by chance."
    windows, rng = simulate_windows(60, seed=3), np.random.default_rng(0)
    windows.window = windows.window % 40
    prob = np.convolve(rng.random(60*105), np.ones(5)/5, "same").reshape(60, 105)
    return Explored(windows, prob, np.repeat(["valid", "test"], 30), "noise", .5, 2, (), "origin")


@pytest.mark.parametrize("knobs", [Knobs(), Knobs(.6, 3), Knobs(.6, 1, 2), Knobs(.45, 4, 6), Knobs(1., 1), Knobs(0.)])
def test_outcomes(noise, knobs):
    "Each window's counts are what a plain loop over its spans counts."
    table, found, scores = outcomes(noise, knobs)
    for i, row in table.iterrows():
        pred, sure = threshold_spans(noise.prob[i], knobs.threshold, knobs.min_length, knobs.max_gap)
        touched = iou(noise.windows.spans[i], pred) > 0
        assert (row.labelled, row.predicted) == touched.shape
        assert (row.missed, row.false_alarms) == ((~touched.any(1)).sum(), (~touched.any(0)).sum())
        assert found[i].tolist() == pred.tolist() and np.allclose(scores[i], sure)
    assert set(table.labelled) == {0, 1, 2} and table.uncertainty.between(0, 1).all()


def test_agrees_with_the_gallery(folder):
    "At the threshold of the run, the counts are those of the table that the gallery is picked from."
    e = explored_run(folder)
    table, _, _ = outcomes(e, e.knobs)
    same = ["id", "type", "labelled", "predicted", "missed", "false_alarms"]
    from moola.training.run import Run
    both = pd.concat([window_table(Run(folder), simulate_windows(80), part) for part in ("valid", "test")], ignore_index=True)
    pd.testing.assert_frame_equal(table[same], both[same], check_dtype=False)


@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("kind", ["any", "consolidation", "both or unknown"])
@pytest.mark.parametrize("part", ["all", "test"])
def test_steps_visit_all_that_match(noise, show, kind, part):
    "Steps from the first window that matches visit each one once, and lead back."
    table = outcomes(noise, Knobs(.55, 2))[0]
    rows = matching(table, show, kind, part)
    picked = table.loc[rows]
    if not len(rows): return
    assert len(set(rows)) == len(rows)
    assert part == "all" or set(picked.part) == {part}
    assert kind == "any" or set(picked.type) == {kind}
    if show in ("missed", "false alarms"): assert (picked[show.replace(" ", "_")] > 0).all() and (np.diff(rows) > 0).all()
    way = [rows[0]]
    while (to := neighbour(rows, way[-1], 1)) is not None: way.append(to)
    back = [way[-1]]
    while (to := neighbour(rows, back[-1], -1)) is not None: back.append(to)
    assert way == rows.tolist() == back[::-1]
    assert neighbour(rows, rows[0], len(rows)) in (rows[-1], None)


def test_sliders_and_filters(folder):
    "A slider moves what it must and nothing else; a filter that nothing matches says so, and all comes back."
    x = explore(folder, features=["range_z"])
    seen = lambda: (x.chart.spans, x.chart.threshold, x.chart.bars["about"]["title"])  # noqa: E731
    first, bars = seen(), x.chart.bars
    assert "validation windows" in x.head.value and len(x.rows) == (x.explored.part == "valid").sum() and x.place.value.startswith("<b>1</b>")
    x.threshold.value = .9
    assert seen() != first and x.knobs == Knobs(.9, 2) and x.chart.bars is bars and list(x.chart.features) == ["range_z"]
    assert x.chart.threshold == .9 and x.chart.spans == x.found[x.row].tolist()
    x.threshold.value, x.show.value = 1., "false alarms"
    assert x.row is None and x.chart.layout.display == "none" and "No validation window has a false alarm at threshold 1.000." in x.words.value
    assert x.previous.disabled and x.next.disabled
    x.step()
    x.threshold.value = 0.
    assert x.row is None or x.table.false_alarms[x.row] > 0
    x.show.value = "missed"
    assert x.row is None and "missed span" in x.words.value
    x.show.value = "all windows"
    x.reset.click()
    assert seen() == first and x.knobs == x.explored.knobs
    x.threshold.value = round(x.explored.threshold*200)/200
    assert seen() == first and x.knobs == x.explored.knobs
    x.part.value = "test"
    assert x.table.part[x.row] == "test" and "test windows" in x.head.value and "nothing was chosen on them" in x.head.value
    x.leap("sim")
    assert "no window has the id &#x27;sim&#x27;: did you mean" in x.words.value
    x.leap(x.shown.id.iloc[-1])
    assert x.row == x.shown.index[-1] and x.next.disabled


def test_two_controls_at_once(folder):
    "Jupyter may answer controls in several threads: whatever comes first, what is shown in the end is what the controls say."
    x = explore(folder)

    def turn(control, values):
        for v in values: control.value = v
    work = [(x.threshold, [.9, .1, .5, .4]), (x.show, ["missed", "false alarms", "all windows", "false alarms"]), (x.part, ["test", "valid", "test"])]
    threads = [threading.Thread(target=turn, args=w) for w in work]
    for t in threads: t.start()
    for t in threads: t.join()
    rows = matching(outcomes(x.explored, Knobs(.4, 2))[0], "false alarms", part="test")
    assert x.rows.tolist() == rows.tolist() and x.knobs == Knobs(.4, 2)
    before, words = (x.chart.spans, x.chart.threshold, x.chart.bars), x.words.value
    x.draw(x.row)
    assert ((x.chart.spans, x.chart.threshold, x.chart.bars), x.words.value) == (before, words)


def test_before_and_after(folder, tmp_path):
    "Where the source bars are known, by time or by price, the chart holds what came before and after, and the spans lie where they are."
    bars = simulate_bars(1500, seed=3)
    bars.to_csv(tmp_path/"bars.csv", index=False)
    ohlc, starts = cut_windows(bars, 140)
    x = explore(ohlc, folder, bars=tmp_path/"bars.csv")
    x.turn(Knobs(.3, 1, 0))
    for _ in range(20):
        a, b = x.chart.frame
        close = np.frombuffer(x.chart.bars["columns"]["close"]["data"])
        lo = max(0, starts[x.row] - 500)
        assert np.array_equal(close, bars.close[lo:starts[x.row]+605]) and (a, b) == (starts[x.row] - lo, starts[x.row] - lo + 105)
        assert x.chart.spans == (x.found[x.row] + a).tolist() and x.chart.visible == [max(0, a - 40), min(len(close), b + 40)]
        assert np.isnan(x.chart.probability[:a]).all() and np.array_equal(x.chart.probability[a:b], x.explored.prob[x.row])
        x.step()
    assert x.next.disabled
    other = explore(ohlc, folder, bars=simulate_bars(1500, seed=4))
    assert other.chart.frame == [] and len(other.chart) == 105 and "None of the 11 windows lies in the bars" in other.head.value
    with pytest.raises(MoolaError, match="no.csv"): explore(ohlc, folder, bars="no.csv")


def test_parts(folder):
    "Windows are what they were to the network, however they are named or cut; those of a run only as held out."
    windows = simulate_windows(80)
    e = explored_windows(windows, folder)
    held = explored_run(folder)
    assert set(e.windows.ids[e.part == "test"]) == set(held.windows.ids[held.part == "test"])
    train = e.windows[e.part == "train"]
    train.ids = np.array([f"mine{i}" for i in range(len(train))])
    assert set(explored_windows(train, folder).part) == {"train"}
    assert set(explored_windows(train.ohlc, folder).part) == {"train"}
    assert "looks better than it is" in part_words(explored_windows(train, folder))
    assert list(explore(windows, folder).part.options) == [("all", "all"), ("training", "train"), ("validation", "valid"), ("test", "test")]
    with pytest.raises(MoolaError, match="there is no part 'train' to explore: choose from valid, test"): explore(folder, part="train")


def test_unlabelled(folder):
    "Windows without labels show what is predicted, and speak of no misses."
    x = explore(simulate_windows(6, seed=1).ohlc, folder)
    assert list(x.show.options) == ["all windows", "most uncertain first", "with a predicted span"]
    assert "Labelled" not in x.words.value and "missed" not in x.words.value and "6 new windows" in x.head.value


def test_what_is_wrong(folder, spoiled, tmp_path, monkeypatch):
    "Wrong input is one sentence."
    def said(*args, **kwargs):
        with pytest.raises(MoolaError) as e: explore(*args, **kwargs)
        return str(e.value)
    monkeypatch.chdir(tmp_path)
    (tmp_path/"settings.ini").touch()
    assert said() == "there is no finished run below artifacts/: train one with moola_train, or name the folder of a run"
    assert said("nowhere") == "there is no folder nowhere: name the folder of a run"
    assert said(simulate_windows(8)) == "windows need a detector: explore(windows, detector), where the folder of a run will do"
    assert said(simulate_windows(8), "nowhere") == "there is no model nowhere: name a folder, a checkpoint, or one of recommended, student, student-live"
    assert said("student") == "student comes with moola and is no run: it is used with --model"
    assert said("no.parquet", folder) == "There is no file no.parquet."
    assert said(folder, features=["rsi"]).startswith("there is no feature 'rsi': choose from open_norm, ")
    (spoiled/"predictions.parquet").rename(spoiled/"kept")
    m = json.loads((spoiled/"metadata.json").read_text())
    (spoiled/"metadata.json").write_text(json.dumps(m | dict(status="running", epochs_done=2)))
    assert said(spoiled) == f"{spoiled} lacks predictions.parquet: the run is stopped after 12 of 12 epochs; --resume goes on"
    (spoiled/"kept").rename(spoiled/"predictions.parquet")
    m["config"]["data"] = "/elsewhere/train_latest.parquet"
    (spoiled/"metadata.json").write_text(json.dumps(m))
    assert said(spoiled) == "the run's windows are not at /elsewhere/train_latest.parquet: name the file as data"
    assert set(explored_windows(simulate_windows(8), spoiled).part) == {"unknown"}
