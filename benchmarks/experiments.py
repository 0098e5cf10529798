"""The experiments behind `recommended`: each changes one thing, and is kept only where its paired interval excludes zero.

    python benchmarks/experiments.py --out FOLDER [NAME ...]                train and score what FOLDER lacks; without names, all experiments
    python benchmarks/experiments.py --bench real-rule-v1 --out FOLDER      the same on real bars, labelled by the hindsight rule
    python benchmarks/experiments.py --table FOLDER --save FILE             the table with intervals, in Markdown and as JSON
    python benchmarks/experiments.py --curve FOLDER ... --save FILE         scores by number of labels, a folder of `--labels N --out FOLDER` each

simulated-v1 learns from several labelled sets of simulated windows and is scored on two thousand others. real-rule-v1 learns from the bars of three
files and is scored on other months and on another instrument (see `real_rule_v1.py`). On a GPU all networks of an experiment are trained at once.
"""
import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from simulated_v1 import TEST_SEED, TEST_WINDOWS, TRAIN_SEED
from table import machine

from moola.core.config import make_config
from moola.core.files import project_root, write_atomic
from moola.core.names import DISPLACEMENT, STONES
from moola.data.features import named_features
from moola.data.plant import simulate_labelled_bars, simulate_windows
from moola.data.splits import Split, clusters, split_windows
from moola.data.windows import join_windows
from moola.evaluation.baselines import BASELINES
from moola.metrics.calibration import calibrate, fit_platt
from moola.metrics.chance import position_prior
from moola.metrics.choice import choose_segment, evidence
from moola.metrics.decode import choose_threshold, decode, length_prior, segment_posterior
from moola.metrics.intervals import interval, recipe_interval
from moola.metrics.scores import all_cuts, average_precision, best_cut, hit_rate, pooled_prf, window_counts
from moola.training.augment import mirrored
from moola.training.many import fit_many

READ = dict(bars="bar by bar", segments="segment posterior", mean="seeds averaged", mean_segments="seeds averaged, segment posterior")
ALL = (*STONES, "position_encoding", *DISPLACEMENT)

# name: (what it starts from, what it changes). The first ones are a chain that ends at `recommended`; most others branch off before its last step.
EXPERIMENTS = {
    "guide": (None, {}),
    "displacement features": ("guide", dict(features=ALL)),
    "lr 3e-3": ("displacement features", dict(lr=3e-3)),
    "fixed task weights": ("lr 3e-3", dict(task_weights=(.3, .3, 1., .1))),
    "mirror": ("fixed task weights", dict(mirror=True)),
    "less dropout": ("mirror", dict(input_dropout=.1, head_dropout=.3)),
    "200 epochs": ("less dropout", dict(epochs=200)),
    "pos_weight 4": ("200 epochs", dict(pos_weight=4.)),
    "pasted labels": ("pos_weight 4", dict(pastes=15)),
}
END, BRANCH = "pasted labels", "pos_weight 4"
EXPERIMENTS |= {name: (BRANCH, change) for name, change in {
    "pos_weight 1": dict(pos_weight=1.), "pos_weight 8": dict(pos_weight=8.), "learned task weights": dict(task_weights=()),
    "span task alone": dict(tasks=("span",), task_weights=()), "heavier pointer and countdown": dict(task_weights=(.1, 3., 1., 1.)),
    "soft edges 1": dict(soft_bars=1), "soft edges 2": dict(soft_bars=2), "swings strict": dict(swing_rule="strict"), "swings close": dict(swing_rule="close"),
    "no position": dict(features=(*STONES, *DISPLACEMENT)), "no swings": dict(features=(*STONES[:6], "position_encoding", *DISPLACEMENT)),
    "no displacement": dict(features=(*STONES, "position_encoding")), "no mirror": dict(mirror=False),
    "lr 6e-3": dict(lr=6e-3), "batch 16": dict(batch_size=16), "400 epochs": dict(epochs=400), "100 epochs": dict(epochs=100),
    "hidden 64": dict(hidden=64), "hidden 128": dict(hidden=128), "weight decay .3": dict(weight_decay=.3), "best epoch by val_loss": dict(monitor="val_loss"),
    "spliced 3": dict(spliced=3, epochs=50), "spliced 7": dict(spliced=7, epochs=25), "spliced 7, 50 epochs": dict(spliced=7, epochs=50),
    "spliced 15": dict(spliced=15, epochs=13), "read both ways up": dict(both_ways=True),
    "spliced 15, 25 epochs": dict(spliced=15, epochs=25), "spliced 15, hidden 128": dict(spliced=15, epochs=25, hidden=128),
}.items()}
EXPERIMENTS |= {f"right context {n}": (END, dict(right_context=n)) for n in (0, 3, 10, 20)}
EXPERIMENTS |= {f"averaged weights {k}": (END, dict(ema=k)) for k in (.9, .95, .98)}
EXPERIMENTS |= {"teachers": (END, dict(tasks=("span",), task_weights=(), hidden=128, ema=.95)), "taught": ("teachers", dict(teachers=4))}
EXPERIMENTS |= {"refitted": (END, dict(refit=True)), "taught, refitted": ("taught", dict(refit=True))}
UNREAD = ("es_1m_lean_2013_2020", "nq_2m_202603", "es_5m_202507", "btcperp_1m_202201", "eurusd_1m_lean_oanda")  # files that real-rule-v1 neither labels nor scores


def overrides_of(name):
    "All that an experiment changes against the guide."
    parent, change = EXPERIMENTS[name]
    return (overrides_of(parent) if parent else {}) | change


def simulated_sets(n_labels, sets):
    "Labelled sets, joined, the split of each in joined row numbers, and the windows to score."
    parts = [simulate_windows(n_labels, TRAIN_SEED+i, version=1) for i in range(sets)]
    return *join_sets(parts), {"simulated": simulate_windows(TEST_WINDOWS, TEST_SEED, version=1)}


def join_sets(parts):
    "Sets of windows one after the other, and a split of each into fitting and inner validation windows."
    start, splits = np.cumsum([0, *map(len, parts)]), []
    for a, w in zip(start, parts):
        s = split_windows(w, .2, 0.)
        splits.append(Split(s.train+a, s.valid+a, s.test, s.purged+a, s.by_time))
    return join_windows(parts), splits


def splice(windows, rows, copies, seed):
    "Copies of some windows in which bars well before or after the labelled ones are those of others of these windows, moved to fit in price and range."
    rng, own = np.random.default_rng(seed), windows[np.tile(rows, copies)]
    sources, w = windows[rows], windows.ohlc.shape[1]
    size = (sources.ohlc[..., 1] - sources.ohlc[..., 2]).mean(1)
    first = np.array([s[:, 0].min() if len(s) else w for s in sources.spans])
    last = np.array([s[:, 1].max() if len(s) else 0 for s in sources.spans])
    ohlc = own.ohlc.copy()
    for i, p in enumerate(ohlc):
        me = i % len(rows)
        if first[me] > 30 and rng.random() < .7:
            cut = rng.integers(5, first[me]-24)
            j = rng.choice(np.flatnonzero(first >= cut))
            p[:cut] = (sources.ohlc[j, :cut] - sources.ohlc[j, cut-1, 3])*size[me]/size[j] + p[cut, 0]
        if last[me] < w-10 and rng.random() < .7:
            cut = rng.integers(last[me]+3, w-5)
            j = rng.choice(np.flatnonzero(last <= cut))
            p[cut:] = (sources.ohlc[j, cut:] - sources.ohlc[j, cut, 0])*size[me]/size[j] + p[cut-1, 3]
    own.ohlc = ohlc
    return own


def add_spliced(windows, splits, copies):
    "The windows with spliced copies of each set's training windows, and the splits that train on them too."
    parts, out, n = [windows], [], len(windows)
    for i, s in enumerate(splits):
        parts.append(splice(windows, s.train, copies, i))
        out.append(Split(np.concatenate([s.train, np.arange(n, n+len(parts[-1]))]), s.valid, s.test, s.purged, s.by_time))
        n += len(parts[-1])
    return join_windows(parts), out


def every_window(split):
    "The split of networks that are refitted: the windows on which others were validated are learned from too."
    return Split(np.concatenate([split.train, split.valid]), split.valid, split.test, split.purged, split.by_time)


def unlabelled(bench):
    "A folder with the bars that teachers read: simulated ones, of other years than the labelled windows, or the files that real-rule-v1 leaves alone."
    folder = project_root()/"artifacts"/"benchmarks"/"unlabelled"/bench
    folder.mkdir(parents=True, exist_ok=True)
    if bench == "real-rule-v1":
        from real_rule_v1 import BARS
        for name in UNREAD: shutil.copy(BARS/f"{name}.parquet", folder)
    elif not (file := folder/"bars.parquet").exists():
        bars = simulate_labelled_bars(1400, 778, version=int(bench[-1])).bars
        write_atomic(file, lambda f: bars.assign(timestamp=bars.timestamp + pd.Timedelta("7300D")).to_parquet(f))
    return folder


def real_sets():
    "The labelled windows of real-rule-v1: to learn from, and by name to score."
    from real_rule_v1 import BARS, TESTS, TRAIN, load
    if not (BARS/f"{TRAIN[0]}.parquet").exists(): sys.exit(f"real-rule-v1 needs the bars in {BARS}: without them it cannot run")
    return *join_sets([load(TRAIN)]), {k: load(v) for k, v in TESTS.items()}


@torch.no_grad()
def predict(model, x, chunk=512):
    "Span logits of windows, the mean over the ways in which they are read: from features (windows, ways, W, n) on the model's device."
    return torch.cat([model(o.flatten(0, 1))["span"].unflatten(0, o.shape[:2]).mean(1) for o in x.split(chunk)]).float().cpu().numpy()


def read_out(valid_logits, test_logits, valid_mask, lengths, share):
    "Calibrate and choose thresholds on the inner windows, pooled over the networks; then read the test windows bar by bar, and as one segment."
    target = np.concatenate([valid_mask]*len(valid_logits))
    scale, offset = fit_platt(target, np.concatenate(valid_logits))
    prior, inner = length_prior(lengths), [calibrate(z, scale, offset) for z in valid_logits]
    temperature, kept, segment_cut = choose_segment(target, np.concatenate(inner), prior, share)
    cut = choose_threshold(target, np.concatenate(inner))
    def both(z):
        p = calibrate(z, scale, offset)
        marginal, best, sure = segment_posterior(evidence(p, share, kept), prior, temperature)
        return (p, cut, *decode(p, threshold=cut, min_length=2)), (marginal, segment_cut, list(best[:, None]), list(sure[:, None]))
    return [both(z) for z in test_logits]


def score(target, spans, raw, prob, cut, found, sure):
    "What is kept of one network: counts of each window, and single numbers; `raw` is not calibrated."
    p, t = prob.ravel().clip(1e-7, 1-1e-7), target.ravel()
    edges = np.quantile(p, np.linspace(0, 1, 11)[1:-1])
    b = np.searchsorted(edges, p)
    n = np.bincount(b, minlength=10)
    gap = np.abs(np.bincount(b, p, 10) - np.bincount(b, t, 10))
    return dict(counts=window_counts(target, prob, cut), half=pooled_prf(target, raw, .5).f1, ap=average_precision(target, prob),
                hit_3=hit_rate(spans, found, sure, 3), ece=gap.sum()/n.sum(), log_loss=float(-(t*np.log(p) + (1-t)*np.log(1-p)).mean()))


def run(name, overrides, data, seeds, device, bench):
    "Train an experiment's networks and score them: test set -> way of reading -> one entry a network."
    windows, splits, tests = data
    overrides = overrides | ({"background": str(unlabelled(bench))} if overrides.get("teachers") else {})
    both_ways, copies, refit = overrides.pop("both_ways", False), overrides.pop("spliced", 0), overrides.pop("refit", False)
    fit_on = add_spliced(windows, splits, copies) if copies else (windows, splits)
    configs = [make_config("position_encoding", **(dict(seed=s, device=str(device)) | overrides)) for _ in splits for s in range(seeds)]
    began = time.perf_counter()
    fitted = fit_many(configs, fit_on[0], [s for s in fit_on[1] for _ in range(seeds)], progress=False)
    again = fit_many(configs, windows, [every_window(s) for s in splits for _ in range(seeds)], progress=False) if refit else None  # read at the thresholds of the others
    trained = time.perf_counter() - began
    c, mask, spans = configs[0], windows.mask, windows.spans
    def features(w):
        sides = [w.ohlc, mirrored(w.ohlc)] if both_ways else [w.ohlc]
        return torch.stack([torch.as_tensor(named_features(o, c.features, c.swing_rule)) for o in sides], 1).to(device)
    x, out = features(windows), {}
    for where, test in tests.items():
        x_test, target, true_spans = features(test), test.mask, test.spans
        found = out[where] = {k: [] for k in READ}
        for k, s in enumerate(splits):
            judged = [r.model().to(device) for r in fitted[k*seeds:(k+1)*seeds]]
            used = [r.model("final").to(device) for r in again[k*seeds:(k+1)*seeds]] if refit else judged
            zv, zt = ([predict(m, o) for m in models] for models, o in ((judged, x[torch.as_tensor(s.valid)]), (used, x_test)))
            for label, v, t in (("bars", zv, zt), ("mean", [np.mean(zv, 0)], [np.mean(zt, 0)])):
                readings = read_out(v, t, mask[s.valid], [spans[i] for i in s.train], mask[s.train].mean())
                for two, z in zip(readings, t):
                    for reading, kind in zip(two, (label, "segments" if label == "bars" else "mean_segments")):
                        found[kind].append(score(target, true_spans, 1/(1+np.exp(-z)), *reading))
    return out, trained


def run_baseline(name, data):
    "A baseline's answers to the same windows, calibrated and cut on the same inner ones."
    windows, splits, tests = data
    mask, spans, config, out = windows.mask, windows.spans, make_config("recommended"), {}
    for where, test in tests.items():
        both, rows, found = join_windows([windows, test]), len(windows) + np.arange(len(test)), []
        for s in splits:
            z = BASELINES[name](config, both, Split(s.train, s.valid, rows, s.purged, s.by_time))
            (reading, _), = read_out([z["valid"]], [z["test"]], mask[s.valid], [spans[i] for i in s.train], mask[s.train].mean())
            found.append(score(test.mask, test.spans, 1/(1+np.exp(-z["test"])), *reading))
        out[where] = dict(bars=found)
    return out, 0.


def pooled(counts):
    "Pooled F1 from counts (..., windows, 3)."
    tp, fp, fn = np.moveaxis(counts.sum(-2), -1, 0)
    return 2*tp / np.maximum(2*tp+fp+fn, 1)


def prior_score(windows, splits, target):
    "Pooled F1 of the position prior, fitted on each labelled set."
    mask, scores = windows.mask, []
    for s in splits:
        train = mask[np.concatenate([s.train, s.valid])]
        prior = position_prior(train)
        cuts = all_cuts(train, np.broadcast_to(prior, train.shape))
        scores.append(pooled_prf(target, np.broadcast_to(prior, target.shape), best_cut(cuts, cuts.pooled_f1)).f1)
    return float(np.mean(scores))


def pooled_of(counts):
    "Pooled F1 as a function of how often each window counts, from counts (networks, windows, 3)."
    def score(w):
        tp, fp, fn = np.moveaxis(np.tensordot(w, counts, (1, 1)), -1, 0)
        return 2*tp / np.maximum(2*tp+fp+fn, 1e-12)
    return score


def by_set(score, sets):
    "A score a labelled set, the mean of its networks; a score a network where there is one set."
    def grouped(w):
        s = score(w)
        return s.reshape(len(w), sets, -1).mean(-1) if sets > 1 else s
    return grouped


def bounds(score, networks, cluster, bounded):
    "Value and 95 % interval over fresh sessions, and over fresh labelled sets or networks."
    of = recipe_interval if networks > 1 else interval
    return tuple(of(score, cluster, bounded=bounded))[:3]


def difference(a, b, sets, cluster):
    "Mean difference in pooled F1 of a over b, paired by labelled set and seed, with its interval: counts (networks, windows, 3)."
    one, other = pooled_of(a), pooled_of(b)
    return bounds(by_set(lambda w: one(w) - other(w), sets), sets if sets > 1 else len(a), cluster, False)


def difference_of_means(a, b, sets, draws=4000, seed=0):
    "Mean difference of a number a network with its 95 % interval, over labelled sets and networks: each (networks,)."
    rng, d = np.random.default_rng(seed), (a-b).reshape(sets, -1)
    i, j = rng.integers(0, sets, (draws, sets, 1)), rng.integers(0, d.shape[1], (draws, sets, d.shape[1]))
    return float(d.mean()), *map(float, np.quantile(d[i, j].mean((1, 2)), (.025, .975)))


def level(counts, sets, cluster):
    "Mean pooled F1 of networks with its interval: counts (networks, windows, 3)."
    return bounds(by_set(pooled_of(counts), sets), sets if sets > 1 else len(counts), cluster, True)


def slug(name): return "".join(ch if ch.isalnum() else "_" for ch in name)


class Results:
    "The scores that `--out` left in a folder, and how experiments compare."
    def __init__(self, folder):
        self.files = {f.stem: dict(np.load(f)) for f in sorted(folder.glob("*.npz"))}
        self.wheres = sorted({k.split("|")[0] for d in self.files.values() for k in d if "|" in k})

    def counts(self, where, name, kind="bars"):
        "Counts of each network and window, (networks, windows, 3); None where it wasn't run."
        d = self.files.get(slug(name))
        return None if d is None else d[f"{where}|{kind}|counts"].astype(float)

    def row(self, where, name, against=None, kind="bars", base_kind="bars"):
        "One experiment and what it gains, as a dictionary."
        d, a, b = self.files[slug(name)], self.counts(where, name, kind), None if against is None else self.counts(where, against, base_kind)
        out = dict(where=where, experiment=name, reading=READ[kind], against=against, against_reading=READ[base_kind] if against else None,
                   networks=len(a), windows=a.shape[1], f1=float(pooled(a).mean()))
        if b is not None:
            n = max(len(a), len(b))
            v, lo, hi = difference(np.repeat(a, n//len(a), 0), np.repeat(b, n//len(b), 0), int(d["sets"]), d[f"{where}|cluster"])
            out |= dict(difference=v, low=lo, high=hi, verdict="better" if lo > 0 else "worse" if hi < 0 else "no difference")
            half = [np.repeat(o, n//len(o)) for o in (d[f"{where}|{kind}|half"], self.files[slug(against)][f"{where}|{base_kind}|half"])]
            out |= dict(zip(("half_difference", "half_low", "half_high"), difference_of_means(*half, int(d["sets"]))))
        return out | {k: float(d[f"{where}|{kind}|{k}"].mean()) for k in ("half", "ap", "hit_3", "ece", "log_loss")}

    def rows(self):
        "Every experiment against what it starts from; then the ways of reading the last one; then the last one against the first."
        for where in self.wheres:
            for name, (parent, _) in EXPERIMENTS.items():
                if slug(name) in self.files: yield self.row(where, name, parent if parent and slug(parent) in self.files else None)
            for name, kind in (("teachers", "mean"), ("taught", "bars"), ("taught", "mean"), ("refitted", "mean"), ("taught, refitted", "bars"), ("taught, refitted", "mean")):
                if {slug(name), slug(END)} <= set(self.files): yield self.row(where, name, END, kind, kind)
            for name in BASELINES:
                if slug(name) in self.files: yield self.row(where, name) | dict(kind="baseline")
                if not {slug(name), slug(END)} <= set(self.files): continue
                for kind in ("bars", "mean"): yield self.row(where, END, name, kind) | dict(kind="against baseline")
            if not {slug(END), slug("guide")} <= set(self.files): continue
            for kind in ("segments", "mean", "mean_segments"): yield self.row(where, END, END, kind)
            for kind in READ: yield self.row(where, END, "guide", kind, "mean" if kind.startswith("mean") else "bars")


def show(folder, save):
    "The table of all experiments in a folder, in Markdown; `save` gets the rows as JSON."
    rows = list(Results(folder).rows())
    columns = dict(experiment="experiment", reading="read", against="against", f1="pooled bar F1", difference="difference", low="from", high="to",
                   verdict="verdict", half="F1 at 0.5", ap="average precision", hit_3="hit@±3", ece="ECE")
    for where in dict.fromkeys(r["where"] for r in rows):
        print(f"\n### {where}\n\n| " + " | ".join(columns.values()) + " |\n|" + " --- |"*len(columns))
        for r in rows:
            if r["where"] != where: continue
            cells = [r.get(k) for k in columns]
            print("| " + " | ".join("" if c is None else f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells) + " |")
    if save: save.write_text(json.dumps(rows, indent=1) + "\n")


def curve(folders, save):
    "Scores by number of labels; `save` gets the rows as JSON."
    rows = []
    for folder in folders:
        for f in sorted(folder.glob("*.npz")):
            d = dict(np.load(f))
            for kind in ("bars", "mean"):
                counts, sets = d[f"simulated|{kind}|counts"].astype(float), int(d["sets"])
                value = dict(zip(("f1", "low", "high"), level(counts, sets, d["simulated|cluster"])))
                rows.append(dict(labels=int(d["labels"]), recipe=str(d["name"]), reading=READ[kind], **value, sets=sets, networks=len(counts)))
    rows.sort(key=lambda o: (o["recipe"], o["reading"], o["labels"]))
    for o in rows: print("{recipe:20} {reading:16} {labels:6} labels  {f1:.3f} [{low:.3f}, {high:.3f}]  {networks} networks on {sets} sets".format(**o))
    if save: save.write_text(json.dumps(rows, indent=1) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bench", default="simulated-v1", choices=["simulated-v1", "real-rule-v1"])
    for k, v in dict(labels=174, sets=8, seeds=4).items(): p.add_argument(f"--{k}", type=int, default=v)
    p.add_argument("--epochs", type=int, help="of every experiment; default: its own")
    p.add_argument("--out", type=Path)
    p.add_argument("--table", type=Path)
    p.add_argument("--curve", type=Path, nargs="+")
    p.add_argument("--save", type=Path, help="write the table's rows to this file, as JSON")
    p.add_argument("names", nargs="*")
    o = p.parse_args()
    if o.table: return show(o.table, o.save)
    if o.curve: return curve(o.curve, o.save)
    if unknown := [n for n in o.names if n not in (*EXPERIMENTS, *BASELINES)]:
        sys.exit(f"unknown experiment {unknown[0]!r}: choose from {', '.join((*EXPERIMENTS, *BASELINES))}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = real_sets() if o.bench == "real-rule-v1" else simulated_sets(o.labels, o.sets)
    windows, splits, tests = data
    print(f"{o.bench}: {len(splits)} labelled sets, {len(windows)} windows in all, {o.seeds} seeds; {machine('torch')}"
          + (f", {torch.cuda.get_device_name()}" if device.type == "cuda" else ""))
    for where, t in tests.items():
        every = pooled_prf(t.mask, np.ones(t.mask.shape), .5).f1
        print(f"{where}: {len(t)} windows; marking every bar {every:.3f}, position prior {prior_score(windows, splits, t.mask):.3f}")
    for name in o.names or (*EXPERIMENTS, *BASELINES):
        if o.out and (o.out/f"{slug(name)}.npz").exists():
            print(f"{name:32} is in {o.out} already", flush=True)
            continue
        out, trained = (run_baseline(name, data) if name in BASELINES else
                        run(name, overrides_of(name) | ({"epochs": o.epochs} if o.epochs else {}), data, o.seeds, device, o.bench))
        mean = {where: [np.mean([pooled(r["counts"]) for r in rows]) for rows in found.values()] for where, found in out.items()}
        scores = "  ".join(f"{where}: " + " ".join(f"{v:.3f}" for v in values) for where, values in mean.items())
        print(f"{name:32} {scores}  {trained:.1f} s", flush=True)
        if o.out:
            o.out.mkdir(parents=True, exist_ok=True)
            keep = {f"{where}|{k}|{m}": np.stack([r[m] for r in rows]) for where, found in out.items() for k, rows in found.items() for m in rows[0]}
            keep = {k: v.astype(np.int16) if k.endswith("counts") else v for k, v in keep.items()} | {f"{where}|cluster": clusters(t) for where, t in tests.items()}
            np.savez_compressed(o.out/f"{slug(name)}.npz", sets=len(splits), labels=o.labels, name=name, **keep)


if __name__ == "__main__": main()
