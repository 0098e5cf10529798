"The way into production and back: what no page has room to show."
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.data.plant import simulate_windows
from moola.data.simulate import simulate_bars
from moola.detection.detector import Detector
from moola.detection.ensemble import predict_windows
from moola.detection.scan import scan
from moola.evaluation.page import Evaluation
from moola.models.included import ABOUT, CARD, MODEL, PREVIOUS, PRODUCTION, default_model, holds_model, included_model
from moola.release import promote as page
from moola.release.card import model_card
from moola.release.checklist import _evaluation_evidence, check_same, checklist, failed
from moola.release.command import moola_promote
from moola.release.promote import install, promote, replace_production, rollback
from moola.training.fit import fit
from moola.training.run import Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A short run, as a clean checkout leaves it, whose losses fell."
    folder = fit(make_config("recommended", output=str(tmp_path_factory.mktemp("runs")/"short"), epochs=2, n_windows=40, hidden=16, pastes=0,
                             device="cpu", progress=False)).folder
    m = json.loads((folder/"metadata.json").read_text())
    (folder/"metadata.json").write_text(json.dumps(m | {"git": {"commit": "a"*40, "changed": False}}))
    table = pd.read_csv(folder/"epoch_metrics.csv")
    table.loc[0, "val_loss"] *= 9
    table.to_csv(folder/"epoch_metrics.csv", index=False)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    "A copy of it below the artifacts of a project."
    shutil.copytree(trained, tmp_path/"artifacts"/"short")
    return Run(tmp_path/"artifacts"/"short")


def edit(file, change):
    d = json.loads(file.read_text())
    change(d)
    file.write_text(json.dumps(d))


def evaluation_of(run, decision="deploy", **scores):
    "An evaluation of the run's config and windows with these scores of the model."
    def score(value, low): return {"value": value, "low": low, "high": value + .1, "seeds_sd": None, "by_seed": [value]}
    model = {"f1": (.5, .4), "f1_half": (.5, .4), "window_f1": (.5, .4), "window_f1_half": (.45, .4), "average_precision": (.6, .5),
             "separation": (.4, .3)} | scores
    chance = dict.fromkeys(model, (.15, .1))
    data = {"windows": 40, "scored": 33, "by_time": False, "sha256": run.metadata["data"]["sha256"]}
    found = {"folds": 3, "seeds": [1, 2], "config": run.metadata["config"], "data": data, "git": {"commit": "b"*40, "changed": False}, "words": [],
             "scores": {k: {m: score(*v) for m, v in s.items()} for k, s in {"model": model, "position_prior": chance}.items()},
             "differences": {"position_prior": {m: score(v-.15, low-.15) for m, (v, low) in model.items()}},
             "chosen": {}, "epochs": [], "name": "short", "decision": decision, "decided": f"{decision}."}
    folder = run.folder.parent/"evaluations"/"short"
    folder.mkdir(parents=True, exist_ok=True)
    (folder/"evaluation.json").write_text(json.dumps(found))
    return Evaluation(folder)


def names(checks): return [c.name for c in failed(checks)]


def test_the_way_into_production(run, tmp_path, capsys, monkeypatch):
    "What passes goes there whole, says everything of itself, and carries no path of this machine."
    monkeypatch.chdir(tmp_path)
    e = evaluation_of(run)
    moola_promote(["artifacts/short", "--evaluation", str(e.folder)])
    said = capsys.readouterr().out
    assert "FAIL" not in said
    assert said.count("  pass  ") == 13
    assert "artifacts/production holds short" in said
    production = tmp_path/"artifacts"/PRODUCTION
    assert sorted(p.name for p in production.iterdir()) == sorted([MODEL, ABOUT, CARD])
    assert sorted(p.name for p in production.parent.iterdir()) == ["evaluations", PRODUCTION, "short"]
    about, config = json.loads((production/ABOUT).read_text()), run.config
    assert [f["name"] for f in about["features"]] == list(config.features)
    assert about["forced"] is None
    assert about["evaluation"]["scores"]["f1"] == {"words": "pooled bar F1", "value": .5, "low": .4, "high": .6, "chance": .15,
                                                   "chance_words": "position prior", "over": True}
    data = (production/MODEL).read_bytes()
    assert about["model"] == {"file": MODEL, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for f in production.iterdir(): assert str(tmp_path.parent).encode() not in f.read_bytes(), f.name
    held, own = (torch.load(p, weights_only=True) for p in (production/MODEL, run.folder/"best_model.pt"))
    assert set(held) == set(own)
    x = simulate_windows(3, 1).ohlc
    np.testing.assert_array_equal(predict_windows(x, Detector.load(production, "cpu")), predict_windows(x, Detector.load(run.folder, "cpu")))
    assert default_model() == production
    assert oct(production.stat().st_mode & 0o777) == oct(run.folder.stat().st_mode & 0o777)


SPOILED = {
    "span F1 at 0.5 above 0.25": {"window_f1_half": (.45, .24)}, "separation above 0.12": {"separation": (.2, .11)},
    "F1 above chance": {"f1": (.3, .14)}, "average precision above chance": {"average_precision": (.6, .15)}, "the guide's limit": {"f1": (.3, .19)},
}


def test_a_tie_with_a_rival_is_not_enough(run):
    assert names(checklist(run, evaluation_of(run, decision="not better"))[0]) == ["better than every rival"]


@pytest.mark.parametrize("name", SPOILED)
def test_a_lower_end_that_is_too_low(run, name): assert name in names(checklist(run, evaluation_of(run, **SPOILED[name]))[0])


def test_a_score_without_an_interval_passes_nothing(run):
    none = {k: (float("nan"), float("nan")) for k in ("window_f1_half", "f1", "average_precision", "separation")}
    e = evaluation_of(run)
    edit(e.folder/"evaluation.json", lambda d: [d[s][m][k].update(value=None, low=None, high=None)
                                               for s, m in (("scores", "model"), ("differences", "position_prior")) for k in none])
    assert names(checklist(run, Evaluation(e.folder))[0]) == ["span F1 at 0.5 above 0.25", "separation above 0.12", "F1 above chance",
                                                             "average precision above chance", "the guide's limit"]


def test_without_an_evaluation_the_test_windows_decide(run):
    checks, evidence, _ = checklist(run)
    assert evidence.source == "test"
    assert "the run's own 6 test windows" in evidence.words
    _, prob, target = run.predictions("test")
    assert evidence.scores["separation"].value == pytest.approx(prob[target].mean() - prob[~target].mean(), abs=1e-6)
    assert np.isnan(evidence.scores["separation"].low), "six windows of two sessions have no interval"
    assert "the guide's limit" in names(checks)


def test_validation_windows_are_not_enough(trained, tmp_path):
    folder = fit(make_config("recommended", output=str(tmp_path/"untested"), epochs=1, n_windows=24, hidden=8, pastes=0, test_fraction=0., device="cpu",
                             progress=False)).folder
    checks, evidence, _ = checklist(Run(folder))
    assert evidence is None
    assert "judged on unseen windows" in names(checks)
    assert "give the folder of an evaluation" in failed(checks)[-1].reason
    with pytest.raises(MoolaError, match="judged on unseen windows"): promote(folder, artifacts=tmp_path)
    assert "It has no score" in (promote(folder, force="why not", artifacts=tmp_path)/CARD).read_text()


def test_an_evaluation_of_something_else(run):
    e = evaluation_of(run)
    for change, message in ((lambda d: d["config"].update(lr=.1), "another config: lr 0.1 where the run has 0.003"),
                            (lambda d: d["config"].update(lr=.003, epochs=3), "another config: epochs 3"),
                            (lambda d: d["config"].update(epochs=2, seed=3, output="x", min_length=9), None),
                            (lambda d: d["data"].update(sha256="0"*64), "other windows")):
        edit(e.folder/"evaluation.json", change)
        if message is None: check_same(Evaluation(e.folder), run)
        else:
            with pytest.raises(MoolaError, match=message): checklist(run, Evaluation(e.folder))


def broken(run, what):
    "The run with one thing wrong."
    f, meta = run.folder, run.folder/"metadata.json"
    if what == "stopped": edit(meta, lambda d: d.update(status="interrupted", epochs_done=1))
    if what == "missing": (f/"gradient_stats.csv").unlink()
    if what == "short": (f/"epoch_metrics.csv").write_text("".join((f/"epoch_metrics.csv").read_text().splitlines(keepends=True)[:-1]))
    if what == "changed code": edit(meta, lambda d: d["git"].update(changed=True))
    if what == "nan": (f/"epoch_metrics.csv").write_text("\n".join([*(f/"epoch_metrics.csv").read_text().splitlines()[:-1], "2,nan,nan,0,0,0,1"]) + "\n")
    if what == "exploding": pd.read_csv(f/"gradient_stats.csv").assign(total_grad_norm=101.).to_csv(f/"gradient_stats.csv", index=False)
    if what == "truncated": (f/"best_model.pt").write_bytes((f/"best_model.pt").read_bytes()[:-5000])
    if what == "other weights":
        c = torch.load(f/"best_model.pt", weights_only=True)
        c["model"]["span_head.1.bias"] += 1
        torch.save(c, f/"best_model.pt")
    return Run(f)


BROKEN = {"stopped": ("trained to the end", "interrupted after 1 of 2 epochs"), "missing": ("artifacts complete", "gradient_stats.csv missing"),
          "short": ("artifacts complete", "has 1 epochs, not 2"), "changed code": ("code committed", "commit it, and do that again"),
          "nan": ("training sound", "NaN or infinite"), "exploding": ("training sound", "not inside 0.001 to 100"),
          "truncated": ("checkpoint loads", "cannot be read as a checkpoint"),
          "other weights": ("checkpoint loads", "from the probabilities that the run stored")}


@pytest.mark.parametrize("what", BROKEN)
def test_every_item_can_fail(run, what, tmp_path):
    e = evaluation_of(run)
    run = broken(run, what)
    checks = checklist(run, e)[0]
    name, reason = BROKEN[what]
    assert reason in next(c.reason for c in checks if c.name == name and not c.passed)
    with pytest.raises(MoolaError, match=name): promote(run, e, artifacts=tmp_path)
    if name != "checkpoint loads": return
    with pytest.raises(MoolaError, match="no reason can change that: it fails checkpoint loads"): promote(run, e, force="I know better", artifacts=tmp_path)
    assert not (tmp_path/PRODUCTION).exists()


def test_force_keeps_its_reason(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for argv, message in ((["artifacts/short"], "is not promoted: it fails"), (["artifacts/short", "--force", " "], "--force needs a reason"),
                          (["artifacts/short", "--check"], "it fails")):
        with pytest.raises(SystemExit, match=f"moola_promote: .*{message}") as stop: moola_promote(argv)
        assert isinstance(stop.value.code, str)  # which is exit status 1
    assert not (tmp_path/"artifacts"/PRODUCTION).exists()
    moola_promote(["artifacts/short", "--force", "first steps on a new market"])
    about = json.loads((default_model()/ABOUT).read_text())
    assert about["forced"]["reason"] == "first steps on a new market"
    assert "the guide's limit" in about["forced"]["failed"]
    card = (default_model()/CARD).read_text()
    assert card == model_card(about)
    assert card.index("first steps on a new market") < card.index("## Model details")


def test_card_has_every_section(run, tmp_path):
    card = (promote(run, evaluation_of(run), artifacts=tmp_path)/CARD).read_text()
    for section in ("Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data", "Quantitative analyses",
                    "Ethical considerations", "Caveats and recommendations"): assert f"\n## {section}\n" in card
    assert "0.500 | 0.400 | 0.600 | 0.150 | position prior" in card
    assert "simulated windows only" in card
    assert "Promoted although" not in card


def who(folder): return json.loads((folder/ABOUT).read_text())["forced"]["reason"]


def test_rollback_goes_back_and_forth(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    artifacts = tmp_path/"artifacts"
    with pytest.raises(SystemExit, match="nothing to go back to"): moola_promote(["--rollback"])
    for reason in ("one", "two", "three"): moola_promote(["artifacts/short", "--force", reason])
    assert [who(artifacts/p) for p in (PRODUCTION, PREVIOUS)] == ["three", "two"]
    assert sorted(p.name for p in artifacts.iterdir()) == [PRODUCTION, PREVIOUS, "short"]
    capsys.readouterr()
    moola_promote(["--rollback"])
    assert capsys.readouterr().out.startswith("artifacts/production holds short (variant recommended, promoted ")
    assert [who(artifacts/p) for p in (PRODUCTION, PREVIOUS)] == ["two", "three"]
    moola_promote(["--rollback"])
    assert [who(artifacts/p) for p in (PRODUCTION, PREVIOUS)] == ["three", "two"]
    (artifacts/PREVIOUS/MODEL).write_bytes(b"broken")
    with pytest.raises(SystemExit, match="its sha256 differs"): moola_promote(["--rollback"])
    assert who(artifacts/PRODUCTION) == "three"
    shutil.rmtree(artifacts/PREVIOUS)
    with pytest.raises(SystemExit, match="holds no model"): moola_promote(["--rollback"])


@pytest.fixture(scope="module")
def judged(trained):
    "What the checklist says of the run, for tests of what comes after it."
    return checklist(Run(trained))[:2]


@pytest.fixture
def put(run, judged, tmp_path):
    "Puts the run into production, with a reason."
    return lambda reason: install(run, *judged, reason, tmp_path/"artifacts")


@pytest.fixture
def two(put, tmp_path):
    "Artifacts with a model in production and one before it."
    for reason in ("one", "two"): put(reason)
    return tmp_path/"artifacts"


class Stop(Exception): "The power goes off."


@pytest.mark.parametrize("atomic", [True, False], ids=["one step", "two renames"])
@pytest.mark.parametrize("step", range(5))
def test_a_stop_at_any_step_leaves_a_model(put, two, atomic, step, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    real, swap, calls = os.replace, page.exchange, []

    def count(f, *args):
        if any(n in str(args) for n in (PRODUCTION, "README", ABOUT)):
            calls.append(args)
            if len(calls) > step: raise Stop
        return f(*args)

    with monkeypatch.context() as m:
        m.setattr(page.os, "replace", lambda *a: count(real, *a))
        m.setattr(page, "exchange", (lambda *a: count(swap, *a)) if atomic else lambda *a: False)
        try: put("three")
        except Stop: pass
    assert who(default_model()) in ("two", "three")
    Detector.load(default_model(), "cpu")
    before = who(default_model())
    put("four")
    assert who(two/PRODUCTION) == "four"
    if (two/PREVIOUS).exists(): assert who(two/PREVIOUS) in ("one", "two", before)
    assert sorted(p.name for p in two.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize("step", range(3))
def test_a_stopped_rollback_leaves_a_model(two, step, monkeypatch, tmp_path):
    "Without a swap in one step."
    monkeypatch.chdir(tmp_path)
    real, calls = os.replace, []

    def count(*args):
        calls.append(args)
        if len(calls) > step: raise Stop
        return real(*args)

    with monkeypatch.context() as m:
        m.setattr(page.os, "replace", count)
        m.setattr(page, "exchange", lambda *a: False)
        with pytest.raises(Stop): rollback(two)
    Detector.load(default_model(), "cpu")
    rollback(two)
    assert {who(p) for p in (two/PRODUCTION, two/PREVIOUS) if holds_model(p)} == {"one", "two"}


def test_readers_never_miss_the_model(two, tmp_path):
    "A program that reads all the time while models are swapped."
    if not page.exchange(two/PRODUCTION, two/PREVIOUS): pytest.skip("this file system cannot swap two folders in one step")
    done, missed, reads = threading.Event(), [], [0]

    def read():
        while not done.is_set():
            try: (two/PRODUCTION/MODEL).read_bytes()
            except OSError as e: missed.append(e)
            reads[0] += 1

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(200):
        shutil.copytree(two/PREVIOUS, two/page.NEW)
        replace_production(two)
    done.set()
    thread.join()
    assert reads[0] > 100
    assert missed == []


def test_one_at_a_time(put, two):
    with page.locked(two), pytest.raises(MoolaError, match="another moola_promote is at work"): put("at the same time")
    assert who(put("afterwards")) == "afterwards"


def test_evidence_takes_the_highest_chance(run):
    e = evaluation_of(run)
    edit(e.folder/"evaluation.json", lambda d: d["scores"].update(untrained={"f1": {"value": None}, "f1_half": {"value": .3}} | {
        k: d["scores"]["position_prior"][k] for k in ("window_f1", "window_f1_half", "average_precision")}))
    edit(e.folder/"evaluation.json", lambda d: [d["scores"]["untrained"][k].update(low=0, high=1, seeds_sd=None, by_seed=[0]) for k in ("f1", "f1_half")])
    s = _evaluation_evidence(Evaluation(e.folder)).scores["f1"]
    assert (s.chance, s.chance_words) == (.3, "untrained network")


def test_help_is_light():
    code = "import sys, moola.release.command as p; p.promote_parser().format_help(); print(*(m for m in ('torch','pandas','numba') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_the_included_model(root):
    "The committed model passed every check, is small, is what its description says, and finds expansions."
    folder = root/"artifacts"/"included"/"recommended"
    assert included_model() == folder
    about = json.loads((folder/ABOUT).read_text())
    assert about["forced"] is None
    assert all(c["passed"] for c in about["checks"])
    assert hashlib.sha256((folder/MODEL).read_bytes()).hexdigest() == about["model"]["sha256"]
    assert sum(p.stat().st_size for p in folder.iterdir()) < 1_000_000
    assert (folder/CARD).read_text() == model_card(about)
    held = torch.load(folder/MODEL, weights_only=True)
    assert held["feature_reference"] and held["calibration"]
    assert not os.path.isabs(about["data"]["path"])
    windows = simulate_windows(60, 99)
    prob = predict_windows(windows.ohlc, Detector.load(folder, "cpu"))
    assert prob[windows.mask].mean() - prob[~windows.mask].mean() > .2
    assert len(scan(simulate_bars(2000, 3), Detector.load(folder, "cpu"), progress=False).spans) > 0


def test_another_file_in_the_place_of_the_model(root, tmp_path):
    "The model's sha256 stands in model.json."
    for f in (root/"artifacts/included/recommended").iterdir(): (tmp_path/f.name).write_bytes(f.read_bytes())
    Detector.load(tmp_path, "cpu")
    c = torch.load(tmp_path/"model.pt", weights_only=True)
    torch.save(c | dict(threshold=.5), tmp_path/"model.pt")
    with pytest.raises(MoolaError, match="its sha256 differs"): Detector.load(tmp_path, "cpu")
    (tmp_path/"model.json").write_text("{")
    with pytest.raises(MoolaError, match="model.json is damaged"): Detector.load(tmp_path, "cpu")
