"Models that learn from a handful of windows in seconds, and comparisons over seeds, for the benchmarks on labels."
import numpy as np
import torch
from scipy.stats import t as student
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from moola.core.config import make_config
from moola.core.names import W
from moola.data.bars import cut_windows
from moola.data.splits import Split
from moola.data.windows import Windows
from moola.detection.ensemble import Ensemble, predict_windows
from moola.labels.health import _bar_table
from moola.labels.recut import cut_labelled
from moola.training.many import fit_many


class Tables(dict):
    "What trees see of windows; those of the same windows are made once."
    def __call__(self, ohlc):
        key = (len(ohlc), float(ohlc[0].sum()), float(ohlc[-1].sum()), float(ohlc.sum()))
        if key not in self: self[key] = _bar_table(Windows(None, ohlc, None, None))
        return self[key]


tables = Tables()


def trees(windows, seeds):
    "Gradient-boosted trees, one for each seed; the second and later ones see the windows drawn with replacement."
    y, x, models = windows.mask, tables(windows.ohlc), []
    for k, seed in enumerate(seeds):
        rows = np.arange(len(y)) if k == 0 else np.random.default_rng(seed).integers(0, len(y), len(y))
        m = HistGradientBoostingClassifier(max_iter=80, learning_rate=.08, max_leaf_nodes=12, min_samples_leaf=30, early_stopping=False, random_state=seed)
        with threadpool_limits(1): models.append(m.fit(x[rows].reshape(-1, x.shape[-1]), y[rows].ravel()))

    def read(ohlc):
        t = tables(ohlc)
        with threadpool_limits(1): return np.stack([m.predict_proba(t.reshape(-1, t.shape[-1]))[:, 1].reshape(-1, W) for m in models])
    return read


def networks(windows, seeds, steps=400):
    "Networks of 48 hidden units, one for each seed."
    n, none = len(windows), np.arange(0)
    configs = [make_config(hidden=48, tasks="span", pastes=0, seed=s, epochs=max(1, round(steps/np.ceil(n/32)))) for s in seeds]
    fitted = fit_many(configs, windows, [Split(np.arange(n), np.arange(2), none, none, True)]*len(configs), progress=False)
    detectors = [Ensemble([f.model("final")], f.config.features, f.config.swing_rule, .5, 2, torch.device("cpu"), ["benchmark"]) for f in fitted]
    return lambda ohlc: np.stack([predict_windows(ohlc, d) for d in detectors])


LEARNERS = dict(trees=trees, networks=networks)


def side_by_side(bars, spans):
    "All windows of bars, with the spans that reach into them."
    return cut_labelled(bars, spans, cut_windows(bars, W)[1])


def paired(a, b):
    "Mean of a, mean difference of paired scores of several seeds, and its 95 % t interval."
    a, d = np.asarray(a, float), np.asarray(a, float)-np.asarray(b, float)
    reach = student.ppf(.975, len(d)-1)*d.std(ddof=1)/len(d)**.5 if len(d) > 1 and d.any() else np.nan
    return dict(value=a.mean(), difference=d.mean(), low=d.mean()-reach, high=d.mean()+reach)


def rounded(rows):
    "Rows with numbers as JSON keeps them."
    def one(v): return (round(float(v), 4) if np.isfinite(v) else None) if isinstance(v, float) else v
    return [{k: one(v) for k, v in r.items()} for r in rows]
