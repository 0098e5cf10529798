"""simulated-v2: the experiments and baselines of `experiments.py` on windows whose expansions a trader would point at.

    python benchmarks/simulated_v2.py --save benchmarks/results/simulated-v2.json
    python benchmarks/simulated_v2.py --labels 50 500 5000 --curve benchmarks/results/labels-v2.json
    python benchmarks/simulated_v2.py --reduced --save benchmarks/results/simulated-v2-reduced.json
    python benchmarks/simulated_v2.py --fresh --save benchmarks/results/simulated-v2-fresh.json
    python benchmarks/simulated_v2.py "pasted labels" "right context "{0,3,10,20} --save benchmarks/results/right-context-v2.json
    python benchmarks/simulated_v2.py --labels 50 174 500 5000 --curve benchmarks/results/taught-labels-v2.json teachers taught refitted "taught, refitted"

The first trains all experiments on 8 sets of 174 labels, 4 seeds each, and needs a GPU; the second adds scores
by number of labels, of which 5,000 give the ceiling; the third trains few networks on a CPU and marks its rows; the
fourth scores the recipe on labels and windows on which nothing was ever chosen, and gives the score to quote; the fifth, on a GPU, limits the bars that
an answer may wait for, each beside the recipe, and the page on experiments shows every file of that name; the sixth adds scores of networks that are taught or refitted.
What is scored is always the same 2,000 windows of another seed, but for the fourth. What `--output` holds already is not trained again, so
that a run which stopped goes on.
"""
import argparse
import json
import sys
from pathlib import Path

import experiments as ex
import numpy as np
import torch
from simulated_v1 import TEST_SEED, TEST_WINDOWS, TRAIN_SEED
from table import machine

from moola.core.files import project_root
from moola.data.plant import simulate_windows
from moola.data.splits import clusters
from moola.evaluation.baselines import BASELINES
from moola.metrics.scores import pooled_prf

NAME, SETS = "simulated-v2", {50: 4, 174: 8, 500: 4, 5000: 2}  # labelled sets by number of labels
CURVE = ("guide", ex.END)                                      # what is trained where the number of labels isn't 174
REDUCED = ("guide", ex.END, *BASELINES)
FRESH = dict(train=301, test=9301)                             # seeds of windows that no choice has seen


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--labels", type=int, nargs="+", default=[174])
    p.add_argument("--sets", type=int, help="labelled sets; default: 8 of 174 labels, 4 of 50 and 500, 2 of 5,000")
    p.add_argument("--seeds", type=int, default=4)
    p.add_argument("--epochs", type=int, help="of every experiment; default: its own")
    p.add_argument("--reduced", action="store_true", help="two experiments and the baselines on 2 sets with 1 seed")
    p.add_argument("--fresh", action="store_true", help="two experiments and the baselines on labels and windows of seeds that no choice has seen")
    p.add_argument("--output", type=Path, default=project_root()/"artifacts"/"benchmarks"/NAME)
    p.add_argument("--save", type=Path, help="write the table's rows to this file, as JSON")
    p.add_argument("--curve", type=Path, help="write scores by number of labels to this file, as JSON")
    p.add_argument("names", nargs="*", help="experiments and baselines; default: all")
    return p.parse_args()


def sets_of(labels, sets, train=TRAIN_SEED, test=TEST_SEED):
    "Labelled sets, joined, the split of each, and the windows to score."
    parts = [simulate_windows(labels, train+i, version=2) for i in range(sets)]
    return *ex.join_sets(parts), {"simulated": simulate_windows(TEST_WINDOWS, test, version=2)}


def keep(folder, name, labels, sets, tests, out):
    "Write the scores of one experiment, in the form that `experiments.Results` reads."
    folder.mkdir(parents=True, exist_ok=True)
    found = {f"{where}|{k}|{m}": np.stack([r[m] for r in rows])
             for where, d in out.items() for k, rows in d.items() for m in rows[0]}
    found = {k: v.astype(np.int16) if k.endswith("counts") else v for k, v in found.items()} | {f"{where}|cluster": clusters(t) for where, t in tests.items()}
    np.savez_compressed(folder/f"{ex.slug(name)}.npz", sets=sets, labels=labels, name=name, **found)


def score(o, folder, labels, names, device):
    "Train and score what `folder` doesn't hold yet."
    names = [n for n in names if not (folder/f"{ex.slug(n)}.npz").exists()]
    if not names: return
    sets = o.sets or (2 if o.reduced else SETS.get(labels, 2))
    data = windows, splits, tests = sets_of(labels, sets, **(FRESH if o.fresh else {}))
    target = tests["simulated"].mask
    every, prior = pooled_prf(target, np.ones(target.shape), .5).f1, ex.prior_score(windows, splits, target)
    print(f"{NAME}: {sets} sets of {labels} labels, {o.seeds} seeds, {len(target):,} windows; "
          f"marking every bar {every:.3f}, position prior {prior:.3f}; {machine('torch')}", flush=True)
    for name in names:
        change = {} if name in BASELINES else ex.overrides_of(name) | ({"epochs": o.epochs} if o.epochs else {})
        out, took = ex.run_baseline(name, data) if name in BASELINES else ex.run(name, change, data, o.seeds, device, NAME)
        keep(folder, name, labels, sets, tests, out)
        mean = {k: np.mean([ex.pooled(r["counts"]) for r in rows]) for k, rows in out["simulated"].items()}
        scores = " ".join(f"{k} {v:.3f}" for k, v in mean.items())
        print(f"{name:32} pooled F1: {scores}  {took:.1f} s", flush=True)


def curve(folders, save, names):
    "Scores by number of labels, with intervals over windows, labelled sets and networks; `save` gets the rows as JSON."
    rows = []
    for folder, name, kind in ((f, n, k) for f in folders for n in names for k in ("bars", "mean")):
        if not (file := folder/f"{ex.slug(name)}.npz").exists(): continue
        d = dict(np.load(file))
        counts, sets = d[f"simulated|{kind}|counts"].astype(float), int(d["sets"])
        f1, low, high = ex.level(counts, sets, d["simulated|cluster"])
        rows.append(dict(labels=int(d["labels"]), recipe=name, reading=ex.READ[kind], f1=f1, low=low, high=high,
                         sets=sets, networks=len(counts)))
    rows.sort(key=lambda o: (o["recipe"], o["reading"], o["labels"]))
    line = "{recipe:16} {reading:16} {labels:6} labels  {f1:.3f} [{low:.3f}, {high:.3f}]  {networks} networks on {sets}"
    for o in rows: print(line.format(**o))
    save.write_text(json.dumps(rows, indent=1) + "\n")


def mark(path):
    "Say in every row that few networks were trained."
    path.write_text(json.dumps([{"reduced": True} | r for r in json.loads(path.read_text())], indent=1) + "\n")


def main():
    o = options()
    if unknown := [n for n in o.names if n not in (*ex.EXPERIMENTS, *BASELINES)]:
        sys.exit(f"unknown experiment {unknown[0]!r}: choose from {', '.join((*ex.EXPERIMENTS, *BASELINES))}")
    if o.fresh: o.output = o.output.with_name(f"{o.output.name}-fresh")
    if o.reduced: o.seeds, o.output = 1, o.output.with_name(f"{o.output.name}-reduced")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folders = [o.output/f"labels-{n}" for n in o.labels]
    for labels, folder in zip(o.labels, folders):
        every = REDUCED if o.reduced or o.fresh else (*ex.EXPERIMENTS, *BASELINES) if labels == 174 else CURVE
        score(o, folder, labels, o.names or every, device)
    if 174 in o.labels: ex.show(o.output/"labels-174", o.save)
    if o.curve: curve([o.output/f"labels-{n}" for n in SETS], o.curve, o.names or CURVE)
    if o.reduced and 174 in o.labels and o.save: mark(o.save)


if __name__ == "__main__": main()
