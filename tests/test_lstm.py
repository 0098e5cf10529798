"The fused LSTM kernels: their arithmetic through Triton's interpreter on any machine, their precision on a GPU."
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from moola.models.fused import can_fuse, fused_bilstm, lstm_weights, plain_bilstm


def case(k, n, b, f, h, seed=0):
    "Inputs and stacked weights in float64, upstream gradients, and what `nn.LSTM` makes of them."
    torch.manual_seed(seed)
    lstms = [nn.LSTM(f, h, batch_first=True, bidirectional=True).double() for _ in range(k)]
    x, up = torch.randn(k, n, b, f).double(), torch.randn(k, 2, n, b, h).double()
    out = torch.stack([m(x[i].transpose(0, 1))[0].unflatten(-1, (2, h)).permute(2, 1, 0, 3) for i, m in enumerate(lstms)])
    return [x, *(o.detach() for o in lstm_weights(lstms))], up, out.detach()


def run(recurrence, inputs, up, dtype, device):
    "States and gradients, in float64 on the CPU."
    inputs = [o.to(device, dtype).clone().requires_grad_() for o in inputs]
    out = recurrence(*inputs)
    (out.to(dtype) * up.to(device, dtype)).sum().backward()
    return [o.detach().double().cpu() for o in (out, *(o.grad for o in inputs))]


def relative(got, want): return [((a - b).norm() / b.norm().clamp(min=1e-30)).item() for a, b in zip(got, want)]


def check(size, dtype, device, limits):
    inputs, up, states = case(*size)
    want = run(plain_bilstm, inputs, up, torch.float64, "cpu")
    assert relative(want[:1], [states])[0] < 1e-13
    off = relative(run(fused_bilstm, inputs, up, dtype, device), want)
    assert all(o < limit for o, limit in zip(off, limits)), (size, off)


# (networks, bars, batch, features, hidden): batches and sizes that fill their blocks, and ones that do not
SMALL = [(2, 7, 5, 3, 8), (1, 9, 20, 13, 24), (3, 4, 33, 12, 16), (1, 1, 2, 15, 3), (1, 5, 16, 16, 32)]


def interpreted():
    "Called in a process of its own, where Triton interprets: float32 states, factors in float16."
    for size in SMALL: check(size, torch.float32, "cpu", [1e-5] + [1e-3]*4)


def test_kernels_interpreted():
    pytest.importorskip("triton")
    env = os.environ | dict(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    here = os.path.dirname(__file__)
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r}); import test_lstm; test_lstm.interpreted()"],
                          env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("size", [(4, 105, 32, 13, 96), (3, 105, 35, 12, 96), (40, 105, 32, 13, 96), (2, 50, 7, 13, 64), (1, 20, 64, 13, 128)])
def test_kernels_on_gpu(size):
    if not can_fuse(torch.device("cuda"), size[-1]): pytest.skip("this GPU has too little shared memory")
    check(size, torch.float32, "cuda", [1e-2]*5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_captured_equals_eager():
    if not can_fuse(torch.device("cuda"), 96): pytest.skip("this GPU has too little shared memory")
    inputs, up, _ = case(3, 105, 32, 13, 96)
    inputs, up = [o.cuda().float().requires_grad_() for o in inputs], up.cuda().bfloat16()
    def both():
        out = fused_bilstm(*inputs)
        return out.detach(), *torch.autograd.grad(out, inputs, up)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side): eager = [o.clone() for o in both()]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side): captured = both()
    for o in captured: o.fill_(float("nan"))
    graph.replay()
    for a, b in zip(captured, eager): assert torch.equal(a, b)
