"Networks trained together go the way that each goes alone."
import inspect
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import psutil
import pytest
import torch
from joblib.externals.loky import process_executor
from sklearn.metrics import average_precision_score

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.data.plant import simulate_windows
from moola.data.splits import split_folds
from moola.models.fused import can_fuse
from moola.models.stacked import drop
from moola.training import loop, many
from moola.training.many import ManyTrainer, fit_alone, fit_many, train_many
from moola.training.result import average_precisions
from moola.training.trainer import Trainer

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def plan(device, epochs=2, **more):
    "Three networks whose numbers and folds differ, without dropout."
    windows = simulate_windows(36, seed=1)
    folds = split_folds(windows, 3)
    given = dict(variant="position_encoding", epochs=epochs, batch_size=8, device=device, input_dropout=0., head_dropout=0., progress=False)
    config = make_config(**given | more)
    configs = [replace(config, seed=1), replace(config, seed=2, lr=2e-3, pos_weight="auto", weight_decay=.1),
               replace(config, seed=3, max_grad_norm=.5, sigma_lr=.1, ema=.9)]
    return configs, windows, [folds[0], replace(folds[1], train=folds[1].train[:15]), folds[2]]


def numbers(result, epochs): return result.losses[result.losses.epoch <= epochs].drop(columns="phase").to_numpy()


@pytest.mark.parametrize("more", [{}, dict(features=("body_pct", "range_z"), tasks=("span",), epochs=1), dict(variant="stones_only", warmup_bars=10, epochs=1),
                                  dict(mirror=True, soft_bars=2, task_weights=(1., .5, 2., 1.), epochs=1)])
def test_together_as_alone(more):
    configs, windows, splits = plan("cpu", **more)
    together = train_many(ManyTrainer(configs, windows, splits, torch.device("cpu"), "float32"))
    for a, c, s in zip(together, configs, splits):
        b = fit_alone(c, windows, s)
        assert np.abs(numbers(a, 1) - numbers(b, 1)).max() < 1e-5
        assert np.abs(a.prob - b.prob).max() < 1e-3
        assert a.final.keys() == b.final.keys() and max((a.final[k] - b.final[k]).abs().max() for k in b.final) < 1e-3


def test_workers_end_with_their_parent(tmp_path):
    "A killed program leaves no worker that goes on training."
    code = ("from moola import make_config, simulate_windows; from moola.training.many import fit_many; from moola.data.splits import split_folds\n"
            "w = simulate_windows(24); c = make_config('stones_only', epochs=100000, hidden=4, device='cpu'); fit_many([c]*2, w, split_folds(w, 2), processes=2)")
    p = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.DEVNULL)
    def workers(): return [q for q in psutil.Process(p.pid).children() if "LokyProcess" in " ".join(q.cmdline())]
    def wait(ready):
        for _ in range(1200):
            if ready(): return
            time.sleep(.1)
        raise AssertionError("waited in vain")
    wait(lambda: len(workers()) == 2 and all(sum(q.cpu_times()[:2]) > 4 for q in workers()))
    found = workers()
    p.kill()
    p.wait()
    try: wait(lambda: not any(q.is_running() and q.status() != psutil.STATUS_ZOMBIE for q in found))
    finally:
        for q in found:
            if q.is_running(): q.kill()


def test_ties_score_as_in_sklearn():
    rng = np.random.default_rng(0)
    for digits in (1, 2, 6):
        t, p = rng.random(200) < .2, rng.random((5, 200)).round(digits)
        assert np.allclose(average_precisions(torch.tensor(t), torch.tensor(p)), [average_precision_score(t, o) for o in p], atol=1e-12)


def test_dropout_rates_by_network():
    torch.manual_seed(0)
    x = drop(torch.ones(3, 200, 50), torch.tensor([0., .3, .6]))
    assert torch.allclose((x == 0).float().mean((1, 2)), torch.tensor([0., .3, .6]), atol=.02)
    assert torch.allclose(x.mean((1, 2)), torch.ones(3), atol=.03)


def test_what_must_agree():
    configs, windows, splits = plan("cpu")
    with pytest.raises(MoolaError, match="epochs"): fit_many([configs[0], replace(configs[1], epochs=9)], windows, splits[:2])
    with pytest.raises(MoolaError, match="configs is empty"): fit_many([], windows, [])
    with pytest.raises(MoolaError, match="precision"): fit_many(configs, windows, splits, precision="fp8")


@gpu
@pytest.mark.parametrize("precision, first, later", [("float32", 1e-5, 1e-3), ("bf16", 1e-3, 1e-2)])
def test_gpu_together_as_alone(precision, first, later):
    if precision == "bf16" and not can_fuse(torch.device("cuda"), 96): pytest.skip("this GPU has too little shared memory")
    configs, windows, splits = plan("cuda")
    for a, c, s in zip(fit_many(configs, windows, splits, precision=precision, progress=False), configs, splits):
        b = fit_alone(c, windows, s)
        assert np.abs(numbers(a, 1) - numbers(b, 1)).max() < first
        assert np.abs(a.prob - b.prob).max() < later


@gpu
def test_gpu_same_seed_same_numbers():
    configs, windows, splits = plan("cuda")
    configs = [replace(c, input_dropout=.3, head_dropout=.6) for c in configs]
    a, b = (fit_many(configs, windows, splits, progress=False) for _ in range(2))
    assert all(np.array_equal(x.prob, y.prob) for x, y in zip(a, b))


@gpu
@pytest.mark.parametrize("more", [{}, dict(max_grad_norm=.5), dict(variant="stones_only"), dict(ema=.9)])
def test_gpu_graph_as_eager(more, monkeypatch):
    configs, windows, splits = plan("cuda")
    def losses(graph):
        torch.manual_seed(7)
        t = Trainer(make_config(**dict(variant="position_encoding", device="cuda", batch_size=8) | more), windows, splits[0], torch.device("cuda"))
        if not graph: monkeypatch.setattr(loop, "RecordedStep", lambda trainer, step: partial(step, trainer))
        return [(e.train[0], e.valid[0]) for e in loop.train_epochs(t, 2)]
    for (a, va), (b, vb) in zip(losses(True), losses(False)):
        assert max(abs(a[k] - b[k]) for k in a) < 1e-5 and max(abs(va[k] - vb[k]) for k in va) < 1e-5


def test_a_worker_that_has_grown_is_replaced_silently(monkeypatch):
    "joblib warns of it, as if something had been lost."
    text = next(line for line in inspect.getsource(process_executor).splitlines() if many._REPLACED in line).strip().strip('"')
    configs, windows, splits = plan("cpu")
    def grown(self, jobs):
        warnings.warn(text)
        return ((i, f"network {i}") for i, _ in enumerate(jobs))
    monkeypatch.setattr(many.Parallel, "__call__", grown)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = many.fit_pool(configs, windows, splits, progress=False)
    assert found == [f"network {i}" for i in range(len(configs))] and not told
