"""How fast features are built: the compiled pass, a row-by-row reference, and the floor that memory sets.

    python benchmarks/features.py [windows] [--save FILE]
"""
import time
from functools import partial

import numpy as np
import pandas as pd
from table import arguments, cores, seconds, show_table

from moola.core.names import FEATURES, OHLC, W
from moola.data.features import build_features
from moola.data.swings import SWING_RULES


def make_windows(n, seed=0):
    "Random walks in ticks of 0.25 whose volatility changes; nothing here depends on what the bars are."
    rng = np.random.default_rng(seed)
    vol = 2 * np.exp(np.cumsum(rng.normal(0, .1, (n, W)), -1))
    close = 18_000 + np.cumsum(vol * rng.standard_normal((n, W)), -1)
    open_ = np.concatenate([np.full((n, 1), 18_000.), close[:, :-1]], -1)
    high = np.maximum(open_, close) + vol * rng.exponential(.6, (n, W))
    low = np.minimum(open_, close) - vol * rng.exponential(.6, (n, W))
    return np.round(np.stack([open_, high, low, close], -1) * 4) / 4


def row_by_row(ohlc):
    "The 13 features under the origin rule as one writes them first: a DataFrame, a loop over its rows, clips by numpy."
    bars, rows, trs = pd.DataFrame(ohlc, columns=OHLC), [], []
    ema, leg, high_at, low_at, before = 0., 0, None, None, None
    extreme = extreme_at = candidate = candidate_at = None
    for t, bar in bars.iterrows():
        o, h, l, c = bar.open, bar.high, bar.low, bar.close
        rng = max(h - l, 1e-6)
        ema = h - l if t == 0 else 2/21 * (h - l) + (1 - 2/21) * ema
        if before is not None: trs.append(max(h - l, abs(h - before), abs(l - before)))
        atr = float(np.mean(trs[-10:])) if trs else 0.
        if leg == 0:
            if atr > 0: leg, extreme, extreme_at = 1, c, t
        else:
            ahead, back, end = (h, l, c) if leg > 0 else (-l, -h, -c)
            if ahead > extreme: extreme, extreme_at = ahead, t
            if candidate is None or ahead > candidate: candidate, candidate_at = ahead, t
            if extreme - end >= 1.2 * atr or t - candidate_at <= 5 and candidate - back >= .5 * atr:
                if leg > 0: high_at = (extreme, extreme_at)
                else: low_at = (-extreme, extreme_at)
                leg, extreme, extreme_at = -leg, -back, t
                candidate, candidate_at = extreme, t
        before = c
        yard, range_z, body = max(atr, 1e-8), np.clip((h - l) / max(ema, 1e-6), 0, 3), np.clip((c - o) / rng, -1, 1)
        f7, f9 = (np.clip((high_at[0] - c) / yard, -3, 3), np.clip((t - high_at[1]) / W, 0, 3)) if high_at else (0, 0)
        f8, f10 = (np.clip((c - low_at[0]) / yard, -3, 3), np.clip((t - low_at[1]) / W, 0, 3)) if low_at else (0, 0)
        rows.append([np.clip((o - l) / rng, 0, 1), np.clip((c - l) / rng, 0, 1), body, np.clip((h - max(o, c)) / rng, 0, 1),
                     np.clip((min(o, c) - l) / rng, 0, 1), range_z, f7, f8, f9, f10, np.clip(range_z * leg * body, -2, 2),
                     np.clip((1 - range_z / 3) * (1 - abs(body)) * (f9 + f10) / 2, 0, 3), t / (W - 1)])
    return pd.DataFrame(rows, columns=FEATURES).to_numpy(np.float32)


def main(n=10_000, save=None, few=10):
    start = time.perf_counter()
    build_features(make_windows(1))
    first = time.perf_counter() - start

    ohlc, out = make_windows(n), np.empty((n, W, len(FEATURES)), np.float32)
    slow = few * W / seconds(lambda: [row_by_row(x) for x in ohlc[:few]], repeats=3)
    apart = max(np.abs(row_by_row(x) - build_features(x)).max() for x in ohlc[:few])

    flat, copy = ohlc.reshape(-1), np.empty(ohlc.size)
    pace = 2 * flat.nbytes / seconds(lambda: np.copyto(copy, flat))  # bytes read and written a second by one core
    moved = (ohlc.nbytes + out.nbytes) / (n * W)
    floor = pace / moved

    def rate(x): return f"{x / 1e6:,.1f} M/s" if x > 1e6 else f"{x / 1e3:,.1f} k/s"
    rows = []
    for rule in SWING_RULES:
        ours = n * W / seconds(partial(build_features, ohlc, rule, out=out))
        rows.append((f"{rule}, one core", rate(ours), *((rate(slow), f"{ours / slow:,.0f} x") if rule == "origin" else ("", "")), rate(floor)))
    if cores() > 1:
        ours = n * W / seconds(lambda: build_features(ohlc, out=out, threads=cores()))
        rows.append((f"origin, {cores()} threads", rate(ours), rate(slow), f"{ours / slow:,.0f} x", ""))
    one = seconds(lambda: [build_features(x) for x in ohlc[:500]]) / 500
    rows.append(("origin, one window a call", rate(W / one), rate(slow), f"{W / one / slow:,.0f} x", ""))

    show_table(f"Features: bars a second, {n:,} windows of {W} bars", rows, ("numpy", "numba", "pandas"), (
        f"reference: the row-by-row DataFrame loop of this file on {few} windows; largest difference {apart:.1e}.",
        f"floor: each bar is 32 bytes in and 52 out, {moved:.0f} in all, at the {pace / 1e9:.1f} GB/s at which one core copies memory here.",
        f"first call in this process: {first:.2f} s (compiles when nothing is cached on disk); one window a call: {one * 1e6:.0f} microseconds."), save)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("n", type=int, nargs="?", default=10_000, metavar="windows")
    main(**vars(parser.parse_args()))
