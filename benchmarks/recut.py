"""Real re-cuts beside pasted copies: average precision on bars in a row, for models trained on 60 labelled windows.

    nice python benchmarks/recut.py --save benchmarks/results/recut.json
    python benchmarks/recut.py --learner networks --save benchmarks/results/recut-networks.json    # an hour on a CPU

The windows come from simulated bars, each with its expansion somewhere in the middle. *Re-cuts* are four more windows of the same bars around each,
from `moola.labels.recut`; *pasted* are four copies with the labelled bars put between bars of other windows, as the parameter `pastes` makes them.
Models are scored on all windows of other bars; each seed has its own bars, windows and model.
"""
import argparse
import json
from pathlib import Path

import numpy as np
from reader import LEARNERS, paired, rounded, side_by_side
from table import machine
from tqdm import tqdm

from moola.core.names import W
from moola.data.plant import simulate_labelled_bars
from moola.data.simulate import SESSION
from moola.data.windows import join_windows
from moola.labels.recut import cut_labelled, recut_labels
from moola.metrics.scores import average_precision
from moola.training.augment import paste_spans

ARMS = {"windows alone": (0, 0), "pasted": (4, 0), "re-cuts": (0, 4), "re-cuts and pasted": (4, 4)}


def labelled_windows(d, n, rng):
    "n windows, each with an expansion that begins at bar 23 to 85, that no closing cuts."
    starts = d.spans[:, 0]-rng.integers(23, 86, len(d.spans))
    fits = (starts >= 0) & (starts//SESSION == (starts+W-1)//SESSION)
    return cut_labelled(d.bars, d.spans, np.sort(rng.permutation(starts[fits])[:n]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learner", choices=list(LEARNERS), default="trees")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--save", type=Path, metavar="FILE")
    o = parser.parse_args()
    found = {k: [] for k in ARMS}
    for seed in tqdm(range(o.seeds), unit="seed"):
        d, t = simulate_labelled_bars(150, 300+seed), simulate_labelled_bars(150, 700+seed)
        base, test = labelled_windows(d, o.windows, np.random.default_rng(seed)), side_by_side(t.bars, t.spans)
        for name, (pastes, copies) in ARMS.items():
            windows = join_windows([base, *([recut_labels(base, d.bars, copies, seed=seed)] if copies else []), *([paste_spans(base, pastes, seed)] if pastes else [])])
            found[name].append(average_precision(test.mask, LEARNERS[o.learner](windows, [seed])(test.ohlc)[0]))
            tqdm.write(f"{seed} {name}: {found[name][-1]:.3f}")
    rows = [dict(arm=k, **paired(v, found["windows alone"])) for k, v in found.items()]
    rows.append(dict(arm="re-cuts, against pasted", **paired(found["re-cuts"], found["pasted"])))
    for r in rounded(rows): print(r)
    about = dict(learner=o.learner, seeds=o.seeds, windows=o.windows, machine=machine("scikit-learn", "torch"))
    if o.save: o.save.write_text(json.dumps(dict(about=about, rows=rounded(rows)), indent=1) + "\n")


if __name__ == "__main__": main()
