"""simulated-v1: simulated windows, 174 of them labelled as in the guide, and the curve of score against labels.

    python benchmarks/simulated_v1.py                         # 50, 174 and 500 labels, each variant
    python benchmarks/simulated_v1.py --labels 174 5000 --seeds 4 --device cuda --workers 1

What is scored is always the same 600 windows of another seed, so that scores at different numbers of labels can be compared. The score with 5,000
labels is the ceiling. Every number is that of `moola.evaluate.evaluate_on`: choices on an inner block of the labelled windows, never on what is scored.
"""
import argparse
import json
from pathlib import Path

import numpy as np
from table import machine

from moola.evaluate import METRICS, SYSTEM_WORDS, evaluate_on, paired
from moola.runs import project_root
from moola.variants import VARIANTS, make_config
from moola.windows import simulate_windows

NAME, TRAIN_SEED, TEST_SEED, TEST_WINDOWS = "simulated-v1", 7, 1007, 600
SHOWN = ("f1", "f1_half", "average_precision", "segment_f1_25", "segment_f1_50", "hit_1", "hit_3", "log_loss", "ece")


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 174, 500])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, help="default: the variant's")
    parser.add_argument("--test-windows", type=int, default=TEST_WINDOWS)
    parser.add_argument("--output", type=Path, default=project_root()/"artifacts"/"benchmarks"/NAME)
    return parser.parse_args()


def lines(result, systems=None):
    "A table in Markdown: a line a system."
    names = [k for k in result.scores if systems is None or k in systems]
    rows = [[SYSTEM_WORDS.get(k, k), *(repr(result.scores[k][m]) if m in result.scores[k] else "" for m in SHOWN)] for k in names]
    head = ["", *(METRICS[m] for m in SHOWN)]
    return ["| " + " | ".join(head) + " |", "|" + " --- |"*len(head), *("| " + " | ".join(r) + " |" for r in rows)]


def plain(scores): return {k: {m: s._asdict() for m, s in v.items()} for k, v in scores.items()}


def record(folder, name, found, text):
    "Write the numbers and the page."
    folder.mkdir(parents=True, exist_ok=True)
    (folder/f"{name}.json").write_text(json.dumps(found, indent=1, default=float))
    (folder/f"{name}.md").write_text("\n".join(text)+"\n")
    print("\n".join(text), flush=True)


def main():
    o = options()
    test, found, results = simulate_windows(o.test_windows, TEST_SEED), {}, {}
    text = [f"# {NAME}", "", f"{o.test_windows} scored windows (seed {TEST_SEED}), {o.seeds} seeds a variant; {machine('torch', 'scikit-learn')}."]
    for n in o.labels:
        train = simulate_windows(n, TRAIN_SEED)
        for i, v in enumerate(o.variants):
            config = make_config(v, device=o.device, **({"epochs": o.epochs} if o.epochs else {}))
            r = results[n, v] = evaluate_on(config, train, test, o.output/"folds", o.seeds, o.workers, baselines=None if i == 0 else {})
            found[f"{n} {v}"] = plain(r.scores)
            text += ["", f"## {n} labels, {v}", "", *lines(r, None if i == 0 else ("model", "mean_of_seeds"))]
            if i: text += ["", f"Pooled bar F1, {v} minus {o.variants[0]}, paired: {paired(r, results[n, o.variants[0]])!r}."]
    text += ["", "## Score against labels", "", "| labels | " + " | ".join(o.variants) + " |", "|" + " --- |"*(len(o.variants)+1)]
    text += [f"| {n:,} | " + " | ".join(repr(results[n, v].scores["model"]["f1"]) for v in o.variants) + " |" for n in o.labels]
    ceiling = max(o.labels)
    if ceiling > min(o.labels):
        best = {v: results[ceiling, v].scores["model"]["f1"].value for v in o.variants}
        share = {v: results[min(o.labels, key=lambda n: abs(n-174)), v].scores["model"]["f1"].value/np.float64(best[v]) for v in o.variants}
        text += ["", "Share of the score with the most labels that about 174 labels reach: " + ", ".join(f"{v} {s:.0%}" for v, s in share.items()) + "."]
    record(o.output, NAME, found, text)


if __name__ == "__main__": main()
