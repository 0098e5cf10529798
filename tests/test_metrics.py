"Properties of the scores on many inputs; the lessons stand in nbs/metrics/."
import subprocess
import sys

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from moola.core.errors import MoolaError
from moola.data.spans import mask_to_spans
from moola.metrics import chance as c
from moola.metrics import scores as m
from moola.metrics import verdicts as v_
from moola.metrics.intervals import interval, score_of

levels = st.sampled_from([0, .1, .25, .5, .500001, .75, 1.]) | st.floats(0, 1)


@st.composite
def cases(draw, max_windows=6, max_bars=20):
    "A target and probabilities, with ties, empty windows and full windows among them."
    shape = draw(st.integers(1, max_windows)), draw(st.integers(1, max_bars))
    return draw(hnp.arrays(bool, shape)), draw(hnp.arrays(float, shape, elements=levels))


def sklearn_prf(t, p):
    "scikit-learn's, with the page's rule for the empty cases."
    return precision_recall_fscore_support(t, p, average='binary', zero_division=0. if t.any() or p.any() else 1.)[:3]


@given(cases(), st.floats(0, 1))
def test_prf_agrees_with_sklearn(case, threshold):
    t,p = case
    marked = p >= threshold
    np.testing.assert_allclose(m.pooled_prf(t, p, threshold), sklearn_prf(t.ravel(), marked.ravel()), atol=1e-12)
    np.testing.assert_allclose(m.span_prf(t, p, threshold), np.mean([sklearn_prf(*o) for o in zip(t, marked)], 0), atol=1e-12)


@given(cases(), st.randoms(use_true_random=False))
def test_order_of_windows_changes_nothing(case, random):
    t,p = case
    order = random.sample(range(len(t)), len(t))
    for f in (m.span_prf, m.pooled_prf, m.average_precision, m.auroc, m.separation):
        np.testing.assert_allclose(f(t[order], p[order]), f(t, p), atol=1e-12)
    np.testing.assert_allclose(m.all_cuts(t[order], p[order]).span_f1, m.all_cuts(t, p).span_f1, atol=1e-11)


@given(hnp.arrays(bool, (3,30)), hnp.arrays(np.int64, (3,30), elements=st.integers(0, 50)))
def test_ranking_scores_see_only_the_order(t, k):
    p = k/50
    for f in (m.average_precision, m.auroc):
        for g in (np.sqrt(p), p**2, .3+p/2, 1/(1+np.exp(-8*p))): np.testing.assert_allclose(f(t, g), f(t, p), atol=1e-12)


@given(cases())
def test_all_cuts_scores_every_threshold(case):
    t,p = case
    cuts = m.all_cuts(t, p)
    assert len(cuts.threshold) == len(np.unique(p)) + 1
    for i,threshold in enumerate(cuts.threshold):
        assert np.isclose(cuts.span_f1[i], m.span_prf(t, p, threshold).f1, atol=1e-11)
        assert np.isclose(cuts.pooled_f1[i], m.pooled_prf(t, p, threshold).f1)
        np.testing.assert_array_equal([cuts.tp[i], cuts.fp[i], cuts.fn[i]], m.window_counts(t, p, threshold).sum(0))


@given(cases())
def test_best_cut_reaches_the_best_score(case):
    t,p = case
    cuts = m.all_cuts(t, p)
    assert np.isclose(m.span_prf(t, p, m.best_cut(cuts, cuts.span_f1)).f1, cuts.span_f1.max(), atol=1e-11)
    assert np.isclose(m.pooled_prf(t, p, m.best_cut(cuts, cuts.pooled_f1)).f1, cuts.pooled_f1.max())


@given(cases(), st.data())
def test_drawn_average_precision_is_sklearns(case, data):
    t,p = case
    w = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(t), max_size=len(t))))
    got = score_of(t, p)(w[None].astype(float))[0,0]
    tw,pw = np.repeat(t, w, 0).ravel(), np.repeat(p, w, 0).ravel()
    if tw.any(): assert np.isclose(got, average_precision_score(tw, pw), atol=1e-5)
    else: assert np.isnan(got)


@given(cases())
def test_marking_every_bar(case):
    t,_ = case
    share = t.mean()
    assert np.isclose(m.pooled_prf(t, np.ones(t.shape)).f1, 2*share/(1+share))


@given(cases())
def test_stats_match_pandas(case):
    t,p = case
    stats = m.probability_stats(t, p)
    for side,o in (('in', p[t]), ('out', p[~t])):
        s = pd.Series(o, dtype=float)
        want = [s.mean(), s.std(ddof=0), s.min(), s.max(), s.median()]
        np.testing.assert_allclose([stats[f'{side}_span_{k}'] for k in ('mean','std','min','max','median')], want, atol=1e-9)
    assert list(stats)[-1] == 'separation' and len(stats) == 11


@given(hnp.arrays(bool, (4,105)), hnp.arrays(bool, (4,105)), st.floats(.05, 1))
def test_events(a, b, overlap):
    a,b = ([mask_to_spans(o) for o in x] for x in (a,b))
    assert m.event_prf(a, a, overlap) == (1, 1, 1)
    ab,ba = m.event_prf(a, b, overlap), m.event_prf(b, a, overlap)
    assert (ab.precision, ab.recall, ab.f1) == (ba.recall, ba.precision, ba.f1)
    assert m.event_prf(a, b, 1.).f1 <= ab.f1


def test_hit_rate_takes_the_best_score_in_the_order_given():
    true, pred = [[[40,47]]], [np.array([[80,85],[43,50]])]
    assert m.hit_rate(true, pred, [np.array([.2,.9])]) == 1
    assert m.hit_rate(true, pred, [np.array([.9,.2])]) == 0
    assert m.hit_rate(true, pred, [np.array([.2,.9])], within=2) == 0
    with pytest.raises(MoolaError, match='2 predicted spans but 1 scores'): m.hit_rate(true, pred, [np.array([.9])])


def test_chance_levels_choose_nothing_on_the_judged_windows():
    rng = np.random.default_rng(0)
    train,judged = rng.random((60,105)) < .07, rng.random((30,105)) < .07
    a = c.chance_levels(train, judged, rng.random(train.shape), u := rng.random(judged.shape))
    b = c.chance_levels(train, ~judged, rng.random(train.shape), u)
    assert a['position_prior']['threshold'] == b['position_prior']['threshold']
    assert set(a['every_bar']) == {'threshold','span_f1','precision','recall','pooled_f1','average_precision'}
    assert all(isinstance(v, float) for o in a.values() for v in o.values())
    with pytest.raises(MoolaError, match='both'): c.chance_levels(train, judged, u)
    with pytest.raises(MoolaError, match='105 bars but the judged ones 104'): c.chance_levels(train, judged[:,1:])


def test_intervals_cover_a_known_mean():
    rng = np.random.default_rng(0)
    truth, sets = .3, [rng.beta(.9, 2.1, 40) for _ in range(300)]   # as skewed as F1s of windows are
    found = [interval(lambda w, x=x: m.window_mean(x, w)[:,None], np.arange(40)) for x in sets]
    assert .90 <= np.mean([v.low <= truth <= v.high for v in found]) <= .98


@settings(deadline=None, max_examples=25)
@given(cases(), st.sampled_from(['span_f1','pooled_f1','average_precision']))
def test_intervals_hold_the_value_of_the_metric(case, metric):
    t,p = case
    v = v_.metric_interval(t, p, metric)
    want = dict(span_f1=m.span_prf(t, p).f1, pooled_f1=m.pooled_prf(t, p).f1, average_precision=m.average_precision(t, p))[metric]
    np.testing.assert_allclose(v.value, want, atol=1e-12)
    assert np.isnan(v.low) or 0 <= v.low < v.high <= 1 + 1e-12
    if len(t) < 4 or np.isnan(v.value): assert np.isnan(v.low)


def test_a_prediction_does_not_differ_from_itself():
    rng = np.random.default_rng(0)
    t,p = rng.random((20,105)) < .07, rng.random((20,105))
    for k in ('span_f1','pooled_f1','average_precision'):
        d = v_.metric_interval(t, p, k, other=p)
        assert d.value == 0 and d.low < 0 < d.high


@pytest.mark.parametrize('f', [m.span_prf, m.pooled_prf, m.average_precision, m.auroc, m.separation, m.probability_stats, m.all_cuts, v_.metric_interval])
def test_bad_input_is_one_sentence(f):
    t,p = np.zeros((4,105), bool), np.full((4,105), .5)
    for a,b in ((t[:3],p), (t,p[:,1:]), (t[0],p[0]), (t,p+np.nan), (t,p+.6), (t,p-.6), (t+2,p), (t[:0],p[:0])):
        with pytest.raises(MoolaError) as e: f(a, b)
        assert '\n' not in str(e.value)


def test_import_is_light():
    "scikit-learn and scipy.stats are imported when they are used, and no sooner."
    code = "import sys, moola.metrics.scores; print(sorted({'sklearn','scipy.stats','matplotlib','torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


def test_chance_on_real_labels(shared):
    d = pd.read_parquet(shared/'data'/'windows_174.parquet')
    bars = np.arange(105)
    t = (bars >= d.expansion_start.to_numpy()[:,None]) & (bars <= d.expansion_end.to_numpy()[:,None])
    levels = c.chance_levels(t[:132], t[132:])
    share = t[132:].mean()
    assert np.isclose(levels['every_bar']['pooled_f1'], 2*share/(1+share))
    noise = np.random.default_rng(0).random((42,105))
    guesses = c.chance_guesses(t[:132], t[132:])
    for k in ('span_f1','pooled_f1','average_precision'):
        assert not all(v_.metric_interval(t[132:], noise, k, other=g.prob, other_threshold=g.threshold).low > 0 for g in guesses.values())
