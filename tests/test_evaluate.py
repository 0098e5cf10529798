"Evaluation as a sceptic tries it: leaks, resumption, the lock-box, hand-computed scores and bad input."
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import moola.evaluation.evaluate as ev
from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.data.features import named_features
from moola.data.plant import simulate_windows
from moola.data.splits import Split
from moola.data.windows import Windows
from moola.evaluation import networks as fold_models
from moola.evaluation.baselines import BASELINES, displacement, prior_by_bar, rule_segments
from moola.evaluation.command import moola_evaluate
from moola.evaluation.compare import compare
from moola.evaluation.evaluate import describe, evaluate, evaluate_on, paired
from moola.evaluation.folds import blind, fold_data, openings, plan_folds
from moola.evaluation.networks import job_key, one_by_one, shifted_features, train_networks
from moola.evaluation.nulls import swap_spans
from moola.evaluation.page import Evaluation
from moola.evaluation.readings import read_out, read_segments
from moola.metrics.calibration import calibrate, fit_platt
from moola.metrics.chance import position_prior
from moola.metrics.choice import choose_segment, evidence
from moola.metrics.intervals import Interval
from moola.metrics.judged import METRICS, Readings, drawn_ranking, metric_draws, ranking_curve, score_draw
from moola.metrics.scores import auroc, average_precision
from moola.metrics.verdicts import decide_run
from moola.training.many import fit_alone

TINY = dict(epochs=2, hidden=8, device="cpu", n_windows=48, data_seed=5)
FEW = {k: BASELINES[k] for k in ("every_bar", "position_prior", "prior_segment", "displacement_rule")}


def tiny(variant="position_encoding", **params): return make_config(variant, **(TINY | params))
def logits(p): return np.log(np.clip(p, 1e-4, 1-1e-4)/(1-np.clip(p, 1e-4, 1-1e-4)))
def draw_one(draw, n): return draw(np.ones((1, n)))[0]


@pytest.fixture(scope="module")
def windows(): return simulate_windows(48, 5)


def quick(root, windows=None, config=None, **kw):
    return evaluate(config or tiny(), windows, **(dict(folds=3, seeds=2, root=root, progress=False, baselines={}) | kw))


@one_by_one
def stub(config, windows, split):
    "In place of a network: how far each bar moved, louder with every seed."
    move = np.abs(windows.ohlc[..., 3]-windows.ohlc[..., 0])/(windows.ohlc[..., 1]-windows.ohlc[..., 2]+1e-9)
    z = (1+config.lr)*move*(config.seed-40)-3
    return dict(valid=z[split.valid], test=z[split.test], type=move[split.test, 2]-move[split.test, 3])


# Protocol

def with_copies(windows, copies=3):
    "Every window several times, each copy's prices scaled by a hair, its labels the same; one base window."
    k = np.repeat(np.arange(len(windows)), copies)
    w = windows[k]
    w.ids = np.array([f"{i}-{j}" for j, i in enumerate(w.ids)])
    w.ohlc = w.ohlc*(1+1e-6*(np.arange(len(k)) % copies))[:, None, None]
    w.rows = w.rows.assign(base_window_id=windows.ids[k])
    return w


def by_heart(config, windows, split):
    "Knows every training window by its prices, and guesses the position prior for those it does not know."
    price, mask = windows.ohlc[:, 0, 0], windows.mask[split.train].astype(float)
    prior = position_prior(mask)
    def one(r):
        near = abs(price[split.train]/price[r]-1)
        return mask[near.argmin()] if near.min() < 1e-5 else prior
    def answer(rows): return logits(np.array([one(r) for r in rows]))
    return dict(valid=answer(split.valid), test=answer(split.test))


def test_learning_by_heart_scores_at_chance_here_and_perfectly_where_copies_leak(windows):
    config = tiny()
    data = with_copies(swap_spans(windows, np.arange(len(windows)), 1))
    def f1(splits):
        rows = np.sort(np.concatenate([s.test for s in splits]))
        rivals = dict(heart=by_heart, prior=prior_by_bar)
        answers = {k: read_out([[f(config, *fold_data(data, s))] for s in splits], splits, rows, data.mask) for k, f in rivals.items()}
        return {k: draw_one(metric_draws(data.mask[rows], data.window_type[rows], r)["f1"], len(rows))[0] for k, r in answers.items()}
    honest = f1(plan_folds(data, config, 3, lockbox=0).folds)
    assert abs(honest["heart"]-honest["prior"]) < .03
    fold, rng = np.random.default_rng(0).integers(0, 3, len(data)), np.random.default_rng(1)
    def leaky(i):
        rest = rng.permutation(np.flatnonzero(fold != i))
        return Split(rest[20:], rest[:20], np.flatnonzero(fold == i), rest[:0], False)
    assert f1([leaky(i) for i in range(3)])["heart"] > .8


def test_a_trainer_is_handed_no_label_that_is_scored(tmp_path, windows):
    seen = []
    def peek(config, w, split):
        rest = len(w)-sum(map(len, (split.train, split.valid, split.test)))
        seen.append((w.mask[split.train].any(1).all(), w.mask[split.valid].any(1).all(), w.mask[split.test].any(), rest))
        return stub([fold_models.Job(config, w, split, None, "")])[0]
    evaluate(tiny(), windows, 3, 1, root=tmp_path, open_lockbox=True, trainer=one_by_one(peek), baselines=dict(peek=peek), progress=False)
    assert seen == [(True, True, False, 0)]*8


@pytest.mark.parametrize("timed", [True, False])
def test_parts_share_no_base_window_and_the_lock_box_is_apart(windows, timed):
    data = with_copies(windows, 2)
    if not timed: data.rows = data.rows.drop(columns="timestamp")
    plan = plan_folds(data, tiny(), 4)
    assert plan.by_time == timed
    for s in (*plan.folds, plan.lockbox):
        parts = [set(data.base[r]) for r in (s.train, s.valid, s.test)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert not set(plan.lockbox.test) & set(np.concatenate([np.concatenate([s.train, s.valid, s.test]) for s in plan.folds]))
    assert .1 < len(plan.lockbox.test)/len(data) < .25
    if timed:
        assert data.timestamp[plan.lockbox.test].min() > data.timestamp[plan.rows].max()
        assert all(data.timestamp[s.valid].min() > np.median(data.timestamp[s.train].astype("i8")).astype("M8[ns]") for s in plan.folds)


def test_same_seeds_same_numbers_and_finished_fold_models_are_not_trained_again(tmp_path, windows, monkeypatch):
    first = quick(tmp_path/"a", windows, folds=2)
    again = quick(tmp_path/"b", windows, folds=2, workers=2)
    drop = ("seconds", "finished", "git")
    assert {k: v for k, v in first.data.items() if k not in drop} == {k: v for k, v in again.data.items() if k not in drop}
    pd.testing.assert_frame_equal(first.predictions, again.predictions)
    files = sorted((tmp_path/"a"/"position_encoding"/"folds").glob("*.npz"))
    assert len(files) == 4
    stamps = {f: f.stat().st_mtime_ns for f in files}
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].unlink()
    resumed = quick(tmp_path/"a", windows, folds=2)
    assert resumed.data["scores"] == first.data["scores"]
    assert [f.stat().st_mtime_ns == stamps[f] for f in files] == [False, False] + [True]*2
    own, split = fold_data(windows, plan_folds(windows, tiny(), 2).folds[0])
    def key(config=tiny(), w=own, t=train_networks): return job_key(config, w, split, t)
    assert key() == key(tiny(progress=False)) == files_key(files, key())
    assert len({key(), key(tiny(lr=2e-3)), key(tiny(seed=43)), key(w=blind(own, [0])), key(t=stub)}) == 5
    before = key()
    monkeypatch.setattr(fold_models, "_code_hash", lambda: "other")
    assert key() != before, "other code trains anew"


def files_key(files, key): return next(f.stem for f in files if f.stem == key)


def test_another_config_gets_a_folder_of_its_own(tmp_path, windows):
    assert quick(tmp_path, windows, trainer=stub).folder.name == "position_encoding"
    assert quick(tmp_path, windows, trainer=stub, config=tiny(lr=2e-3)).folder.name == "position_encoding-2"
    with pytest.raises(MoolaError, match="position_encoding holds an evaluation of another config"):
        quick(tmp_path, windows, trainer=stub, config=tiny(lr=3e-3), name="position_encoding")


def test_opening_the_lock_box_is_recorded_and_counted(tmp_path, windows):
    closed = quick(tmp_path, windows, trainer=stub)
    assert "lockbox" not in closed.data and not (tmp_path/"lockbox.json").exists()
    first = quick(tmp_path, windows, trainer=stub, open_lockbox=True)
    assert "for the first time" in first.data["lockbox"]["sentence"] and first.data["scores"] == closed.data["scores"]
    second = quick(tmp_path, windows, trainer=stub, config=tiny("stones_only"), open_lockbox=True)
    said = second.data["lockbox"]["sentence"]
    assert "had been opened once before" in said and "by position_encoding" in said and said in second.words
    assert "opened 2 times before" in quick(tmp_path, windows, trainer=stub, open_lockbox=True).data["lockbox"]["sentence"]
    lines = openings(tmp_path/"lockbox.json")
    assert [o["evaluation"] for o in lines] == ["position_encoding", "stones_only", "position_encoding"] and lines[1]["config"]["variant"] == "stones_only"
    assert len({o["sha256"] for o in lines}) == 1
    (tmp_path/"lockbox.json").write_text("[")
    with pytest.raises(MoolaError, match="must not be edited"): quick(tmp_path, windows, trainer=stub, open_lockbox=True)
    with pytest.raises(MoolaError, match="no lock-box to open"): quick(tmp_path/"c", windows, trainer=stub, open_lockbox=True, lockbox=0)


def test_a_fold_model_is_the_network_that_a_run_with_its_config_keeps(tmp_path, windows):
    plan = plan_folds(windows, tiny(), 3)
    jobs = fold_models.make_jobs(tiny("recommended", epochs=2), windows, plan.folds[:2], 1, tmp_path, train_networks)
    together = train_networks(jobs, 2)
    for job, answer in zip(jobs, together):
        alone = fit_alone(job.config, job.windows, job.split)
        assert answer["epoch"] == alone.best_epoch
        assert calibrate(answer["valid"]) == pytest.approx(alone.prob[alone.best_epoch-1], abs=1e-6)


@pytest.mark.parametrize("variant", ["position_encoding", "recommended"])
def test_nothing_of_what_is_cut_off_shows_in_shifted_features(windows, variant):
    config = tiny(variant)
    assert shifted_features(windows, config, 0) == pytest.approx(named_features(windows.ohlc, config.features, config.swing_rule), abs=1e-6)
    other = windows[np.arange(len(windows))]
    other.ohlc = windows.ohlc.copy()
    other.ohlc[:, :15] *= 1.5
    assert (shifted_features(other, config) == shifted_features(windows, config)).all()


def test_nulls(tmp_path, windows):
    e = quick(tmp_path, windows, nulls=True, seeds=1, config=tiny("recommended", epochs=1))
    assert set(e.data["nulls"]) == {"swapped", "swapped_prior", "position_only", "shifted", "unshifted"}
    assert all(0 <= v["f1"]["value"] <= 1 for v in e.data["nulls"].values())
    assert "Null tests" in (e.folder/"evaluation.md").read_text()


def test_swapping_keeps_the_prior_exactly(windows):
    two = windows[np.r_[np.arange(48), [3]]]
    rows = windows.rows.iloc[[3]].assign(expansion_start=1, expansion_end=2)
    two = Windows(windows.ids, windows.ohlc, pd.concat([windows.rows, rows], ignore_index=True), np.append(windows.window, 3))
    out = swap_spans(two, np.arange(30), 0)
    assert (out.mask.sum(0) == two.mask.sum(0)).all() and (out.ohlc == two.ohlc).all()
    assert (out.mask[30:] == two.mask[30:]).all() and not (out.mask[:30] == two.mask[:30]).all(1).any()
    assert (out.timestamp == two.timestamp).all() and sorted(map(len, out.spans)) == sorted(map(len, two.spans))


# Scores

def system(prob, spans, threshold=.5, raw=None, types=None):
    prob = np.asarray(prob, float)
    return Readings(prob if raw is None else raw, prob, np.full(prob.shape[1], threshold), spans, [[np.ones(len(s)) for s in one] for one in spans], types, [])


def test_scores_of_a_case_computed_by_hand():
    target = np.zeros((2, 10), bool)
    target[0, 2:6] = target[1, 4:6] = True
    prob = np.full((1, 2, 10), .1)
    prob[0, 0, 3:7] = .8 # three of four, one outside
    prob[0, 1, 0:2] = .8 # misses
    spans = [[np.array([[3, 7]]), np.array([[0, 2]])]]
    d = {k: draw_one(v, 2)[0] for k, v in metric_draws(target, np.array([0, 1]), system(prob, spans, types=np.array([[.2, .4]]))).items()}
    assert d["f1"] == d["f1_half"] == pytest.approx(2*3/(6+6)) # tp 3, fp 3, fn 3
    assert d["precision"] == .5 and d["recall"] == .5
    assert d["window_f1"] == pytest.approx((2*3/8 + 0)/2)
    assert d["segment_f1_50"] == d["segment_f1_10"] == .5 # IoU 3/5, and nothing
    assert d["hit_1"] == d["hit_3"] == .5
    assert d["start_error"] == d["end_error"] == 1
    assert d["separation"] == pytest.approx((3*.8+3*.1)/6 - (3*.8+11*.1)/14)
    assert d["log_loss"] == pytest.approx(-(3*np.log(.8)+3*np.log(.1)+3*np.log(.2)+11*np.log(.9))/20)
    assert d["average_precision"] == pytest.approx(average_precision(target, prob[0])) and d["auroc"] == pytest.approx(auroc(target, prob[0]))
    assert d["type_f1"] == pytest.approx((2/3 + 0)/2) # both called 0: F1 of 0 is 2/3, of 1 is 0
    assert d["ece"] == pytest.approx((abs(14*.1-3) + abs(6*.8-3))/20)


def test_an_iou_between_two_limits_counts_for_one_of_them():
    target = np.zeros((1, 20), bool)
    target[0, 4:10] = True
    d = {k: draw_one(v, 1)[0] for k, v in metric_draws(target, np.array([0]), system(np.full((1, 1, 20), .2), [[np.array([[7, 13]])]])).items()} # IoU 3/9
    assert (d["segment_f1_10"], d["segment_f1_25"], d["segment_f1_50"]) == (1, 1, 0) and (d["start_error"], d["hit_1"], d["hit_3"]) == (3, 0, 1)


def test_ranking_scores_agree_with_scikit_learn_for_any_weights():
    rng = np.random.default_rng(0)
    target, prob = rng.random((12, 30)) < .1, rng.random((2, 12, 30)).round(2)
    draws = metric_draws(target, np.zeros(12), system(prob, [[np.zeros((0, 2), int)]*12]*2))
    weights = rng.integers(0, 3, (4, 12))
    for m, f in (("average_precision", average_precision), ("auroc", auroc)):
        got = draws[m](weights.astype(float))
        want = [[f(np.repeat(target, w, 0), np.repeat(p, w, 0)) for p in prob] for w in weights]
        assert got == pytest.approx(np.array(want), abs=1e-6)
    coarse = drawn_ranking(target, prob, "auroc")
    assert coarse(np.ones((1, 12)))[0] == pytest.approx([auroc(target, p) for p in prob], abs=1e-6)


def test_merged_levels_change_ranking_scores_very_little():
    rng = np.random.default_rng(1)
    target = rng.random((60, 105)) < .3
    prob = (rng.random(target.shape) + .3*target).clip(0, 1.3)/1.3
    tp, at, over, negatives = (a.sum(0) for a in ranking_curve(target, prob, 300))
    hits = np.diff(tp, prepend=0)
    assert len(tp) <= 300 and tp[-1] == target.sum()
    assert (hits*tp/(tp+at)).sum()/tp[-1] == pytest.approx(average_precision(target, prob), abs=.01)
    assert (hits*(negatives-(at+over)/2)).sum()/tp[-1]/negatives == pytest.approx(auroc(target, prob), abs=.01)


def test_seeds_are_averaged_and_their_spread_stands_apart():
    target = np.zeros((6, 10), bool)
    target[:, 3:6] = True
    prob = np.stack([target*.8+.1, np.full(target.shape, .9)])
    s = score_draw(metric_draws(target, np.zeros(6), system(prob, [[np.zeros((0, 2), int)]*6]*2))["f1"], np.arange(6))
    every = 2*.3/1.3
    assert s.by_seed == pytest.approx((1, every)) and s.value == pytest.approx((1+every)/2) and s.seeds_sd == pytest.approx((1-every)/2**.5)
    assert s.low < s.value < s.high, "windows are alike, but fresh seeds would differ"


def test_nothing_matched_has_no_boundary_error_and_one_type_no_type_score():
    target = np.zeros((4, 10), bool)
    target[:, 3:6] = True
    d = metric_draws(target, np.zeros(4), system(np.full((1, 4, 10), .2), [[np.zeros((0, 2), int)]*4], types=np.full((1, 4), .1)))
    assert np.isnan(draw_one(d["start_error"], 4)).all() and "type_f1" not in d
    assert draw_one(d["f1"], 4)[0] == draw_one(d["segment_f1_50"], 4)[0] == draw_one(d["hit_3"], 4)[0] == 0


@pytest.mark.parametrize("low,high,over,want", [(.201, .4, True, "compare"), (.2, .4, True, "undecided"), (.25, .4, False, "not above chance"),
    (.05, .1499, True, "pretrain"), (.05, .15, True, "undecided"), (0, .1, True, "investigate"), (0, .5, True, "investigate"),
    (1e-6, .1, True, "pretrain"), (float("nan"), float("nan"), True, "undecided")])
def test_the_decision_of_a_run_at_its_edges(low, high, over, want): assert decide_run(Interval(.2, low, high), over)[0] == want


def test_calibration_recovers_scale_and_offset_and_survives_hopeless_cases():
    rng = np.random.default_rng(0)
    z = rng.normal(-2, 1.5, 100_000)
    y = rng.random(z.size) < 1/(1+np.exp(-z))
    assert fit_platt(y, 3*z+2) == pytest.approx((1/3, -2/3), abs=.03)
    assert fit_platt(y, np.zeros_like(z)) == pytest.approx((1, logits(y.mean())), abs=.01), "a constant gets the base rate"
    scale, offset = fit_platt(y, -z)
    assert scale > 0, "a worthless ranking is flattened, not turned round"
    scale, offset = fit_platt([0, 0, 1, 1], [-1, -1, 1, 1])
    assert np.isfinite([scale, offset]).all() and scale <= 20


def test_the_displacement_rule_finds_a_planted_move(windows):
    ohlc = windows.ohlc[:5].copy()
    ohlc[:, :, :] = 100+.1*np.sin(np.arange(105))[None, :, None]+np.array([0, .2, -.2, 0])
    ohlc[:, 50:] -= 6
    ohlc[:, 50:53] += np.array([4.5, 3, 1.5])[None, :, None]
    assert (rule_segments(displacement(ohlc), 12)[0] == [50, 54]).all()
    scores = displacement(windows.ohlc)
    segment, bar = rule_segments(scores, 8)
    best = np.array([scores[2:9, i].max() for i in range(len(windows))])
    assert bar.max(1) == pytest.approx(best) and all(bar[i, a:b].min() == pytest.approx(best[i]) for i, (a, b) in enumerate(segment))


# Comparing

def test_two_variants_are_compared_by_paired_intervals(tmp_path, windows):
    a, b = quick(tmp_path, windows, trainer=stub, baselines=FEW), quick(tmp_path, windows, trainer=stub, config=tiny("stones_only"))
    table = compare(a.folder, b.folder)
    assert list(table.index.unique("reading")) == ["the model", "mean of seeds", "mean of seeds, one segment"]
    for which in ev.READINGS:
        for m in ("f1", "average_precision", "segment_f1_25", "hit_3", "log_loss", "type_f1"):
            row = table.loc[(ev.SYSTEM_WORDS[which], METRICS[m])]
            assert (row.a, row.b) == pytest.approx((a.score(m, which).value, b.score(m, which).value), abs=1e-6)
    assert set(a.data["scores"]) == {*ev.READINGS, *FEW} and set(a.data["differences"]) == set(a.data["scores"])-{"model"}
    assert table.difference.to_numpy() == pytest.approx((table.a-table.b).to_numpy(), abs=1e-9, nan_ok=True)
    other = quick(tmp_path, windows, trainer=stub, config=tiny("stones_only"), seeds=1, name="one")
    with pytest.raises(MoolaError, match="did not score the same"): compare(a, other)
    with pytest.raises(MoolaError, match="no finished evaluation"): Evaluation(tmp_path/"nothing")


# Readings

def test_one_segment_is_chosen_on_the_inner_block_and_read_by_training_lengths(windows):
    plan = plan_folds(windows, tiny(), 3)
    z = np.random.default_rng(0).normal(0, 1.5, windows.mask.shape) + 3*windows.mask - 3
    def results(z): return [[dict(valid=z[s.valid], test=z[s.test]), dict(valid=z[s.valid], test=z[s.test])] for s in plan.folds]
    r = read_segments(results(z), plan.folds, plan.rows, windows.mask)
    assert r.prob.shape == (1, len(plan.rows), 105) and all(len(s) == 1 for s in r.spans[0]) and (r.raw == r.prob).all()
    bars = read_out([[a[0]] for a in results(z)], plan.folds, plan.rows, windows.mask)
    def f1(o): return draw_one(metric_draws(windows.mask[plan.rows], windows.window_type[plan.rows], o)["f1"], len(plan.rows))[0]
    assert f1(r) > f1(bars) + .1
    other = windows.mask.copy()
    other[plan.folds[0].test] = ~other[plan.folds[0].test]
    again = read_segments(results(z), plan.folds[:1], np.sort(plan.folds[0].test), other)
    assert again.chosen[0] == pytest.approx(r.chosen[0], nan_ok=True), "labels of scored windows are not looked at"
    first = np.searchsorted(plan.rows, np.sort(plan.folds[0].test))
    assert again.prob == pytest.approx(r.prob[:, first])


def test_a_segment_needs_a_higher_temperature_where_bars_are_too_sure(windows):
    from moola.metrics.decode import length_prior
    z = np.random.default_rng(0).normal(0, 1.5, windows.mask.shape) + 2*windows.mask - 3
    prior = length_prior(windows.spans)
    def chosen(scale): return choose_segment(windows.mask, calibrate(scale*z), prior, windows.mask.mean())[0]
    assert chosen(3) > chosen(1)
    assert evidence(np.array([0, .07, .5, 1]), .07) == pytest.approx([0, .5, .93, 1])
    assert evidence(np.array([0, .07, .5, 1]), .07, 1.) == pytest.approx([0, .07, .5, 1])


def test_scored_elsewhere_in_three_readings(tmp_path, windows):
    there, how = simulate_windows(20, 9), dict(trainer=stub, baselines={}, progress=False)
    a, b = (evaluate_on(tiny(lr=lr), windows, there, tmp_path, 2, **how) for lr in (1e-3, .5))
    assert list(a.scores) == list(ev.READINGS)
    assert paired(a, a, reading="one_segment").value == 0 != paired(a, b, "log_loss_raw").value


# Bad input

def test_clear_errors(tmp_path, windows):
    config = tiny()
    with pytest.raises(MoolaError, match="3 windows cannot fill 5 folds"): plan_folds(windows[:3], config, 5)
    with pytest.raises(MoolaError, match="at least 2 folds"): plan_folds(windows, config, 1)
    with pytest.raises(MoolaError, match="seeds must be at least 1"): quick(tmp_path, windows, seeds=0)
    with pytest.raises(MoolaError, match=r"lockbox must lie in \[0, 1\)"): plan_folds(windows, config, 3, 1.)
    untimed = Windows(windows.ids, windows.ohlc, windows.rows.drop(columns="timestamp"), windows.window)
    with pytest.raises(MoolaError, match="of 3: no bar of its .* windows is labelled"): plan_folds(blind(untimed, np.arange(4, 48)), config, 3)
    every = Windows(windows.ids, windows.ohlc, windows.rows.assign(expansion_start=0, expansion_end=104), windows.window)
    with pytest.raises(MoolaError, match="every bar of its .* is labelled"): plan_folds(every, config, 3)


def test_nan_logits_name_the_fold_and_the_seed(tmp_path, windows):
    def broken(config, w, split):
        a, b = np.zeros((len(split.valid), 105)), np.zeros((len(split.test), 105))
        if config.seed == 43: b[0, 0] = np.nan
        return dict(valid=a, test=b)
    with pytest.raises(MoolaError, match="fold 1, seed 43: NaN or infinite test logits"): quick(tmp_path, windows, trainer=one_by_one(broken))
    nan = np.full((1, 2, 10), np.nan)
    with pytest.raises(MoolaError, match="prob is NaN"): metric_draws(np.eye(2, 10) > 0, np.zeros(2), system(nan, [[np.zeros((0, 2), int)]*2]))
    def short(config, w, split): return dict(valid=np.zeros((1, 105)), test=np.zeros((1, 105)))
    with pytest.raises(MoolaError, match="valid logits have shape"): quick(tmp_path/"b", windows, trainer=one_by_one(short))


def test_the_same_bars_with_different_labels_stay_on_one_side(tmp_path, windows):
    twin = windows[np.r_[np.arange(48), np.arange(0, 48, 4)]]
    twin.ids = np.array([f"{i}{k}" for k, i in enumerate(twin.ids)])
    moved = twin.rows.expansion_start.to_numpy().copy()
    moved[48:] = 90
    ends = np.where(np.arange(60) < 48, twin.rows.expansion_end, 95)
    twin.rows = twin.rows.assign(expansion_start=moved, expansion_end=ends, window_id=twin.ids)
    plan = plan_folds(twin, tiny(), 3)
    for s in (*plan.folds, plan.lockbox):
        prices = [{o.tobytes() for o in twin.ohlc[r]} for r in (s.train, s.valid, s.test)]
        assert not (prices[0] & prices[1] or prices[0] & prices[2] or prices[1] & prices[2])
    assert describe(twin, tiny(), plan)["repeated_windows"] == 12
    said = quick(tmp_path, twin, trainer=stub, seeds=1).words
    assert any("12 windows have the same bars as another one" in w for w in said)


def test_windows_of_one_type_are_scored_without_a_type_score(tmp_path, windows):
    one = Windows(windows.ids, windows.ohlc, windows.rows.assign(label="retracement"), windows.window)
    e = quick(tmp_path, one, trainer=stub, seeds=1)
    assert "type_f1" not in e.data["scores"]["model"] and e.score("f1").value >= 0
    assert any("of one type" in w for w in e.words)


# The command

def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"settings.ini").touch()
    monkeypatch.setattr(ev, "BASELINES", FEW)
    small = "--epochs 1 --hidden 8 --n-windows 48 --folds 2 --seeds 1 --workers 1 --device cpu --progress False"
    moola_evaluate(f"--variant stones_only {small}".split())
    moola_evaluate(f"--variant position_encoding --pos-weight 4 --name mine --compare artifacts/evaluations/stones_only {small}".split())
    out = capsys.readouterr().out
    assert "mine minus stones_only, paired" in out and "best chance level" in out
    assert json.loads((tmp_path/"artifacts/evaluations/mine/evaluation.json").read_text())["config"]["pos_weight"] == 4
    assert "one segment" in (tmp_path/"artifacts/evaluations/mine/compared_with_stones_only.csv").read_text()


@pytest.mark.parametrize("words,said", [("--variant best", "unknown variant 'best'"), ("--data none.parquet", "none.parquet does not exist"),
    ("--n-windows 8 --folds 9", "8 windows cannot fill 9 folds"), ("--compare nowhere", "no finished evaluation"), ("--folds 1", "at least 2"),
    ("--name ..", "is not a dot"), ("--name a/b", "holds no slash"), ("--data bars.csv", "moola_predict bars.csv")])
def test_the_command_refuses_in_one_sentence(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"settings.ini").touch()
    (tmp_path/"bars.csv").touch()
    with pytest.raises(SystemExit) as e: moola_evaluate(words.split())
    assert sorted(os.listdir()) == ["bars.csv", "settings.ini"], "nothing is left behind"
    assert e.value.code.startswith("moola_evaluate: ") and said in e.value.code and "\n" not in e.value.code


def test_compare_is_checked_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"settings.ini").touch()
    quick(tmp_path/"artifacts/evaluations", trainer=stub, folds=2, seeds=1)
    monkeypatch.setattr(ev, "train_networks", lambda *a, **k: pytest.fail("trained"))
    small = "--hidden 8 --n-windows 48 --folds 2 --seeds 1 --device cpu --compare artifacts/evaluations/position_encoding --name new"
    for words, said in (("--data-seed 6", "evaluated on other windows"), ("--lockbox .4", "scored other windows of the same file"), ("--seed 7", "has seeds")):
        with pytest.raises(SystemExit) as e: moola_evaluate(f"--data-seed 5 {small} {words}".split())
        assert said in e.value.code
    for text in ("{", "{}", "[1]"):
        (tmp_path/"artifacts/evaluations/position_encoding/evaluation.json").write_text(text)
        with pytest.raises(SystemExit) as e: moola_evaluate(small.split())
        assert "evaluation.json is damaged" in e.value.code
    assert not (tmp_path/"artifacts/evaluations/new").exists()


def test_help_is_quick():
    code = "from moola.evaluation.command import moola_evaluate; moola_evaluate(['--help'])"
    out = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True)
    assert "--open-lockbox" in out.stdout and "--pos-weight" in out.stdout
    assert not any(f"| {' '*k}{m}\n" in out.stderr for m in ("torch", "pandas", "matplotlib") for k in range(12)), "nothing heavy"


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    (tmp_path/"settings.ini").touch()
    words = "--variant stones_only --epochs 25 --hidden 8 --n-windows 48 --folds 2 --seeds 3 --workers 2 --device cpu".split()
    p = subprocess.Popen([sys.executable, "-c", "from moola.evaluation.command import moola_evaluate; moola_evaluate()", *words], cwd=tmp_path,
                         start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST")})
    folds = tmp_path/"artifacts/evaluations/stones_only/folds"
    for _ in range(3000):
        if len(list(folds.glob("*.npz"))) >= 1: break
        assert p.poll() is None, p.communicate()
        time.sleep(.1)
    os.killpg(p.pid, signal.SIGINT)
    out, err = p.communicate(timeout=200)
    assert p.returncode == 130 and "the same command goes on from there" in err and "Traceback" not in err
    assert 1 <= len(list(folds.glob("*.npz"))) < 6 and not (folds.parent/"evaluation.json").exists()
