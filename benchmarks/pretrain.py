"""What pretraining brings: span F1 and average precision at 50 and 174 labels, against training from scratch.

    python benchmarks/pretrain.py --device cuda --save benchmarks/results/pretrain.json
    python benchmarks/pretrain.py --tiny                      # a minute on a CPU: shows that it runs, and nothing else

Networks of `recommended`, trained on labelled sets of their own with several seeds, from random weights, from masked bars and from simulated windows. They
are scored on simulated-v2 (from the generator that the objective `simulated` learns from, so that it has an advantage there that no market gives it) and, where the bars
are, on real-rule-v1: other months, and another instrument. Intervals count sessions, and labelled sets with their seeds as networks.
"""
import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from real_rule_v1 import BARS, TESTS, TRAIN, load
from simulated_v1 import TEST_SEED, TEST_WINDOWS, TRAIN_SEED
from table import machine

from moola.core.config import make_config
from moola.core.files import project_root
from moola.data.features import named_features
from moola.data.plant import simulate_windows
from moola.data.splits import Split, clusters, split_windows
from moola.data.windows import join_windows
from moola.metrics.decode import choose_threshold
from moola.metrics.intervals import compare_recipes, score_of
from moola.models.pretrained import FILE
from moola.training.many import fit_many
from moola.transfer.pretrain import pretrain

UNLABELLED = ("btcperp_1m_202201", "es_1m_lean_2013_2020", "eurusd_1m_lean_oanda", *TRAIN)  # none of what is scored


def labelled_sets(where, labels, sets):
    "Labelled sets, joined, and the split of each, four fifths to learn from."
    if where == "simulated-v2": parts = [simulate_windows(labels, TRAIN_SEED+i, version=2) for i in range(sets)]
    else:
        all_windows, rng = load(TRAIN), np.random.default_rng(1)
        labelled = np.flatnonzero([len(s) > 0 for s in all_windows.spans])
        parts = [all_windows[np.sort(rng.choice(labelled, labels, replace=False))] for _ in range(sets)]
    splits, first = [], 0
    for p in parts:
        s = split_windows(p, .2, 0, embargo=0)
        splits.append(Split(s.train+first, s.valid+first, s.test+first, s.purged+first, s.by_time))
        first += len(p)
    return join_windows(parts), splits


def scores_of(networks, test, device):
    "Probabilities and thresholds of all networks for the windows to score."
    x = {}
    prob = []
    for r in networks:
        key = (r.config.features, r.config.swing_rule)
        if key not in x: x[key] = torch.as_tensor(named_features(test.ohlc, *key)).to(device)
        model = r.model().to(device)
        with torch.no_grad(): prob.append(torch.cat([model(p)["span"].sigmoid() for p in x[key].split(512)]).cpu().numpy())
    return np.stack(prob)


def judge(where, tests, labels, starts, o):
    "Train from each start, score, and compare with random weights."
    windows, splits = labelled_sets(where, labels, o.sets)
    base = make_config(device=o.device, epochs=o.epochs, hidden=o.hidden)
    configs = [replace(base, seed=42+k, init=init[(i+k) % len(init)]) for init in starts.values() for i in range(o.sets) for k in range(o.seeds)]
    n, began = o.sets*o.seeds, time.perf_counter()
    fitted = fit_many(configs, windows, [s for _ in starts for s in splits for _ in range(o.seeds)], progress=False)
    print(f"{where}, {labels} labels: {len(configs)} networks in {time.perf_counter()-began:.0f} s", flush=True)
    mask = windows.mask
    cut = np.array([choose_threshold(mask[r.split.valid], r.prob[r.best_epoch-1]) for r in fitted])
    for test_name, test in tests.items():
        prob, cluster, target = scores_of(fitted, test, o.device), clusters(test), test.mask
        def metrics(i): return {m: score_of(target, prob[i*n:(i+1)*n], m, cut[i*n:(i+1)*n]) for m in ("span_f1", "average_precision")}
        scratch = metrics(0)
        for i, name in enumerate(starts):
            if not i: continue
            for c in compare_recipes(metrics(i), scratch, cluster, "span_f1", names=(name, "from scratch")):
                yield dict(benchmark=test_name, labels=labels, start=name, metric=c.metric, pretrained=c.a, scratch=c.b, difference=c.difference, low=c.low, high=c.high, p=c.p,
                           verdict=c.verdict, networks=n, windows=len(test), sessions=len(set(cluster)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu")
    p.add_argument("--labels", type=int, nargs="+", default=[50, 174])
    p.add_argument("--sets", type=int, default=8)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--epochs", type=int, default=200)
    p.add_argument("--pretrain-epochs", type=int, default=10)
    p.add_argument("--pretrain-seeds", type=int, default=2, help="networks to start from, of each objective")
    p.add_argument("--steps", type=int, default=150)
    p.add_argument("--objectives", nargs="+", default=["simulated", "masked"])
    p.add_argument("--benchmarks", nargs="+", default=["simulated-v2", "real-rule-v1"])
    p.add_argument("--resume", action="store_true", help="take pretrained networks and rows that are there")
    p.add_argument("--hidden", type=int, default=96)
    p.add_argument("--test", type=int, default=TEST_WINDOWS)
    p.add_argument("--tiny", action="store_true")
    p.add_argument("--output", type=Path, default=project_root()/"artifacts"/"benchmarks"/"pretrain")
    p.add_argument("--save", type=Path)
    o = p.parse_args()
    if o.tiny: o.sets, o.seeds, o.epochs, o.pretrain_epochs, o.steps, o.hidden, o.test, o.labels = 2, 1, 2, 1, 3, 8, 60, [50]
    real = [BARS/f"{n}.parquet" for n in UNLABELLED]
    real = [f for f in real if f.exists()]
    starts, rows = {"scratch": [""]}, []
    for objective in o.objectives:
        if objective == "masked" and not real: continue
        files = []
        for seed in range(o.pretrain_seeds):
            began, folder = time.perf_counter(), o.output/f"{objective}-{seed}"
            if o.resume and (folder/FILE).exists():
                files.append(str(folder/FILE))
                continue
            config = make_config(device=o.device, seed=seed, hidden=o.hidden, batch_size=64, lr=3e-3)
            files.append(str(pretrain(real if objective == "masked" else None, folder, config, objective,
                                      epochs=o.pretrain_epochs, steps=o.steps, overwrite=True)))
            print(f"{objective}, seed {seed}: {time.perf_counter()-began:.0f} s", flush=True)
            print((folder/"epoch_metrics.csv").read_text(), flush=True)
        starts[objective] = files
    if o.resume and o.save and o.save.exists(): rows = json.loads(o.save.read_text())["rows"]
    benchmarks = {"simulated-v2": {"simulated-v2": simulate_windows(o.test, TEST_SEED, version=2)}}
    if real and not o.tiny: benchmarks["real-rule-v1"] = {f"real-rule-v1, {where}": load(names) for where, names in TESTS.items()}
    for where, tests in benchmarks.items():
        for labels in o.labels:
            if where not in o.benchmarks or any(r["benchmark"].startswith(where) and r["labels"] == labels for r in rows): continue
            for row in judge(where, tests, labels, starts, o):
                rows.append(row)
                print("{benchmark}, {labels} labels, {start}: {metric} {pretrained:.3f} against {scratch:.3f}, {difference:+.3f} [{low:+.3f}, {high:+.3f}], {verdict}".format(**row), flush=True)
            if o.save: o.save.write_text(json.dumps(dict(machine=machine("torch"), options={k: str(v) for k, v in vars(o).items() if k not in ("save", "output", "resume")}, rows=rows), indent=1))


if __name__ == "__main__": main()
