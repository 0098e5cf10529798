"Sessions, jackknife intervals and comparisons over seeds and sessions."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola.core.errors import MoolaError
from moola.data import splits
from moola.data.plant import simulate_windows
from moola.data.splits import clusters, sessions
from moola.data.windows import join_windows
from moola.metrics import intervals as iv
from moola.metrics.intervals import (
    FEWEST,
    compare_recipes,
    comparison_table,
    event_score,
    holm,
    interval,
    jackknife,
    paired_interval,
    recipe_interval,
    score_of,
)
from moola.metrics.scores import average_precision, pooled_prf, span_prf

METRICS = dict(average_precision=average_precision, pooled_f1=lambda t, p: pooled_prf(t, p).f1, span_f1=lambda t, p: span_prf(t, p).f1)


def simulated(rng, n=60, networks=3, skill=2., effect=.8, size=6):
    "Targets, probabilities and sessions; sessions differ in how clear their spans are."
    target = np.zeros((n, 40), bool)
    for t, s in zip(target, rng.integers(5, 30, n)): t[s:s+5] = True
    clear = skill + effect*np.repeat(rng.normal(size=n//size+1), size)[:n, None]
    z = rng.normal(size=(n, 40)) + clear*target - 2
    return target, 1/(1+np.exp(-(z + .5*rng.normal(size=(networks, n, 40))))), np.arange(n)//size


@pytest.mark.parametrize("metric", METRICS)
def test_a_weight_is_a_repetition(metric):
    rng = np.random.default_rng(0)
    target, prob, _ = simulated(rng)
    prob[1] = prob[1].round(1)  # ties
    w = rng.integers(0, 3, (5, 60))
    got = score_of(target, prob, metric)(w.astype(float))
    want = [[METRICS[metric](np.repeat(target, k, 0), np.repeat(p, k, 0)) for p in prob] for k in w]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_thresholds_may_differ_by_network():
    target, prob, _ = simulated(np.random.default_rng(1))
    got = score_of(target, prob, "pooled_f1", (.2, .5, .8))(np.ones((1, 60)))[0]
    np.testing.assert_allclose(got, [pooled_prf(target, p, k).f1 for p, k in zip(prob, (.2, .5, .8))])
    with pytest.raises(MoolaError, match="metric must be"): score_of(target, prob, "f2")


def test_merged_levels_hardly_move_the_average_precision(monkeypatch):
    target, prob, _ = simulated(np.random.default_rng(2), n=600, networks=1)
    assert len(np.unique(prob[0][target])) > iv._LEVELS
    assert abs(score_of(target, prob)(np.ones((1, 600)))[0, 0] - average_precision(target, prob[0])) < 5e-4


def test_the_jackknife_of_a_mean_is_its_standard_error():
    target, prob, cluster = simulated(np.random.default_rng(3))
    j = jackknife(score_of(target, prob, "span_f1"), cluster)
    by = np.stack([score_of(target[cluster == k], prob[:, cluster == k], "span_f1")(np.ones((1, 6)))[0] for k in range(10)])
    np.testing.assert_allclose(iv._variance(j.moves), by.var(0, ddof=1)/10)
    small = jackknife(score_of(target, prob, "span_f1"), cluster, batch=3)
    np.testing.assert_allclose(j.without, small.without)


def test_intervals_lie_in_range_and_never_have_width_zero():
    target, prob, cluster = simulated(np.random.default_rng(4))
    for f in (score_of(target, target*1., m) for m in METRICS):
        i = interval(f, cluster)
        assert i.value == pytest.approx(1) and .6 < i.low < i.high <= 1
    none = interval(score_of(target, 0*prob[0], "pooled_f1"), cluster)
    assert none.value == 0 == none.low and .3 < none.high < .4
    same = paired_interval(score_of(target, prob), score_of(target, prob), cluster)
    assert same.low < 0 < same.high


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 60), st.sampled_from(list(METRICS)))
def test_an_interval_holds_its_value(seed, n, metric):
    rng = np.random.default_rng(seed)
    target, prob, cluster = simulated(rng, n=n, skill=rng.uniform(0, 6), size=int(rng.integers(1, 4)))
    i = interval(score_of(target, prob[0], metric), cluster)
    if np.isnan(i.low): assert len(np.unique(cluster)) <= 2*FEWEST
    else: assert 0 <= i.low <= i.value+1e-6 and i.value-1e-6 <= i.high <= 1 and i.high > i.low


def test_too_few_sessions():
    target, prob, _ = simulated(np.random.default_rng(5))
    f = score_of(target, prob[0])
    few = interval(f, np.arange(60)//20)
    assert np.isnan([few.low, few.high]).all() and repr(few).endswith("(too few sessions for an interval: 3)")
    assert np.isfinite(interval(f, np.arange(60)//15).low)
    lopsided = np.where(np.arange(60) < 50, 0, np.arange(60))  # eleven sessions, one of which is nearly everything
    assert np.isnan(interval(f, lopsided).low)


def test_a_single_session_with_labels_gives_no_interval():
    target, prob, cluster = simulated(np.random.default_rng(6))
    target[6:] = False
    i = interval(score_of(target, prob[0]), cluster)
    assert np.isfinite(i.value) and np.isnan(i.low)


def test_the_same_recipe_is_rarely_told_apart_and_one_network_never():
    rng, told = np.random.default_rng(7), []
    for _ in range(150):
        target, prob, cluster = simulated(rng, n=48, networks=6)
        seed = np.log(prob/(1-prob)) + .35*rng.normal(size=(6, 1, 1))*target
        prob = 1/(1+np.exp(-seed))
        scores = [{m: score_of(target, p, m) for m in METRICS} for p in (prob[:3], prob[3:])]
        told.append([c.verdict != "not told apart" for c in compare_recipes(*scores, cluster)])
    assert np.mean(told, 0)[0] < .09
    ones = [{m: score_of(target, p, m) for m in METRICS} for p in (prob[:1], prob[5:])]
    assert {c.verdict for c in compare_recipes(*ones, cluster)} == {"none"}
    few = compare_recipes(*scores, np.arange(48)//16)
    assert few[0].words == "too few sessions for a verdict: 3" and np.isnan(few[0].low)


def test_a_better_recipe_is_told_apart():
    target, prob, cluster = simulated(np.random.default_rng(8), networks=8)
    better = 1/(1+np.exp(-(np.log(prob/(1-prob))+1.5*target)))
    a, b = ({m: score_of(target, p, m) for m in METRICS} for p in (better, prob))
    first, *rest = compare_recipes(a, b, cluster, primary="pooled_f1", names=("new", "old"))
    assert first.metric == "pooled_f1" and first.verdict == "above" and "new is above old" in first.words
    assert {c.metric for c in rest} == {"average_precision", "span_f1"}
    assert compare_recipes(b, a, cluster)[0].verdict == "below"
    assert list(comparison_table([first, *rest]).index) == ["pooled_f1", "average_precision", "span_f1"]
    with pytest.raises(MoolaError, match="no score 'auroc'"): compare_recipes(a, b, cluster, primary="auroc")


def test_what_has_no_seeds_may_be_one():
    target, prob, cluster = simulated(np.random.default_rng(9), networks=5, skill=3)
    rule = {"average_precision": score_of(target, np.broadcast_to(target.mean(0), target.shape))}
    ours = {"average_precision": score_of(target, prob)}
    assert compare_recipes(ours, rule, cluster, fixed="b")[0].verdict == "above"
    alone = {"average_precision": score_of(target, prob[0])}
    assert compare_recipes(alone, rule, cluster, fixed="b")[0].verdict == "none"
    assert compare_recipes(alone, rule, cluster, fixed="ab")[0].verdict == "above"


def test_a_recipe_is_less_sure_than_its_networks():
    target, prob, cluster = simulated(np.random.default_rng(10), networks=3)
    f = score_of(target, 1/(1+np.exp(-(np.log(prob/(1-prob)) + target*np.array([-1, 0, 1.])[:, None, None]))))
    given_, recipe = interval(f, cluster), recipe_interval(f, cluster)
    assert recipe.high-recipe.low > 1.5*(given_.high-given_.low)
    with pytest.raises(MoolaError, match="at least two networks"): recipe_interval(score_of(target, prob[0]), cluster)


def test_holm():
    np.testing.assert_allclose(holm([.01, .04, .03, .005]), [.03, .06, .06, .02])
    np.testing.assert_allclose(holm([.5, np.nan, .9]), [1, np.nan, 1])
    assert holm([]).size == 0


def test_event_score_counts_spans():
    true, found = [[(3, 8)], [(10, 20)], []], [[[(3, 8)], [(0, 4)], []], [[(3, 7)], [(11, 20)], [(1, 2)]]]
    np.testing.assert_allclose(event_score(true, found)(np.ones((1, 3)))[0], [.5, .8])
    np.testing.assert_allclose(event_score(true, found)(np.array([[2., 0, 0]]))[0], [1, 1])


def test_sessions_never_cut_a_day():
    def at(*times): return np.array(times, "datetime64[s]")
    assert list(sessions(at("2024-01-02T09:30", "2024-01-02T15:00", "2024-01-03T09:30"))) == [0, 0, 1]
    assert list(sessions(at("2024-01-02T23:00", "2024-01-03T00:30", "2024-01-03T20:00"))) == [0, 0, 1]  # a night session
    assert list(sessions(at("2024-01-02T22:00", "2024-01-03T00:30"))) == [0, 0]
    clock = np.arange(0, 1440, 60)  # a market that never closes: midnight it is
    assert list(sessions(np.datetime64("2024-01-02T00:00") + np.append(clock, clock+2880)*np.timedelta64(1, "m"))) == [0]*24 + [1]*24
    assert list(sessions(at("NaT", "2024-01-03"))) == [-1, 0]
    day = np.repeat(np.arange(5), 1440)
    np.testing.assert_array_equal(sessions(np.datetime64("2024-01-01") + np.arange(7200)*np.timedelta64(1, "m")), day)
    daily = sessions(np.datetime64("2010-01-01") + np.arange(1000)*np.timedelta64(1, "D"), "1D")
    assert 9 <= daily.max()+1 <= 11 and (np.diff(daily) >= 0).all()


def test_clusters_join_sessions_bases_and_copies():
    w = simulate_windows(40, seed=1)
    base = clusters(w)
    assert (base == clusters(w)).all() and len(base) == 40
    shifted = simulate_windows(40, seed=1)
    shifted.ohlc = shifted.ohlc+.25
    for o in (w, shifted): o.rows = o.rows.drop(columns=[c for c in ("timestamp", "base_window_id") if c in o.rows])
    both = clusters(join_windows([w, shifted]))
    assert (both[:40] == both[40:]).all()


def test_labels_join_in_chains():
    pairs = [splits._together(np.array(label)) for label in ([0, 1, 0, 2], [-1, 3, 3, -1])]
    assert list(splits._joined(np.concatenate(pairs, 1), 4)) == [0, 0, 0, 1]
