"""Runs an hour of a sweep, with one worker and with more: each a process on a CPU, or a GPU with groups of 64 networks.

    python benchmarks/sweep.py                                       # 8 runs of 20 epochs, one and two processes
    python benchmarks/sweep.py --device cuda --runs 512 --epochs 100 # one and two GPUs
"""
import tempfile
import time
from functools import partial

import torch
from table import arguments, show_table

from moola.scale.cluster import open_cluster
from moola.scale.sweep import _TOGETHER, _Books, _run_grid, load_windows, make_plan, split_of


def timed(runs, epochs, device, workers, together):
    "Seconds of a sweep from its start to its last run, and runs an hour between the first answer and the last."
    plan = make_plan(dict(device=device, epochs=epochs, seeds=runs, base=dict(lr=.003)))
    first, ends = plan.config(plan.base, plan.seeds[0]), []
    windows = load_windows(first)
    plan.settings = plan.settings[:1]
    with tempfile.TemporaryDirectory() as d:
        from pathlib import Path
        books, began = _Books(Path(d), plan, windows, split_of(first, windows)), time.perf_counter()
        def tick(todo, line):
            if line: ends.append(time.perf_counter() - began)
            if line and line["status"] != "finished": raise SystemExit(line["error"])
        _run_grid(books, partial(open_cluster, "local", workers, None, "cuda" if device == "cuda" else "cpu"), together, tick, lambda client: None)
        print(f"{workers} workers: runs ended after", *(f"{e:.1f}" for e in ends[::max(len(ends)//16, 1)]), flush=True)
    group = _TOGETHER if together else 1
    first = workers*group   # what each worker did first holds its start
    steady = (len(ends)-first) / (ends[-1]-ends[first-1]) * 3600 if len(ends) > first else float("nan")
    return ends[-1], steady


def main(runs=8, epochs=20, device="cpu", workers=(1, 2), save=None):
    together, rows, base = device == "cuda", [], None
    for w in workers:
        whole, steady = timed(runs, epochs, device, w, together)
        base = base or (whole, steady)
        rows.append([f"{w} {'GPU' if together else 'process'}{('s' if together else 'es')*(w > 1)}", f"{whole:.1f}", f"{runs/whole*3600:,.0f}", f"{steady:,.0f}", f"{steady/base[1]:.2f} x"])
    what = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, groups of {_TOGETHER}" if together else "one network a job"
    show_table(f"A sweep of {runs} runs of {epochs} epochs on 174 windows ({what})", rows, ("torch", "distributed"),
               ["The first column counts the start of the workers and, on a GPU, compilation; the last two begin where each worker has answered once."], save,
               ("", "s, all", "runs/h, all", "runs/h, under way", "ratio"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, nargs="+", default=(1, 2))
    main(**vars(parser.parse_args()))
