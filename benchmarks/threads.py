"""Time training and a scan with one thread and with more, on an idle machine and beside other load.

    python benchmarks/threads.py            # 10 epochs each, ten minutes on two cores
    python benchmarks/threads.py 20         # any other number of epochs

Threads that wait for each other either sleep, as `moola_train` has it (`OMP_WAIT_POLICY=PASSIVE`), or spin, as torch has it by default. A run that
takes longer than two minutes is stopped: spinning threads beside other load can take many times as long as one.
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
from moola.training.loop import train_epochs
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
WAIT = dict(sleep=dict(OMP_WAIT_POLICY="PASSIVE"), spin={})
LONGEST = 120  # seconds


def timed(program, threads, wait, size):
    "Seconds that a program takes in a process of its own; infinite where it is stopped."
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))} | WAIT[wait]
    words = [sys.executable, "-c", program, str(threads), str(size)]
    try: return float(subprocess.run(words, env=env, check=True, capture_output=True, text=True, timeout=LONGEST).stdout)
    except subprocess.TimeoutExpired: return float("inf")


def beside_load(program, threads, wait, size):
    "The same, while every core has another program to run."
    load = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(cores())]
    try:
        time.sleep(.2)
        return timed(program, threads, wait, size)
    finally:
        for p in load: p.kill(); p.wait()


def row(name, idle, busy, best_idle, best_busy):
    "A line of the table: worst of two tries, since what can happen counts."
    def cell(v): return f"{v:.2f} s" if v < LONGEST else f"over {LONGEST} s"
    return name, cell(idle), f"{idle / best_idle:.2f} x" if idle < LONGEST else "", cell(busy), f"{busy / best_busy:.2f} x" if busy < LONGEST else ""


def main(epochs=10, save=None):
    counts, rows = sorted({1, 2, 4, cores()} & set(range(1, cores() + 1))), []
    for what, program, default in (("training", RUN, (1, "spin")), ("scan", SCAN, (cores(), "spin"))):
        kinds = [(n, w) for n in counts for w in WAIT if n > 1 or w == "spin"]
        idle, busy = ({k: max(f(program, *k, epochs) for _ in range(2)) for k in kinds} for f in (timed, beside_load))
        best = min(idle.values()), min(busy.values())
        rows += [row(f"{what}, {n} thread{'s that ' + w if n > 1 else ''}{' (the default)' * ((n, w) == default)}", idle[n, w], busy[n, w], *best) for n, w in kinds]
    show_table(f"Training position_encoding for {epochs} epochs, and scanning {300 * epochs:,} bars with the included model, by the number of threads", rows, ("torch", "numpy"),
               ("busy: as many other programs as cores; the longer of two tries; each ratio is to the best row of its kind",), save, ("", "idle", "to the best", "busy", "to the best"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("epochs", nargs="?", type=int, default=10)
    args = parser.parse_args()
    main(args.epochs, args.save)
