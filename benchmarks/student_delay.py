"""Students that look 0, 3, 10 and 31 bars ahead, on bars in a row: what they say of a bar when so many more have closed, and what their confidence is worth.

    python benchmarks/student_delay.py --save benchmarks/results/student-delay.json
    python benchmarks/student_delay.py --expansions 40 --unlabelled 12000 --epochs 4 --right-context 31 3   # minutes on two cores

The teachers are the models named, or the one that comes with moola. They answer simulated bars without labels; everybody is scored on other simulated bars,
with an expansion in each 230 of them, and confidence is fitted on a third set. Beside the students stand the teachers' windows as they close, at each delay.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from table import machine

from moola.core.files import project_root
from moola.core.names import OHLC
from moola.data.plant import simulate_labelled_bars, simulate_windows
from moola.data.simulate import SESSION, simulate_bars
from moola.detection.detector import Detector
from moola.evaluation.delay import by_delay, marked_bars, read_edges
from moola.metrics.calibration import calibrate_prob, fit_platt
from moola.metrics.decode import threshold_spans
from moola.metrics.intervals import interval, paired_interval, score_of
from moola.models.series_reader import SeriesReader
from moola.transfer.distil import distil

SHOWN = (0, 3, 10, 31)


def blocks(labelled, prob):
    "Labels and answers by block of 230 bars with one expansion, (n, 2, 230); 0 where there is no answer."
    n, size = len(labelled.bars)//labelled.block, labelled.block
    t = marked_bars(labelled.spans, len(labelled.bars))
    return np.stack([t[:n*size], np.nan_to_num(prob)[:n*size].astype(float)], 1).reshape(n, size, 2).transpose(0, 2, 1)


def read(net, labelled):
    "A student's answers, session by session."
    x, reader = np.ascontiguousarray(labelled.bars[OHLC]), SeriesReader(net)
    return np.concatenate([reader.read(o) for o in np.split(x, range(SESSION, len(x), SESSION))])


def found_bars(v, threshold):
    "The bars of each span that is found: answers and labels."
    return [(p[a:b], t[a:b].astype(bool)) for t, p in v for a, b in threshold_spans(p, threshold, 2)[0]]


def logit(p): return np.log(np.clip(p, 1e-6, 1-1e-6)/(1-np.clip(p, 1e-6, 1-1e-6)))


def span_calibration(v, threshold):
    "Scale and offset fitted on the bars of the spans that are found, since a span is where the network was most sure."
    p, t = (np.concatenate(o) for o in zip(*found_bars(v, threshold)))
    return fit_platt(t, logit(p))


def span_confidence(v, threshold, scale=None):
    "Mean confidence of the spans, the share of their bars that is labelled, and their number."
    found = [((p if scale is None else calibrate_prob(np.clip(p, 1e-6, 1-1e-6), *scale)).mean(), t.mean()) for p, t in found_bars(v, threshold)]
    return (*np.mean(found, 0).tolist(), len(found)) if found else (float("nan"), float("nan"), 0)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("teachers", nargs="*", help="runs or checkpoints; default: the model that comes with moola")
    p.add_argument("--expansions", type=int, default=120)
    p.add_argument("--unlabelled", type=int, default=50_000)
    p.add_argument("--labelled", type=int, default=174, help="simulated labelled windows whose surges are pasted into the bars; 0 for none")
    p.add_argument("--epochs", type=int, default=12)
    p.add_argument("--right-context", type=int, nargs="+", default=list(SHOWN))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cpu")
    p.add_argument("--save", type=Path)
    o = p.parse_args()
    torch.set_num_threads(1)
    teacher, folder = Detector.load(o.teachers or None, o.device), project_root()/"artifacts"/"benchmarks"/"student-delay"
    test, fitted = simulate_labelled_bars(o.expansions, seed=9401), simulate_labelled_bars(o.expansions, seed=9402)
    print(f"{teacher}; {len(test.bars):,} bars, {marked_bars(test.spans, len(test.bars)).mean():.1%} labelled", flush=True)
    windows = simulate_windows(o.labelled, 7) if o.labelled else None
    edges, rows = by_delay(read_edges(test.bars, teacher)), []
    for d in (0, 3, 10, 30):
        v = blocks(test, edges[:, d])
        rows.append(dict(reader="windows as they close", delay=d, average_precision=list(interval(score_of(v[:, 0], v[:, 1]), np.arange(len(v))))[:3]))
        print(f"windows, {d:2} bars closed since: AP {np.round(rows[-1]['average_precision'], 3)}", flush=True)
    for r in o.right_context:
        began = time.perf_counter()
        net = distil(teacher, simulate_bars(o.unlabelled, seed=9403), folder/f"{r}-{o.seed}", windows, right_context=r, epochs=o.epochs, seed=o.seed,
                     answers=folder/"answers", device=o.device, overwrite=True).cpu()
        v, w = blocks(test, read(net, test)), blocks(fitted, read(net, fitted))
        near = blocks(test, edges[:, min(r, 30)])
        level = float(np.sort(w[:, 1][w[:, 0] > 0])[::-1][int((w[:, 0] > 0).sum()//2)])   # marks half of the labelled bars, on the bars that are not scored
        scale = span_calibration(w, level)
        rows.append(dict(reader="student", delay=r, average_precision=list(interval(score_of(v[:, 0], v[:, 1]), np.arange(len(v))))[:3], seconds=time.perf_counter()-began,
                         less_windows=list(paired_interval(score_of(v[:, 0], v[:, 1]), score_of(near[:, 0], near[:, 1]), np.arange(len(v))))[:3],
                         spans=span_confidence(v, level), spans_calibrated=span_confidence(v, level, scale), threshold=level, scale=[float(k) for k in scale]))
        print(f"student, {r:2} bars ahead: AP {np.round(rows[-1]['average_precision'], 3)}, less windows {np.round(rows[-1]['less_windows'], 3)}; spans say "
              f"{rows[-1]['spans'][0]:.3f}, calibrated {rows[-1]['spans_calibrated'][0]:.3f}, and {rows[-1]['spans'][1]:.3f} of their bars are labelled ({rows[-1]['spans'][2]} spans)", flush=True)
        if o.save: o.save.write_text(json.dumps(dict(machine=machine(), options={k: v for k, v in vars(o).items() if k != "save"}, rows=rows), indent=1))


if __name__ == "__main__": main()
