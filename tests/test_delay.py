"The delay curve: what no page has room to show."
import numpy as np
import pytest
import torch

from moola.core.errors import MoolaError
from moola.core.names import FEATURES, OHLC, W
from moola.data.bars import check_bars, segment_bars
from moola.data.plant import simulate_labelled_bars
from moola.data.spans import iou
from moola.detection.detector import Detector
from moola.detection.ensemble import predict_windows
from moola.evaluation.delay import (
    DELAYS,
    ap_values,
    best_iou,
    by_delay,
    delay_counts,
    delay_curve,
    edge_thresholds,
    marked_bars,
    moved,
    read_edges,
    readable,
    shown_spans,
)
from moola.metrics.intervals import score_of
from moola.metrics.scores import average_precision
from moola.models.jade import Jade


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    model = Jade(13, hidden=8).eval().requires_grad_(False)
    for p in model.parameters(): p.mul_(3)
    return Detector([model], FEATURES, "origin", .5, 2, torch.device("cpu"), ["untrained"])


@pytest.fixture(scope="module")
def labelled(): return simulate_labelled_bars(24, 3, version=1)


@pytest.fixture(scope="module")
def edges(labelled, detector): return read_edges(labelled.bars, detector)


@pytest.fixture(scope="module")
def threshold(edges): return float(np.nanquantile(edges, .9))


def test_simulated_bars(labelled):
    check_bars(labelled.bars)
    assert len(labelled.bars) == 24*230
    assert (np.diff(labelled.spans.ravel()) > 0).all()
    assert (labelled.spans[:, 0]//230 == np.arange(24)).all()
    np.testing.assert_array_equal(simulate_labelled_bars(24, 3, version=1).bars[OHLC], labelled.bars[OHLC])
    with pytest.raises(MoolaError, match="at least 1"): simulate_labelled_bars(0)


def test_edges_are_what_windows_say(labelled, edges, detector):
    "Whatever comes later plays no part."
    ohlc = labelled.bars[OHLC].to_numpy()
    for r in (104, 700, 1379, 1380+104, len(ohlc)-1): np.testing.assert_allclose(edges[r], predict_windows(ohlc[r-W+1:r+1], detector)[:-73:-1], atol=1e-6)
    assert np.isnan(edges[1380:1380+104]).all()
    np.testing.assert_array_equal(read_edges(labelled.bars[:900], detector), edges[:900])


def test_readable(labelled, edges):
    ok = readable(edges)
    for a, b in segment_bars(labelled.bars):
        assert ok[a+W-1:b-DELAYS+1].all()
        assert not ok[a:a+W-1].any()
        assert not ok[b-DELAYS+1:b].any()
    p = by_delay(edges)
    assert not np.isnan(p[ok]).any()
    for t, d in ((300, 0), (300, 7), (500, 30)): assert p[t, d] == edges[t+d, d]


def test_shown_spans_one_by_one(edges, threshold):
    rows, spans = shown_spans(edges, threshold, 2)
    found = set(zip(rows.tolist(), map(tuple, spans.tolist())))
    plain = set()
    for r in range(len(edges)):
        marked, start = [False, *(edges[r, ::-1] >= threshold).tolist(), False], None
        for i in range(1, len(marked)):
            if marked[i] and not marked[i-1]: start = i-1
            if not marked[i] and marked[i-1] and i-1-start >= 2 and start > 0: plain.add((r, (r-71+start, r-71+i-1)))
    assert found == plain
    assert len(found) > 100


def test_best_iou():
    rng = np.random.default_rng(0)
    labels = np.sort(rng.choice(400, 40, replace=False)).reshape(-1, 2)
    start = rng.integers(0, 400, 200)
    spans = np.stack([start, start + rng.integers(1, 25, 200)], 1)
    every = iou(spans, labels).max(1)
    found = best_iou(spans, labels)
    assert (found <= every + 1e-12).all()
    short = (spans[:, 1] - spans[:, 0]) < 3
    np.testing.assert_allclose(found[short], every[short])
    half = every >= .5
    np.testing.assert_allclose(found[half], every[half])


def test_counts_one_by_one(labelled, edges, threshold):
    "Recall and precision of bars, and recall since the start, counted plainly."
    t, ok, inside = threshold, readable(edges), marked_bars(labelled.spans, len(edges))
    c = delay_counts(edges, labelled.spans, 230, t)
    for d in (0, 4, 30):
        marked = by_delay(edges)[:, d] >= t
        assert c["bars, recall"][:, d].sum(0).tolist() == [(marked & inside & ok).sum(), (inside & ok).sum()]
        assert c["bars, precision"][:, d].sum(0).tolist() == [(marked & inside & ok).sum(), (marked & ok).sum()]
    known = [s for s in labelled.spans if ok[s[0]] and ok[s[1]-1]]
    rows, spans = shown_spans(edges, t)
    for d in (1, 9, 30):
        some = sum(any(r == s+d and a < e and b > s for r, (a, b) in zip(rows, spans)) for s, e in known)
        right = sum(any(r == e-1+d and (min(b, e)-max(a, s))/(max(b, e)-min(a, s)) >= .5 for r, (a, b) in zip(rows, spans)) for s, e in known)
        assert c["since start, recall"][:, d].sum(0).tolist() == [some, len(known)]
        assert c["since end, recall"][:, d].sum(0).tolist() == [right, len(known)]


def test_thresholds_by_delay(labelled, edges, threshold):
    t = edge_thresholds(edges, labelled)
    assert t.shape == (72,)
    assert (t[DELAYS:] == t[DELAYS-1]).all()
    one, each = (delay_counts(edges, labelled.spans, 230, v) for v in (threshold, np.full(72, threshold)))
    for k in one: np.testing.assert_array_equal(one[k], each[k])


def test_average_precision(labelled, edges):
    v, ok = ap_values(edges, labelled, 5), readable(edges)
    inside = marked_bars(labelled.spans, len(edges))
    plain = average_precision(inside[ok][None], by_delay(edges)[ok, 5][None])
    assert abs(score_of(v[:, 0], v[:, 1])(np.ones((1, len(v))))[0, 0] - plain) < 1e-4


def test_curve(labelled, edges, threshold):
    curve = delay_curve([edges, edges], labelled, [threshold, threshold], chances=2)
    assert len(curve) == 7*DELAYS
    assert ((curve.low <= curve.value + 1e-9) & (curve.value <= curve.high + 1e-9)).all()
    assert curve[["value", "chance"]].stack().between(0, 1).all()


def test_moved():
    rng, spans = np.random.default_rng(0), np.array([[5, 9], [90, 99]])
    for _ in range(50):
        m = moved(spans, 200, rng)
        assert (m[:, 0] < m[:, 1]).all()
        assert m.max() <= 200
        assert sorted(np.diff(m)[:, 0]) == [4, 9] or m[-1, 1] == 200
