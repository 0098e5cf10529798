"Copies of windows under shift, scale, mirror, noise and later starts."
import numpy as np
import pandas as pd
import pytest

from moola.core.errors import MoolaError
from moola.core.names import OHLC, W
from moola.data.copies import copies_across, copy_groups, copy_links
from moola.data.simulate import simulate_bars


@pytest.fixture(scope="module")
def bars(): return simulate_bars(W*120, seed=11)[OHLC].to_numpy(float)


def cut(bars, late=0, n=100): return np.stack([bars[i*W+late:(i+1)*W+late] for i in range(n)])


def mirror(ohlc, middle=100.): return 2*middle - ohlc[..., [0, 2, 1, 3]]


TRICKS = {
    "shift": lambda x: x+.25,
    "scale": lambda x: x*1.0000001,
    "noise": lambda x: x+np.random.default_rng(0).normal(0, 1e-9, x.shape),
    "mirror": mirror,
    "mirror, scale and shift": lambda x: mirror(x)*3-7,
}


@pytest.mark.parametrize("late", [0, 30, 52])
@pytest.mark.parametrize("trick", TRICKS)
def test_every_copy_is_found(bars, trick, late):
    own = cut(bars)
    links = copy_links(np.concatenate([own, TRICKS[trick](cut(bars, late))]))
    found = {(a, b): (lag, m) for a, b, lag, m in links.itertuples(index=False)}
    assert all(found.get((i, 100+i)) == (late, "mirror" in trick) for i in range(100))
    assert set(found) == {(i, 100+i) for i in range(100)}


def test_ordinary_windows_stay_apart(bars):
    assert len(np.unique(copy_groups(cut(bars)))) == 100


def test_a_chain_is_one_group(bars):
    dense = np.stack([bars[i:i+W] for i in range(0, 2000, 20)])
    assert len(np.unique(copy_groups(dense))) == 1
    assert len(np.unique(copy_groups(dense, overlap=90))) == 100


def test_many_copies_of_one_window_are_one_group(bars):
    pile = bars[:W] + np.random.default_rng(0).normal(0, 1e-9, (3000, W, 4))
    assert len(np.unique(copy_groups(pile))) == 1 and len(copy_links(pile)) < 10_000


def test_windows_that_never_move_are_nobodys_copy():
    assert len(np.unique(copy_groups(np.full((50, W, 4), 7.)))) == 50
    assert copy_links(np.zeros((0, W, 4))).empty


def test_a_spike_does_not_hide_the_rest(bars):
    spiked = cut(bars, n=50)
    spiked[:, 50, 1] += 1e5
    assert len(np.unique(copy_groups(spiked))) == 50


def test_copies_across_parts(bars):
    both = np.concatenate([cut(bars, n=20), cut(bars, n=20)+.25])
    assert len(copies_across(both, np.repeat(["train", "test"], 20))) == 20
    assert copies_across(both, np.tile(np.arange(20), 2)).empty
    with pytest.raises(MoolaError, match="part names 3 windows"): copies_across(both, [0, 1, 2])
    with pytest.raises(MoolaError, match="overlap must lie in 51 to 105"): copy_groups(both, 106)


def test_real_windows_stay_apart_and_shifted_copies_are_found():
    from pathlib import Path
    folder = Path(__file__).parents[2]/"shared/data"
    if not folder.is_dir(): pytest.skip("no real bars here")
    parts = [pd.read_parquet(p)[OHLC].dropna().to_numpy(float) for p in sorted(folder.glob("*m_*.parquet"))]
    real = np.concatenate([x[:len(x)//W*W].reshape(-1, W, 4) for x in parts])
    assert copy_links(real).empty
    links = copy_links(np.concatenate([real, real+.25]))
    assert set(zip(links.a, links.b)) == {(i, i+len(real)) for i in range(len(real))}
