"""simulated-v1: how well a variant finds expansions, learned from few labels, in two thousand simulated windows that nothing was chosen on.

    python benchmarks/simulated_v1.py [--labels 174] [--sets 4] [--seeds 4] [--out FOLDER] [NAME ...]

A NAME is an experiment of `EXPERIMENTS`; without one, all are run. On a GPU all networks of an experiment are trained at once.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from table import machine

from moola.decode import choose_threshold, decode, length_prior, segment_posterior
from moola.evaluate import calibrate, fit_platt, join_windows
from moola.many import fit_many
from moola.metrics import average_precision, best_cut, all_cuts, counts_f1, bootstrap_interval, hit_rate, position_prior, pooled_prf, window_counts
from moola.splits import Split, split_windows
from moola.training import named_features
from moola.variants import MOVES, STONES, make_config
from moola.windows import simulate_windows

VERSION = "simulated-v1"
TEST = dict(n=2000, seed=9001)  # the windows that everything is scored on
FIRST_SET = 101  # data seed of the first labelled set

POSITION = (*STONES, "position_encoding")
EXPERIMENTS = {
    "guide": {},
    "pos_weight 1": dict(pos_weight=1.), "pos_weight 4": dict(pos_weight=4.), "pos_weight 8": dict(pos_weight=8.),
    "mirror": dict(mirror=True),
    "displacement features": dict(features=(*POSITION, *MOVES)),
    "no position": dict(features=STONES),
    "fixed task weights": dict(task_weights=(.3, .3, 1., .1)),
    "span task alone": dict(tasks=("span",)),
    "span and countdown": dict(tasks=("span", "countdown")),
    "soft edges 1": dict(soft_bars=1), "soft edges 2": dict(soft_bars=2),
    "swings close": dict(swing_rule="close"), "swings strict": dict(swing_rule="strict"),
    "lr 3e-3": dict(lr=3e-3), "batch 16": dict(batch_size=16), "200 epochs": dict(epochs=200),
    "less dropout": dict(input_dropout=.1, head_dropout=.3), "hidden 64": dict(hidden=64), "weight decay .1": dict(weight_decay=.1),
}


def labelled_sets(n_labels, sets):
    "The labelled sets, joined, and the split of each into fitting and inner validation windows, in joined row numbers."
    parts = [simulate_windows(n_labels, FIRST_SET+i) for i in range(sets)]
    start = np.cumsum([0, *map(len, parts)])
    splits = []
    for a, w in zip(start, parts):
        s = split_windows(w, .2, 0.)
        splits.append(Split(s.train+a, s.valid+a, s.test, s.purged+a, s.by_time))
    return join_windows(parts), splits


@torch.no_grad()
def predict(model, x, chunk=512):
    "Span logits of windows whose features are on the model's device."
    return torch.cat([model(o)["span"] for o in x.split(chunk)]).float().cpu().numpy()


def read_out(valid_logits, test_logits, valid_mask, lengths):
    "Calibrate and choose a threshold on the inner windows, pooled over the networks; then read the test windows."
    target = np.concatenate([valid_mask]*len(valid_logits))
    scale, offset = fit_platt(target, np.concatenate(valid_logits))
    prior = length_prior(lengths)
    def both(z):
        p = calibrate(z, scale, offset)
        return p, segment_posterior(p, prior)[0]
    inner = [both(z) for z in valid_logits]
    cuts = [choose_threshold(target, np.concatenate([o[i] for o in inner])) for i in (0, 1)]
    tests = [both(z) for z in test_logits]
    return cuts, tests


def score(target, spans, prob, raw, cut):
    "What is kept of one network: counts of each window, and single numbers."
    found, sure = decode(prob, threshold=cut, min_length=2)
    p, t = prob.ravel().clip(1e-7, 1-1e-7), target.ravel()
    edges = np.quantile(p, np.linspace(0, 1, 11)[1:-1])
    b = np.searchsorted(edges, p)
    n = np.bincount(b, minlength=10)
    gap = np.abs(np.bincount(b, p, 10) - np.bincount(b, t, 10))
    return dict(counts=window_counts(target, prob, cut), half=pooled_prf(target, raw, .5).f1, ap=average_precision(target, prob),
                hit_3=hit_rate(spans, found, sure, 3), ece=gap.sum()/n.sum(), log_loss=float(-(t*np.log(p) + (1-t)*np.log(1-p)).mean()))


def run(name, overrides, n_labels, sets, seeds, device):
    "Train an experiment's networks and score them on the test windows."
    windows, splits = labelled_sets(n_labels, sets)
    test = simulate_windows(**TEST)
    configs = [make_config("position_encoding", **(dict(seed=s, device=str(device)) | overrides)) for _ in splits for s in range(seeds)]
    began = time.perf_counter()
    fitted = fit_many(configs, windows, [s for s in splits for _ in range(seeds)], progress=False)
    trained = time.perf_counter() - began
    c, mask, spans = configs[0], windows.mask, windows.spans
    def features(w): return torch.as_tensor(named_features(w.ohlc, c.features, c.swing_rule)).to(device)
    x_test, x = features(test), features(windows)
    target, true_spans = test.mask, test.spans
    out = dict(bars=[], segments=[], mean=[], mean_segments=[])
    for k, s in enumerate(splits):
        models = [r.model().to(device) for r in fitted[k*seeds:(k+1)*seeds]]
        zv, zt = [predict(m, x[torch.as_tensor(s.valid)]) for m in models], [predict(m, x_test) for m in models]
        lengths = [spans[i] for i in s.train]
        cuts, tests = read_out(zv, zt, mask[s.valid], lengths)
        for (p, q), z in zip(tests, zt):
            raw = 1/(1+np.exp(-z))
            out["bars"].append(score(target, true_spans, p, raw, cuts[0]))
            out["segments"].append(score(target, true_spans, q, raw, cuts[1]))
        cuts, tests = read_out([np.mean(zv, 0)], [np.mean(zt, 0)], mask[s.valid], lengths)
        raw = 1/(1+np.exp(-np.mean(zt, 0)))
        out["mean"].append(score(target, true_spans, tests[0][0], raw, cuts[0]))
        out["mean_segments"].append(score(target, true_spans, tests[0][1], raw, cuts[1]))
    return out, trained


def f1(rows): return float(np.mean([counts_f1(r["counts"], np.ones((1, len(r["counts"]))))[0] for r in rows]))


def baselines(n_labels, sets):
    "The position prior, fitted on each labelled set, and the displacement rule."
    windows, splits = labelled_sets(n_labels, sets)
    test, mask = simulate_windows(**TEST), windows.mask
    target, scores = test.mask, []
    for s in splits:
        train = mask[np.concatenate([s.train, s.valid])]
        prior = position_prior(train)
        cuts = all_cuts(train, np.broadcast_to(prior, train.shape))
        scores.append(pooled_prf(target, np.broadcast_to(prior, target.shape), best_cut(cuts, cuts.pooled_f1)).f1)
    return dict(every_bar=pooled_prf(target, np.ones(target.shape), .5).f1, position_prior=float(np.mean(scores)))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for k, v in dict(labels=174, sets=4, seeds=4).items(): p.add_argument(f"--{k}", type=int, default=v)
    p.add_argument("--out", type=Path)
    p.add_argument("--set", default="{}", help="JSON of parameters that every experiment gets")
    p.add_argument("names", nargs="*")
    args = p.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{VERSION}, {args.labels} labels, {args.sets} labelled sets x {args.seeds} seeds, scored on {TEST['n']} windows")
    print(machine("torch"), torch.cuda.get_device_name() if device.type == "cuda" else "")
    print({k: round(v, 3) for k, v in baselines(args.labels, args.sets).items()})
    head = "F1 | at .5 | AP | hit@3 | ECE | F1 segments | hit@3 | F1 mean of seeds | its segments | seconds"
    print(f"{'experiment':40} {head}")
    for name in args.names or EXPERIMENTS:
        overrides = json.loads(args.set) | (EXPERIMENTS[name] if name in EXPERIMENTS else json.loads(name))
        out, trained = run(name, overrides, args.labels, args.sets, args.seeds, device)
        b, s, m, ms = (out[k] for k in ("bars", "segments", "mean", "mean_segments"))
        def mean(rows, k): return float(np.mean([r[k] for r in rows]))
        row = [f1(b), mean(b, "half"), mean(b, "ap"), mean(b, "hit_3"), mean(b, "ece"), f1(s), mean(s, "hit_3"), f1(m), f1(ms)]
        print(f"{name[:40]:40} " + " ".join(f"{v:.3f}" for v in row) + f" {trained:.1f}", flush=True)
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            keep = {f"{k}_counts": np.stack([r["counts"] for r in rows]).astype(np.int16) for k, rows in out.items()}
            keep |= {f"{k}_{n}": np.array([r[n] for r in rows]) for k, rows in out.items() for n in ("half", "ap", "hit_3", "ece", "log_loss")}
            slug = "".join(ch if ch.isalnum() or ch in "-_." else "_" for ch in name)[:60]
            np.savez_compressed(args.out/f"{slug}_{args.labels}.npz", name=name, overrides=json.dumps(overrides), **keep)


if __name__ == "__main__": main()
