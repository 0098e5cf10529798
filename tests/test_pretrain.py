"Pretraining: what is hidden stays hidden, validation is later, a run starts from what was taken and says so."
import json

import numpy as np
import pytest
import torch

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.core.names import FEATURES, OHLC, W
from moola.data.features import named_features
from moola.data.plant import simulate_windows
from moola.data.simulate import simulate_bars
from moola.models.checkpoint import load_checkpoint
from moola.models.pretrained import take_weights
from moola.training.fit import fit
from moola.training.folder import run_folder
from moola.training.many import fit_many
from moola.training.start import start_run
from moola.training.trainer import Trainer
from moola.transfer.pretrain import OBJECTIVES, bar_windows, draw_hidden, hidden_targets, hide_bars, pretrain
from moola.transfer.pretrain_command import moola_pretrain

SMALL = dict(hidden=4, pastes=0, batch_size=8, device="cpu", progress=False)


@pytest.mark.parametrize("rule", ["origin", "strict", "close"])
def test_a_hidden_value_cannot_reach_the_input(rule):
    "Whatever the hidden prices are, NaN among them, the features have the same bits, and visible bars do matter."
    rng = np.random.default_rng(5)
    ohlc = simulate_windows(20, seed=3).ohlc
    names = make_config().features
    for share, length in ((.1, 1), (.2, 6), (.6, 20)):
        hidden = draw_hidden(len(ohlc), rng, share, length)
        assert hidden.any() and not hidden[:, 0].any()
        x = named_features(hide_bars(ohlc, hidden), names, rule)
        for other in (np.nan, 1e9, rng.normal(size=ohlc.shape)):
            assert np.array_equal(named_features(hide_bars(np.where(hidden[..., None], other, ohlc), hidden), names, rule), x)
        moved = np.where(hidden[..., None], ohlc, ohlc*rng.uniform(.9, 1.1, (len(ohlc), W, 1)))
        assert not np.array_equal(named_features(hide_bars(moved, hidden), names, rule), x)


def test_targets_are_those_of_hidden_bars():
    ohlc = simulate_windows(4, seed=3).ohlc
    hidden = np.zeros((4, W), bool)
    hidden[:, 50:53] = True
    t = hidden_targets(ohlc, hidden)
    assert (t[~hidden] == 0).all() and (t[hidden] != 0).any()
    scale = (ohlc[..., 1]-ohlc[..., 2])[:, ~hidden[0]].mean(1)
    assert t[:, 51, 3] == pytest.approx(((ohlc[:, 51, 3]-ohlc[:, 49, 3])/scale).clip(-8, 8), abs=1e-5)


def test_validation_is_later():
    "No bar of a validation window is a bar of a training window, and all are later."
    bars = simulate_bars(4000, seed=2)
    bars["close"] = bars["open"] = bars["high"] = bars["low"] = np.arange(4000.)   # a price tells the bar
    def seen(later):
        stream = bar_windows(bars, later, np.random.default_rng(0), 16)
        return np.concatenate([next(stream)[..., 3].ravel() for _ in range(20)])
    assert seen(False).max() < seen(True).min() and seen(True).min() >= 3600


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    "A network pretrained on masked bars."
    folder = tmp_path_factory.mktemp("pretrained")
    pretrain(simulate_bars(1500, seed=4), folder/"masked", make_config(**SMALL), "masked", epochs=1, steps=2)
    return folder/"masked"


def test_a_run_starts_from_it_and_says_so(start, tmp_path, capsys):
    "Frozen weights have the same bits after an epoch, and move in the next; metadata and the first lines name what was taken."
    windows = simulate_windows(30, seed=1)
    config = make_config(**SMALL | dict(epochs=2, progress=True), init=str(start), freeze_epochs=1, output=str(tmp_path/"run"))
    taken = load_checkpoint(start/"pretrained.pt")["model"]
    seen = []
    hold = Trainer.state
    def state(self):
        seen.append({k: v.detach().clone() for k, v in self.model.state_dict().items()})
        return hold(self)
    Trainer.state = state
    try: run = fit(config, windows)
    finally: Trainer.state = hold
    lstm = [k for k in taken if k.startswith("lstm.")]
    assert all(torch.equal(seen[0][k], taken[k]) for k in lstm) and not any(torch.equal(seen[1][k], taken[k]) for k in lstm)
    assert not torch.equal(seen[0]["span_head.1.weight"], seen[1]["span_head.1.weight"])
    assert run.metadata["init"]["taken"] == lstm and run.metadata["init"]["unused"] == ["price_head.weight", "price_head.bias"]
    assert "lstm (8 tensors)" in capsys.readouterr().out


def test_what_does_not_fit_is_refused(start, tmp_path):
    for change, sentence in ((dict(hidden=8), "was trained with hidden 4, this run has 8"), (dict(swing_rule="close"), "swing_rule"),
                             (dict(features=FEATURES), "features")):
        config = make_config(**SMALL | change, init=str(start), output=str(tmp_path/"run"))
        with pytest.raises(MoolaError, match=sentence), run_folder(config) as folder: start_run(config, folder, torch.device("cpu"), simulate_windows(30, seed=1))
        assert not (tmp_path/"run").exists()
    with pytest.raises(MoolaError, match="init: there is no"): take_weights(None, make_config(init="nowhere"))
    with pytest.raises(MoolaError, match="freeze_epochs keeps weights taken from init"): make_config(freeze_epochs=3)


def test_many_networks_start_from_it(start):
    "As one alone does: the same numbers."
    windows = simulate_windows(30, seed=1)
    from moola.data.splits import split_windows
    split = split_windows(windows, seed=0)
    configs = [make_config(**SMALL, epochs=1, lr=1e-12, init=init) for init in (str(start), "")]
    a, b = (r.model().state_dict() for r in fit_many(configs, windows, [split]*2, processes=1, progress=False))
    taken = load_checkpoint(start/"pretrained.pt")["model"]
    assert torch.allclose(a["lstm.weight_ih_l0"], taken["lstm.weight_ih_l0"], atol=1e-6)
    assert not torch.allclose(b["lstm.weight_ih_l0"], taken["lstm.weight_ih_l0"], atol=1e-3)


def test_nothing_is_lost(start, tmp_path):
    bars = simulate_bars(1500, seed=4)
    with pytest.raises(MoolaError, match="resume continues it"): pretrain(bars, start, make_config(**SMALL), "masked", epochs=1, steps=2)
    with pytest.raises(MoolaError, match="was begun with other settings"): pretrain(bars, start, make_config(**SMALL, lr=.1), "masked", epochs=2, steps=2, resume=True)
    with pytest.raises(MoolaError, match="already has its 1 epochs"): pretrain(bars, start, make_config(**SMALL), "masked", epochs=1, steps=2, resume=True)
    with pytest.raises(MoolaError, match="nothing to learn from"): pretrain(bars.iloc[:150], tmp_path/"few", make_config(**SMALL), "masked", epochs=1, steps=1)
    assert not (tmp_path/"few").exists()   # what didn't start leaves nothing behind
    assert json.loads((start/"metadata.json").read_text())["status"] == "finished"
    assert set(OBJECTIVES) == {"masked", "simulated"} and OHLC


def test_the_command(tmp_path, capsys):
    simulate_bars(1500, seed=4).to_csv(tmp_path/"bars.csv", index=False)
    words = ["--output", str(tmp_path/"out"), "--epochs", "1", "--steps", "1", "--hidden", "4", "--batch-size", "8", "--device", "cpu", "--progress", "false"]
    moola_pretrain([str(tmp_path/"bars.csv"), *words])
    said = capsys.readouterr().out
    assert "moola_train --init" in said and "at epoch 1 of 1" in said and (tmp_path/"out/pretrained.pt").exists()
    for more, sentence in (([str(tmp_path/"none.csv"), *words], "there are no bars"), ([*words, "--objective", "masked"], "needs bars")):
        with pytest.raises(SystemExit, match=sentence): moola_pretrain(more)
