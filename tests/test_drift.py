"The comparison of new bars with those of the training: what it reports, and what it keeps quiet about."
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola.core.config import make_config
from moola.core.names import FEATURES, OHLC, W
from moola.data.bars import cut_windows
from moola.data.drift import bin_shares, describe_feature, describe_features, feature_drift, noise_limit, stability_index
from moola.data.features import build_features, named_features
from moola.data.read import read_bars
from moola.data.simulate import simulate_bars
from moola.data.windows import read_windows
from moola.views.probabilities import plot_drift


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 30), kinds=st.lists(st.sampled_from(["normal", "constant", "clipped", "few", "huge"]), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_descriptions(n, kinds, seed):
    "Shares add up, edges rise, and the windows that were described have not drifted from themselves, whatever the values."
    rng = np.random.default_rng(seed)
    make = dict(normal=lambda: rng.standard_normal((n, W)), constant=lambda: np.full((n, W), 3.), clipped=lambda: rng.standard_normal((n, W)).clip(-.5, .5),
                few=lambda: rng.integers(0, 3, (n, W)), huge=lambda: rng.standard_normal((n, W))*1e30)
    x = np.stack([make[k]().astype(np.float32) for k in kinds], -1)
    names = tuple(f"{k} {i}" for i, k in enumerate(kinds))
    reference = describe_features(x, names)
    for f in reference["features"].values():
        assert sum(f["shares"]) == pytest.approx(1)
        assert (np.diff(f["edges"]) > 0).all()
        assert len(f["shares"]) == len(f["edges"])+1
        assert all(s > 0 for s in f["shares"])
        assert f["spread"] >= 0 < f["freedom"]
    same = feature_drift(x, reference, fewest=1)
    assert same.table.psi.abs().max() < 1e-9
    assert same.table.outside.max() == 0
    assert same.words == ""
    assert (feature_drift(x+1e31, reference, fewest=1).table.outside == 1).all()


def test_limit_of_independent_bars():
    "For bars drawn one by one the limit is the chi-square quantile, and one in a hundred samples exceeds it."
    rng = np.random.default_rng(0)
    f = describe_feature(rng.standard_normal((3000, W)))
    assert f["spread"] == pytest.approx(9/W, rel=.03)
    assert f["freedom"] == pytest.approx(9, rel=.03)
    expected = 21.666*(1/(3000*W) + 1/(20*W))  # the quantile of chi-square with 9 degrees of freedom at .99
    assert noise_limit(f, 3000, 20) == pytest.approx(expected, rel=.04)
    over = [stability_index(f["shares"], bin_shares(rng.standard_normal((20, W)), np.array(f["edges"])).mean(0)) > expected for _ in range(2000)]
    assert np.mean(over) == pytest.approx(.01, abs=.007)


def test_clusters_widen_the_limit():
    "Windows that each have a level of their own differ more; the limit follows, so that nothing is reported."
    rng = np.random.default_rng(1)
    def windows(n): return (rng.standard_normal((n, 1)) + .5*rng.standard_normal((n, W)))[..., None]
    reference = describe_features(windows(500), ("level",))
    f = reference["features"]["level"]
    assert f["spread"] > 15*9/W
    tables = [feature_drift(windows(30), reference).table.iloc[0] for _ in range(300)]
    assert np.mean([t.psi >= .1 for t in tables]) > .1, "the index alone would report many of them"
    assert np.mean([t.drift != "none" for t in tables]) < .05
    assert "strongly in level" in feature_drift(windows(30)+2, reference).words


def test_words_name_the_features():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((50, W, 3))
    reference = describe_features(x, ("a", "b", "c"))
    drift = feature_drift(rng.standard_normal((50, W, 3)) + [0, .4, 2], reference)
    assert drift.words == "these bars differ from those that the model learned from, strongly in c and somewhat in b: its answers may mean less"
    assert drift.table.drift.tolist() == ["none", "some", "strong"]
    assert repr(feature_drift(x, reference)) == "no drift in 3 features over 50 windows"
    assert repr(feature_drift(x[:9]+5, reference)) == "too few bars to tell: 9 windows, where 10 are needed"
    assert len(feature_drift(x[:0], reference).table) == 3


def test_plot():
    import matplotlib.pyplot as plt
    x = build_features(cut_windows(simulate_bars(4000, 1), W)[0])
    fig, axes = plot_drift(feature_drift(x[20:]*1.2, describe_features(x[:20], FEATURES)))
    assert [t.get_text() for t in axes[0].get_yticklabels()] == list(FEATURES)
    plt.close(fig)


def test_import_is_light():
    code = "import sys, moola.data.drift; print(sorted({'matplotlib', 'torch', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


REAL = {"nq_1m_202311": "", "es_1m_202303": "", "es_1m_202504": "", "nq_1m_202605": "somewhat in", "estx50fut_1m_2006": "strongly in"}


@pytest.mark.parametrize("name", REAL)
def test_real_bars(shared, name):
    "Labelled windows of 2023 to 2025: no alarm on the months that they are from, some on a market that has trebled, a loud one on a coarse tick."
    config = make_config("recommended")
    windows = read_windows(shared/"data/windows_174.parquet")
    reference = describe_features(named_features(windows.ohlc, config.features), config.features)
    bars = read_bars(shared/"data"/f"{name}.parquet")
    words = feature_drift(named_features(cut_windows(bars, W)[0], config.features), reference).words
    assert REAL[name] in words if REAL[name] else words == ""
    coarse = bars.assign(**{c: (bars[c]/5).round()*5 for c in OHLC})
    assert "strongly in" in feature_drift(named_features(cut_windows(coarse, W)[0], config.features), reference).words
