"""How fast files of bars are read: the reader that finds out everything, and pandas told everything.

    python benchmarks/read.py [bars] [--save FILE]
"""
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from table import arguments, show_table

from moola.data.read import read_bars


def make_bars(n, seed=0):
    "A random walk in ticks of 0.25, a bar a minute."
    rng = np.random.default_rng(seed)
    close = 18_000 + np.cumsum(rng.integers(-8, 9, n)) / 4
    open_ = np.r_[18_000, close[:-1]]
    high = np.maximum(open_, close) + rng.integers(0, 9, n) / 4
    low = np.minimum(open_, close) - rng.integers(0, 9, n) / 4
    times = pd.date_range("2020-01-01", periods=n, freq="min")
    return pd.DataFrame(dict(timestamp=times, open=open_, high=high, low=low, close=close, volume=rng.integers(1, 999, n)))


def compare(ours, theirs, repeats):
    "Shortest seconds of each, run in turns, and the ratio of both: by the clock, and of the processor's time, which other programs disturb less."
    clock, processor = {ours: [], theirs: []}, {ours: [], theirs: []}
    for run in [theirs, ours] * (repeats + 1):
        began, used = time.perf_counter(), time.process_time()
        run()
        clock[run].append(time.perf_counter() - began)
        processor[run].append(time.process_time() - used)
    a, b = (min(clock[run][1:]) for run in (ours, theirs))
    return a, b, a / b, min(processor[ours][1:]) / min(processor[theirs][1:])


def main(n=1_000_000, save=None, repeats=20):
    bars, rows = make_bars(n), []
    epoch = (bars.timestamp - pd.Timestamp(0)) // pd.Timedelta("1ms")
    def slashed(f): return f.assign(timestamp=pd.to_datetime(f.timestamp, format="%d/%m/%Y %H:%M"))
    kinds = {
        "CSV, ISO times": (bars, {}, lambda p: pd.read_csv(p, parse_dates=["timestamp"], date_format="ISO8601")),
        "CSV, milliseconds": (bars.assign(timestamp=epoch), {}, lambda p: (f := pd.read_csv(p)).assign(timestamp=pd.to_datetime(f.timestamp, unit="ms", utc=True))),
        "CSV, dd/mm/yyyy": (bars, dict(date_format="%d/%m/%Y %H:%M"), lambda p: slashed(pd.read_csv(p))),
        "parquet": (bars, None, pd.read_parquet)}
    with tempfile.TemporaryDirectory() as folder:
        for kind, (table, how, reference) in kinds.items():
            path = Path(folder) / f"bars.{'parquet' if how is None else 'csv'}"
            table.to_parquet(path) if how is None else table.to_csv(path, index=False, **how)
            ours, theirs, ratio, used = compare(lambda: read_bars(path), lambda: reference(path), repeats)
            assert (read_bars(path).close == bars.close).all()
            rows.append((kind, f"{ours:.2f} s", f"{theirs:.2f} s", f"{ratio:.2f} x", f"{used:.2f} x", f"{path.stat().st_size / 1e6:.0f} MB"))
    show_table(f"Reading {n:,} bars", rows, ("pandas", "numpy", "pyarrow"), (
        "reference: pandas.read_csv or read_parquet, told the column of times and its format; it checks nothing. Both run in turns.",), save,
        head=("", "ours", "pandas", "ratio", "ratio of processor time", "file"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("n", type=int, nargs="?", default=1_000_000, metavar="bars")
    main(**vars(parser.parse_args()))
