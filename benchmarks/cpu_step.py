"""Why a large batch is slow on a CPU, and how near the LSTM comes to a plain matrix product.

    python benchmarks/cpu_step.py            # about two minutes on two cores
    python benchmarks/cpu_step.py 32 256     # these batch sizes only

A step allocates tens of megabytes and frees them again. glibc hands freed memory back to the system, so that every step meets fresh pages, and each
page costs a fault in which the kernel clears it. `kept` tells glibc to keep the memory (`mallopt`, a setting of the whole process).

One thread is timed by its processor time, which other programs disturb little; several threads by the clock, since they wait for each other at
hundreds of barriers a step. Where other programs use the cores, compare OMP_WAIT_POLICY=passive, under which waiting threads sleep.
"""
import ctypes
import resource
import time

import torch
from table import arguments, cores, show_table
from torch import nn

W, FEATURES, HIDDEN = 105, 13, 96
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h


def keep_memory():
    "Have glibc keep freed memory for the next step; false where there is no glibc."
    try: mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError): return False
    return bool(mallopt(M_MMAP_THRESHOLD, 1 << 30) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def lstm_flops(batch): return 2 * 2 * 4*HIDDEN * (FEATURES + HIDDEN) * W * batch


def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def fastest(run, budget=1., least=3):
    "Shortest time of several calls, and the page faults of the last."
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    run()
    times, began = [], time.perf_counter()
    while len(times) < least or (len(times) < 30 and time.perf_counter() - began < budget):
        before, start = faults(), clock()
        run()
        times.append(clock() - start)
    return min(times), faults() - before


def matmul_rate(n=1536):
    a, b = torch.randn(n, n), torch.randn(n, n)
    return 2 * n**3 / fastest(lambda: a @ b)[0]


class TwoWays(nn.Module):
    "The two directions as LSTMs of their own."
    def __init__(self):
        super().__init__()
        self.ahead, self.back = (nn.LSTM(FEATURES, HIDDEN, batch_first=True) for _ in range(2))

    def forward(self, x): return torch.cat([self.ahead(x)[0], self.back(x.flip(1))[0].flip(1)], -1), None


def works(layout):
    "The network and the form of its input for a layout."
    if layout == "two directions apart": return TwoWays(), lambda x: x
    if layout == "time first": return nn.LSTM(FEATURES, HIDDEN, bidirectional=True), lambda x: x.transpose(0, 1).contiguous()
    return nn.LSTM(FEATURES, HIDDEN, batch_first=True, bidirectional=True), lambda x: x


def measure(batch, layout="nn.LSTM"):
    "Inference, and forward with backward, of one batch: seconds and page faults of each."
    model, form = works(layout)
    dtype = torch.bfloat16 if layout == "bf16" else torch.float32
    model, x = model.to(dtype), form(torch.randn(batch, W, FEATURES)).to(dtype)
    parts = x.split(64) if layout == "in parts of 64" else [x]

    def infer():
        model.eval()
        with torch.inference_mode():
            for p in parts: model(p)

    def step():
        model.train()
        model.zero_grad()
        for p in parts: model(p)[0].sum().backward()
    with torch.backends.mkldnn.flags(enabled=layout != "without oneDNN"):
        return fastest(infer), (None, None) if layout == "bf16" else fastest(step)


def cells(batch, seconds, faulted, peak, times):
    "Milliseconds, GFLOP/s, share of the matrix product's rate and page faults, as text."
    if seconds is None: return ["", "", "", ""]
    rate = times * lstm_flops(batch) / seconds
    return [f"{seconds*1e3:.1f}", f"{rate/1e9:.0f}", f"{rate/peak:.0%}", f"{faulted:,}"]


LAYOUTS = ["without oneDNN", "time first", "two directions apart", "in parts of 64", "bf16"]


SIZES = (16, 32, 64, 128, 256, 512)


def main(sizes=SIZES, save=None):
    import warnings
    warnings.filterwarnings("ignore", message="TF32")
    rows = []
    torch.set_num_threads(1)
    one = matmul_rate()
    for memory in ("as it comes", "kept"):
        if memory == "kept" and not keep_memory():
            print("no glibc here: its memory cannot be kept")
            break
        for threads in sorted({1, cores()}):
            torch.set_num_threads(threads)
            todo = [(b, "nn.LSTM") for b in sizes] + [(b, k) for b in sizes if b in (32, 256) and threads == 1 for k in LAYOUTS]
            for batch, layout in todo:
                infer, step = measure(batch, layout)
                rows.append([layout, memory, threads, batch, *cells(batch, *infer, one*threads, 1), *cells(batch, *step, one*threads, 3)])
    show_table("The LSTM on a CPU", rows, ("torch",), (f"A float32 matrix product of 1,536 reaches {one/1e9:.0f} GFLOP/s a thread.",), save,
               ("", "freed memory", "threads", "batch", "inference ms", "GFLOP/s", "of matmul", "page faults", "training step ms", "GFLOP/s", "of matmul",
                "page faults"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES, metavar="batch")
    main(**vars(parser.parse_args()))
