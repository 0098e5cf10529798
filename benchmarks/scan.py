"""Every window of a series at stride 1, from bars to probabilities and spans.

    python benchmarks/scan.py                                  # 20,000 bars on a CPU, 1,800,000 on a GPU
    python benchmarks/scan.py --device cuda --bars 1800000     # five years of minutes
"""
import resource
import time

import numpy as np
import torch
from features import row_by_row
from table import arguments, cores, seconds, show_table

from moola.core.device import choose_device
from moola.core.names import FEATURES, OHLC, W
from moola.data.features import build_features, fill_windows
from moola.data.simulate import simulate_bars
from moola.detection.detector import Detector
from moola.detection.scan import scan
from moola.models.jade import Jade

YEARS = 1_800_000  # one-minute bars in five years


def untrained(device):
    "A detector with random weights, twice as large as at the start of a training so that its answers differ."
    torch.manual_seed(0)
    model = Jade(len(FEATURES)).eval().requires_grad_(False)
    for p in model.parameters(): p.mul_(2)
    return Detector([model], FEATURES, "origin", .5, 2, device, ["untrained"])


def plain(bars, detector, features):
    "Per-bar means as one writes them first: a window at a time to features, batches of 32 through the network."
    ohlc, model = bars[OHLC].to_numpy(), detector.models[0].to(detector.device)
    starts = np.arange(len(ohlc) - W + 1)
    total, count = np.zeros((2, len(ohlc)))
    with torch.no_grad():
        for i in range(0, len(starts), 32):
            x = np.stack([features(ohlc[s:s+W]) for s in starts[i:i+32]]).astype(np.float32)
            p = model(torch.as_tensor(x).to(detector.device))["span"].sigmoid().cpu().numpy()
            for s, row in zip(starts[i:i+32], p):
                total[s+23:s+86] += row[23:86]
                count[s+23:s+86] += 1
    model.cpu()
    with np.errstate(invalid="ignore"): return total / count


def timed_plain(bars, detector, features):
    plain(bars[:W+31], detector, features)
    start = time.perf_counter()
    prob = plain(bars, detector, features)
    return (len(bars) - W + 1) / (time.perf_counter() - start), prob


def timed_scan(bars, detector, **options):
    "Windows a second of the faster of two scans, after a short one, and the last scan."
    few = 4 * (16384 if detector.device.type == "cuda" else 256)
    scan(bars[:few], detector, progress=False, check=False, **options)
    found = [scan(bars, detector, progress=False, check=False, **options) for _ in range(2)]
    return max(f.about["windows"] / f.about["seconds"] for f in found), found[-1]


def host_memory():
    "The most that this process has held so far, in GB."
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def window_flops(steps=86 + 82, hidden=96):
    "Operations of the matrix products of the LSTM's steps that bars 23 to 85 need."
    return 2 * 4*hidden * (len(FEATURES) + hidden) * steps


def matmul_rate(device, dtype):
    "Operations a second of one large matrix product, on all threads."
    n = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def product():
        a @ b
        sync()
    return 2 * n**3 / seconds(product, 5)


def copy_rate(device, megabytes=128):
    "Bytes a second from host memory to where the network reads them."
    x = torch.empty(megabytes << 20, dtype=torch.uint8, pin_memory=device.type == "cuda")
    y = torch.empty_like(x, device=device, pin_memory=False)

    def copy():
        y.copy_(x)
        if device.type == "cuda": torch.cuda.synchronize()
    return (megabytes << 20) / seconds(copy, 5)


def features_rate(bars, n=8192):
    ohlc, starts = np.ascontiguousarray(bars[OHLC]), np.arange(min(n, len(bars)-W+1))
    out = np.empty((len(starts), W, len(FEATURES)), np.float32)
    return len(starts) / seconds(lambda: fill_windows(ohlc, starts, out, threads=cores()), 5)


def agreement(bars, device):
    "How far bf16 is from float32 with a trained network, the one that moola brings."
    detector = Detector.load(device=str(device))
    a, b = (scan(bars, detector, progress=False, check=False, types=False, precision=k) for k in ("float32", "bf16"))
    apart = (a.probabilities.probability - b.probabilities.probability).abs()
    live = (a.probabilities.live - b.probabilities.live).abs()
    spans = [set(zip(o.spans.start_bar, o.spans.end_bar)) for o in (a, b)]
    return (f"bf16 against float32, trained network, {len(bars):,} bars: probabilities differ by {apart.mean():.1e} on average and {apart.max():.1e} at most, "
            f"live ones by {live.mean():.1e} and {live.max():.1e}; of {len(spans[0]):,} spans {len(spans[0] & spans[1]):,} begin and end at the same bars.")


def main(device="auto", bars=0, save=None, slow=64, medium=2000):
    device = choose_device(device)
    series = simulate_bars(bars or (YEARS if device.type == "cuda" else 20_000), 0)
    series["timestamp"] = np.datetime64("2020-01-01", "us") + np.arange(len(series)) * np.timedelta64(1, "m")  # one stretch
    detector, ours, before = untrained(device), {}, host_memory()
    precisions = ["float32", "bf16"] if device.type == "cuda" else ["exact", "float32", "bf16"]
    for precision in precisions:
        ours[precision] = timed_scan(series, detector, types=False, precision=precision)
        if len(ours) > 1: continue
        memory = f"Largest host memory after two scans: {host_memory():.2f} GB, of which {before:.2f} GB were in use before the first"
        if device.type == "cuda": memory += f"; largest memory of the GPU: {torch.cuda.max_memory_allocated()/2**30:.1f} GB"
    with_types, _ = timed_scan(series, detector)
    pandas_rate, _ = timed_plain(series[:W+slow], detector, row_by_row)
    numpy_rate, expected = timed_plain(series[:W+medium], detector, build_features)
    rows = [[f"ours, {k}", rate, f"{rate/pandas_rate:,.0f} x", f"{rate/numpy_rate:.1f} x"] for k, (rate, _) in ours.items()]
    rows += [["ours, window types as well", with_types, f"{with_types/pandas_rate:,.0f} x", f"{with_types/numpy_rate:.1f} x"]]
    rows += [["reference: row-by-row pandas features, nn.LSTM in batches of 32", pandas_rate, "1 x", ""],
             ["reference: compiled features a window at a time, nn.LSTM in batches of 32", numpy_rate, "", "1 x"]]
    rows += [[f"floor: operations of the LSTM, {name} matrix product", matmul_rate(device, d)/window_flops(), "", ""]
             for name, d in (("float32", torch.float32), ("bf16", torch.bfloat16))]
    rows += [["floor: bytes of the features, copied to the network", copy_rate(device) / (4*W*len(FEATURES)), "", ""],
             [f"the features alone, {cores()} threads", features_rate(series), "", ""]]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    middle = ours["float32"][1].probabilities.probability[23:medium].to_numpy()
    plainly = f"Largest difference of a probability in float32 from the plain reference: {np.nanmax(np.abs(middle - expected[23:medium])):.1e}."
    show_table(f"Scanning {len(series):,} bars at stride 1 on {name}", [(r[0], f"{r[1]:,.0f}", f"{YEARS/r[1]:,.2f}", *r[2:]) for r in rows],
               ("torch", "numpy", "numba"), (plainly, agreement(series[:200_000], device), f"{memory}."), save,
               ("", "bars/s", f"s for {YEARS:,} bars", "against row by row", "against compiled"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--bars", type=int, default=0, help="default: 20,000 on a CPU, 1,800,000 on a GPU")
    main(**vars(parser.parse_args()))
