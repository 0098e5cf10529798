"""A bar at a time: how long a stream takes for each, on one core.

    python benchmarks/stream.py          # 3,000 bars, about a minute
    python benchmarks/stream.py 20000    # any other number of bars
"""
import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from scan import matmul_rate, untrained, window_flops
from table import arguments, seconds, show_table

from moola.core.names import OHLC, W
from moola.data.features import fill_windows
from moola.data.simulate import simulate_bars
from moola.detection.ensemble import Reader
from moola.detection.followed import replay
from moola.detection.scan import scan
from moola.detection.stream import Stream

GOAL = 5.  # ms a bar at the 99th percentile
DEPTH = W - 1 + W - 23  # bars that a scan needs to see anew all that can still change: 82 windows


def times(step, bars, skip):
    "Seconds of wall clock and of the processor that each bar takes, after the first `skip`."
    out = []
    for i, b in enumerate(bars):
        start = time.perf_counter(), time.process_time()
        step(i, b)
        if i >= skip: out.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return np.array(out).T


def followed(bars, detector, threshold):
    "Times of a stream."
    stream = Stream(detector, threshold=threshold)
    return times(lambda i, b: stream.push(b), bars.itertuples(), W)


def rescanned(bars, detector, threshold, n):
    "Times of a scan of the last bars at each bar, for n bars."
    part = bars[:DEPTH+n]
    def step(i, b):
        if i >= DEPTH: scan(part[i+1-DEPTH:i+1], detector, threshold=threshold, progress=False, check=False, threads=1)
    return times(step, part.itertuples(), DEPTH)


def newest(bars, detector, n):
    "Times of one window through torch, at each of n bars: no means over windows, and no spans."
    ohlc, reader = np.ascontiguousarray(bars[OHLC]), Reader(detector, 23, 85)
    x = np.empty((1, W, reader.width), np.float32)
    def step(i, b): reader(torch.from_numpy(fill_windows(ohlc, np.array([i]), x)))
    return times(step, range(n+9), 9)


def several(detector, k):
    "The same network k times: an ensemble of k takes as long."
    return replace(detector, models=detector.models*k)


def row(name, t):
    "Half of the bars take at most the first time, 99 in 100 the second; by the clock, and of the processor."
    return name, *(f"{v*1e3:.2f}" for kind in t for v in np.percentile(kind, (50, 99)))


def main(n=3000, save=None):
    torch.set_num_threads(1)
    bars, detector = simulate_bars(n, 0), untrained(torch.device("cpu"))
    threshold = float(scan(bars, detector, progress=False).probabilities.probability.quantile(.93))  # about as many spans as a trained network finds
    ours, five = followed(bars, detector, threshold), followed(bars[:max(n//4, 300)], several(detector, 5), threshold)
    again = rescanned(bars, detector, threshold, min(n//4, 300))
    window, floor = bars[OHLC].to_numpy()[:W].copy(), window_flops() / matmul_rate(torch.device("cpu"), torch.float32)
    alone = seconds(partial(Stream(detector).read, window))
    seen, found = replay(bars, detector, threshold=threshold), scan(bars, detector, threshold=threshold, progress=False)
    a, b = seen.probabilities, found.probabilities
    equal = all(np.array_equal(a[c], b[c], equal_nan=True) for c in ("probability", "live", "windows")) and seen.spans.drop(columns="final").equals(found.spans)
    clock, used = (np.percentile(t, 99)*1e3 for t in ours)
    show_table(f"{n:,} bars through a stream on one core, ms a bar", [
        row("stream, one network", ours), row("stream, five networks", five),
        row(f"reference: a scan of the last {DEPTH} bars at each bar", again),
        row("reference: the newest window alone through torch, no means and no spans", newest(bars, detector, min(n//2, 1000))),
        ("its window alone, in the stream's compiled pass", f"{alone*1e3:.2f}", "", "", ""),
        ("floor: the operations of the LSTM in one window, at the rate of one large matrix product", f"{floor*1e3:.2f}", "", "", "")],
        ("torch", "numpy", "numba"), (
            f"Of 100 bars 99 take {clock:.2f} ms or less by the clock and {used:.2f} ms of the processor, where the goal is {GOAL:g} ms. The clock "
            f"counts what other programs do on the core meanwhile.",
            f"Processor time for a bar, ours against a scan of the last bars: {np.median(again[1])/np.median(ours[1]):.0f} times less at the median.",
            f"{len(seen.spans):,} spans; spans and probabilities {'equal those of a scan bit for bit' if equal else 'DIFFER from those of a scan'}."),
        save, ("", "median", "99 of 100", "processor, median", "99 of 100"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("n", type=int, nargs="?", default=3000, metavar="bars")
    main(**vars(parser.parse_args()))
