"""What holes and closings cost: scans of the model that comes with moola over bars with known expansions, some bars of which are taken away.

    python benchmarks/gaps.py --save benchmarks/results/gaps.json

A *hole* is a single missing minute, wherever it falls; a *closing* comes after every 78 bars, takes 18 hours, and moves the price by up to
three mean bar ranges. A bar that no window reads has probability 0 where all bars are scored, since that is what its reader knows of it.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from table import machine

from moola.core.errors import MoolaError
from moola.core.names import OHLC
from moola.data.plant import simulate_labelled_bars
from moola.detection.detector import Detector
from moola.metrics.intervals import interval, paired_interval, score_of

SEED, BLOCK = 31, 115  # of the bars, which no training or choice has used; bars that count as one cluster
HOLES = (.01, .05, .2)


def with_holes(bars, share, rng):
    "Bars with this share of them missing, and the rows that are left."
    left = np.flatnonzero(rng.random(len(bars)) >= share)
    return bars.iloc[left].reset_index(drop=True), left


def with_closings(bars, rng, length=78):
    "Bars in sessions of 78, between which the market is closed and the price jumps."
    session = np.arange(len(bars))//length
    jump = rng.uniform(-3, 3, session[-1]+1).cumsum()*(bars.high-bars.low).mean()
    moved = bars.assign(timestamp=bars.timestamp.iloc[0] + pd.to_timedelta(np.arange(len(bars)) + session*18*60, "min"))
    return moved.assign(**{k: moved[k]+jump[session] for k in OHLC}), np.arange(len(bars))


def probabilities(detector, bars, rows, gaps, n):
    "Probabilities at the rows of the bars before anything was taken away; NaN where none was given."
    out = np.full(n, np.nan)
    try: out[rows] = detector.scan(bars, gaps=gaps, progress=False, bar="1min").probabilities.probability
    except MoolaError as e: print(f"# {e}", flush=True)  # no window at all: nothing was read, and the row says so
    return out


def compared(target, prob, whole, keep):
    "Average precision with and without what is missing, over the bars that are left; the difference with its interval over blocks of bars."
    n = len(target)//BLOCK
    cut, seen = (a[:n*BLOCK].reshape(n, BLOCK) for a in (target, keep))
    p, w = (np.where(seen, np.nan_to_num(o[:n*BLOCK].reshape(n, BLOCK)), -1) for o in (prob, whole))  # a bar that is gone ranks last in both
    cut = cut & seen
    a, b, cluster = score_of(cut, p.clip(0)), score_of(cut, w.clip(0)), np.arange(n)
    one, diff = interval(a, cluster, cut.sum(1)), paired_interval(a, b, cluster)
    return dict(average_precision=one.value, low=one.low, high=one.high, change=diff.value, change_low=diff.low, change_high=diff.high,
                read=float(np.isfinite(prob[keep]).mean()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expansions", type=int, default=240)
    parser.add_argument("--save", type=Path, metavar="FILE")
    o = parser.parse_args()
    labelled, detector, rng = simulate_labelled_bars(o.expansions, SEED), Detector.load(device="cpu"), np.random.default_rng(SEED)
    bars, n = labelled.bars, len(labelled.bars)
    target = np.zeros(n, bool)
    for a, b in labelled.spans: target[a:b] = True
    # Every bar in a row, so that what is taken away is the only gap
    bars = bars.assign(timestamp=bars.timestamp.iloc[0] + pd.to_timedelta(np.arange(n), "min"))
    whole = probabilities(detector, bars, np.arange(n), "split", n)
    cases = {f"{s:.0%} of bars missing": with_holes(bars, s, rng) for s in HOLES} | {"a closing every 78 bars": with_closings(bars, rng)}
    rows = []
    for name, (left, at) in cases.items():
        keep = np.isin(np.arange(n), at)
        for gaps in ("split", "fill", "join"):
            rows.append(dict(bars=name, gaps=gaps, **compared(target, probabilities(detector, left, at, gaps, n), whole, keep)))
            print(json.dumps(rows[-1]), flush=True)
    if o.save:
        rounded = [{k: round(v, 3) if isinstance(v, float) and np.isfinite(v) else None if isinstance(v, float) else v for k, v in r.items()} for r in rows]
        about = dict(bars=n, expansions=o.expansions, model=Path(detector.runs[0]).name, machine=machine("torch"))
        o.save.write_text(json.dumps(dict(about=about, rows=rounded), indent=1) + "\n")


if __name__ == "__main__": main()
