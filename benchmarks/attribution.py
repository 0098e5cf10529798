"""What a trained network looks at: the features whose loss hurts, and the bars around the one that is asked about.

    python benchmarks/attribution.py                          # four networks of `recommended`, about three minutes on two cores
    python benchmarks/attribution.py --save FILE              # the figures as JSON too

A feature's weight is the average precision that is lost when its values are shuffled among all bars of all windows (permutation importance: Breiman 2001,
Random Forests, section 10). A bar's weight is the mean size of the gradient of the answer about another bar (saliency: Simonyan et al. 2013, section 3).
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from simulated_v1 import TEST_SEED, TRAIN_SEED
from table import machine

from moola.core.config import make_config
from moola.core.names import W
from moola.data.features import named_features
from moola.data.plant import simulate_windows
from moola.data.splits import split_windows
from moola.metrics.scores import average_precision
from moola.training.many import fit_many

REACH = 30  # bars on each side of the one that is asked about


@torch.no_grad()
def span_probability(models, x): return np.mean([m(torch.as_tensor(x))["span"].sigmoid().numpy() for m in models], 0)


def importance(models, x, mask, names, repeats=3):
    "Average precision lost by shuffling each feature, (features, repeats); the networks are averaged."
    rng, whole = np.random.default_rng(0), average_precision(mask, span_probability(models, x))
    lost = np.zeros((len(names), repeats))
    for i in range(len(names)):
        for r in range(repeats):
            shuffled = x.copy()
            shuffled[..., i] = rng.permutation(x[..., i].ravel()).reshape(x.shape[:2])
            lost[i, r] = whole - average_precision(mask, span_probability(models, shuffled))
    return whole, lost


def saliency(models, x, spans):
    "Mean size of the gradient of a labelled span's middle logit at each bar around it, a unit each being a feature's standard deviation."
    scale = torch.as_tensor(x.std((0, 1)))
    total, seen = np.zeros(2*REACH+1), np.zeros(2*REACH+1)
    middle = np.array([(s[0, 0]+s[0, 1]) // 2 if len(s) else -1 for s in spans])
    rows = np.flatnonzero(middle >= 0)
    for m in models:
        o = torch.as_tensor(x[rows]).requires_grad_()
        m(o)["span"][torch.arange(len(rows)), torch.as_tensor(middle[rows])].sum().backward()
        size = (o.grad * scale).abs().sum(-1).numpy()
        for g, t in zip(size, middle[rows]):
            k = np.arange(max(0, t-REACH), min(W, t+REACH+1))
            total[k-t+REACH] += g[k]
            seen[k-t+REACH] += 1
    return total/np.maximum(seen, 1)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--variant", default="recommended")
    for k, v in dict(labels=174, seeds=4, windows=500).items(): p.add_argument(f"--{k}", type=int, default=v)
    p.add_argument("--epochs", type=int)
    p.add_argument("--version", type=int, default=2, choices=(1, 2), help="of the simulated windows")
    p.add_argument("--save", type=Path)
    o = p.parse_args()
    train, test = simulate_windows(o.labels, TRAIN_SEED, version=o.version), simulate_windows(o.windows, TEST_SEED, version=o.version)
    configs = [make_config(o.variant, seed=i, epochs=o.epochs, device="cpu") for i in range(o.seeds)]
    models = [r.model() for r in fit_many(configs, train, [split_windows(train, .2, 0.)]*o.seeds)]
    names = configs[0].features
    x = named_features(test.ohlc, names, configs[0].swing_rule)
    whole, lost = importance(models, x, test.mask, names)
    around = saliency(models, x, test.spans)
    print(f"{o.variant}: {o.seeds} networks on {o.labels} simulated windows, {o.windows} others; {machine('torch')}\n\nAverage precision {whole:.3f}\n")
    print("| shuffled feature | lost average precision |\n| --- | --- |")
    for i in np.argsort(-lost.mean(1)): print(f"| {names[i]} | {lost[i].mean():.3f} |")
    print("\n| bars away | share of the gradient |\n| --- | --- |")
    for k in range(0, 2*REACH+1, 5): print(f"| {k-REACH:+d} | {around[k]/around.sum():.3f} |")
    if o.save:
        found = dict(variant=o.variant, version=o.version, networks=o.seeds, windows=o.windows, average_precision=float(whole),
                     lost=dict(zip(names, lost.mean(1).round(5).tolist())),
                     offset=list(range(-REACH, REACH+1)), gradient=(around/around.sum()).round(5).tolist())
        o.save.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
