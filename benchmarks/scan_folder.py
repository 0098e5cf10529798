"""A folder of bars, read by the windows of `recommended`: what each stage of a file costs, how workers add up, and what ten thousand instruments would take.

    python benchmarks/scan_folder.py                             # stages on one core, in seconds of processor time
    python benchmarks/scan_folder.py --workers 1 2 --files 8 --repeats 3  # and a folder, with one and with two workers in turn
    python benchmarks/scan_folder.py --device cuda --workers 1 2 --files 8 --bars 500000 --file-bars 500000
"""
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from table import arguments, show_table

from moola.core.device import choose_device
from moola.core.files import write_table
from moola.core.names import OHLC, W
from moola.data.features import fill_windows
from moola.data.read import read_bars
from moola.data.simulate import simulate_bars
from moola.detection.detector import Detector
from moola.detection.ensemble import Reader
from moola.detection.scan import scan
from moola.scale.cluster import open_cluster
from moola.scale.folder import scan_folder

YEARS = 20 * 252 * 390  # minutes of twenty years of a stock exchange's sessions
INSTRUMENTS = 10_000
MODEL = "recommended"
SCANNED, APART = "features, network, adding up", ("reading parquet", "of that the network", "writing probabilities")  # the latter are in no sum


def spent(run, clock, repeats=3):
    "The least time of a few runs after one, by this clock."
    run()
    times = []
    for _ in range(repeats):
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


def stages(bars, folder, device, few=2000):
    """Seconds a bar of each stage, on one thread; processor time on a CPU, where the network reads a few of the bars. With a GPU, time on the clock of the whole
    scan, since features are built while the network reads, and of the network alone."""
    clock, cuda = time.process_time, device.type == "cuda"
    detector, n = Detector.load(MODEL, str(device)), len(bars)
    short = bars if cuda else bars.iloc[:few]
    csv, parquet = folder/"one.csv", folder/"one.parquet"
    for path in (csv, parquet): write_table(bars, path)
    reader = Reader(detector, 23, 85, "bf16" if cuda else "exact", detector.has_types)
    ohlc, starts = np.ascontiguousarray(short[OHLC].to_numpy()), np.arange(len(short) - W + 1)
    x = np.empty((min(len(starts), 16384), W, reader.width), np.float32)
    starts = starts[:len(x)]

    def network():
        reader(torch.from_numpy(x).to(device))
        if cuda: torch.cuda.synchronize()
    def whole(): return scan(short, detector, progress=False, check=False, threads=1)
    found, alone = whole(), spent(network, time.perf_counter if cuda else clock, 1) / len(starts)
    scanned = spent(whole, time.perf_counter if cuda else clock, 1) / (len(short) - W + 1)
    out = {"reading CSV": spent(lambda: read_bars(csv), clock) / n, "reading parquet": spent(lambda: read_bars(parquet), clock) / n}
    if cuda: out |= {SCANNED: scanned, "of that the network": alone}
    else:
        features = spent(lambda: fill_windows(ohlc, starts, x, detector.swing_rule, 1), clock) / len(starts)
        out |= {"features": features, "network": alone, "adding up, decoding": max(scanned - alone - features, 0)}
    return out | {"writing spans": spent(lambda: write_table(pd.concat([found.spans]*(n//len(short))), folder/"spans.parquet"), clock) / n,
                  "writing probabilities": spent(lambda: write_table(pd.concat([found.probabilities]*(n//len(short))), folder/"p.parquet"), clock) / n}


def timed(files, workers, device, out):
    "Bars a second with so many workers, from the first file that ended to the last, so that starting counts for nothing."
    ends = []
    def tick(todo, line):
        if line: ends.append((time.perf_counter(), line["bars"]))
    scan_folder(files, out, MODEL, device=device.type, connect=partial(open_cluster, "local", workers, None, device.type), tick=tick)
    ends = ends[workers-1:]
    return sum(b for _, b in ends[1:]) / (ends[-1][0] - ends[0][0])


def main(bars=50_000, files=0, file_bars=5000, workers=(), repeats=1, device="cpu", save=None):
    device = choose_device(device)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as d:
        folder = Path(d)
        cost = stages(simulate_bars(bars, 0), folder, device)
        usual = sum(v for k, v in cost.items() if k not in APART)
        rows = [[k, f"{v*1e6:.2f}", f"{v/usual:.1%}", f"{v*YEARS:,.1f}"] if v else [k, "too little to tell", "", ""] for k, v in cost.items()]
        rows += [["a file of CSV, spans only", f"{usual*1e6:.2f}", "100.0%", f"{usual*YEARS:,.1f}"]]
        (folder/"files").mkdir()
        for i in range(files): write_table(simulate_bars(file_bars, i), folder/f"files/{i:04d}.parquet")
        rates = {w: [] for w in workers}
        for i in range(repeats if files else 0):
            for w in workers:
                rates[w].append(timed(folder/"files", w, device, folder/f"out-{w}-{i}"))
                print(f"{w} workers: {rates[w][-1]:,.0f} bars/s", flush=True)
    notes = [f"{INSTRUMENTS:,} such instruments: {usual*YEARS*INSTRUMENTS/3600:,.0f} hours of one core" + (" and card" if device.type == "cuda" else "")]
    first = rates[workers[0]] if files else ()
    notes += [f"{w} worker{'s'*(w > 1)}, {files} files of {file_bars:,} bars: {', '.join(f'{v:,.0f}' for v in r)} bars/s"
              + (f", {', '.join(f'{v/u:.2f}' for v, u in zip(r, first))} x that of {workers[0]}" if r is not first else "") for w, r in rates.items() if r]
    show_table(f"A file of bars, stage by stage, on one core{' and one GPU' if device.type == 'cuda' else ''}", rows, ("torch", "numpy", "numba", "distributed"), notes,
               save, ("", "microseconds a bar", "share", f"s for {YEARS:,} bars"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--bars", type=int, default=50_000, help="in the file whose stages are timed")
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--file-bars", type=int, default=5000, help="in each file of the folder")
    parser.add_argument("--repeats", type=int, default=1, help="scans with each number of workers, in turn")
    parser.add_argument("--workers", type=int, nargs="*", default=())
    parser.add_argument("--device", default="cpu")
    main(**vars(parser.parse_args()))
