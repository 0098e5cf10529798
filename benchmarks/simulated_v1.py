"""simulated-v1: simulated windows, 174 of them labelled as in the guide, and the curve of score against labels.

    python benchmarks/simulated_v1.py                         # 50, 174 and 500 labels, each variant
    python benchmarks/simulated_v1.py --labels 174 5000 --seeds 4 --device cuda --workers 1

What is scored is always the same 2,000 windows of another seed, so that scores at different numbers of labels can be compared. The score with 5,000
labels is the ceiling. Every number is that of `moola.evaluation.evaluate.evaluate_on`: choices on an inner block of the labelled windows, never on what is scored.
"""
import argparse
import json
from pathlib import Path

from table import machine

from moola.core.config import VARIANTS, make_config
from moola.core.files import project_root
from moola.data.plant import simulate_windows
from moola.evaluation.evaluate import evaluate_on, paired
from moola.evaluation.page import READINGS, SYSTEM_WORDS
from moola.metrics.judged import METRICS

NAME, TRAIN_SEED, TEST_SEED, TEST_WINDOWS = "simulated-v1", 101, 9001, 2000  # experiments.py learns from further sets, of seeds 102, 103, ...
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


def rows_of(place, variant, result, reference=None, baselines=True):
    "Lines of the table: a line a system, with the paired difference in pooled bar F1 from another variant."
    rows = []
    for k in result.scores:
        if k not in READINGS and not baselines: continue
        name = f"{variant}: {SYSTEM_WORDS[k]}" if k in (*READINGS, "untrained") else SYSTEM_WORDS[k]
        minus = "" if reference is None or k not in READINGS or k not in reference.systems else repr(paired(result, reference, reading=k))
        rows.append([place, name, *(repr(result.scores[k][m]) if m in result.scores[k] else "" for m in SHOWN), minus])
    return rows


def table(place, reference, rows):
    "A table in Markdown."
    head = [place, "system", *(METRICS[m] for m in SHOWN), f"pooled bar F1 minus {reference}, paired"]
    return ["| " + " | ".join(head) + " |", "|" + " --- |"*len(head), *("| " + " | ".join(r) + " |" for r in rows)]


def record(folder, name, results, text):
    "Write the numbers and the page."
    folder.mkdir(parents=True, exist_ok=True)
    found = {" ".join(map(str, k)): {s: {m: v._asdict() for m, v in d.items()} for s, d in r.scores.items()} for k, r in results.items()}
    (folder/f"{name}.json").write_text(json.dumps(found, indent=1, default=float))
    (folder/f"{name}.md").write_text("\n".join(text)+"\n")
    print("\n".join(text), flush=True)


def run(o, place, train, test, results):
    "Train and score every variant in one place; what knows no variant is scored with the first."
    rows = []
    for i, v in enumerate(o.variants):
        config = make_config(v, device=o.device, **({"epochs": o.epochs} if o.epochs else {}))
        r = results[place, v] = evaluate_on(config, train, test, o.output/"folds", o.seeds, o.workers, baselines=None if i == 0 else {})
        rows += rows_of(f"{place:,}" if isinstance(place, int) else place, v, r, results[place, o.variants[0]] if i else None, i == 0)
    return rows


def main():
    o = options()
    test, rows, results = simulate_windows(o.test_windows, TEST_SEED, version=1), [], {}
    for n in o.labels: rows += run(o, n, simulate_windows(n, TRAIN_SEED, version=1), test, results)
    text = [f"# {NAME}", "", f"{o.test_windows} scored windows (seed {TEST_SEED}), {o.seeds} seeds a variant; {machine('torch', 'scikit-learn')}.", "",
            *table("labels", o.variants[0], rows)]
    few, ceiling = min(o.labels, key=lambda n: abs(n-174)), max(o.labels)
    for v in o.variants if ceiling > few else ():
        a, b = (results[n, v].scores["model"]["f1"].value for n in (few, ceiling))
        text += ["", f"{v}: pooled bar F1 {a:.3f} with {few} labels, {b:.3f} with {ceiling:,}" + (f", of which it is {a/b:.0%}." if b else ".")]
    record(o.output, NAME, results, text)


if __name__ == "__main__": main()
