"Look-alikes, proposals, label health and re-cuts: against other code, on other bars, and as a user calls them."
import numpy as np
import pandas as pd
import pytest

from moola.core.errors import MoolaError
from moola.core.names import OHLC, W
from moola.data.plant import simulate_labelled_bars, simulate_windows
from moola.data.simulate import SESSION
from moola.data.splits import Split
from moola.data.windows import Windows, join_windows, read_windows, write_windows
from moola.labels.command import moola_label
from moola.labels.health import agreement, find_conflicts, health_words, label_health
from moola.labels.propose import held_out, propose, touches
from moola.labels.recut import cut_labelled, recut_labels
from moola.labels.similar import Shapes, match_shapes, similar, span_shapes

LABELLED = simulate_labelled_bars(60, seed=21)


def in_sessions(n, seed=0):
    "Windows around the first n labels that no closing cuts."
    at = LABELLED.spans[:, 0]-45
    at = at[(at >= 0) & (at//SESSION == (at+W-1)//SESSION)][:n]
    return cut_labelled(LABELLED.bars, LABELLED.spans, at)


def test_distances_are_those_of_stumpy():
    stumpy = pytest.importorskip("stumpy")
    close = LABELLED.bars.close.to_numpy()[:3000]
    x = np.log(close)
    for a, n in ((100, 21), (700, 9)):
        shapes = span_shapes(close, (a+5, a+n), context=5, lengths=1)
        shapes = Shapes(((x[a:a+n]-x[a:a+n].mean())/x[a:a+n].std())[None], np.array([n]), shapes.lead)
        theirs = stumpy.mass(x[a:a+n], x)
        mirror = stumpy.mass(-x[a:a+n], x)
        ours = match_shapes(close, np.array([[0, len(close)]]), shapes)[0][:len(theirs)]
        assert abs(ours-np.minimum(theirs, mirror)/np.sqrt(2*n)).max() < 1e-5


def test_matches_stay_inside_stretches_and_never_overlap(tmp_path):
    bars = LABELLED.bars.iloc[:4000]
    found = similar(bars, (500, 506), n=40, progress=False)
    rows = np.concatenate([np.arange(a, b+1) for a, b in zip(found.start_bar, found.end_bar)])
    assert len(rows) == len(set(rows)) and not set(rows) & set(range(500, 506))
    assert (found.start_bar//SESSION == found.end_bar//SESSION).all()  # a session is a stretch
    bars.to_csv(tmp_path/"a.csv", index=False)
    LABELLED.bars.iloc[4000:8000].to_parquet(tmp_path/"b.parquet", index=False)
    both = similar(tmp_path, (500, 506), n=40, of="a.csv", progress=False)
    assert set(both.source) == {"a.csv", "b.parquet"}
    assert both[both.source == "a.csv"].start_bar.isin(similar(bars, (500, 506), n=80, progress=False).start_bar).all()


@pytest.mark.parametrize("options, words", [(dict(by="sound"), "choose shape or network"), (dict(n=0), "n must be at least 1"), (dict(of="x"), "no bars 'x'")])
def test_wrong_searches_are_explained(options, words):
    with pytest.raises(MoolaError, match=words): similar(LABELLED.bars, (500, 506), progress=False, **options)


def test_proposals_leave_held_out_and_labelled_windows_alone(tmp_path, monkeypatch):
    held = in_sessions(12)
    monkeypatch.setattr("moola.labels.propose.held_out", lambda run: (held, W, pd.Timedelta("1min")))
    known = in_sessions(30)[20:]
    picked = propose(LABELLED.bars, 25, "rule", labels=known, run="r", progress=False)
    assert len(picked) == 25 and len(set(picked.start_bar)) == 25
    times = picked.timestamp.to_numpy()
    apart = abs(times[:, None]-held.timestamp).min(1)
    assert apart.min() >= np.timedelta64(2*W, "m")
    assert abs(times[:, None]-known.timestamp).min() >= np.timedelta64(W, "m")
    # the same bars under other times, and a scaled copy of them, are known by their prices
    starts = picked.start_bar.to_numpy()
    mine = LABELLED.bars[OHLC].to_numpy()[starts[:3, None]+np.arange(W)]
    late = times[:3]+np.timedelta64(400, "D")
    bare = Windows(np.array(["a", "b"]), np.stack([mine[0], mine[1]*1.7]), held.rows[:0], np.zeros(0, int))
    assert touches(mine, late, bare).tolist() == [True, True, False]


def test_proposals_spread_and_keep_some_at_random():
    bars = dict(a=LABELLED.bars, b=simulate_labelled_bars(60, seed=22).bars)
    picked = propose(bars, 30, "rule", random_share=.2, progress=False)
    assert (picked.why == "random").sum() == 6 and (picked.why == "rule").sum() == 24
    assert picked.groupby("source").size().min() >= 5
    assert picked.timestamp.dt.date.value_counts().max() <= 8
    assert propose(bars, 30, "rule", progress=False).equals(propose(bars, 30, "rule", progress=False))
    def model(ohlc): return np.stack([np.full(ohlc.shape[:2], p) for p in (.2, .6)])
    mixed = propose(bars, 30, "mixed", model=model, progress=False)
    assert {"disagreement", "rule", "random"} <= set(mixed.why)
    with pytest.raises(MoolaError, match="name the file as labels"): propose(bars, 5, "similar", progress=False)
    with pytest.raises(MoolaError, match="choose uncertainty"): propose(bars, 5, "luck", progress=False)


def test_what_a_run_holds_out(monkeypatch):
    windows = simulate_windows(60)
    run = type("Run", (), dict(config=type("C", (), dict(embargo=105, bar_minutes=1.))))()
    monkeypatch.setattr("moola.labels.propose.find_run", lambda r: r)
    monkeypatch.setattr("moola.labels.propose.run_windows", lambda r: windows)
    none = np.arange(0)
    monkeypatch.setattr("moola.labels.propose.split_of", lambda c, w: Split(np.arange(40), np.arange(40, 50), np.arange(50, 60), none, True))
    held, embargo, bar = held_out(run)
    assert held.ids.tolist() == windows.ids[40:].tolist() and embargo == 105


def test_recuts_survive_the_file_and_show_the_bars(tmp_path):
    base = in_sessions(20)
    copies = recut_labels(base, LABELLED.bars, copies=3, seed=4)
    path = write_windows(join_windows([base, copies]), tmp_path/"labels.parquet")
    back = read_windows(path)
    assert len(back) == len(base)+len(copies) and {"base_window_id", "offset", "overlap_fraction", "cut"} <= set(back.rows)
    at = dict(zip(base.ids, base.rows.groupby(base.window).timestamp.first()))
    times = LABELLED.bars.timestamp.to_numpy()
    for w in range(len(copies)):
        row = np.searchsorted(times, np.datetime64(copies.timestamp[w]))
        assert np.array_equal(copies.ohlc[w], LABELLED.bars[OHLC].to_numpy()[row:row+W])
        assert row == np.searchsorted(times, np.datetime64(at[copies.base[w]]))+copies.rows.offset[copies.window == w].iloc[0]
        truth = [s for s in LABELLED.spans-row if s[1] > 0 and s[0] < W]
        mine = copies.spans[w]
        assert all(any(abs(t.clip(0, W)-m).max() == 0 for t in truth) for m in mine)


def test_recuts_refuse_other_bars():
    base = in_sessions(5)
    with pytest.raises(MoolaError, match="there is no bar at"): recut_labels(base, LABELLED.bars.iloc[9000:])
    hole = LABELLED.bars.drop(index=int(np.searchsorted(LABELLED.bars.timestamp, base.timestamp[0]))+50)
    with pytest.raises(MoolaError, match="have a gap"): recut_labels(base, hole)
    assert not any(c.startswith(str(base.ids[0])) for c in recut_labels(base, hole, skip=True).base)


def test_conflicts_between_overlapping_windows():
    a, b = LABELLED.spans[4]
    start = a-40
    one = cut_labelled(LABELLED.bars, LABELLED.spans, [start])
    other = cut_labelled(LABELLED.bars, np.zeros((0, 2)), [start+15])
    agreeing = cut_labelled(LABELLED.bars, LABELLED.spans, [start+15])
    both = Windows(np.array(["w0", "w1"]), np.concatenate([one.ohlc, other.ohlc]), one.rows.assign(window_id="w0"), one.window)
    found = find_conflicts(both)
    assert ("w0", a-start, b-start-1) in [(r[1], r[2], r[3]) for r in found]
    assert find_conflicts(join_windows([one, agreeing])) == []


def test_two_hands():
    truth = simulate_windows(40).spans
    none = [np.zeros((0, 2), int)]*40
    assert agreement(truth, none)["event_f1"] == 0 and agreement(truth, none)["kappa"] == 0
    assert agreement(truth, [s+1 for s in truth])["boundary"] == 1


def test_check_on_the_command_line(tmp_path, capsys):
    windows = simulate_windows(20)
    windows.rows.loc[3, ["expansion_start", "expansion_end"]] = [100, 104]
    path = write_windows(windows, tmp_path/"labels.parquet")
    moola_label([str(path), "--check"])
    said = capsys.readouterr().out
    assert "spans at an edge" in said and str(windows.ids[3]) in said and "fewer than 30 windows" in said
    before = sorted(p.name for p in tmp_path.iterdir())
    assert before == ["labels.parquet"]  # nothing is written
    assert f"http://here/?token=t#window={windows.ids[3]}\n" in health_words(label_health(path), address="http://here/?token=t")
    for words, argv in (("no file", ["gone.parquet", "--check"]), ("required", ["--check"])):
        with pytest.raises(SystemExit) as e: moola_label(argv)
        assert words in str(e.value)+capsys.readouterr().err
    assert "edge" in set(label_health(path).check)
