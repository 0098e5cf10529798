"Windows of unlabelled bars as background: which may be drawn, what they count for, and whose run it is."
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import start

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.data.background import draw_background, draw_each, may_be_drawn, read_background
from moola.data.bars import cut_windows
from moola.data.plant import simulate_windows
from moola.data.simulate import simulate_bars
from moola.data.splits import split_windows
from moola.data.windows import write_windows
from moola.evaluation.command import moola_evaluate
from moola.evaluation.folds import fold_data, plan_folds
from moola.models.checkpoint import load_checkpoint
from moola.training.fit import fit
from moola.training.many import fit_many
from moola.training.trainer import Trainer

TINY = dict(variant="stones_only", batch_size=8, hidden=8, epochs=4, device="cpu", progress=False)


def tiny(folder, **params): return make_config(**(TINY | dict(output=str(folder)) | params))


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    "A month of bars, and labelled windows that were cut from them."
    folder = tmp_path_factory.mktemp("market")
    bars = simulate_bars(20000, seed=3)
    bars.to_csv(folder/"bars.csv", index=False)
    ohlc, at = cut_windows(bars, 370)
    w = simulate_windows(len(ohlc), seed=1)
    rows = w.rows.assign(timestamp=bars.timestamp.to_numpy()[at[w.window]])
    windows = replace(w, ohlc=ohlc, rows=rows)
    write_windows(windows, folder/"windows.parquet")
    return folder, windows


def test_clear_of_every_labelled_window(market):
    "No bar of a drawn window is in a labelled one; the validation and test windows are kept clear of by their whole stretch of time."
    folder, windows = market
    config, split, found = tiny("", background=str(folder/"bars.csv")), split_windows(windows), read_background(folder/"bars.csv")
    rows = draw_background(found, windows, split, config)
    minutes = lambda t: t.astype("datetime64[m]").astype(int)
    mine, theirs = minutes(found.start[rows]), minutes(windows.timestamp)
    assert len(rows) and abs(mine[:, None]-theirs).min() >= 105
    held = theirs[np.concatenate([split.valid, split.test])]
    assert ((mine+105+105 <= held.min()) | (mine >= held.max()+105+105)).all()


def test_bars_decide_where_clocks_differ(market):
    "The labelled bars are found without times, and under another clock."
    folder, windows = market
    found, split = read_background(folder/"bars.csv"), split_windows(windows)
    for timeless in (replace(windows, rows=windows.rows.drop(columns="timestamp")), replace(windows, rows=windows.rows.assign(timestamp=windows.rows.timestamp - pd.Timedelta("900D")))):
        may = may_be_drawn(found, timeless, split, tiny(""))
        assert may.any() and not may.all()
        labelled = {o.tobytes() for w in windows.ohlc for o in np.lib.stride_tricks.sliding_window_view(w, 5, axis=0)}
        assert not any(o.tobytes() in labelled for w in found.ohlc[may] for o in np.lib.stride_tricks.sliding_window_view(w, 5, axis=0))


def test_what_training_sees(market):
    "Every window once an epoch; background has its own weight and no label, and a weight near nothing teaches nothing."
    folder, windows = market
    config, split = tiny("", background=str(folder/"bars.csv"), background_weight=.25, background_windows=9), split_windows(windows)
    t = Trainer(config, windows, split, torch.device("cpu"), *draw_each(config, windows, [split]))
    rows, weight = (o.flatten() for o in t.draw())
    seen = rows[weight > 0].numpy()
    assert len(set(seen)) == len(split.train) + 9 == len(seen)
    background = rows.numpy() >= len(windows)
    assert set(weight[background & (weight > 0).numpy()].tolist()) == {.25} and set(weight[~background].tolist()) <= {0., 1.}
    assert not t.mask[len(windows):].any()


def test_resumed_and_moved(market, tmp_path):
    "A run goes on with the same bars wherever they lie now, and with no others; a resumed run ends as one that was not stopped."
    folder, windows = market
    data = dict(data=str(folder/"windows.parquet"), background=str(folder/"bars.csv"), ema=.5)
    whole = fit(tiny(tmp_path/"whole", **data))
    fit(tiny(tmp_path/"halves", **data | dict(epochs=2)))
    shutil.copy(folder/"bars.csv", moved := tmp_path/"moved.csv")
    halves = fit(tiny(tmp_path/"halves", resume=True, **data | dict(background=str(moved))))
    for k in ("weights", "average", "exp_avg"): assert torch.equal(*(load_checkpoint(r.folder/"last.pt")[k] for r in (whole, halves))), k
    about = whole.metadata["data"]["background"]
    assert about["sha256"] == read_background(folder/"bars.csv").sha256 and 0 < about["windows"] <= about["of"]
    pd.read_csv(moved).iloc[:-200].to_csv(moved, index=False)
    for other in (str(moved), ""):
        with pytest.raises(MoolaError, match="was begun with another background: the network learns from it"):
            fit(tiny(tmp_path/"halves", epochs=6, resume=True, **data | dict(background=other)))
    fit(tiny(tmp_path/"none", **data | dict(background="", epochs=2)))
    with pytest.raises(MoolaError, match="another background"): fit(tiny(tmp_path/"none", resume=True, **data))


def test_fit_many_as_fit(market, tmp_path):
    folder, windows = market
    config, split = tiny(tmp_path/"run", background=str(folder/"bars.csv"), mirror=True, pastes=1), split_windows(windows)
    run, (result,) = fit(config, windows, split), fit_many([config], windows, [split], progress=False)
    for k, v in load_checkpoint(run.folder/"best_model.pt")["model"].items(): assert torch.equal(v, result.best[k]), k


@pytest.mark.parametrize("more, words", [
    (dict(background="gone.csv"), "there are no bars gone.csv"), (dict(background="empty"), "empty holds no .csv"),
    (dict(background="short.csv"), "short.csv holds no 105 bars without a gap in time"), (dict(background="words.csv"), "words.csv"),
    (dict(background_windows=5), "belong to a background: name its bars"), (dict(background_weight=2), "belong to a background"),
    (dict(background="bars.csv", background_weight=0), "background_weight should be greater than 0"),
    (dict(background="bars.csv", background_windows=9999), "background_windows asks for 9,999")])
def test_what_cannot_be_used(more, words, market, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"empty").mkdir()
    (tmp_path/"words.csv").write_text("nothing\nto see\n")
    bars = pd.read_csv(market[0]/"bars.csv")
    bars[:90].to_csv("short.csv", index=False)
    bars[:4000].to_csv("bars.csv", index=False)
    with pytest.raises(MoolaError, match=words): fit(tiny(tmp_path/"run", n_windows=24, **more))
    assert not (tmp_path/"run").exists()


def test_from_the_command_line(market, tmp_path):
    folder, _ = market
    words = ["--data", folder/"windows.parquet", "--background", folder/"bars.csv", "--background-weight", .5, "--variant", "stones_only", "--hidden", 8, "--epochs", 1, "--device", "cpu"]
    p = start("moola_train", *words, "--output", tmp_path/"run", cwd=tmp_path)
    out, err = p.communicate(timeout=600)
    assert p.returncode == 0, err
    assert json.loads((tmp_path/"run"/"metadata.json").read_text())["data"]["background"]["path"] == str(folder/"bars.csv")


def test_a_fold_keeps_clear_of_what_it_scores(market):
    "Scored windows hand over their times and no label: what a fold draws lies apart from them, and from those that it chooses on, in each of the folds."
    folder, windows = market
    config, found = tiny("", background=str(folder/"bars.csv")), read_background(folder/"bars.csv")
    minutes = lambda t: t.astype("datetime64[m]").astype(int)
    for fold in plan_folds(windows, config, 3).folds:
        own, split = fold_data(windows, fold)
        assert not own.mask[split.test].any() and (own.timestamp[split.test] == windows.timestamp[fold.test]).all() and not len(own[split.test].rows)
        rows = draw_background(found, own, split, config)
        mine = minutes(found.start[rows])
        assert len(rows) and abs(mine[:, None]-minutes(own.timestamp)).min() >= 105
        for part in (fold.valid, fold.test):
            held = minutes(windows.timestamp[part])
            assert ((mine+105+105 <= held.min()) | (mine >= held.max()+105+105)).all()


def test_an_evaluation_with_background(market, tmp_path, monkeypatch, capsys):
    "Out-of-fold scores of networks that are taught; the same bars elsewhere are the same networks, others are not."
    folder, _ = market
    shutil.copy(folder/"bars.csv", tmp_path/"copy.csv")
    monkeypatch.chdir(tmp_path)
    (tmp_path/"settings.ini").touch()
    def scored(bars):
        words = ["--data", folder/"windows.parquet", "--variant", "taught", "--background", bars, "--teachers", 1, "--folds", 2, "--seeds", 1, "--hidden", 8, "--epochs", 2,
                 "--pastes", 1, "--name", "t"]
        moola_evaluate([str(w) for w in words])
        return capsys.readouterr().out
    assert "pooled bar F1" in scored(folder/"bars.csv")
    kept = tmp_path/"artifacts"/"evaluations"
    found = json.loads((kept/"t"/"evaluation.json").read_text())["data"]["background"]
    assert found["sha256"] == read_background(folder/"bars.csv", 53).sha256
    networks = {f: f.stat().st_mtime_ns for f in kept.rglob("*.npz")}
    scored("copy.csv")
    assert {f: f.stat().st_mtime_ns for f in kept.rglob("*.npz")} == networks
    pd.read_csv(tmp_path/"copy.csv")[:9000].to_csv(tmp_path/"copy.csv", index=False)
    with pytest.raises(SystemExit, match="holds an evaluation of another config or other data"): scored("copy.csv")
