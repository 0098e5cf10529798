"""Time training and a scan with one thread and with more, on an idle machine and beside other load.

    python benchmarks/threads.py            # 10 epochs each, four minutes on two cores
    python benchmarks/threads.py 20         # any other number of epochs
"""
import os
import subprocess
import sys
import time

from table import arguments, cores, show_table

RUN = """
import sys, time
import torch
from moola.core.config import make_config
from moola.core.device import limit_threads
from moola.data.splits import load_windows, split_of
from moola.training.fit import train_epochs
from moola.training.trainer import Trainer
threads, epochs = map(int, sys.argv[1:])
config = make_config("position_encoding", device="cpu")
windows = load_windows(config)
with limit_threads(threads):
    trainer = Trainer(config, windows, split_of(config, windows), torch.device("cpu"))
    for e in train_epochs(trainer, epochs + 1):
        if e.number == 1: began = time.perf_counter()
print(time.perf_counter() - began)
"""
SCAN = """
import sys, time
from moola import Detector, simulate_bars
from moola.core.device import limit_threads
threads, bars = int(sys.argv[1]), simulate_bars(int(sys.argv[2]) * 300, 1)
detector = Detector.load(device="cpu")
with limit_threads(threads):
    detector.predict(bars.iloc[:300])
    began = time.perf_counter()
    detector.predict(bars)
print(time.perf_counter() - began)
"""
LOAD = "while True: sum(range(10**6))"


def timed(program, threads, size):
    "Seconds that a program takes in a process of its own."
    env = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    return float(subprocess.run([sys.executable, "-c", program, str(threads), str(size)], env=env, check=True, capture_output=True, text=True).stdout)


def beside_load(program, threads, size):
    "The same, while every core has another program to run."
    load = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(cores())]
    try:
        time.sleep(.2)
        return timed(program, threads, size)
    finally:
        for p in load: p.kill(); p.wait()


def main(epochs=10, save=None):
    counts, rows = sorted({1, 2, 4, cores()} & set(range(1, cores() + 1))), []
    for what, program, default in (("training", RUN, 1), ("scan", SCAN, cores())):
        idle, busy = ({n: min(f(program, n, epochs) for _ in range(2)) for n in counts} for f in (timed, beside_load))
        rows += [(f"{what}, {n} thread{'s' * (n > 1)}{' (the default)' * (n == default)}", f"{idle[n]:.2f} s", f"{idle[n] / min(idle.values()):.2f} x",
                  f"{busy[n]:.2f} s", f"{busy[n] / min(busy.values()):.2f} x") for n in counts]
    show_table(f"Training position_encoding for {epochs} epochs, and scanning {300 * epochs:,} bars with the included model, by the number of threads", rows,
               ("torch", "numpy"), ("busy: as many other programs as cores; each ratio is to the best row of its kind",), save, ("", "idle", "to the best", "busy", "to the best"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("epochs", nargs="?", type=int, default=10)
    args = parser.parse_args()
    main(args.epochs, args.save)
