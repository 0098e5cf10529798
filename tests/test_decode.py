"Properties of decoding on many inputs; the lessons stand in nbs/metrics/04_decode.ipynb."
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from moola.core.errors import MoolaError
from moola.data.spans import mask_to_spans, spans_to_mask
from moola.metrics import decode as d
from moola.metrics import scores as m

levels = st.sampled_from([0, .25, .5, .75, 1.]) | st.floats(0, 1)
windows = hnp.arrays(float, 105, elements=levels)
pairs = st.tuples(st.integers(1, 5), st.integers(1, 30)).flatmap(
    lambda s: st.tuples(hnp.arrays(bool, s), hnp.arrays(float, s, elements=levels)))


def plain(p, threshold, min_length, max_gap):
    "The rule read out bar by bar."
    runs = []
    for i in np.flatnonzero(p >= threshold):
        if runs and i - runs[-1][1] <= max_gap: runs[-1][1] = i+1
        else: runs.append([i, i+1])
    return [o for o in runs if o[1]-o[0] >= min_length]


@given(hnp.arrays(bool, 105))
def test_a_mask_comes_back(mask):
    spans,scores = d.threshold_spans(mask)
    np.testing.assert_array_equal(spans, mask_to_spans(mask))
    np.testing.assert_array_equal(spans_to_mask(spans), mask)
    assert (scores == 1).all() and len(scores) == len(spans)


@given(windows, st.floats(0, 1.1), st.integers(1, 8), st.integers(0, 8))
def test_knobs_do_what_they_say(p, threshold, min_length, max_gap):
    spans,scores = d.threshold_spans(p, threshold, min_length, max_gap)
    assert spans.tolist() == plain(p, threshold, min_length, max_gap)
    assert spans.dtype == np.int64 and spans.shape == (len(scores), 2)
    np.testing.assert_allclose(scores, [p[a:b].mean() for a,b in spans])
    assert (spans[1:,0]-spans[:-1,1] > max_gap).all()


@given(hnp.arrays(float, (4,30), elements=levels), st.floats(0, 1))
def test_many_windows_are_decoded_one_by_one(p, threshold):
    spans,scores = d.decode(p, threshold, 2, 1)
    for i,(s,c) in enumerate(zip(spans, scores, strict=True)):
        one = d.threshold_spans(p[i], threshold, 2, 1)
        np.testing.assert_array_equal(s, one[0]); np.testing.assert_array_equal(c, one[1])


@given(pairs, st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_the_sweep_is_exact(pair, thresholds):
    t,p = pair
    full = d.threshold_sweep(t, p)
    assert full.threshold.tolist() == np.unique(p).tolist()
    for table in (full, d.threshold_sweep(t, p, thresholds)):
        assert list(table) == ['threshold','precision','recall','f1','span_f1','alarms_per_window']
        for row in table.itertuples():
            np.testing.assert_allclose((row.precision, row.recall, row.f1), m.pooled_prf(t, p, row.threshold), atol=1e-12)
            assert np.isclose(row.span_f1, m.span_prf(t, p, row.threshold).f1, atol=1e-11)
            assert np.isclose(row.alarms_per_window, np.mean([len(s) for s in d.decode(p, row.threshold)[0]]))


@given(pairs, st.sampled_from(['pooled_f1','span_f1']))
def test_no_threshold_is_better_than_the_chosen(pair, metric):
    t,p = pair
    score = dict(pooled_f1=m.pooled_prf, span_f1=m.span_prf)[metric]
    best = score(t, p, d.choose_threshold(t, p, metric)).f1
    assert all(score(t, p, o).f1 <= best + 1e-9 for o in [*np.unique(p), 2.])


def test_the_chosen_threshold_survives_rounding():
    rng = np.random.default_rng(0)
    t = rng.random((40,105)) < .07
    p = np.clip(rng.random(t.shape).round(3)*.7 + .2*t, 0, 1)
    cut = d.choose_threshold(t, p)
    assert m.pooled_prf(t, p.astype(np.float32), cut) == m.pooled_prf(t, p, cut)


@pytest.mark.parametrize('knobs,words', [(dict(min_length=0), 'min_length'), (dict(max_gap=-1), 'max_gap'), (dict(threshold=float('nan')), 'threshold')])
def test_wrong_knobs(knobs, words):
    for f,p in ((d.threshold_spans, np.zeros(105)), (d.decode, np.zeros((2,105)))):
        with pytest.raises(MoolaError, match=words): f(p, **knobs)


def test_wrong_input():
    t,p = np.zeros((2,105), bool), np.zeros((2,105))
    for f in (lambda: d.threshold_spans(p), lambda: d.decode(p[0]), lambda: d.decode(p-1), lambda: d.decode(p*np.nan),
              lambda: d.choose_threshold(t, p, 'f1'), lambda: d.choose_threshold(t, p[:1]), lambda: d.threshold_sweep(t[0], p)):
        with pytest.raises(MoolaError) as e: f()
        assert '\n' not in str(e.value)


def test_real_labels_survive_the_round_trip(shared):
    w = pd.read_parquet(shared/'data'/'windows_174.parquet')
    labels = w[['expansion_start','expansion_end']].to_numpy() + [0, 1]
    spans,_ = d.decode(np.stack([spans_to_mask(o[None]) for o in labels]))
    assert m.event_prf([o[None] for o in labels], spans, 1.) == (1, 1, 1)


@given(st.lists(st.sampled_from([0., .2, .5, .7, 1.]), min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=6), st.integers(1, 4), st.integers(0, 3))
def test_stretches_are_decoded_one_by_one(p, cuts, min_length, max_gap):
    "Spans of many stretches at once are those of each stretch alone, with the same bits."
    p, cuts = np.array(p), sorted({0, len(p), *(c for c in cuts if c < len(p))})
    stretches = np.stack([cuts[:-1], cuts[1:]], 1)[::2 if min_length == 1 else 1]    # also with bars that lie in none
    spans, scores, where = d.spans_in(p, stretches, .5, min_length, max_gap)
    alone = [d.threshold_spans(p[a:b], .5, min_length, max_gap) for a, b in stretches]
    assert spans.tolist() == [[s+a, e+a] for (a, _), (own, _) in zip(stretches, alone) for s, e in own]
    assert scores.tolist() == [v for _, own in alone for v in own]
    assert where.tolist() == [k for k, (own, _) in enumerate(alone) for _ in own]
