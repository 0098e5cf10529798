"Networks for `series_v1.py`: `recommended` with averaged weights, kept in a folder."
from functools import partial
from pathlib import Path

import numpy as np
import torch

from moola.core.config import make_config
from moola.core.names import W
from moola.data.bars import cut_windows
from moola.data.splits import Split
from moola.data.windows import Windows, join_windows
from moola.detection.detector import Detector
from moola.models.jade import make_model
from moola.training.graphs import RecordedStep
from moola.training.loop import train_step
from moola.training.trainer import Trainer

KEEP = .95  # share of the average that an epoch leaves


def background(windows, bars, n, seed=0):
    "The labelled windows, and as many windows of unlabelled bars as are asked for, in which nothing is labelled."
    found = np.concatenate([cut_windows(b, stride=W)[0] for b in bars])
    ohlc = found[np.random.default_rng(seed).permutation(len(found))[:n]]
    ids = np.array([f"background-{i}" for i in range(len(ohlc))])
    return join_windows([windows, Windows(ids, ohlc, windows.rows.iloc[:0], np.zeros(0, np.int64))])


def train(windows, seed, epochs, device="cpu", keep=KEEP):
    "Averaged weights, and those of the last step; all windows are trained on, and no epoch is chosen."
    n, none, device = len(windows), np.zeros(0, np.int64), torch.device(device)
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        t = Trainer(make_config(seed=seed, epochs=epochs, ema=keep, device=str(device)), windows, Split(np.arange(n), np.arange(min(n, 2)), none, none, False), device)
        step = RecordedStep(t, train_step) if device.type == "cuda" else partial(train_step, t)
        for _ in range(epochs):
            t.model.train()
            for rows, weight in zip(*(o.to(device) for o in t.draw())): step(rows, weight)
    return [{k: v.detach().cpu().clone() for k, v in o.state_dict().items()} for o in (t.judged, t.model)]


def networks(windows, name, n, epochs, folder, device="cpu", averaged=True):
    "A detector of `n` networks; those that `folder` holds are not trained again."
    folder, config, models = Path(folder), make_config(), []
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(n):
        file = folder/f"{name}-{epochs}-{seed}.pt"
        if not file.exists(): torch.save(train(windows, seed, epochs, device), file)
        model = make_model(config)
        model.load_state_dict(torch.load(file, weights_only=True)[0 if averaged else 1])
        models.append(model.eval().requires_grad_(False))
    return Detector(models, config.features, config.swing_rule, .5, 2, torch.device(device), [f"{name}-{s}" for s in range(n)])
