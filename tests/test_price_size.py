"Prices of any size: the rule, the moves and the baselines answer the same for whole ticks, for yen futures and for coins far below a cent; features have their own test."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola.core.names import OHLC, W
from moola.data.plant import _moves
from moola.data.simulate import simulate_bars
from moola.detection.spans import atr_before, move_in_atr
from moola.evaluation.baselines import displacement
from moola.labels.rule import hindsight_spans

quick = settings(max_examples=20, deadline=None)


@pytest.fixture(scope="module")
def windows(): return simulate_bars(40 * W, seed=5)[OHLC].to_numpy().reshape(40, W, 4)


def answers(x):
    flat, rows = x.reshape(-1, 4), np.arange(30, len(x) * W, 97)
    move = np.array([flat[r, 3] - flat[r - 5, 3] for r in rows])
    size, _ = _moves(x, np.full(len(x), 60), np.full(len(x), 66))
    return displacement(x), move_in_atr(move, np.array([atr_before(flat, r) for r in rows])), size


def spans(x): return [np.asarray(a).tolist() for a in hindsight_spans(x)]


@quick
@given(st.integers(-40, 40))
def test_a_power_of_two_changes_no_bit(windows, k):
    for got, want in zip(answers(windows * 2.0**k), answers(windows)): np.testing.assert_array_equal(got, want)
    assert spans(windows * 2.0**k) == spans(windows)


@quick
@given(st.floats(-12, 12))
def test_any_factor_changes_rounding_alone(windows, power):
    for got, want in zip(answers(windows * 10**power), answers(windows)): np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)
