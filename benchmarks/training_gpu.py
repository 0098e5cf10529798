"""One run on a GPU: a step replayed from its graph, and `position_encoding` on 210 windows with every artifact.

    python benchmarks/training_gpu.py [epochs] [--save FILE]
"""
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from table import arguments, show_table

import moola.training.loop as loop
from moola.core.config import make_config
from moola.data.plant import simulate_windows
from moola.data.splits import split_windows
from moola.training.fit import fit
from moola.training.graphs import RecordedStep
from moola.training.loop import train_step
from moola.training.trainer import Trainer


def device_seconds(run, repeats=50):
    "Median time of a call on the device, from events, after three calls that are not counted."
    for _ in range(3): run()
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for a, b in marks:
        a.record()
        run()
        b.record()
    torch.cuda.synchronize()
    return sorted(a.elapsed_time(b) for a, b in marks)[repeats // 2] / 1e3


def copy_rate():
    "Bytes read and written a second by a large copy on the device."
    a = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    return 2 * a.numel() / device_seconds(lambda: b.copy_(a), 20)


def matmul_rate(dtype, n=4096):
    "Operations a second of a large matrix product of random numbers."
    a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
    return 2 * n**3 / device_seconds(lambda: a @ b, 20)


def lstm_operations(batch=32, bars=105, features=13, hidden=96):
    "Multiplications and additions of a step's recurrence and its gradients, both directions."
    return 3 * 2 * 2 * batch * bars * 4 * hidden * (hidden + features)


def main(epochs=100, save=None):
    if not torch.cuda.is_available(): return print("training_gpu.py needs a CUDA GPU: skipped")
    windows, device = simulate_windows(210, seed=42), torch.device("cuda")
    split = split_windows(windows)
    config = make_config("position_encoding", epochs=epochs, device="cuda", progress=False)

    trainer = Trainer(config, windows, split, device)
    trainer.model.train()
    rows, weight = torch.as_tensor(split.train[:32], device=device), torch.ones(32, device=device)
    eager = device_seconds(lambda: train_step(trainer, rows, weight))
    recorded = RecordedStep(trainer, train_step)
    ours = device_seconds(lambda: recorded(rows, weight))
    operations, bytes_moved = lstm_operations(), 16 * sum(p.numel() for p in trainer.model.parameters())
    floor = max(operations / matmul_rate(torch.float32), bytes_moved / copy_rate())

    def run():
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            done = fit(make_config(config.variant, epochs=epochs, device="cuda", progress=False, output=str(Path(folder) / "run")), windows, split)
            timings = done.metadata["timings"]
        return time.perf_counter() - began, timings
    first, _ = run()
    whole, timings = min((run() for _ in range(3)), key=lambda o: o[0])
    loop.RecordedStep = lambda trainer, step: partial(step, trainer)
    try: plain, _ = run()
    finally: loop.RecordedStep = RecordedStep

    steps = -(-len(split.train) // config.batch_size) * epochs
    show_table(f"Training on {torch.cuda.get_device_name()}: position_encoding, {len(windows)} windows", [
        ("one step, batch 32", f"{ours * 1e3:.2f} ms", f"{eager * 1e3:.2f} ms", f"{eager / ours:.1f} x", f"{floor * 1e3:.3f} ms"),
        (f"{epochs} epochs with validation and artifacts", f"{whole:.2f} s", f"{plain:.2f} s", f"{plain / whole:.1f} x", f"{steps * floor:.2f} s")],
        ("torch", "numpy", "pandas"), (
        "reference: the same step, and the same run, without the graph: `nn.LSTM` through cuDNN, one kernel after another.",
        f"floor: {operations / 1e9:.2f} GFLOP of the recurrence at the float32 rate of a large matrix product here, not the wait of 105 steps for each other.",
        f"of the run: {timings['capture_s']:.2f} s to record the step, {timings['training_s']:.2f} s in training and validation.",
        f"first run in this process: {first:.2f} s."), save)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("epochs", type=int, nargs="?", default=100)
    main(**vars(parser.parse_args()))
