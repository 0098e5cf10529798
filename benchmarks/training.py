"""Time the default main job as its user runs it, and one training step.

    python benchmarks/training.py            # 100 epochs through papermill, about a minute on two cores
    python benchmarks/training.py 10         # any other number of epochs
"""
import tempfile
import time

import torch
from table import arguments, cores, seconds, show_table

from moola.core.config import make_config
from moola.data.splits import load_windows, split_of
from moola.models.jade import Jade
from moola.training.command import moola_train
from moola.training.loop import train_step
from moola.training.run import Run
from moola.training.trainer import Trainer, batches


def main_job(epochs):
    "Wall time of `moola_train`, papermill included, and the run that it left."
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        moola_train(["--variant", "position_encoding", "--epochs", str(epochs), "--output", f"{folder}/run", "--progress", "False"])
        return time.perf_counter() - start, Run(f"{folder}/run").metadata


def lstm_flops(model, batch, bars):
    "Floating-point operations of the LSTM's matrix products in one step, forward and backward."
    lstm = model.lstm
    per_bar = 2 * 4*lstm.hidden_size * (lstm.input_size + lstm.hidden_size)
    return 3 * 2 * per_bar * batch * bars


def matmul_rate(n=1536):
    "Floating-point operations a second of a large float32 matrix product, on all threads."
    a, b = torch.randn(n, n), torch.randn(n, n)
    return 2*n**3 / seconds(lambda: a @ b, 5)


def step_rows():
    "A training step with everything in it, beside the network's forward and backward alone."
    config = make_config("position_encoding", device="cpu")
    windows = load_windows(config)
    trainer = Trainer(config, windows, split_of(config, windows), torch.device("cpu"))
    rows, weight = (o[0] for o in batches(len(trainer.split.train), config.batch_size, trainer.shuffle))
    rows = torch.as_tensor(trainer.split.train)[rows]
    model, x = Jade(), trainer.x[rows]

    def plain():
        model.zero_grad()
        sum(o.sum() for o in model(x).values()).backward()
    trainer.model.train()
    floor = lstm_flops(model, len(rows), x.shape[1]) / matmul_rate()
    ours, reference = seconds(lambda: train_step(trainer, rows, weight), 15), seconds(plain, 15)
    return [(f"training step, batch {len(rows)}, {torch.get_num_threads()} threads", f"{ours*1e3:.1f} ms", f"{reference*1e3:.1f} ms",
             f"{reference/ours:.2f} x", f"{floor*1e3:.1f} ms")]


def main(epochs=100, save=None):
    rows = step_rows()
    wall, run = main_job(epochs)
    trained = run["timings"]["training_s"]
    rows += [(f"main job, {run['data']['windows']} windows, {epochs} epochs", f"{wall:.1f} s", "", "", ""),
             ("  of it training and validation", f"{trained:.1f} s", "", "", ""),
             ("  of it start-up, scoring, plots, papermill", f"{wall-trained:.1f} s", "", "", "")]
    show_table(f"Training on {cores()} cores", rows, ["torch", "papermill"],
               ["The reference of the step is forward and backward of the same network, without losses, clipping and optimizer.",
                "The floor counts the matrix products of the LSTM, at the speed of one large float32 product on the same threads."], save)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("epochs", type=int, nargs="?", default=100)
    main(**vars(parser.parse_args()))
