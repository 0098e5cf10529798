"""Many networks at once: the recurrence alone, and folds times seeds from start to end, beside one after another.

    python benchmarks/many.py [networks] [epochs] [--save FILE]
"""
import time

import torch
from table import arguments, show_table
from torch import nn

from moola.core.config import make_config
from moola.data.plant import simulate_windows
from moola.data.splits import split_folds
from moola.models.fused import can_fuse, fused_bilstm, lstm_weights
from moola.training.many import ManyTrainer, cpu_count, fit_alone, fit_many, fit_pool


def plan(networks, epochs, device):
    "Five folds of 174 windows, and as many seeds as it takes."
    windows = simulate_windows(174, seed=42)
    folds = split_folds(windows, 5)
    configs = [make_config("position_encoding", epochs=epochs, device=device, seed=i // 5) for i in range(networks)]
    return configs, windows, [folds[i % 5] for i in range(networks)]


def graph_of(run):
    "A CUDA graph of a function without arguments."
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3): run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph): run()
    return graph


def recurrence(k, batch=32, bars=105, features=13, hidden=96):
    "Seconds of forward, backward and weight gradients: all at once, and cuDNN's for one; and the floor of what is moved and computed."
    from training_gpu import copy_rate, device_seconds, lstm_operations, matmul_rate
    lstms = [nn.LSTM(features, hidden, batch_first=True, bidirectional=True).cuda() for _ in range(k)]
    x, up = torch.randn(k, bars, batch, features, device="cuda"), torch.randn(k, 2, bars, batch, hidden, device="cuda").bfloat16()
    weights = [o.detach().requires_grad_() for o in lstm_weights(lstms)]
    ours = device_seconds(graph_of(lambda: torch.autograd.grad(fused_bilstm(x, *weights), weights, up)).replay)
    one, up_one, own = x[0].transpose(0, 1).contiguous(), torch.randn(batch, bars, 2 * hidden, device="cuda"), list(lstms[0].parameters())
    theirs = device_seconds(graph_of(lambda: torch.autograd.grad(lstms[0](one)[0], own, up_one)).replay)
    unit = 2 * bars * batch * hidden  # hidden states of one network
    moved = k * unit * (6*2*2 + 2*3 + 2*2 + 4*2*3)  # factors, states, their gradients and the gates' gradients, each written and read
    return ours / k, theirs, max(moved / copy_rate(), k * lstm_operations(batch, bars, features, hidden) / matmul_rate(torch.bfloat16)) / k


def on_gpu(k, epochs):
    from training_gpu import device_seconds
    configs, windows, splits = plan(k, epochs, "cuda")
    rows, device = [], torch.device("cuda")
    if can_fuse(device, 96):
        for n in (16, 64):
            ours, theirs, floor = recurrence(n)
            rows.append((f"recurrence, {n} networks, a network-step",
                         f"{ours * 1e3:.4f} ms", f"{theirs * 1e3:.3f} ms", f"{theirs / ours:.0f} x", f"{floor * 1e3:.4f} ms"))
    fit_many(configs[:5], windows, splits[:5], progress=False)
    began = time.perf_counter()
    done = fit_many(configs, windows, splits, progress=False)
    ours = time.perf_counter() - began
    fit_alone(configs[0], windows, splits[0])
    began = time.perf_counter()
    for c, s in zip(configs[:2], splits): fit_alone(c, windows, s)
    theirs = (time.perf_counter() - began) / 2 * k
    trainer = ManyTrainer(configs, windows, splits, device)
    step = device_seconds(graph_of(trainer.step).replay)
    rows.append((f"whole step, {k} networks, a network-step", f"{step / k * 1e3:.4f} ms", "", "", ""))
    rows.append((f"{k} networks, {epochs} epochs", f"{ours:.2f} s", f"{theirs:.1f} s", f"{theirs / ours:.0f} x", ""))
    best = sum(r.epochs.average_precision.max() for r in done) / k
    return rows, (
        "reference: cuDNN's LSTM for one network, replayed from a graph; and `Trainer`, step replayed from a graph, two networks measured and multiplied.",
        "floor: what the kernels and the weight gradients write and read at the speed of a large copy here, or operations at the bfloat16 rate, if more.",
        f"mean over the networks of the best epoch's average precision on validation windows: {best:.3f}.")


def on_cpu(k, epochs):
    configs, windows, splits = plan(k, epochs, "cpu")
    fit_pool(configs[:cpu_count()], windows, splits[:cpu_count()], progress=False)  # starts the processes
    began = time.perf_counter()
    fit_pool(configs, windows, splits, progress=False)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    for c, s in zip(configs, splits): fit_alone(c, windows, s)
    theirs = time.perf_counter() - began
    return [(f"{k} networks, {epochs} epochs", f"{ours:.1f} s", f"{theirs:.1f} s", f"{theirs / ours:.2f} x", "")], (
        f"reference: the same networks one after another in one process of {torch.get_num_threads()} threads; ours: {cpu_count()} processes of one thread.",)


def main(k=0, epochs=0, save=None):
    gpu = torch.cuda.is_available()
    rows, notes = on_gpu(k or 40, epochs or 100) if gpu else on_cpu(k or 20, epochs or 4)
    where = torch.cuda.get_device_name() if gpu else "the CPU"
    show_table(f"Many networks at once on {where}: 174 windows, five folds", rows, ("torch", "triton" if gpu else "joblib"), notes, save)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("k", type=int, nargs="?", default=0, metavar="networks", help="default: 40 on a GPU, 20 on a CPU")
    parser.add_argument("epochs", type=int, nargs="?", default=0, help="default: 100 on a GPU, 4 on a CPU")
    main(**vars(parser.parse_args()))
