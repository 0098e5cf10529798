"""Five years of one-minute bars, from a parquet file to spans, read by the student that comes with moola.

    python benchmarks/series_file.py --save benchmarks/results/speed/series-file-cpu.json
    python benchmarks/series_file.py --device cuda --save benchmarks/results/speed/series-file-gpu.json

Once as trading days with a break between them, and once as a single stretch, as of a market that never closes. Both files lie on the disk, and in the
system's cache from the run before; the process is warm, as in a notebook.
"""
import tempfile
import time
from pathlib import Path

import numpy as np
from table import arguments, cores, show_table

from moola.data.read import read_bars
from moola.data.simulate import simulate_bars
from moola.detection.detector import Detector


def files(folder, bars):
    "The two files."
    days = simulate_bars(bars, 0)
    yield "trading days", days, folder/"days.parquet"
    yield "one stretch", days.assign(timestamp=np.datetime64("2020-01-01", "us") + np.arange(bars)*np.timedelta64(1, "m")), folder/"stretch.parquet"


def timed(file, detector, threads, repeats):
    "Seconds of reading the file and of finding spans in it, in the fastest of several runs after one that is not counted, and the scan."
    found = []
    for _ in range(repeats+1):
        began = time.perf_counter()
        bars = read_bars(file)
        read = time.perf_counter()
        scan = detector.scan(bars, check=False, threads=threads)
        found.append((time.perf_counter()-began, read-began, scan))
    return *min(found[1:], key=lambda f: f[0]), scan


def main(save=None, device="cpu", bars=1_800_000, threads=(1, 2), repeats=5):
    detector, rows, apart = Detector.load("student", device), [], []
    host = Detector.load("student", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        for what, table, path in files(Path(folder), bars):
            table.to_parquet(path)
            for k in threads if device == "cpu" else (max(threads),):
                total, read, scan, _ = timed(path, detector, k, repeats)
                where = f"{k} thread{'s'*(k > 1)}" if device == "cpu" else "GPU"
                rows.append([f"{what}, {where}", f"{total:.2f} s", f"{read:.2f} s", f"{bars/total:,.0f}", f"{len(scan.spans):,}"])
            if device != "cpu":
                exact = host.scan(read_bars(path), check=False, threads=max(threads)).probabilities.probability
                apart.append(float(np.nanmax(np.abs(scan.probabilities.probability - exact))))
    notes = ["Target: below 3 s on two cores and below 0.5 s on an H200."]
    if apart: notes.append(f"Probabilities differ from the compiled pass's by at most {max(apart):.1e}.")
    if device != "cpu":
        import torch
        notes.insert(0, f"On one {torch.cuda.get_device_name(device)}; {max(threads)} threads of the host work out features.")
    show_table(f"{bars:,} bars from a file to spans, on {cores()} cores", rows, ("torch", "numpy", "pandas"), notes, save, ("", "all", "reading the file", "bars/s", "spans"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bars", type=int, default=1_800_000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    main(**vars(parser.parse_args()))
