"A run's network trained once more on every label: what it learns from, what it leaves alone, and its way into production."
import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.core.files import in_use
from moola.data.plant import simulate_labelled_bars, simulate_windows
from moola.data.splits import split_windows
from moola.data.windows import join_windows, write_windows
from moola.detection.detector import Detector
from moola.evaluation.windows import unseen_windows
from moola.models.checkpoint import load_checkpoint, read_checkpoint
from moola.models.included import ABOUT, CARD, PRODUCTION, holds_model
from moola.release.command import moola_promote
from moola.release.promote import promote
from moola.training import teachers
from moola.training.fit import fit
from moola.training.refit import refit
from moola.training.run import REFIT, Run

SMALL = dict(epochs=3, hidden=8, pastes=2, n_windows=60, device="cpu", progress=False)


def files(folder): return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def weights(path): return torch.cat([v.flatten() for v in load_checkpoint(path)["model"].values()])


@pytest.fixture(scope="module")
def trained(tmp_path_factory): return fit(make_config("recommended", output=str(tmp_path_factory.mktemp("runs")/"small"), **SMALL)).folder


@pytest.fixture
def run(trained, tmp_path):
    "A copy of it below the artifacts of a project."
    shutil.copytree(trained, tmp_path/"artifacts"/"small")
    return Run(tmp_path/"artifacts"/"small")


def test_the_run_stays_as_it_is(run):
    "One file more, the same each time, which reads like the run: its features, threshold, calibration and decoder."
    before = files(run.folder)
    path = refit(run)
    after = files(run.folder)
    assert {k: v for k, v in after.items() if k != REFIT} == before and path == run.folder/REFIT and not in_use(run.folder)
    again = weights(path)
    assert torch.equal(weights(refit(run.folder)), again) and not torch.equal(again, weights(run.folder/"best_model.pt"))
    own, new = read_checkpoint(run.folder), read_checkpoint(path)
    for k in ("config", "features", "threshold", "calibration", "decoder", "pos_weight"): assert own[k] == new[k], k
    assert new["epoch"] == 3 and new["data"]["split"] == dict(train=60, valid=0, test=0, purged=0) and new["feature_reference"]["windows"] == 60
    assert new["about"]["refit"] == dict(run="small", split=run.metadata["data"]["split"], epoch=own["epoch"])
    Detector.load(path, "cpu")


@pytest.mark.parametrize("part", ["valid", "test"])
def test_it_learns_from_what_was_held_back(part, tmp_path):
    "Other labels there leave the last epoch of the run alone, and change the refitted network."
    windows, config = simulate_windows(60, seed=4), make_config("recommended", **SMALL)
    split = split_windows(windows)
    rows, held = windows.rows.copy(), np.isin(windows.window, getattr(split, part))
    rows.loc[held, ["expansion_start", "expansion_end"]] = np.roll(rows.loc[held, ["expansion_start", "expansion_end"]].to_numpy(), 1, axis=0)
    both = [fit(replace(config, output=str(tmp_path/name)), w, split) for name, w in (("own", windows), ("other", replace(windows, rows=rows)))]
    a, b = (load_checkpoint(r.folder/"last.pt")["weights"] for r in both)
    assert torch.equal(a, b)
    assert not torch.equal(*(weights(refit(r, w)) for r, w in zip(both, (windows, replace(windows, rows=rows)))))


def test_teachers_learn_from_every_label_too(tmp_path, monkeypatch):
    b = simulate_labelled_bars(24, seed=5).bars
    b.assign(timestamp=b.timestamp + pd.Timedelta("7300D")).to_csv(tmp_path/"bars.csv", index=False)
    run = fit(make_config("taught", output=str(tmp_path/"run"), background=str(tmp_path/"bars.csv"), teachers=2, **SMALL))
    seen, train = [], teachers.train_teacher
    def noted(config, windows, split, device):
        seen.append(len(split.train))
        return train(config, windows, split, device)
    monkeypatch.setattr(teachers, "train_teacher", noted)
    answers = (run.folder/"answers.npy").read_bytes()
    path = refit(run)
    assert seen == [60, 60] and (run.folder/"answers.npy").read_bytes() == answers
    assert read_checkpoint(path)["data"]["background"]["windows"] >= run.metadata["data"]["background"]["windows"]


def test_what_cannot_be_refitted(run, tmp_path, monkeypatch):
    "One sentence each; nothing is written, and the folder is free again."
    with pytest.raises(MoolaError, match="these are other windows than"): refit(run, simulate_windows(60, seed=99))
    def edit(**change): (run.folder/"metadata.json").write_text(json.dumps(json.loads((run.folder/"metadata.json").read_text()) | change))
    whole = json.loads((run.folder/"metadata.json").read_text())
    edit(status="interrupted", epochs_done=2)
    with pytest.raises(MoolaError, match="is interrupted after 2 of 3 epochs: only a finished run can be refitted"): refit(Run(run.folder))
    edit(**whole | dict(config=whole["config"] | dict(data=str(tmp_path/"gone.parquet"))))
    with pytest.raises(MoolaError, match="the run's windows are not at .*gone.parquet"): refit(Run(run.folder))
    edit(**whole)
    def stopped(*args, **more): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr("moola.training.refit.train_epochs", stopped)
        with pytest.raises(KeyboardInterrupt): refit(run)
    assert not (run.folder/REFIT).exists() and not in_use(run.folder)


@pytest.mark.parametrize("words", [dict(resume=True, epochs=4), dict(overwrite=True)])
def test_a_run_that_goes_on_drops_it(run, words):
    refit(run)
    fit(make_config("recommended", output=str(run.folder), **SMALL | words))
    assert not (run.folder/REFIT).exists()


def test_the_way_into_production(run, tmp_path, capsys, monkeypatch):
    "Checked as the run, promoted as the refitted network, and said so in its card; refused before anything is trained."
    monkeypatch.chdir(tmp_path)
    production = tmp_path/"artifacts"/PRODUCTION
    for words, match in {"artifacts/small --refit": "is not promoted: it fails", "artifacts/small --refit --check": "leave one of them out", "--rollback --refit": "goes alone",
                         "artifacts/small --data windows.parquet": "ask for both"}.items():
        with pytest.raises(SystemExit, match=match): moola_promote(words.split())
        assert not (run.folder/REFIT).exists()
    with pytest.raises(MoolaError, match="is not promoted"): promote(run, artifacts=production.parent, refit=True)
    assert not holds_model(production) and not (run.folder/REFIT).exists()
    promote(run, force="to try it", artifacts=production.parent, refit=True)
    assert torch.equal(weights(production/"model.pt"), weights(run.folder/REFIT))
    about, card = json.loads((production/ABOUT).read_text()), (production/CARD).read_text()
    assert about["refit"]["split"] == run.metadata["data"]["split"] and about["data"]["split"]["train"] == 60
    assert "so nothing is left that could score it" in card and "on all labels of its run" in card and "of this very network" not in card
    promote(run, force="to try it", artifacts=production.parent)
    assert "nothing is left" not in (production/CARD).read_text() and json.loads((production/ABOUT).read_text())["refit"] is None


def test_windows_that_were_moved(tmp_path, monkeypatch, capsys):
    "One sentence that names the option, and then the option."
    write_windows(simulate_windows(60, seed=4), tmp_path/"windows.parquet")
    monkeypatch.chdir(tmp_path)
    fit(make_config("recommended", output="artifacts/small", data="windows.parquet", **SMALL))
    (tmp_path/"windows.parquet").rename(tmp_path/"moved.parquet")
    words = ["artifacts/small", "--refit", "--force", "to try it"]
    with pytest.raises(SystemExit, match="the run's windows are not at windows.parquet: name the file as data"): moola_promote(words)
    assert not (tmp_path/"artifacts"/PRODUCTION).exists()
    moola_promote([*words, "--data", "moved.parquet"])
    assert json.loads((tmp_path/"artifacts"/PRODUCTION/ABOUT).read_text())["data"]["split"]["train"] == 60


def test_a_student_is_not_refitted(tmp_path):
    (tmp_path/"student").mkdir()
    (tmp_path/"student"/"student.pt").write_bytes(b"")
    with pytest.raises(SystemExit, match="--refit is for a run"): moola_promote([str(tmp_path/"student"), "--refit"])


def test_no_model_is_scored_on_what_it_has_seen(run, tmp_path):
    "Whatever file names it: the run's folder, its checkpoints, the refitted network, a promoted model; and in a file of labels that has grown."
    windows = simulate_windows(60, seed=7)
    grown = join_windows([windows, simulate_windows(30, seed=99)])
    test = run.metadata["data"]["split"]["test"]
    path = refit(run)
    production = promote(run, force="to try it", artifacts=run.folder.parent)
    for model, own, more in ((run.folder, test, test+30), (run.folder/"best_model.pt", test, test+30), (production, test, test+30), (path, 0, 30)):
        if own: assert len(unseen_windows([model], windows)) == own, model
        else:
            with pytest.raises(MoolaError, match="nothing is left that could be scored: the models have learned from all of these 60 windows"): unseen_windows([model], windows)
        assert len(unseen_windows([model], grown)) == more
    assert len(unseen_windows([run.folder, path], grown)) == 30
    c = load_checkpoint(path)
    torch.save(c | dict(data={k: v for k, v in c["data"].items() if k != "seen"}), tmp_path/"old.pt")  # as an earlier version wrote it
    with pytest.raises(MoolaError, match="has learned from these very windows, and does not say from which"): unseen_windows([tmp_path/"old.pt"], windows)
    assert len(unseen_windows(["recommended"], simulate_windows(174, seed=7))) == 26    # the test windows of the run that became it
    untested = fit(make_config("recommended", output=str(tmp_path/"untested"), test_fraction=0., **SMALL)).folder
    with pytest.raises(MoolaError, match="nothing is left that could be scored"): unseen_windows([untested], windows)
    assert len(unseen_windows([untested], grown)) == 30
