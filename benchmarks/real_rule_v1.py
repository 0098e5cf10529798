"""real-rule-v1: one-minute index-future bars, labelled by the hindsight rule of `moola.labels.rule`.

    python benchmarks/real_rule_v1.py --variants position_encoding

Trained on ES of March 2023 and April 2025 and NQ of November 2023; scored on NQ of May 2026 (other months) and on the Euro Stoxx 50 future of 2006
(another instrument). The bars are no part of the project: they are looked for in `MOOLA_SHARED`, else in `shared/` beside the project.
"""
import argparse
import os
import sys
from pathlib import Path

from simulated_v1 import record, run, table
from table import machine

from moola.core.config import VARIANTS
from moola.core.files import project_root
from moola.data.windows import join_windows
from moola.labels.rule import HindsightRule, label_file

NAME = "real-rule-v1"
TRAIN = ("es_1m_202303", "es_1m_202504", "nq_1m_202311")
TESTS = {"other months": ("nq_1m_202605",), "another instrument": ("estx50fut_1m_2006",)}
BARS = Path(os.environ.get("MOOLA_SHARED", Path(__file__).resolve().parents[2]/"shared"))/"data"


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, help="default: the variant's")
    parser.add_argument("--output", type=Path, default=project_root()/"artifacts"/"benchmarks"/NAME)
    return parser.parse_args()


def load(names): return join_windows([label_file(BARS/f"{n}.parquet") for n in names])


def main():
    o = options()
    missing = [n for n in (*TRAIN, *(n for t in TESTS.values() for n in t)) if not (BARS/f"{n}.parquet").exists()]
    if missing: sys.exit(f"{NAME} needs the bars {', '.join(missing)} in {BARS}: without them it cannot run")
    train, rows, results = load(TRAIN), [], {}
    tests = {where: load(names) for where, names in TESTS.items()}
    for where, test in tests.items(): rows += run(o, where, train, test, results)
    scored = "; ".join(f"{len(t)} of {', '.join(TESTS[where])} ({where})" for where, t in tests.items())
    text = [f"# {NAME}", "", f"{len(train)} labelled windows to train on ({', '.join(TRAIN)}), scored on {scored}; {HindsightRule()}; "
            f"{o.seeds} seeds a variant; {machine('torch', 'scikit-learn')}.", "", *table("windows", o.variants[0], rows)]
    months, instrument = TESTS
    for v in o.variants:
        a, b = (results[w, v].scores["model"]["f1"].value for w in (months, instrument))
        text += ["", f"{v}: pooled bar F1 {a:.3f} on {months}, {b:.3f} on {instrument}" + (f" ({b/a-1:+.0%})." if a else ".")]
    record(o.output, NAME, results, text)


if __name__ == "__main__": main()
