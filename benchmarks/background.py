"""Background: how many unlabelled windows a network should learn from beside its labelled ones, and what each should count for.

    python benchmarks/background.py --device cuda --save benchmarks/results/background.json
    python benchmarks/background.py --expansions 60 --epochs 30 --seeds 2 --unlabelled 60000 --only simulated   # on a CPU: minutes

The series are those of `series_v1.py`: simulated bars in a row whose expansions are all known, and real bars with planted surges. Networks of `recommended`
learn from labelled windows alone, and with 1/2, 1, 2, 4 and 8 windows of background for each labelled one, which count like a labelled one or for less.
Each keeps its own best epoch on its own validation windows, as a user's would. Intervals draw blocks of 230 bars and seeds.
"""
import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from series_v1 import blocks_of, planted, real_folder, simulated
from table import machine

from moola.core.config import make_config
from moola.data.splits import split_windows
from moola.detection.detector import Detector
from moola.metrics.intervals import interval, paired_interval, score_of
from moola.training.many import fit_many
from moola.transfer.distil import ask

PLANS = [(0, 1.), (.5, 1.), (1, 1.), (2, 1.), (4, 1.), (8, 1.), (1, .3), (2, .3), (4, .3), (8, .3)]  # windows of background for each that is trained on, and their weight


def fitted(windows, split, bars, ratio, weight, o):
    "Networks of one plan, a seed each."
    plan = dict(background=str(bars), background_windows=round(ratio*len(split.train)), background_weight=weight) if ratio else {}
    configs = [make_config(seed=s, epochs=o.epochs, ema=o.ema, device=o.device, **plan) for s in range(o.seeds)]
    return configs[0], [r.model().to(o.device).eval().requires_grad_(False) for r in fit_many(configs, windows, [split]*o.seeds, progress=False)]


def answers(tests, config, models, o):
    "What each network says of each bar: a list a network."
    def detector(m): return Detector([m], config.features, config.swing_rule, .5, 2, torch.device(o.device), ["network"])
    return [[ask(detector(m), s.ohlc, o.stride) for s in tests] for m in models]


def scored(tests, found):
    "Labels in blocks, (n, 230), each network's answers, (networks, n, 230), and the blocks' places; bars that windows don't reach are left out."
    both, places = zip(*(blocks_of(tests, probs) for probs in found))
    return both[0][:, 0].astype(bool), np.stack([b[:, 1] for b in both]), places[0]


def run(series, data, o, rows):
    "Every plan on one series, each against none and against as many as are labelled."
    _, tests, unlabelled, windows, _ = data()
    split, kept = split_windows(windows, .2, 0.), {}
    with tempfile.TemporaryDirectory() as d:
        for i, b in enumerate(unlabelled):   # thirty years earlier: simulated windows and simulated bars bear the same days, near which no background is drawn
            b.assign(timestamp=b.timestamp - pd.Timedelta(days=30*365)).to_parquet(Path(d)/f"bars-{i}.parquet", index=False)
        for ratio, weight in PLANS:
            began = time.perf_counter()
            config, models = fitted(windows, split, d, ratio, weight, o)
            took = time.perf_counter() - began
            t, p, draw = scored(tests, answers(tests, config, models, o))
            kept[ratio, weight] = t, p
            row = dict(series=series, background=ratio, weight=weight, networks=len(models), labelled=len(split.train), seconds=took,
                       average_precision=list(interval(score_of(t, p), draw, t.sum(1)))[:3])
            for k, of in (("less_none", (0, 1.)), ("less_one", (1, 1.))):
                if of in kept and of != (ratio, weight): row[k] = list(paired_interval(score_of(t, p), score_of(*kept[of]), draw))[:3]
            rows.append(row)
            print(f"{series}: {ratio} background, weight {weight}: AP {np.round(row['average_precision'], 3)}, less none {np.round(row.get('less_none', [0]), 3)}, "
                  f"less one {np.round(row.get('less_one', [0]), 3)}, {took:.0f} s", flush=True)
            o.write(rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--expansions", type=int, default=240, help="expansions to score, one in 230 bars")
    p.add_argument("--plantings", type=int, default=1, help="times that surges are pasted into the real bars that are scored")
    p.add_argument("--unlabelled", type=int, default=200_000, help="bars to draw background from")
    p.add_argument("--seeds", type=int, default=4)
    p.add_argument("--epochs", type=int, default=200)
    p.add_argument("--ema", type=float, default=0., help="share of the averaged weights that an epoch leaves; 0 for the weights of the last step")
    p.add_argument("--stride", type=int, default=1)
    p.add_argument("--only", choices=("simulated", "planted"))
    p.add_argument("--device", default="cpu")
    p.add_argument("--save", type=Path)
    o = p.parse_args()
    where = machine("torch") if o.device == "cpu" else f"{torch.cuda.get_device_name(0)}, {machine('torch')}"
    about, rows, folder = {k: v for k, v in vars(o).items() if k != "save"}, [], real_folder()
    def write(rows):
        if o.save: o.save.write_text(json.dumps(dict(machine=where, options=about, rows=rows), indent=1) + "\n")
    o.write = write
    if o.only != "planted": run("simulated", lambda: simulated(o), o, rows)
    if o.only != "simulated" and folder: run("planted", lambda: planted(o, folder), o, rows)
    if not folder: print("no shared/data: the series of real bars is left out")


if __name__ == "__main__": main()
