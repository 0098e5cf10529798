"What becomes of gaps in time: a scan and a stream do the same, and both say what no window read."
import numpy as np
import pandas as pd
import pytest

from moola import Detector, MoolaError, simulate_bars
from moola.detection.arrivals import read_bar
from moola.detection.followed import replay
from moola.detection.stream import Stream
from moola.detection.stream_state import load_stream


@pytest.fixture(scope="module")
def detector(): return Detector.load(device="cpu")


@pytest.fixture(scope="module")
def holed():
    "Minutes of more than a session, forty of them without a trade."
    bars, rng = simulate_bars(1900, seed=4), np.random.default_rng(0)
    return bars.drop(index=rng.choice(np.arange(1, 1899), 40, replace=False)).reset_index(drop=True)


def same(scan, followed):
    a, b = scan.probabilities, followed.probabilities
    for k in ("probability", "live", "windows"): np.testing.assert_array_equal(a[k].to_numpy(), b[k].to_numpy())
    spans = followed.spans[scan.spans.columns].sort_values("start_bar").reset_index(drop=True)
    pd.testing.assert_frame_equal(scan.spans, spans, check_dtype=False)


@pytest.mark.parametrize("gaps", ["split", "fill", "join"])
def test_a_scan_is_a_stream(detector, holed, gaps):
    found = detector.scan(holed, gaps=gaps, threshold=.3)
    assert len(found.probabilities) == len(holed) and found.about["gaps"] == gaps
    assert (holed.timestamp[found.spans.start_bar].to_numpy() == found.spans.start_time.to_numpy()).all()
    same(found, replay(holed, detector, gaps=gaps, bar="1min", threshold=.3))


def test_fewer_bars_are_unread(detector, holed):
    unread = {g: sum(detector.scan(holed, gaps=g).about["unread"].values()) for g in ("split", "fill", "join")}
    assert unread["split"] > 10*unread["fill"] > 0 and unread["fill"] > unread["join"]
    split = detector.scan(holed, gaps="split")
    assert any("No window read 1,360 of 1,860 bars" in w and "gaps: split" in w for w in split.words)


def test_filled_bars_are_not_among_the_answers(detector, holed):
    found = detector.scan(holed, gaps="fill", threshold=.3)
    assert any("40 flat bars were put in" in w for w in found.words)
    assert found.spans.touches_gap.any() and not detector.scan(simulate_bars(600, 1), threshold=.3).spans.touches_gap.any()


def test_a_stream_is_saved_in_mid_gap(detector, holed, tmp_path):
    for gaps in ("fill", "join"):
        whole = Stream(detector, gaps=gaps, bar="1min", threshold=.3)
        rows = list(holed.itertuples())
        updates = [whole.push(b) for b in rows[:700]]
        whole.save(tmp_path/f"{gaps}.json")
        again = load_stream(tmp_path/f"{gaps}.json", detector)
        for b in rows[700:900]:
            u, v = whole.push(b), again.push(b)
            assert repr(u.events) == repr(v.events) and u.row == v.row == rows.index(b)
            np.testing.assert_array_equal(u.settled["probability"], v.settled["probability"])
        assert updates[-1].row == 699


def test_daily_bars_are_joined(detector):
    days = simulate_bars(400, seed=2).assign(timestamp=pd.bdate_range("2022-01-03", periods=400))
    found = detector.scan(days)
    assert found.about["gaps"] == "join" and found.about["segments"] == 1
    with pytest.raises(MoolaError, match="--gaps join"): detector.scan(days, gaps="split")


def test_a_stream_that_joins_needs_the_length_of_a_bar(detector):
    with pytest.raises(MoolaError, match="needs the length of a bar"): detector.stream(gaps="join")
    with pytest.raises(MoolaError, match="gaps must be"): detector.stream(gaps="bridge", bar="1min")
    with pytest.raises(MoolaError, match="gaps"): detector.scan(simulate_bars(300), gaps="bridge")


def test_a_stream_mends_the_last_bit_as_a_file_does():
    bar = dict(timestamp="2024-03-04 18:00", open=15991.75 * .9137, high=16000., low=np.nextafter(15991.75 * .9137, np.inf), close=15995.)
    assert read_bar(bar).prices == (bar["open"], 16000., bar["open"], 15995.)
    with pytest.raises(MoolaError, match="above its open"): read_bar(bar | dict(low=15000.))
