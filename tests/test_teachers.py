"Networks taught by others: what they learn from, in runs, side by side, resumed, and from the command line."
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import start

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.core.papermill import Console
from moola.data.background import draw_each
from moola.data.plant import simulate_labelled_bars, simulate_windows
from moola.data.splits import split_windows
from moola.models.checkpoint import load_checkpoint
from moola.training import many, teachers
from moola.training.fit import fit
from moola.training.run import Run
from moola.training.teachers import make_trainer
from moola.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    "Bars without labels, of other years than the windows."
    file = tmp_path_factory.mktemp("bars")/"bars.csv"
    b = simulate_labelled_bars(24, seed=5).bars
    b.assign(timestamp=b.timestamp + pd.Timedelta("7300D")).to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def windows(): return simulate_windows(60, seed=6)


def tiny(output, bars, **more): return make_config("taught", **dict(output=str(output), background=str(bars), epochs=3, hidden=8, pastes=2, teachers=2, lr=1e-2, progress=False, device="cpu") | more)


def test_a_run_alone_and_beside_others(bars, windows, tmp_path):
    "The same network in a run, in a pool of processes, and stacked with another; each has teachers of its own."
    config, split = tiny(tmp_path/"run", bars, input_dropout=0., head_dropout=0.), split_windows(windows)
    run = fit(config, windows, split)
    best = load_checkpoint(run.folder/"best_model.pt")["model"]
    alone, other = many.fit_many([config, replace(config, seed=7)], windows, [split, split], progress=False)
    for k, v in best.items(): assert torch.equal(v, alone.best[k]), k
    drawn = draw_each(config, windows, [split, split])
    answers = many._ask_many([config, other.config], windows, [split, split], drawn, CPU, "float32")
    np.testing.assert_allclose(answers[0], np.load(run.folder/"answers.npy"), atol=2e-3)
    assert np.abs(answers[0] - answers[1]).max() > .02
    stacked = many.train_many(many.ManyTrainer([config, other.config], windows, [split, split], CPU, "float32", drawn, answers))
    for one, together in zip((alone, other), stacked): np.testing.assert_allclose(together.prob, one.prob, atol=5e-3)


def test_what_a_taught_network_sees(bars, windows):
    "Labels where there are labels, answers elsewhere, every window of background in one version or another, and the labels' share kept."
    config, split = tiny("", bars, teachers=1, epochs=1), split_windows(windows)
    (drawn,) = draw_each(config, windows, [split])
    t, n = make_trainer(config, windows, split, CPU, drawn), len(drawn.rows)
    assert len(drawn.found.ohlc) == n == len(t.answers) > 60
    half, first = len(t.mask), len(t.mask) - n
    for side in (slice(0, half), slice(half, 2*half)):
        np.testing.assert_array_equal(t.targets["span"][side][first:], t.answers)
        np.testing.assert_array_equal(t.targets["span"][side][:len(windows)], windows.mask)
    table = t.table[:, len(split.train):]
    assert set(table.ravel()) == set(range(first, half)) and table.shape[1] == -(-n//3)
    np.testing.assert_array_equal(t.mask[first:], t.answers > .5)
    with pytest.raises(MoolaError, match="have not been asked"): Trainer(config, windows, split, CPU, drawn)
    with pytest.raises(MoolaError, match="has not been drawn from"): Trainer(config, windows, split, CPU)
    with pytest.raises(MoolaError, match="belong to another run"): Trainer(config, windows, split, CPU, drawn, t.answers[1:])
    less = replace(config, background_windows=9)
    few = make_trainer(less, windows, split, CPU, *draw_each(less, windows, [split]))
    np.testing.assert_array_equal(few.x[-9:], make_trainer(config, windows, split, CPU, drawn, t.answers).x[half+first:half+first+9])


def test_teachers_see_no_label_that_is_scored(bars, windows):
    "Other labels of the validation and test windows change no answer."
    config, split = tiny("", bars, teachers=1, epochs=2), split_windows(windows)
    rows, held = windows.rows.copy(), np.isin(windows.window, np.concatenate([split.valid, split.test]))
    rows.loc[held, ["expansion_start", "expansion_end"]] = 40, 45
    spoiled = replace(windows, rows=rows)
    assert (spoiled.mask != windows.mask).any()
    one, other = (make_trainer(config, w, split, CPU, *draw_each(config, w, [split])).answers for w in (windows, spoiled))
    np.testing.assert_array_equal(one, other)


def test_resumed(bars, windows, tmp_path, monkeypatch):
    "A run that was interrupted goes on with what its teachers said, and ends as one that was not."
    whole, ticks = fit(tiny(tmp_path/"whole", bars), windows), []
    def tick(self):
        ticks.append(1)
        if len(ticks) == 2: raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(Console, "tick", tick)
        with pytest.raises(KeyboardInterrupt): fit(tiny(tmp_path/"halves", bars), windows)
    monkeypatch.setattr(teachers, "train_teacher", None)   # nobody is asked again
    halves = fit(tiny(tmp_path/"halves", bars, resume=True), windows)
    for k in ("weights", "average", "exp_avg"): assert torch.equal(*(load_checkpoint(r.folder/"last.pt")[k] for r in (whole, halves))), k
    whole_file = (tmp_path/"halves"/"answers.npy").read_bytes()
    for damage, words in ((whole_file[:60], "answers.npy is damaged"), (whole_file[:-400], "answers.npy is damaged")):
        (tmp_path/"halves"/"answers.npy").write_bytes(damage)
        with pytest.raises(MoolaError, match=words): fit(tiny(tmp_path/"halves", bars, epochs=5, resume=True), windows)
    np.save(tmp_path/"halves"/"answers.npy", np.load(whole.folder/"answers.npy")[:-1])
    with pytest.raises(MoolaError, match="they belong to another run"): fit(tiny(tmp_path/"halves", bars, epochs=5, resume=True), windows)
    assert len(Run(tmp_path/"halves").epochs) == 3   # nothing is lost by a refusal
    (tmp_path/"halves"/"answers.npy").unlink()
    with pytest.raises(MoolaError, match="answers.npy is missing: it holds what the teachers said"): fit(tiny(tmp_path/"halves", bars, epochs=5, resume=True), windows)


@pytest.mark.parametrize("more, words", [
    (dict(background=""), "variant taught learns from bars without labels, which its teachers read: name a file or a folder of them with background"),
    (dict(tasks="span,type"), "tasks must be span alone"), (dict(teachers=99), "parameter teachers"),
])
def test_wrong_words(bars, windows, tmp_path, more, words):
    with pytest.raises(MoolaError, match=words): fit(tiny(tmp_path/"run", bars, **more), windows)
    assert not (tmp_path/"run").exists()


def test_command(bars, tmp_path):
    "The command trains, says what the teachers read, and the model predicts like any other; without bars it says what it lacks."
    small = ["--epochs", "2", "--hidden", "8", "--pastes", "1", "--teachers", "2", "--n_windows", "60", "--device", "cpu"]
    done = start("moola_train", "--variant", "taught", "--background", bars, "--output", "run", *small, cwd=tmp_path)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0 and "labelled by 2 teachers" in out, out + err
    done = start("moola_predict", bars, "--model", "run", "--out", "spans.csv", cwd=tmp_path)
    assert done.communicate(timeout=300) and done.returncode == 0 and (tmp_path/"spans.csv").exists()
    lacking = start("moola_train", "--variant", "taught", *small, cwd=tmp_path)
    _, err = lacking.communicate(timeout=300)
    assert lacking.returncode and "name a file or a folder of them with background" in err and "Traceback" not in err
