"""The student's reader beside the exact scan of today: a file, a live bar, and 10,000 streams at once.

    python benchmarks/series_speed.py --save benchmarks/results/speed/series.json
    taskset -c 0 python benchmarks/series_speed.py --threads 1
"""
import time

import numpy as np
import torch
from table import arguments, cores, seconds, show_table

from moola.core.names import OHLC
from moola.data.simulate import simulate_bars
from moola.detection.detector import Detector
from moola.models.series import SeriesNet, series_features
from moola.models.series_reader import SeriesReader

TARGET = 160  # times today's scan, on two cores


def live(reader, ohlc):
    "Microseconds of each bar that comes alone, after a hundred."
    s, took = reader.stream(), []
    for o in ohlc:
        began = time.perf_counter()
        s.push(o)
        took.append(time.perf_counter() - began)
    return np.array(took[100:])*1e6


def held(reader, ohlc, n):
    "Seconds in which `n` streams answer one bar each, bytes a stream, as the process grows, and the arrays of a state."
    def resident():
        with open("/proc/self/statm") as f: return int(f.read().split()[1])*4096
    before, streams = resident(), [reader.stream() for _ in range(n)]
    for k, s in enumerate(streams): s.push(ohlc[k % 500:k % 500 + 64])
    size = (resident() - before)/n
    took = []
    for j in range(3):
        began = time.perf_counter()
        for s in streams: s.push(ohlc[600+j])
        took.append(time.perf_counter() - began)
    return min(took), size, sum(v.nbytes for v in streams[0].state().values() if isinstance(v, np.ndarray))


def main(save=None, bars=400_000, scanned=6000, streams=10_000, threads=2):
    torch.manual_seed(0)
    net, bars_of = SeriesNet().eval(), simulate_bars(bars, 0)
    reader, ohlc, detector = SeriesReader(net), np.ascontiguousarray(bars_of[OHLC]), Detector.load(device="cpu")
    few = bars_of[:scanned].assign(timestamp=np.datetime64("2020-01-01", "us") + np.arange(scanned)*np.timedelta64(1, "m"))
    exact = {k: scanned/seconds(lambda: detector.scan(few, types=False, check=False, threads=k), 2) for k in dict.fromkeys((1, threads))}
    ours = {k: bars/seconds(lambda: reader.read(ohlc, threads=k), 5) for k in dict.fromkeys((1, threads))}
    rows = [[f"{k} thread{'s'*(k>1)}: student", f"{ours[k]:,.0f}", f"{ours[k]/exact[k]:,.0f} x"] for k in ours]
    rows += [[f"{k} thread{'s'*(k>1)}: exact scan, stride 1", f"{exact[k]:,.0f}", "1 x"] for k in exact]
    rows += [["features alone, 1 thread", f"{bars/seconds(lambda: series_features(ohlc), 5):,.0f}", ""]]
    torch.set_num_threads(1)
    x = torch.as_tensor(series_features(ohlc[:8000])[None])
    with torch.inference_mode(): rows += [["torch, 1 thread, 8,000 bars a call, without features", f"{8000/seconds(lambda: net(x), 5):,.0f}", ""]]
    us = live(reader, ohlc[:20_000])
    took, size, state = held(reader, ohlc, streams)
    notes = (f"A live bar: {np.percentile(us, 50):.1f} us at the median, {np.percentile(us, 99):.1f} us at the 99th percentile (target: below 50).",
             f"{streams:,} streams: a bar each in {took:.2f} s on one core; {size/1000:.1f} kB of process memory a stream, {state/1000:.1f} kB of them arrays (target: below 50).",
             f"Target: {TARGET} times the exact scan on two cores; the student's weights are random, which changes no time.")
    show_table(f"Reading {bars:,} bars on {cores()} cores", rows, ("torch", "numpy", "numba"), notes, save, ("", "bars/s", "against the scan"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--bars", type=int, default=400_000)
    parser.add_argument("--threads", type=int, default=2)
    main(**vars(parser.parse_args()))
