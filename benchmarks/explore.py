"""How long the explorer takes to answer a control, from the control's change to the finished picture.

    python benchmarks/explore.py [windows ...] [--save FILE]

The time for a picture to reach the browser and to appear there comes on top.
"""
import io
import itertools

import matplotlib
import numpy as np
from table import arguments, seconds, show_table

from moola.analysis import plot_window
from moola.explore import Explored, Explorer
from moola.windows import Windows, simulate_windows

matplotlib.use("agg")


def windows_of(n):
    "Simulated windows, repeated under other names, with smooth noise for probabilities."
    some, rng = simulate_windows(min(n, 500), seed=1), np.random.default_rng(0)
    windows = some[np.arange(n) % len(some)]
    windows = Windows(np.arange(n).astype(str), windows.ohlc, windows.rows, windows.window)
    noise = np.cumsum(rng.standard_normal((n, windows.ohlc.shape[1])), 1)/6 - 1
    return Explored(windows, (1/(1+np.exp(-noise))).astype(np.float32), np.full(n, "new"), "noise", .4, 2, (), "origin")


def anew(explorer):
    "The same picture made from the start: a new figure, laid out, drawn and written."
    import matplotlib.pyplot as plt
    e, i = explorer.explored, explorer.row
    fig, _ = plot_window(e.windows.ohlc[i], e.windows.spans[i], e.prob[i], explorer.found[i], explorer.knobs.threshold, "window")
    fig.savefig(io.BytesIO(), dpi=110)
    plt.close(fig)


def controls(explorer):
    "What a reader does, each time with another value."
    def turn(control, *values):
        turns = itertools.cycle(values)
        return lambda: setattr(control, "value", next(turns))
    steps = itertools.cycle((1, -1))
    return {"threshold": turn(explorer.threshold, *np.linspace(.2, .8, 9)), "minimum length": turn(explorer.min_length, 1, 4, 7),
            "max gap": turn(explorer.max_gap, 0, 3, 6), "filter": turn(explorer.show, "missed", "most uncertain first", "false alarms"),
            "step": lambda: explorer.step(next(steps))}


def measure(n, features):
    "The rows of one explorer."
    explorer = Explorer(windows_of(n), features=features)
    reference, floor = seconds(lambda: anew(explorer), 5), seconds(explorer.picture.png)
    for name, act in controls(explorer).items():
        ours = seconds(act)
        yield (f"{name}, {n:,} windows, {len(features)} features", f"{ours*1e3:.0f} ms", f"{reference*1e3:.0f} ms", f"{reference/ours:.1f} x",
               f"{floor*1e3:.0f} ms")


def main(sizes, save=None):
    rows = [r for n in sizes for features in ((), ("range_z", "efficiency_10", "expansion_proxy")) for r in measure(n, features)]
    show_table("The explorer: from a control to the finished picture", rows, ("matplotlib", "numpy", "pillow"), (
        "reference: the picture without features as a new figure; floor: writing a picture that is drawn already as PNG.",
        "A slider is to answer within 200 ms."), save)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=[200, 2000], metavar="windows", help="default: 200 and 2,000")
    main(**vars(parser.parse_args()))
