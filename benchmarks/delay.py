"""The delay curve: recall and precision against the bars that have closed since an expansion began and ended.

    python benchmarks/delay.py                                        # trains what is missing; an hour on two cores, and scores for four minutes
    python benchmarks/delay.py --save benchmarks/results/delay.json   # also keeps the rows that the site's page is made of

Networks learn from 174 simulated windows, take a threshold for each delay from simulated bars of a second seed, and are scored on those of a third.
"""
import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from table import machine

from moola.core.config import config_from_dict, make_config
from moola.core.files import project_root
from moola.core.names import DISPLACEMENT, FEATURES
from moola.data.plant import simulate_labelled_bars, simulate_windows
from moola.data.splits import split_windows
from moola.detection.detector import Detector
from moola.detection.ensemble import predict_windows
from moola.detection.scan import scan
from moola.evaluation.delay import ap_values, by_delay, delay_counts, delay_curve, edge_thresholds, marked_bars, read_edges, readable
from moola.metrics.decode import choose_threshold
from moola.metrics.intervals import paired_interval, score_of
from moola.metrics.scores import average_precision
from moola.models.jade import make_model
from moola.training.many import fit_many

TRAIN_SEED, CHOICE_SEED, TEST_SEED, WINDOW_SEED = 101, 8101, 9101, 9001
VARIANTS = {"recommended": {}, "recuts 5": dict(recuts=5), "recuts 15": dict(recuts=15), "right context 5": dict(right_context=5),
            "right context 0": dict(right_context=0)}
SHOWN = (0, 1, 3, 5, 10, 19, 30)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--labels", type=int, default=174)
    parser.add_argument("--expansions", type=int, default=150, help="expansions in the scored bars")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=project_root()/"artifacts"/"benchmarks"/"delay")
    parser.add_argument("--save", type=Path, metavar="FILE")
    return parser.parse_args()


def trained(o, name):
    "Networks of a variant as (config, weights), from the folder where they are there."
    file = o.output/f"{name.replace(' ', '-')}-{o.labels}-{o.epochs}-{o.seeds}.pt"
    if not file.exists():
        windows = simulate_windows(o.labels, TRAIN_SEED)
        split = split_windows(windows, .2, 0.)
        configs = [make_config("recommended", device=o.device, seed=i, epochs=o.epochs, progress=False, **VARIANTS[name]) for i in range(o.seeds)]
        found = fit_many(configs, windows, [split]*o.seeds, processes=o.processes)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save([dict(config=asdict(r.config), model=r.best) for r in found], file)
    return torch.load(file, weights_only=True)


def detector_of(net, device):
    "A detector of one network."
    config = config_from_dict(net["config"])
    model = make_model(config).eval().requires_grad_(False)
    model.load_state_dict(net["model"])
    assert set(config.features) <= set(FEATURES + DISPLACEMENT)
    return Detector([model.to(device)], config.features, config.swing_rule, .5, config.min_length, torch.device(device), [config.variant])


def in_windows(detectors):
    "Average precision in windows that hold an expansion each: a mean over the networks."
    windows = simulate_windows(400, WINDOW_SEED)
    return float(np.mean([average_precision(windows.mask, predict_windows(windows.ohlc, d)) for d in detectors]))


def in_scan(detectors, scored):
    "Average precision of a scan of the scored bars: what hindsight is worth there."
    inside, out = marked_bars(scored.spans, len(scored.bars)), []
    for d in detectors:
        p = scan(scored.bars, d, types=False, progress=False).probabilities.probability.to_numpy()
        out.append(average_precision(inside[None, ~np.isnan(p)], p[None, ~np.isnan(p)]))
    return float(np.mean(out))


def mean_ap(values): return score_of(values[:, 0, 0], values[:, :, 1].swapaxes(0, 1))


def event_f1(values):
    "F1 of whole expansions from (blocks, 4): hits and labels of recall, hits and spans of precision."
    def score(weights):
        a, n, b, m = (weights @ values).T
        recall, precision = (np.divide(x, y, out=np.zeros_like(x, dtype=float), where=y > 0) for x, y in ((a, n), (b, m)))
        return np.divide(2*recall*precision, recall+precision, out=np.zeros_like(recall), where=recall+precision > 0)[:, None]
    return score


def event_values(edges, thresholds, labelled, delay):
    counts = [delay_counts(e, labelled.spans, labelled.block, t) for e, t in zip(edges, thresholds)]
    return np.concatenate([sum(c[f"since end, {m}"][:, delay] for c in counts) for m in ("recall", "precision")], 1)


def paired(a, b, statistic):
    "What `a` and `b` score, and the difference with its interval."
    (x, y), ones = (statistic(a), statistic(b)), np.ones((1, len(a)))
    return dict(value=float(x(ones).mean()), reference=float(y(ones).mean()), difference=paired_interval(x, y, np.arange(len(a)))._asdict())


def differences(new, reference, labelled):
    "Against the reference at some delays, paired by block: of (edges, thresholds by delay, one threshold) of each network."
    out = []
    for d in SHOWN:
        a, b = (np.stack([ap_values(e, labelled, d) for e in each[0]], 1) for each in (new, reference))
        out.append(dict(delay=d, score="average precision of bars", **paired(a, b, mean_ap)))
        for k, name in ((1, "a threshold for each delay"), (2, "one threshold")):
            a, b = (event_values(each[0], each[k], labelled, d) for each in (new, reference))
            out.append(dict(delay=d, score=f"F1 of whole expansions, {name}", **paired(a, b, event_f1)))
    return out


def one_threshold(edges, labelled):
    "The threshold with the best F1 over the bars at all delays together."
    ok, p = readable(edges), by_delay(edges)
    return choose_threshold(np.broadcast_to(marked_bars(labelled.spans, len(edges))[ok, None], p[ok].shape), p[ok])


def main():
    o = options()
    choice, scored = simulate_labelled_bars(60, CHOICE_SEED), simulate_labelled_bars(o.expansions, TEST_SEED)
    rows, read, windows = [], {}, {}
    for name in o.variants:
        detectors = [detector_of(n, o.device) for n in trained(o, name)]
        windows[name] = in_windows(detectors)
        chosen = [read_edges(choice.bars, d) for d in detectors]
        read[name] = [read_edges(scored.bars, d) for d in detectors], [edge_thresholds(e, choice) for e in chosen], [one_threshold(e, choice) for e in chosen]
        curve = delay_curve(read[name][0], scored, read[name][1], detectors[0].min_length)
        rows += [dict(variant=name, **r) for r in curve.to_dict("records")]
        for k, c in curve[curve.delay.isin(SHOWN)].groupby("name", sort=False):
            each = (f"{r.delay}: {r.value:.2f} [{r.low:.2f}, {r.high:.2f}] chance {r.chance:.2f}" for r in c.itertuples())
            print(f"{name}: {k} " + ", ".join(each), flush=True)
    against = o.variants[0]
    hindsight = dict(windows=windows, scan=in_scan([detector_of(n, o.device) for n in trained(o, against)], scored))
    each = ", ".join(f"{k} {v:.3f}" for k, v in windows.items())
    print(f"average precision with hindsight: of {against} in a scan {hindsight['scan']:.3f}; in windows {each}")
    minus = [dict(variant=n, **r) for n in o.variants[1:] for r in differences(read[n], read[against], scored)]
    for r in minus:
        i = r["difference"]
        print(f"{r['variant']}, {r['score']}, {r['delay']} bars: {r['value']:.3f}, minus {against} {i['value']:+.3f} [{i['low']:+.3f}, {i['high']:+.3f}]")
    if o.save:
        about = dict(labels=o.labels, epochs=o.epochs, networks=o.seeds, expansions=o.expansions, against=against, delays=SHOWN, hindsight=hindsight,
                     machine=machine("torch") if o.device == "cpu" else f"{torch.cuda.get_device_name(0)}, {machine('torch')}")
        rounded = [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in rows]
        lines = {"rows": rounded, "differences": minus}
        text = [f'"about": {json.dumps(about)}', *(f'"{k}": [\n' + ",\n".join(map(json.dumps, v)) + "]" for k, v in lines.items())]
        o.save.write_text("{" + ",\n".join(text) + "}\n")


if __name__ == "__main__": main()
