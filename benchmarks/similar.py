"""Look-alikes of a span: the share of expansions among the first 20, and the time for a million bars.

    nice python benchmarks/similar.py --save benchmarks/results/similar.json

Each seed simulates 55,200 bars with 240 known expansions. Ten of them, of three bars or more, are looked for; a match is right where it begins within
three bars of an expansion. The shape holds so many bars before the span. The rule is that of `moola.labels.rule`, whose 20 best spans are taken; chance is
the share of bars from which an expansion begins within three.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
from reader import paired, rounded
from table import machine
from tqdm import tqdm

from moola.data.bars import cut_windows
from moola.data.plant import simulate_labelled_bars
from moola.data.simulate import simulate_bars
from moola.detection.ensemble import load_ensemble
from moola.labels.rule import hindsight_spans
from moola.labels.similar import CONTEXT, match_shapes, similar, span_shapes

CONTEXTS = (0, 5, 10, 15, 20)


def precision(starts, spans): return float(np.mean([(abs(spans[:, 0]-a) <= 3).any() for a in starts]))


def by_rule(bars, n=20):
    "First bars of the n spans that the rule is surest of."
    ohlc, at = cut_windows(bars, stride=52)
    span, _, score = hindsight_spans(ohlc)
    out = []
    for i in np.argsort(-score):
        a = at[i]+span[i, 0]
        if all(abs(a-b) > 3 for b in out): out.append(a)
        if len(out) == n: return out


def seconds_for(n, threads, repeats=3):
    "Seconds to match eight lengths of a shape of 20 bars against n bars, the shortest of some runs, and CPU seconds."
    close = simulate_bars(n, 1).close.to_numpy()
    shapes, every = span_shapes(close, (5000, 5006)), np.array([[0, n]])
    best, used = np.inf, np.inf
    for _ in range(repeats):
        a, c = time.perf_counter(), time.process_time()
        match_shapes(close, every, shapes, threads)
        best, used = min(best, time.perf_counter()-a), min(used, time.process_time()-c)
    return best, used


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--save", type=Path, metavar="FILE")
    o = parser.parse_args()
    detector, found = load_ensemble(device="cpu"), {}
    kinds = {f"shape, {c} bars before": dict(context=c) for c in CONTEXTS} | dict(network=dict(by="network", model=detector))
    for seed in tqdm(range(o.seeds), unit="seed"):
        bars, spans, block = simulate_labelled_bars(240, 1100+seed)  # bars that no choice of a setting has used
        bars = bars.assign(timestamp=bars.timestamp.iloc[0]+np.arange(len(bars))*np.timedelta64(60, "s"))  # in a row
        long = [i for i in range(2, 238) if spans[i, 1]-spans[i, 0] >= 3]
        queries = [spans[i] for i in np.random.default_rng(seed).choice(long, o.queries, replace=False)]
        for name, options in kinds.items():
            found.setdefault(name, []).append(np.mean([precision(similar(bars, q, progress=False, **options).start_bar, spans) for q in queries]))
        found.setdefault("rule", []).append(precision(by_rule(bars), spans))
        found.setdefault("chance", []).append(precision(np.random.default_rng(seed).integers(0, len(bars), 4000), spans))
        tqdm.write(str({k: round(float(v[-1]), 3) for k, v in found.items()}))
    rows = []
    for name, v in found.items():
        p = paired(v, np.zeros(len(v)))
        rows.append(dict(by=name, precision=p["value"], low=p["low"], high=p["high"]))
    p = paired(found["network"], found[f"shape, {CONTEXT} bars before"])
    rows.append(dict(by="network less shape", precision=p["difference"], low=p["low"], high=p["high"]))
    wall, used = seconds_for(1_000_000, None)
    about = dict(seeds=o.seeds, queries=o.queries, bars=1_000_000, seconds=round(wall, 2), cpu_seconds=round(used, 2), machine=machine("numba", "torch"))
    for r in rounded(rows): print(r)
    print(about)
    if o.save: o.save.write_text(json.dumps(dict(about=about, rows=rounded(rows)), indent=1) + "\n")


if __name__ == "__main__": main()
