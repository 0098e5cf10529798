"Training as its users run it: from the notebook, from the command line, stopped, killed and resumed."
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import start

from moola.core.config import VARIANTS, make_config
from moola.core.errors import MoolaError
from moola.data.plant import simulate_windows
from moola.data.simulate import simulate_bars
from moola.data.splits import split_folds, split_windows
from moola.data.windows import read_windows, write_windows
from moola.models.checkpoint import load_checkpoint, model_from_checkpoint
from moola.training import loop
from moola.training.command import moola_train
from moola.training.fit import fit
from moola.training.run import TABLES, Run

STATS = ["mean", "std", "min", "max", "median"]
TINY = dict(variant="position_encoding", n_windows=40, hidden=16, device="cpu", progress=False)


def tiny(folder, **params): return make_config(**(TINY | dict(epochs=2, output=str(folder)) | params))
def numbers(folder): return pd.read_csv(Path(folder)/"epoch_metrics.csv").drop(columns="epoch_time")


def wait_for_epochs(folder, n, process, seconds=300):
    "Wait until a run has written `n` epochs."
    table = Path(folder)/"epoch_metrics.csv"
    for _ in range(int(seconds*10)):
        if table.exists() and len(table.read_text().splitlines()) > n: return
        assert process.poll() is None, process.communicate()
        time.sleep(.1)
    raise AssertionError(f"{folder} has no {n} epochs after {seconds} s")


def unlabelled(variant, folder):
    "Bars for a variant that has teachers."
    if not VARIANTS[variant].teachers: return {}
    bars = simulate_bars(3000, seed=3)
    bars.assign(timestamp=bars.timestamp + pd.Timedelta("7300D")).to_csv(folder/"bars.csv", index=False)   # other years than any labels
    return dict(background=str(folder/"bars.csv"), teachers=1)


def columns_of(variant):
    "The columns that the run folder promises, in their order."
    tasks = VARIANTS[variant].tasks
    uncertain = [t for t in ("ptr", "type", "span", "countdown") if t in tasks]
    return {"epoch_metrics.csv": ["epoch", "train_loss", "val_loss", "span_f1", "span_precision", "span_recall", "epoch_time"],
            "loss_components.csv": ["epoch", "phase", *(f"loss_{t}" for t in tasks), "total_loss"],
            "uncertainty_params.csv": ["epoch", *(f"sigma_{t}" for t in uncertain), *(f"weight_{t}" for t in uncertain)],
            "probability_stats.csv": ["epoch", "phase", *(f"{s}_span_{k}" for s in ("in", "out") for k in STATS), "separation"],
            "feature_stats.csv": ["epoch", "phase", "feature_name", *STATS],
            "gradient_stats.csv": ["epoch", "total_grad_norm", "lstm.weight_ih_l0"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_run_folder(variant, tmp_path):
    "Each variant leaves every table with its columns, and a model that reproduces the stored predictions."
    run = fit(tiny(tmp_path/variant, variant=variant, epochs=11, **unlabelled(variant, tmp_path)))
    for table, columns in columns_of(variant).items():
        d = pd.read_csv(run.folder/table)
        assert list(d.columns[:len(columns)]) == columns
    assert run.epochs.epoch.tolist() == list(range(1, 12))
    assert run.table("feature_stats").epoch.unique().tolist() == [1, 5, 10]
    assert run.table("gradient_stats").epoch.tolist() == [1, 10]
    loss = run.table("loss_components")
    parts = [c for c in loss if c.startswith("loss_")]
    np.testing.assert_allclose(loss[parts].sum(axis=1), loss.total_loss)
    np.testing.assert_allclose(loss[loss.phase == "train"].total_loss, run.epochs.train_loss)
    np.testing.assert_allclose(loss[loss.phase == "val"].total_loss, run.epochs.val_loss)
    sigma = run.table("uncertainty_params")
    np.testing.assert_allclose(sigma.filter(like="weight_").sum(axis=1), 1, rtol=1e-5)
    inverse = sigma.filter(like="sigma_").to_numpy()**-2.
    np.testing.assert_allclose(sigma.filter(like="weight_"), inverse/inverse.sum(1, keepdims=True), rtol=1e-4)

    best = load_checkpoint(run.folder/"best_model.pt")
    windows = simulate_windows(40, run.config.data_seed)
    split = split_windows(windows)
    from moola.training.trainer import to_tensors
    x, _ = to_tensors(windows[split.valid], run.config, torch.device("cpu"))
    with torch.no_grad(): prob = model_from_checkpoint(best)(x[:len(split.valid)])["span"].sigmoid().numpy()
    ids, stored, target = run.predictions()
    assert ids.tolist() == windows.ids[split.valid].tolist()
    np.testing.assert_allclose(prob, stored, atol=1e-6)
    np.testing.assert_array_equal(target, windows.mask[split.valid])
    assert run.metadata["data"]["sha256"] == windows.fingerprint
    assert set(run.metadata["chance"]["valid"]) >= {"every_bar", "position_prior", "untrained"}


def test_probability_stats_are_the_predictions(tmp_path):
    "What the tables say of the best epoch is what its stored predictions say."
    run = fit(tiny(tmp_path/"run", epochs=5))
    _, prob, target = run.predictions()
    row = run.table("probability_stats").query("phase == 'val'").set_index("epoch").loc[run.metadata["best"]["epoch"]]
    assert row.in_span_mean == pytest.approx(prob[target].mean(), abs=1e-6)
    assert row.out_span_median == pytest.approx(np.median(prob[~target]), abs=1e-6)
    assert row.separation == pytest.approx(prob[target].mean() - prob[~target].mean(), abs=1e-6)


def test_killed_and_resumed(tmp_path):
    "A run killed in mid-epoch has all its epochs, and resumed it ends as if nothing had happened."
    whole, killed = tmp_path/"whole", tmp_path/"killed"
    fit(tiny(whole, epochs=60))
    code = f"from moola.training.fit import fit; from moola.core.config import make_config; fit(make_config(**{TINY | dict(epochs=60, output=str(killed))!r}))"
    p = start("python", "-c", code, cwd=tmp_path)
    wait_for_epochs(killed, 3, p)
    os.killpg(p.pid, signal.SIGKILL)
    p.communicate()
    epochs = len(pd.read_csv(killed/"epoch_metrics.csv", on_bad_lines="skip"))
    assert 3 <= epochs < 60
    assert json.loads((killed/"metadata.json").read_text())["status"] == "running"
    assert epochs-1 <= load_checkpoint(killed/"last.pt")["epoch"] <= epochs
    fit(tiny(killed, epochs=60, resume=True))
    pd.testing.assert_frame_equal(numbers(killed), numbers(whole))
    for table in TABLES[1:]:
        pd.testing.assert_frame_equal(pd.read_csv(killed/table), pd.read_csv(whole/table))
    a, b = (Run(f).predictions()[1] for f in (killed, whole))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("command", ["moola_train", "papermill"])
def test_interrupted(command, tmp_path, root):
    "Ctrl-C leaves a folder that is complete up to there, and a non-zero exit."
    out = tmp_path/"stopped"
    out.mkdir()
    params = dict(n_windows=40, epochs=5000, hidden=16, device="cpu", output=out)
    if command == "papermill": words = [root/"nbs/train.ipynb", out/"train.ipynb", *(w for k, v in params.items() for w in ("-p", k, v))]
    else: words = [w for k, v in params.items() for w in (f"--{k}", v)]
    p = start(command, *words, cwd=tmp_path)
    wait_for_epochs(out, 3, p)   # the second is on disk when the third is in the table
    os.killpg(p.pid, signal.SIGINT)
    p.communicate(timeout=200)
    assert p.returncode != 0
    run = Run(out)
    assert run.metadata["status"] == "interrupted"
    assert len(run.epochs) == run.metadata["epochs_done"] >= 2
    assert (out/"train.ipynb").exists()
    assert run.predictions()[1].shape[1] == 105
    assert load_checkpoint(out/"last.pt")["epoch"] == len(run.epochs)


HURRIED = """
import os, signal, sys
from moola.core.config import make_config
from moola.training.fit import fit
from moola.training.recorder import Recorder
keep, score = Recorder._keep, Recorder._score
def hurry(self):
    print("loaded for nothing:", *(m for m in ("torch._dynamo", "papermill") if m in sys.modules), flush=True)
    os.kill(os.getpid(), signal.{signal})
    return score(self)
def interrupt(self, row, *a):
    keep(self, row, *a)
    if row["epoch"] == 2: raise KeyboardInterrupt
Recorder._score, Recorder._keep = hurry, interrupt
fit(make_config(**{config!r}))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_ended_while_it_closes(name, tmp_path):
    "Whoever ends a kernel that was interrupted (Jupyter does after 2.5 seconds, and kills it after 5) finds an interrupted run; SIGTERM waits for its scores."
    p = start("python", "-c", HURRIED.format(signal=name, config=TINY | dict(output=str(tmp_path/"run"))), cwd=tmp_path)
    out, _ = p.communicate(timeout=200)
    assert p.returncode == -getattr(signal, name) and out.rstrip().endswith("loaded for nothing:")
    run = Run(tmp_path/"run")
    assert (run.metadata["status"], run.metadata["epochs_done"], run.metadata["best"] is None) == ("interrupted", 2, False)
    assert (run.folder/"predictions.parquet").exists() == (name == "SIGTERM") == ("scores" in run.metadata)


@pytest.mark.parametrize("command", ["moola_train", "papermill"])
def test_lines_are_seen_live(command, tmp_path, root):
    "Each epoch's line is on the terminal when the epoch ends, and the last line of the run is the guide's. Its options are too."
    out, data = tmp_path/"live", tmp_path/"train_latest.parquet"
    out.mkdir()
    write_windows(simulate_windows(24, 3), data)
    if command == "papermill": words = [root/"nbs/train.ipynb", out/"train.ipynb", *f"-p n_windows 24 -p hidden 16 -p epochs 30 -p lr 1e-3 -p device cpu -p data {data}".split()]
    else: words = f"--data {data} --output {out} --epochs 30 --batch-size 32 --lr 1e-3 --device cpu --seed 42 --hidden 16".split()
    p = start(command, *words, cwd=tmp_path)
    for line in p.stdout:
        if line.startswith("Epoch 1/30: train_loss="): break
    assert not (out/"predictions.parquet").exists(), "the first line came when the run was over"
    rest = [line for line in p.stdout.read().splitlines() if line.strip()]
    p.communicate(timeout=200)
    assert p.returncode == 0
    assert rest[-1].startswith("Epoch 30/30: train_loss=") and ", span_F1=" in rest[-1] and ", R=" in rest[-1]
    text = (out/"train.ipynb").read_text()
    assert "Epoch 17/30" in text and text.count("image/png") == 4
    config = Run(out).config
    assert (config.data, config.epochs, config.batch_size, config.lr, config.device, config.seed) == (str(data), 30, 32, 1e-3, "cpu", 42)


WRONG = {"unknown variant 'best'": dict(variant="best"),
         "unknown parameter 'epoch': did you mean 'epochs'": dict(epoch=3),
         "parameter epochs should be a valid integer, not 'ten'": dict(epochs="ten"),
         "parameter resume should be a valid boolean, not 'maybe'": dict(resume="maybe"),
         "there is no file no.parquet": dict(data="no.parquet"),
         "sees no CUDA GPU": dict(device="cuda")}


def begin(root, **params):
    "The notebook's cells up to the training, with these parameters after its own, as papermill puts them."
    cells = ["".join(c["source"]) for c in json.loads((root/"nbs/train.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    names = {}
    for cell in cells[:1+next(i for i, c in enumerate(cells) if c.startswith("run = fit("))]:
        exec(cell.replace("%matplotlib inline", ""), names)
        if cell.startswith("variant = "): names |= params


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_parameters_in_the_notebook(sentence, tmp_path, root, monkeypatch):
    "Each is one sentence, and no run is begun."
    if "CUDA" in sentence and torch.cuda.is_available(): pytest.skip("there is a CUDA GPU")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MoolaError, match=f"(?i){sentence}"): begin(root, **WRONG[sentence], output=str(tmp_path/"run"))
    assert not (tmp_path/"run").exists()


@pytest.mark.parametrize("sentence", list(WRONG)[::5])
def test_wrong_parameters_under_papermill(sentence, tmp_path, root):
    "papermill ends with the one sentence and a non-zero exit, and no run is begun."
    if "CUDA" in sentence and torch.cuda.is_available(): pytest.skip("there is a CUDA GPU")
    (name, value), = WRONG[sentence].items()
    p = start("papermill", root/"nbs/train.ipynb", tmp_path/"train.ipynb", "-p", name, value, "-p", "output", tmp_path/"run", cwd=tmp_path)
    out = "".join(p.communicate(timeout=120))
    assert p.returncode != 0
    said = [line for line in out.splitlines() if line.startswith("MoolaError: ")]
    assert len(said) == 1 and sentence.lower() in said[0].lower()
    assert not (tmp_path/"run").exists()


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_options(sentence, tmp_path, capfd):
    "The command answers with one line and a non-zero exit, and no run is begun."
    if "CUDA" in sentence and torch.cuda.is_available(): pytest.skip("there is a CUDA GPU")
    (name, value), = WRONG[sentence].items()
    with pytest.raises(SystemExit) as e: moola_train([f"--{name}", str(value), "--output", str(tmp_path/"run")])
    out, err = capfd.readouterr()
    err = e.value.code if isinstance(e.value.code, str) else err   # Python prints it, and exits with 1
    if name != "epoch": assert err.startswith("moola_train: ") and sentence in err
    else: assert e.value.code == 2 and "unrecognized arguments: --epoch" in err
    assert len(err.splitlines()) == 1 and out == ""
    assert not (tmp_path/"run").exists()


def test_default_folder_is_never_reused(tmp_path, monkeypatch):
    "A second run goes to a numbered folder, and an existing one is refused unless told otherwise."
    (tmp_path/"settings.ini").touch()
    monkeypatch.chdir(tmp_path)
    assert fit(tiny("", variant="stones_only", n_windows=24)).folder == tmp_path/"artifacts/stones_only"
    p = start("moola_train", *"--variant stones_only --n-windows 24 --epochs 1 --progress False --device cpu".split(), cwd=tmp_path)
    p.communicate(timeout=120)
    assert p.returncode == 0 and Run(tmp_path/"artifacts/stones_only-2").metadata["status"] == "finished"
    before = (tmp_path/"artifacts/stones_only/epoch_metrics.csv").read_text()
    with pytest.raises(SystemExit, match="already holds a run"): moola_train(f"--output {tmp_path}/artifacts/stones_only --epochs 3 --n-windows 24".split())
    assert (tmp_path/"artifacts/stones_only/epoch_metrics.csv").read_text() == before
    fit(tiny(tmp_path/"artifacts/stones_only", variant="stones_only", epochs=3, overwrite=True))
    assert len(Run(tmp_path/"artifacts/stones_only").epochs) == 3


def test_out_of_memory_names_a_batch_size(tmp_path, monkeypatch):
    "Where memory runs out the message says which batch size to try, and the folder says that the run failed."
    def step(trainer, rows, weight): raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(MoolaError, match="at batch_size 32: try batch_size 16"): fit(tiny(tmp_path/"run"))
    assert Run(tmp_path/"run").metadata["status"] == "failed"


def test_loss_that_is_not_finite(tmp_path, monkeypatch):
    "Training stops at the step, says what to do, and keeps the best model of the epochs before."
    step, calls = loop.train_step, []
    def broken(trainer, rows, weight):
        losses, prob = step(trainer, rows, weight)
        calls.append(1)
        return (losses*float("nan") if len(calls) == 4 else losses), prob
    monkeypatch.setattr(loop, "train_step", broken)
    with pytest.raises(MoolaError, match=r"not finite at epoch 4, step 1 of 1: lower lr \(now 0.001\) or set max_grad_norm=1.0"):
        fit(tiny(tmp_path/"run", epochs=9))
    run = Run(tmp_path/"run")
    assert run.metadata["status"] == "failed" and len(run.epochs) == 3
    assert load_checkpoint(run.folder/"best_model.pt")["epoch"] <= 3
    assert run.predictions()[1].shape[1] == 105


def test_clipping(tmp_path):
    "With `max_grad_norm` no gradient is longer."
    run = fit(tiny(tmp_path/"run", max_grad_norm=.01))
    assert run.table("gradient_stats").total_grad_norm.max() <= .01 * 1.001


def test_pos_weight_is_used(tmp_path):
    "The class weight reaches the loss: the heavier, the more bars are called inside."
    runs = {w: fit(tiny(tmp_path/str(w), pos_weight=w, epochs=8)) for w in (1., 13.1, "auto")}
    mean = {w: run.table("probability_stats").out_span_mean.iloc[-1] for w, run in runs.items()}
    assert mean[1.] < mean[13.1]
    windows = simulate_windows(40)
    assert runs["auto"].metadata["pos_weight"] == pytest.approx(1/windows[split_windows(windows).train].mask.mean() - 1, rel=1e-5)


def test_no_labels_is_an_error(tmp_path):
    "Nothing to learn or to validate is said before training."
    windows = simulate_windows(40)
    split = split_windows(windows)
    keep = ~np.isin(windows.window, split.valid)
    windows.rows, windows.window = windows.rows[keep].reset_index(drop=True), windows.window[keep]
    with pytest.raises(MoolaError, match="no valid window has a labelled span"): fit(tiny(tmp_path/"run"), windows, split)
    assert not (tmp_path/"run").exists()


def test_real_windows_train(shared, tmp_path):
    "Windows of real minutes in the guide's format train in all variants."
    for variant in VARIANTS:
        run = fit(tiny(tmp_path/variant, variant=variant, data=str(shared/"data/windows_174.parquet"), **unlabelled(variant, tmp_path)))
        assert run.metadata["data"]["windows"] == 174 and run.metadata["data"]["split_by_time"]


def test_no_bar_is_shared(shared):
    "No bar of a training window is, or lies within an embargo of, a bar of a held-out window."
    windows = read_windows(shared/"data/windows_174.parquet")
    minutes = windows.timestamp[:, None] + np.arange(105)*np.timedelta64(1, "m")
    def distance(a, b): return np.abs(minutes[a].reshape(-1, 1) - np.sort(minutes[b].ravel())[None]).min()
    split = split_windows(windows)
    held = np.r_[split.valid, split.test]
    assert distance(split.train, held) > np.timedelta64(105, "m")
    assert distance(split.valid, split.test) > np.timedelta64(105, "m")
    for fold in split_folds(windows, 5): assert distance(fold.train, fold.valid) > np.timedelta64(105, "m")


def test_parameters_cell_is_the_config(root):
    "The notebook's parameters are the fields of the config, one a line, with the same words beside them."
    from dataclasses import fields

    from fastcore.docments import docments

    from moola.core.config import TrainConfig
    nb = json.loads((root/"nbs/train.ipynb").read_text())
    cell, = [c for c in nb["cells"] if "parameters" in c["metadata"].get("tags", [])]
    docs, config = docments(TrainConfig), make_config()
    lines = [line.split(" # ", 1) for line in "".join(cell["source"]).splitlines()]
    assert [a.split(" = ")[0] for a, _ in lines] == [f.name for f in fields(TrainConfig)]
    for assignment, words in lines:
        name, value = assignment.split(" = ")
        assert words == docs[name]
        assert eval(value) in (None, getattr(config, name))
