"""Drift of style and agreement of two labellers: how much of either `moola.labels.health` tells.

    nice python benchmarks/hands.py --save benchmarks/results/hands.json

*Drift*: each seed simulates 174 labelled windows, and the labeller's hand changes from the first label to the last: spans end later, by up to so many bars,
or begin earlier. A seed counts where `find_drift` has a finding; without any change this is the rate of false alarms. *Agreement*: a second hand labels
the same windows, with edges that differ by up to so many bars, a share of labels missed and as many set where there is nothing. The last hand labels other
windows' expansions, so that only chance agrees.
"""
import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from reader import rounded
from scipy.stats import binomtest
from scipy.stats import t as student
from table import machine
from tqdm import tqdm

from moola.core.names import W
from moola.data.plant import simulate_windows
from moola.labels.health import agreement, find_drift

DRIFTS = {"none": (0, 0), "ends up to 2 bars later": (0, 2), "ends up to 4 bars later": (0, 4), "ends up to 6 bars later": (0, 6), "begins up to 4 bars earlier": (4, 0)}
HANDS = {"edges within 1 bar": (1, 0.), "edges within 3 bars": (3, 0.), "edges within 1 bar, a tenth missed, a tenth added": (1, .1),
         "edges within 3 bars, three tenths missed, three tenths added": (3, .3)}
AGREEING = 10  # seeds for agreement
FIGURES = ("event_f1", "chance_f1", "corrected", "boundary", "kappa")


def drifted(windows, earlier, later):
    "Labels whose edges move with the order of labelling."
    part = np.linspace(0, 1, len(windows.rows))
    return replace(windows, rows=windows.rows.assign(
        expansion_start=(windows.rows.expansion_start - np.rint(part*earlier).astype(int)).clip(lower=0),
        expansion_end=(windows.rows.expansion_end + np.rint(part*later).astype(int)).clip(upper=W-1)))


def second_hand(spans, reach, share, rng):
    "What another labeller would have set."
    out = []
    for s in spans:
        s = s + rng.integers(-reach, reach + 1, s.shape)
        s = np.stack([s[:, 0].clip(0, W-2), np.maximum(s[:, 1], s[:, 0] + 1).clip(1, W)], 1)[rng.random(len(s)) >= share]
        if rng.random() < share:
            a = int(rng.integers(0, W-6))
            if not any(a < y and x < a+6 for x, y in s): s = np.concatenate([s, [[a, a+6]]])
        out.append(s[np.argsort(s[:, 0])].reshape(-1, 2))
    return out


def mean_row(values):
    "Means over seeds, and the 95 % t interval of the corrected F1 and of kappa."
    v = {k: np.array([g[k] for g in values], float) for k in FIGURES}
    row = {k: float(np.nanmean(x)) for k, x in v.items()}
    for k in ("corrected", "kappa"):
        reach = student.ppf(.975, len(values)-1)*v[k].std(ddof=1)/len(values)**.5
        row |= {f"{k}_low": row[k]-reach, f"{k}_high": row[k]+reach}
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100, help="for drift; for agreement at most 10")
    parser.add_argument("--windows", type=int, default=174)
    parser.add_argument("--save", type=Path, metavar="FILE")
    o = parser.parse_args()
    told, hands = dict.fromkeys(DRIFTS, 0), {k: [] for k in (*HANDS, "other windows' expansions")}
    for seed in tqdm(range(o.seeds), unit="seed"):
        windows = simulate_windows(o.windows, 300+seed)
        for name, (earlier, later) in DRIFTS.items(): told[name] += bool(find_drift(drifted(windows, earlier, later)))
        if seed >= AGREEING: continue
        truth, rng = windows.spans, np.random.default_rng(seed)
        for name, (reach, share) in HANDS.items(): hands[name].append(agreement(truth, second_hand(truth, reach, share, rng), seed))
        hands["other windows' expansions"].append(agreement(truth, [truth[i] for i in rng.permutation(len(truth))], seed))
    drift = []
    for name, k in told.items():
        low, high = binomtest(k, o.seeds).proportion_ci(method="wilson")
        drift.append(dict(drift=name, found=k/o.seeds, low=float(low), high=float(high)))
    agreed = [dict(hand=k, **mean_row(v)) for k, v in hands.items()]
    for r in rounded(drift + agreed): print(r)
    about = dict(seeds=o.seeds, seeds_of_agreement=min(AGREEING, o.seeds), windows=o.windows, machine=machine("numpy", "scipy"))
    if o.save: o.save.write_text(json.dumps(dict(about=about, drift=rounded(drift), agreement=rounded(agreed)), indent=1) + "\n")


if __name__ == "__main__": main()
