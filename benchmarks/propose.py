"""What to label next: how good a model gets by the number of labels, for each strategy of `moola.labels.propose`.

    nice python benchmarks/propose.py --save benchmarks/results/propose.json
    python benchmarks/propose.py --learner networks --save benchmarks/results/propose-networks.json    # hours on a CPU

Bars are simulated: sessions with known expansions, and as many without any, so that a quarter of the windows hold one. Labelling starts with 30
windows drawn at random; a strategy then picks 30 more, and 60 more after that, with models trained on what is labelled so far. They read other bars
and are scored over all of these. Each seed has its own bars, start and model. A run that was stopped goes on with the strategy that it was at.
"""
import argparse
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from reader import LEARNERS, paired, rounded, side_by_side
from table import machine
from tqdm import tqdm

from moola.core.names import W
from moola.data.bars import cut_windows
from moola.data.plant import simulate_labelled_bars
from moola.data.simulate import session_times, simulate_bars
from moola.labels.propose import propose
from moola.labels.recut import cut_labelled
from moola.metrics.scores import average_precision

STRATEGIES, COUNTS, LONGER = ("random", "uncertainty", "disagreement", "similar", "rule", "mixed"), (30, 60, 120), 240


def mixed_bars(expansions, seed):
    "Sessions with expansions, then as many without; and the spans."
    d = simulate_labelled_bars(expansions, seed)
    n = len(d.bars)
    bars = pd.concat([d.bars, simulate_bars(n, seed)], ignore_index=True)
    return bars.assign(timestamp=session_times(2*n)), d.spans


@lru_cache(1)
def data(seed):
    "Bars to label, their spans, windows to score on, and the first windows to label."
    bars, spans = mixed_bars(300, 100+seed)
    starts = np.random.default_rng(seed).permutation(cut_windows(bars, W)[1])[:COUNTS[0]]
    return bars, spans, side_by_side(*mixed_bars(180, 900+seed)), starts


def chain(learn, seed, by, done, save):
    "One strategy from 30 labels on; a chain that is done is not trained again."
    counts = (*COUNTS, LONGER) if by == "random" else COUNTS
    if f"{seed}/{by}/{counts[-1]}" in done: return
    bars, spans, test, starts = data(seed)
    for count, more in zip(counts, (*counts[1:], None)):
        windows = cut_labelled(bars, spans, starts)
        model = learn(windows, [100*seed+k for k in range(3 if by == "disagreement" and more else 1)])
        score = average_precision(test.mask, model(test.ohlc)[0])
        done[f"{seed}/{by}/{count}"] = dict(average_precision=round(score, 4), expansions=int(sum(map(len, windows.spans))))
        save()
        tqdm.write(f"{seed}/{by}/{count}: {score:.3f} with {done[f'{seed}/{by}/{count}']['expansions']} expansions")
        if more: starts = np.concatenate([starts, propose(bars, more-count, by, model=model, labels=windows, seed=seed, progress=False).start_bar])


def summary(done):
    "Scores by strategy and number of labels; the differences to random, and of mixed to it, paired by seed; and random's labels for the same score."
    seeds = sorted({k.split("/")[0] for k in done})
    def get(by, c, what="average_precision"): return np.array([done[f"{s}/{by}/{c}"][what] for s in seeds])
    curve = {c: float(get("random", c).mean()) for c in (*COUNTS, LONGER)}
    level = np.maximum.accumulate(list(curve.values()))
    def to_mixed(by, c): return {f"mixed_{k}": v for k, v in paired(get("mixed", c), get(by, c)).items() if k != "value"}
    rows = [dict(by=by, labels=c, **paired(get(by, c), get("random", c)), **to_mixed(by, c), expansions=float(get(by, c, "expansions").mean()),
                 as_random=float(np.exp(np.interp(get(by, c).mean(), level, np.log(list(curve)))))) for by in STRATEGIES for c in COUNTS[1:]]
    return rows, dict(seeds=len(seeds), random={str(c): round(v, 4) for c, v in curve.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learner", choices=list(LEARNERS), default="trees")
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--work", type=Path, default=Path("propose-work.json"), metavar="FILE", help="where scores are kept while it runs")
    parser.add_argument("--save", type=Path, metavar="FILE")
    o = parser.parse_args()
    done = json.loads(o.work.read_text()) if o.work.exists() else {}

    def save():
        part = o.work.with_suffix(".part")
        part.write_text(json.dumps(done))
        part.replace(o.work)
    for seed in range(o.seeds):
        for by in tqdm(STRATEGIES, desc=f"seed {seed}"): chain(LEARNERS[o.learner], seed, by, done, save)
    rows, about = summary(done)
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    if o.save: o.save.write_text(json.dumps(dict(about=dict(learner=o.learner, **about, machine=machine("scikit-learn", "torch")), rows=rounded(rows)), indent=1) + "\n")


if __name__ == "__main__": main()
