"Planted expansions: version 1 bit for bit, what version 2 promises of every label, bars in a row, the samples."
import hashlib

import numpy as np
import pandas as pd
import pytest

from moola.core.names import OHLC, W
from moola.data.bars import check_bars
from moola.data.plant import label_moves, simulate_labelled_bars, simulate_windows
from moola.data.windows import read_windows

# digests of simulate_windows(n, seed, version), and of simulate_labelled_bars(24, 3, version=1)
V1 = {(174, 7): '8863c3dae1c5b9e02fcd1225af4208bb4f9e3dc57d59bb437dec753eee15c42f',
      (20, 3): 'f4d305dfb3c3b19edf56d1d6f253878d536246e93876292f6b44aec95463c9f9'}
V1_BARS = 'c6ee6ea5c01f259158a8192fb9e439d2df0293be0462184b3afbf4d9f8176993'
V2 = {(174, 7): '2cff34364f4e44d6fa5d2a17ded40a3f6e057da8471a23bc2b8b0986f70ba5a5',
      (20, 3): '2539525dc496acd4e9ad86ccc7fc1210803f2da46a8bd61f4d56f67b957cace7'}


def digest(ohlc, rows):
    "sha256 of prices and of the rows as CSV."
    return hashlib.sha256(np.ascontiguousarray(ohlc, '<f8').tobytes() + rows.to_csv(index=False).encode()).hexdigest()


@pytest.mark.parametrize('n, seed', V1)
def test_versions_are_pinned(n, seed):
    for version, known in ((1, V1), (2, V2)):
        w = simulate_windows(n, seed, version)
        assert digest(w.ohlc, w.rows) == known[n, seed]
    assert simulate_windows(n, seed).fingerprint == w.fingerprint


def test_labelled_bars_of_version_1_are_pinned():
    labelled = simulate_labelled_bars(24, 3, 1)
    assert digest(labelled.bars[OHLC], pd.DataFrame(labelled.spans)) == V1_BARS


@pytest.mark.parametrize('n, seed', [(174, 7), (174, 0), (174, 1), (600, 5)])
def test_a_trader_would_point_at_the_labels(n, seed):
    w = simulate_windows(n, seed)
    m, start, stop = label_moves(w), w.rows.expansion_start, w.rows.expansion_end + 1
    assert (m['rank'] <= .1).mean() >= .88 and (m['rank'] <= .25).all()
    assert m.move.min() >= 1.5 and m.move.median() > 4
    assert m.bars.median() == 5 and 6.7 < m.bars.mean() < 7.2 and (m.bars <= 2).mean() < .15 and m.bars.min() >= 2
    assert .06 < w.mask.mean() < .07
    assert start.between(23, 85).all() and (stop <= W).all() and (w.window_type == 0).sum() == round(.53*n)
    assert w.simulated and (np.diff(w.timestamp) >= np.timedelta64(2*W, 'm')).all()


def test_moves_are_those_of_the_closes():
    w = simulate_windows(8, 2)
    m, (a, b), c = label_moves(w), w.spans[3][0], w.ohlc[3, :, 3]
    moves = [abs(c[t+b-a] - c[t]) for t in range(W-(b-a))]
    assert m['rank'][3] == np.mean([x >= abs(c[b-1]-c[a-1]) for x in moves])
    ranges = [max(h, c[t-1]) - min(low, c[t-1]) for t, (_, h, low, _) in enumerate(w.ohlc[3]) if a-10 <= t < a]
    np.testing.assert_allclose(m.move[3], abs(c[b-1]-c[a-1])/np.mean(ranges))


def test_look_alikes_remain():
    "In many windows bars outside the label move as far as it does."
    w = simulate_windows(174, 7)
    found = 0
    for c, ((a, b),) in zip(w.ohlc[..., 3], w.spans):
        k = b - a
        moves = np.abs(c[k:] - c[:-k])
        t = np.arange(len(moves)) + 1
        found += (moves[(t >= b) | (t + k <= a)] >= abs(c[b-1] - c[a-1])).any()
    assert found > .4*len(w)


@pytest.mark.parametrize('version', [1, 2])
def test_bars_in_a_row(version):
    labelled = simulate_labelled_bars(24, 3, version)
    again = simulate_labelled_bars(24, 3, version)
    pd.testing.assert_frame_equal(labelled.bars, again.bars)
    pd.testing.assert_frame_equal(check_bars(labelled.bars), labelled.bars)
    assert len(labelled.spans) == 24 and len(labelled.bars) == 24*labelled.block
    assert (np.diff(labelled.spans.ravel()) > 0).all()


def test_what_the_real_labels_look_like(shared):
    "The numbers that the page shows beside the simulated ones."
    w = read_windows(shared / 'data' / 'windows_174.parquet')
    m = label_moves(w)
    assert m.bars.median() == 5 and round(m.bars.mean(), 1) == 5.9 and round(w.mask.mean(), 3) == .056
    assert round(m.move.median(), 1) == 3.2 and round((m['rank'] <= .1).mean(), 2) == .39
