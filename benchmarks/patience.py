"""Early or sure: what streams of the models that come with moola tell of known expansions, by their patience.

    python benchmarks/patience.py --save benchmarks/results/patience.json
"""
import argparse
import json
from pathlib import Path

import numpy as np
from table import machine

from moola.core.names import OHLC
from moola.data.plant import simulate_labelled_bars
from moola.detection.detector import Detector

READERS = [*(("recommended", p) for p in (0, 3, 10, 20)), ("student-live", 3), ("student", 31)]
SEED = 23  # of the bars; no training or choice has used it


def overlap(span, spans):
    "The label that shares most bars with a span, and the share of both that they share."
    shared = (np.minimum(spans[:, 1], span[1]) - np.maximum(spans[:, 0], span[0])).clip(0)
    iou = shared / ((spans[:, 1]-spans[:, 0]) + (span[1]-span[0]) - shared)
    k = int(iou.argmax())
    return (k, float(iou[k])) if shared[k] else (None, 0.)


def measured(detector, labelled, patience):
    "One row of the table."
    stream, spans = detector.stream(patience=patience), labelled.spans
    events = [e for b in labelled.bars.itertuples() for e in stream.push(b).events]
    events += list(stream.close().events)
    first, last, told = {}, {}, {}
    for e in events:
        first.setdefault(e.id, e)
        last[e.id] = e
        k, _ = overlap((e.start_bar, e.end_bar+1), spans)
        if e.kind == "new" and k is not None: told.setdefault(k, e.row - int(spans[k, 0]))
    hit = [overlap((e.start_bar, e.end_bar+1), spans)[0] is not None for e in first.values()]
    final = [e for e in last.values() if e.kind == "final"]
    right = [overlap((e.start_bar, e.end_bar+1), spans) for e in final]
    found = {k for k, iou in right if iou >= .5}
    return dict(model=Path(detector.runs[0]).name, patience=patience, labels=len(spans), told=len(first), after=float(np.median(list(told.values()))) if told else None,
                first_precision=float(np.mean(hit)), first_recall=len(told)/len(spans), withdrawn=sum(e.kind == "withdrawn" for e in last.values())/len(first),
                final_precision=float(np.mean([iou >= .5 for _, iou in right])), final_recall=len(found)/len(spans))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expansions", type=int, default=120)
    parser.add_argument("--save", type=Path, metavar="FILE")
    o = parser.parse_args()
    labelled = simulate_labelled_bars(o.expansions, SEED)
    assert set(OHLC) <= set(labelled.bars)
    rows = []
    for model, patience in READERS:
        rows.append(measured(Detector.load(model, "cpu"), labelled, patience))
        print(json.dumps(rows[-1]), flush=True)
    if o.save:
        rounded = [{k: round(v, 3) if isinstance(v, float) else v for k, v in r.items()} for r in rows]
        about = dict(bars=len(labelled.bars), expansions=o.expansions, machine=machine("torch"))
        o.save.write_text(json.dumps(dict(about=about, rows=rounded), indent=1) + "\n")


if __name__ == "__main__": main()
