"Sweeps: tiny networks on a real scheduler, with failing runs, killed workers, a search that is continued, and honest tables."
import os
import shutil
import signal
from functools import partial

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("distributed")
pytest.importorskip("optuna")

from test_scale import in_process

from moola.core.errors import MoolaError
from moola.data.simulate import simulate_bars
from moola.detection.detector import Detector
from moola.scale.cluster import open_cluster
from moola.scale.command import moola_sweep
from moola.scale.grid import make_plan, read_plan
from moola.scale.results import Answers, _pictures, as_study, flattery, results_table
from moola.scale.sweep import sweep
from moola.training.run import Run

TINY = dict(n_windows=108, epochs=2, hidden=4, pastes=0, batch_size=16, device="cpu", valid_fraction=.3, test_fraction=.3)


def counted():
    seen = []
    return seen, lambda todo, line: seen.append((line["run"], line["status"])) if line else None


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    "Three settings with two seeds, of which one can't be trained."
    folder = tmp_path_factory.mktemp("sweep")
    plan = TINY | dict(grid=dict(lr=[1e-4, 1e30]), seeds=2)
    return folder, plan, sweep(plan, folder, connect=in_process)


def test_a_sweep_goes_on_past_a_failing_run(swept):
    "Two settings have results; the third has its sentence; runs are those of moola_train."
    folder, _, table = swept
    assert set(table.setting) == {"recommended", "recommended,lr=0.0001"} and list(table.seeds) == [2, 2]
    assert len(table.failed) == 2 and all("lower lr" in why for _, why in table.failed)
    run = Run(folder/"runs/recommended,lr=0.0001,seed=43")
    assert run.metadata["status"] == "finished" and run.config.lr == 1e-4 and run.config.output == str(run.folder) and len(run.epochs) == 2
    assert len(Detector.load(run.folder, "cpu").models) == 1
    other = table[table.setting != "recommended"].iloc[0]
    assert other.low < other.difference < other.high and other.of == "test" and other.holm >= other.p
    page = (folder/"sweep.html").read_text()
    assert "flattered" in page or "looks better than it is" in page
    assert page.count("data:image/png") == 2 and "lr=1e+30" in page


def test_started_again_it_does_what_is_missing(swept):
    folder, plan, _ = swept
    seen, tick = counted()
    shutil.rmtree(folder/"runs/recommended,seed=42")
    again = sweep(plan, folder, connect=in_process, tick=tick)
    failed = {f"recommended,lr=1e+30,seed={s}" for s in (42, 43)}
    assert {name for name, _ in seen} == {"recommended,seed=42"} | failed
    assert len(pd.read_csv(folder/"runs.csv")) == 6 and len(again) == 2


def test_the_page_is_the_same_each_time():
    "The pictures, too: fANOVA draws trees from a seed of its own."
    study = as_study({f"s{i}": (dict(lr=10.**-i, hidden=i % 3), .1*(i*7 % 5)) for i in range(6)})
    first, again = (_pictures(study, "span_f1") for _ in range(2))
    assert len(first) == 2 and first == again


def test_networks_trained_together(tmp_path):
    "One program, and run folders that are compared and loaded as any."
    bars = simulate_bars(1100, seed=1)
    bars.assign(timestamp=bars.timestamp + pd.Timedelta("364D")).to_csv(tmp_path/"bars.csv", index=False)
    plan = TINY | dict(grid=dict(lr=[1e-4]), seeds=2, background=str(tmp_path/"bars.csv"), background_windows=9)
    table = sweep(plan, tmp_path/"out", connect=in_process, together=True)
    run = Run(tmp_path/"out/runs/recommended,seed=42")
    back = run.metadata["data"]["background"]
    assert (back["windows"], back["of"], back["path"]) == (9, 10, str(tmp_path/"bars.csv"))
    assert len(table) == 2 and run.metadata["together"] and run.predictions("test")[1].shape[1] == 105
    assert len(Detector.load(run.folder, "cpu").models) == 1


def test_a_search_is_continued(tmp_path):
    "More trials are added to those of the study's file; the objective is the lower end of the interval."
    import optuna
    plan = TINY | dict(seeds=2, search=dict(trials=2, ranges=dict(lr=dict(low=1e-4, high=1e-2, log=True), hidden=[3, 4])))
    sweep(plan, tmp_path, connect=in_process)
    seen, tick = counted()
    plan["search"]["trials"] = 3
    table = sweep(plan, tmp_path, connect=in_process, tick=tick)
    assert len(seen) == 2 and len(table) == 4
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path/"search.log")))
    trials = optuna.load_study(study_name=None, storage=storage).trials
    assert [t.state.name for t in trials] == ["COMPLETE"]*3
    assert sorted(round(t.value, 6) for t in trials) == sorted(table[table.setting != "recommended"].valid_low.round(6))
    assert len(trials[0].intermediate_values) == 2


def test_a_pruned_trial_ends(tmp_path, monkeypatch):
    "The pruner's word reaches the worker: the trial's run ends early, as pruned."
    import optuna
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda self, study, trial: True)
    plan = TINY | dict(epochs=60, seeds=1, search=dict(trials=1, ranges=dict(lr=dict(low=1e-4, high=1e-2))))
    plan["base"] = dict(epochs=1)
    seen, tick = counted()
    sweep(plan, tmp_path, connect=in_process, tick=tick)
    (name, status), = seen[1:]
    assert status == "pruned" and Run(tmp_path/"runs"/name).metadata["epochs_done"] < 60


def test_the_command_survives_a_killed_worker(tmp_path, monkeypatch, capsys):
    "On a real local cluster, with one of two workers killed in mid-run."
    import moola.scale.cluster as cluster
    killed, opened = [], cluster._work_off
    def with_murder(client, *args):
        for value in opened(client, *args):
            if not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)
            yield value
    monkeypatch.setattr(cluster, "_work_off", with_murder)
    (tmp_path/"grid.yaml").write_text("n_windows: 60\nepochs: 2\nhidden: 4\npastes: 0\ndevice: cpu\nseeds: 3\nvalid_fraction: .3\ngrid: {lr: [0.0001]}\n")
    moola_sweep([str(tmp_path/"grid.yaml"), "--output", str(tmp_path/"out"), "--workers", "2"])
    said = capsys.readouterr()
    assert killed and "6 runs now" in said.out and "sweep.html" in said.out
    assert set(pd.read_csv(tmp_path/"out/runs.csv").status) == {"finished"}


@pytest.mark.parametrize("change, sentence", [
    (dict(grid=dict(embargo=[0])), "embargo must be the same in all runs"), (dict(grid=dict(hiden=[4])), "did you mean 'hidden'"),
    (dict(grid=dict(lr=[1e-3, -1])), "parameter lr"), (dict(seeds=[1, 1]), "a list of different ones"), (dict(metric="loss"), "metric is 'loss'"),
    (dict(search=dict(trials=3)), "search needs ranges"), (dict(search=dict(ranges=dict(lr=dict(low=1, high=0)))), "low must be a number below high"),
    (dict(search=dict(ranges=dict(lr=[.1]), trial=3)), "unknown field 'trial'"), (dict(output="x"), "output can't stand"), ({1: 2}, "names with values"),
    (dict(base=[1]), r"base is \[1\]"), (dict(grid={1: [2]}), "1 is no name"), (dict(grid=dict(lr=[None])), "give a list of values"),
    (dict(search=dict(ranges=dict(lr=dict(low=1e-3, high=.1, log=True, step=.1)))), "stands without log"),
    (dict(search=dict(ranges=dict(lr=[.1]), seed="x")), "seed is 'x'"), (dict(search=dict(ranges=dict(lr=[.1]), prune=1)), "prune is 1")])
def test_a_wrong_plan_is_refused(change, sentence):
    with pytest.raises(MoolaError, match=sentence): make_plan(TINY | change)


@pytest.mark.parametrize("data, sentence", [(b"a: [", "is not YAML: .*, in line 1"), (b"\xff\xfe", "is no text"), (b"- 1", "names with values")])
def test_a_file_that_is_no_plan(tmp_path, data, sentence):
    (tmp_path/"grid.yaml").write_bytes(data)
    with pytest.raises(MoolaError, match=sentence): read_plan(tmp_path/"grid.yaml")


def test_too_few_sessions_for_a_search(tmp_path):
    plan = TINY | dict(n_windows=12, valid_fraction=.2, test_fraction=0, search=dict(ranges=dict(lr=[1e-3])))
    with pytest.raises(MoolaError, match="the interval's lower end"): sweep(plan, tmp_path/"few", connect=partial(open_cluster, workers=1))
    with pytest.raises(MoolaError, match="4 sessions of 2 to 6 validation windows give no interval"):
        sweep(plan | dict(n_windows=80, test_fraction=.15), tmp_path/"unequal", connect=partial(open_cluster, workers=1))


def answers(rng, skill, n, seeds=3):
    "Networks that see the labelled bars through noise."
    target = np.zeros((n, 105), bool)
    target[:, 40:48] = True
    return Answers(target, skill*target[None] + (1-skill)*rng.random((seeds, n, 105)), np.full(seeds, .5))


def test_luck_is_told_from_skill():
    "Of settings that are all alike none is told apart, and the best looks better than it is; one that is better is told apart."
    rng = np.random.default_rng(3)
    valid, test = ({f"s{i}": answers(rng, .3, n) for i in range(12)} for n in (40, 200))
    cluster = dict(valid=np.arange(40)//2, test=np.arange(200)//2)
    table = results_table(valid, test, cluster, "average_precision")
    assert set(table.verdict) <= {"", "not told apart"} and list(table.valid) == sorted(table.valid, reverse=True)
    f = flattery(valid, test, cluster["valid"], "average_precision")
    assert f.nested > 0 and f.held_out > 0
    valid["good"], test["good"] = answers(rng, .5, 40), answers(rng, .5, 200)
    table = results_table(valid, test, cluster, "average_precision").set_index("setting")
    assert table.verdict["good"] == "above" and table.index[0] == "good"
    assert abs(flattery(valid, test, cluster["valid"], "average_precision").held_out) < .05
