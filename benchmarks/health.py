"""What `moola.labels.health` finds of planted errors: precision and recall, by kind of error.

    nice python benchmarks/health.py --save benchmarks/results/health.json

Each seed simulates 174 labelled windows and spoils three tenths of them: in a tenth both edges of the label are moved by a third of its length, at least
three bars; a tenth loses its label; a tenth gets a second one, of six bars, where there is nothing. A finding is right where it names a spoilt window and shares a bar
with the error or adjoins it. *Any* counts a finding as right whatever it calls the error. Chance is what findings of the same lengths at random places score.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from reader import rounded
from scipy.stats import t as student
from table import machine
from tqdm import tqdm

from moola.core.names import LABELS, W
from moola.data.plant import simulate_windows
from moola.data.windows import Windows
from moola.labels.health import find_errors

KINDS = ("edges", "missed", "phantom")


def spoil(windows, rng):
    "The windows with planted errors, and each error's window, kind and bars."
    n, rows, errors = len(windows), windows.rows.copy(), []
    edges, missed, phantom = np.split(rng.permutation(n)[:3*(n//10)], 3)
    first, last = rows.expansion_start.to_numpy().copy(), rows.expansion_end.to_numpy().copy()
    for w in edges:
        a, b = first[w], last[w]+1
        by = max(3, (b-a)//3)*rng.choice([-1, 1])
        first[w], last[w] = np.clip(a+by, 0, W-2), np.clip(b+by, 2, W)-1
        errors.append((w, "edges", min(a, first[w]), max(b, last[w]+1)))
    for w in missed: errors.append((w, "missed", first[w], last[w]+1))
    rows = rows.assign(expansion_start=first, expansion_end=last)
    extra = []
    for w in phantom:
        free = [a for a in range(5, W-11) if a > last[w]+6 or a+12 < first[w]]
        a = int(rng.choice(free))
        extra.append(dict(window_id=windows.ids[w], label=LABELS[0], timestamp=windows.timestamp[w], expansion_start=a, expansion_end=a+5))
        errors.append((w, "phantom", a, a+6))
    keep = np.flatnonzero(~np.isin(windows.window, missed))
    rows = pd.concat([rows.iloc[keep], pd.DataFrame(extra)], ignore_index=True)
    bare = windows.rows.iloc[np.flatnonzero(np.isin(windows.window, missed))].set_axis(np.sort(missed)).drop(columns=["expansion_start", "expansion_end"])
    return Windows(windows.ids, windows.ohlc, rows, np.r_[windows.window[keep], phantom], bare), errors


def matches(found, errors, ids, same):
    "Which findings are right, and which errors are found."
    def hit(f, e): return f[1] == ids[e[0]] and f[2] <= e[3] and f[3]+1 >= e[2] and (not same or f[0] == e[1])
    table = np.array([[hit(f, e) for e in errors] for f in found]).reshape(len(found), len(errors))
    return table.any(1), table.any(0)


def moved(found, ids, rng):
    "Findings at random places."
    return [(f[0], str(rng.choice(ids)), a := int(rng.integers(0, W-(f[3]-f[2]))), a+f[3]-f[2]) for f in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--save", type=Path, metavar="FILE")
    o = parser.parse_args()
    out = {}
    for seed in tqdm(range(o.seeds), unit="seed"):
        rng = np.random.default_rng(seed)
        windows, errors = spoil(simulate_windows(174, 50+seed), rng)
        found = sorted(find_errors(windows), key=lambda r: -r[-1])
        for name, f in (("found", found), ("found, first 50", found[:50]), ("chance", moved(found, windows.ids, rng))):
            right, seen = matches(f, errors, windows.ids, False)
            out.setdefault((name, "any"), []).append((right.mean(), seen.mean(), len(f)))
            if name != "found": continue
            right, seen = matches(f, errors, windows.ids, True)
            for k in KINDS:
                of, among = np.array([x[0] == k for x in f]), np.array([e[1] == k for e in errors])
                out.setdefault((name, k), []).append((right[of].mean() if of.any() else np.nan, seen[among].mean(), of.sum()))
        tqdm.write(f"{seed}: {np.round(out['found', 'any'][-1], 3)}")
    rows = []
    for (name, kind), v in out.items():
        v = np.array(v, float)
        reach = student.ppf(.975, len(v)-1)*v.std(0, ddof=1)/len(v)**.5
        (p, r, n), (dp, dr, _) = v.mean(0), reach
        rows.append(dict(findings=name, kind=kind, number=n, precision=p, precision_low=p-dp, precision_high=p+dp, recall=r, recall_low=r-dr, recall_high=r+dr))
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    about = dict(seeds=o.seeds, windows=174, errors=51, machine=machine("scikit-learn", "cleanlab"))
    if o.save: o.save.write_text(json.dumps(dict(about=about, rows=rounded(rows)), indent=1) + "\n")


if __name__ == "__main__": main()
