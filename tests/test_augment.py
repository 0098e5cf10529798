"""Pasted copies keep their labels, join their prices, and know nothing of other parts."""
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola.core.config import make_config
from moola.core.names import W
from moola.data.plant import simulate_windows
from moola.data.splits import load_windows, split_windows
from moola.data.windows import read_windows
from moola.training.augment import BEFORE, paste_spans, recut_windows, training_pool
from moola.training.fit import fit


def check_copies(windows, seed, copies=2):
    out, n = paste_spans(windows, copies, seed), len(windows)
    assert len(out) == copies*n and len(set(out.ids)) == copies*n
    assert (out.ohlc[..., 1] >= out.ohlc[..., [0, 2, 3]].max(-1)).all() and (out.ohlc[..., 2] <= out.ohlc[..., [0, 1, 3]].min(-1)).all()
    np.testing.assert_array_equal(out.window_type, np.tile(windows.window_type, copies))
    moved = 0
    for i, (ohlc, spans) in enumerate(zip(out.ohlc, out.spans)):
        old, was = windows.ohlc[i % n], windows.spans[i % n]
        assert len(spans) == len(was)
        if not len(spans): np.testing.assert_array_equal(ohlc, old); continue
        by = spans[0, 0]-was[0, 0]
        np.testing.assert_array_equal(spans-by, was)
        a = max(0, was[0, 0]-BEFORE[0])
        np.testing.assert_array_equal(ohlc[a+by:spans[-1, 1]], old[a:was[-1, 1]], "the label and what leads to it stay as they were")
        moved += by != 0
    return moved


@given(seed=st.integers(0, 2**32-1), n=st.integers(8, 30))
@settings(max_examples=15, deadline=None)
def test_copies(seed, n): assert check_copies(simulate_windows(n, seed=seed % 1000), seed) > 0


def test_copies_of_real_windows(shared):
    windows = read_windows(shared/"data"/"windows_174.parquet")
    assert check_copies(windows, 0) > 250


def test_a_window_alone():
    "There may be no stretch that is long enough: then the copy is the window."
    one = simulate_windows(8, seed=1)[[2]]
    assert len(paste_spans(one, 5)) == 5
    assert len(paste_spans(one, 0)) == 0


def test_pool_knows_only_its_training_windows():
    windows = simulate_windows(40, seed=3)
    split, config = split_windows(windows), make_config("recommended", pastes=3)
    pool = training_pool(windows, [split], config)
    other = replace(windows, ohlc=windows.ohlc.copy())
    held_out = np.setdiff1d(np.arange(40), split.train)
    other.ohlc[held_out] *= 2
    np.testing.assert_array_equal(training_pool(other, [split], config).windows.ohlc[40:], pool.windows.ohlc[40:])
    assert pool.tables[0].shape == (4, len(split.train))


@pytest.mark.parametrize("more", [dict(pastes=2), dict(pastes=2, mirror=True), dict(soft_bars=1)])
def test_training_data_vary_and_scores_do_not(tmp_path, more):
    "The windows that are scored are the same with and without."
    config = make_config("position_encoding", n_windows=30, epochs=2, device="cpu", progress=False)
    plain = fit(replace(config, output=str(tmp_path/"plain")))
    run = fit(replace(config, output=str(tmp_path/"more"), **more))
    (ids, prob, target), (ids0, prob0, target0) = run.predictions(), plain.predictions()
    np.testing.assert_array_equal(ids, ids0)
    np.testing.assert_array_equal(target, target0)
    assert np.abs(prob-prob0).max() > 0
    assert run.metadata["data"] == plain.metadata["data"]
    assert len(load_windows(config)) == 30


def test_recuts_are_windows_that_end_elsewhere():
    "The bars are the window's own up to the new end; what stands in front is labelled nowhere, and prices join."
    windows = simulate_windows(30, seed=4)
    r = recut_windows(windows, 6, seed=1)
    assert len(r) == 180
    rows = np.bincount(r.window, minlength=180)
    assert (rows == 0).any()
    moved = 0
    for i in range(180):
        a, x = windows.ohlc[i%30], r.ohlc[i]
        k = next(k for k in range(W) if np.array_equal(x[k:], a[:W-k]))
        moved += k > 0
        if k: assert abs(x[k-1, 3] - x[k, 0]) < 1e-6
        spans = [[s+k, min(e+k, W)] for s, e in windows.spans[i%30] if s+k < W]
        assert r.spans[i].tolist() == spans
        assert (x[:, 1] >= x[:, [0, 3]].max(1) - 1e-9).all()
    assert moved > 120
    np.testing.assert_array_equal(recut_windows(windows, 6, seed=1).ohlc, r.ohlc)


def test_training_with_recuts(tmp_path):
    "Windows without a label have no pointer and no type, and do no harm."
    run = fit(make_config("recommended", n_windows=30, epochs=2, recuts=4, pastes=1, device="cpu", progress=False, output=str(tmp_path/"run")))
    assert len(run.epochs) == 2
    assert np.isfinite(run.epochs[["train_loss", "val_loss"]]).all(axis=None)
