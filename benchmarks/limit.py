"""Where the rest lies: the wrong bars of one network by what they are, beside those of somebody who knows every planted surge to the bar.

    python benchmarks/limit.py --save benchmarks/results/limit.json

One `recommended` and one `taught` network learn from the 174 windows of `simulate_windows()`; what `--output` holds already is not trained again. They
are scored on the two thousand windows of simulated-v2, at the thresholds of their own validation windows. A labeller of these windows puts edges a bar or
two off and overlooks some surges, so that not even the plan of the simulation agrees with the labels: that is the limit of any network.
"""
import argparse
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from experiments import predict, unlabelled
from simulated_v1 import TEST_SEED, TEST_WINDOWS

from moola.core.config import make_config
from moola.core.files import project_root
from moola.core.names import W
from moola.data import plant
from moola.data.features import named_features
from moola.data.plant import simulate_windows
from moola.data.simulate import SESSION
from moola.metrics.scores import pooled_prf
from moola.models.checkpoint import load_checkpoint, model_from_checkpoint
from moola.training.fit import fit

REACH, LEAD = 3, 14  # bars around a label that count as its edges; bars that an overlooked surge has before it


def surges(n=TEST_WINDOWS, seed=TEST_SEED):
    "Bars of the labelled surges as they were planted, and of those that the labeller overlooked, each (n, W) bool."
    overlooked, fill, missed = {}, plant._fill, plant._Surges.missed
    def where(tape): return tape.z.__array_interface__["data"][0]
    def filled(tape, *words):
        overlooked[where(tape)] = []          # a window whose label nobody would point at is filled again
        return fill(tape, *words)
    def noted(tape, start, end):
        overlooked[where(tape)].append((start+LEAD, end))
        return missed(tape, start, end)
    with patch.object(plant, "_fill", filled), patch.object(plant._Surges, "missed", noted):
        _, at, plan = plant._planted(n, seed, 2, -(-n//6)*SESSION, False)
    known, other = np.zeros((2, n, W), bool)
    first = min(overlooked) - 8*at[np.arange(n), 0].min()
    for i in range(n):
        known[i, plan.start[i]:plan.end[i]] = True
        for a, b in overlooked[first + 8*at[i, 0]]: other[i, a:b] = True
    return known, other


def parts(windows, marked, other):
    "Wrong bars by what they are: at the edges of an expansion that was found, in one that was missed, in an overlooked surge, or anywhere else."
    target, out = windows.mask, dict.fromkeys(("edges", "missed", "overlooked", "elsewhere"), 0)
    for i, spans in enumerate(windows.spans):
        near, wrong = np.zeros(W, bool), marked[i] != target[i]
        for a, b in spans: near[max(a-REACH, 0):b+REACH] |= marked[i, a:b].any()
        surge = np.convolve(other[i], np.ones(2*REACH+1), "same") > 0
        for k, where in dict(edges=near, missed=~near & target[i], overlooked=~near & ~target[i] & surge, elsewhere=~near & ~target[i] & ~surge).items():
            out[k] += int((wrong & where).sum())
    score = pooled_prf(target, marked.astype(float), .5)
    return dict(f1=score.f1, precision=score.precision, recall=score.recall, wrong=int((marked != target).sum()), **out)


def marked_by(folder, windows, device):
    "The bars that a run marks."
    best = load_checkpoint(folder/"best_model.pt")
    x = torch.as_tensor(named_features(windows.ohlc, best["config"]["features"], best["config"]["swing_rule"])).to(device)[:, None]
    return 1/(1+np.exp(-predict(model_from_checkpoint(best).eval().to(device), x))) >= best["threshold"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu")
    p.add_argument("--epochs", type=int, help="of each network; default: the variant's own")
    p.add_argument("--output", type=Path, default=project_root()/"artifacts"/"benchmarks"/"limit")
    p.add_argument("--save", type=Path)
    o = p.parse_args()
    windows, (known, other) = simulate_windows(TEST_WINDOWS, TEST_SEED), surges()
    rows = {"the plan, without what was overlooked": known, "the plan": known | other}
    for variant in ("recommended", "taught"):
        more = dict(background=str(unlabelled("simulated-v2"))) if variant == "taught" else {}
        if not (o.output/variant/"best_model.pt").exists():
            fit(make_config(variant, device=o.device, epochs=o.epochs, output=str(o.output/variant), progress=False, **more))
        rows[variant] = marked_by(o.output/variant, windows, o.device)
    found = [dict(marked_by=k, labelled=int(windows.mask.sum()), **parts(windows, v, other)) for k, v in rows.items()]
    for r in found: print({k: round(v, 3) if isinstance(v, float) else v for k, v in r.items()})
    if o.save: o.save.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
