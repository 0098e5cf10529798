"Weights averaged over the steps: what they are, that they disturb nothing, and that a resumed run has the same ones."
import numpy as np
import pytest
import torch

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.data.features import named_features
from moola.data.plant import simulate_windows
from moola.data.splits import split_windows
from moola.models.checkpoint import load_checkpoint, model_from_checkpoint
from moola.training.fit import fit
from moola.training.loop import train_step
from moola.training.many import fit_many
from moola.training.trainer import Trainer

TINY = dict(variant="stones_only", n_windows=24, batch_size=4, hidden=8, epochs=4, device="cpu", progress=False)


def tiny(folder, **params): return make_config(**(TINY | dict(output=str(folder)) | params))


@pytest.fixture(scope="module")
def run(tmp_path_factory): return fit(tiny(tmp_path_factory.mktemp("average")/"run", ema=.8))


def test_it_is_the_mean_of_all_steps_by_age():
    windows = simulate_windows(24, seed=1)
    torch.manual_seed(0)
    t, seen = Trainer(tiny("", ema=.8), windows, split_windows(windows), torch.device("cpu")), []
    for _ in range(3):
        t.model.train()
        for rows, weight in zip(*t.draw()):
            train_step(t, rows, weight)
            seen.append(torch.nn.utils.parameters_to_vector(t.model.parameters()).detach().double().numpy())
    age = np.arange(len(seen))[::-1] / (len(seen)/3)   # in epochs
    kept = torch.nn.utils.parameters_to_vector(t.judged.parameters()).numpy()
    np.testing.assert_allclose(kept, np.average(seen, axis=0, weights=.8**age), atol=1e-6)


def test_it_disturbs_nothing(run, tmp_path):
    "The network that learns goes the same way with and without an average, and without one nothing more is stored."
    plain = fit(tiny(tmp_path/"plain"))
    a, b = (load_checkpoint(r.folder/"last.pt") for r in (run, plain))
    for k in ("weights", "exp_avg", "exp_avg_sq", "step", "rng", "shuffle"): assert torch.equal(a[k], b[k]), k
    assert set(a) - set(b) == {"average"}
    assert (run.epochs.train_loss == plain.epochs.train_loss).all()
    assert (run.epochs.val_loss != plain.epochs.val_loss).all()


def test_the_average_is_validated_and_kept(run):
    last, best = (load_checkpoint(run.folder/f) for f in ("last.pt", "best_model.pt"))
    flat = torch.cat([o.flatten() for o in best["model"].values()])
    assert not torch.equal(flat, last["weights"][:len(flat)])
    if best["epoch"] == last["epoch"]: assert torch.equal(flat, last["average"][:len(flat)])
    assert last["average"][-1] == last["step"][0]   # it has seen every step
    prob = run.predictions()[1]
    x = named_features(simulate_windows(24, 7).ohlc[split_windows(simulate_windows(24, 7)).valid], run.config.features, run.config.swing_rule)
    with torch.no_grad(): np.testing.assert_allclose(model_from_checkpoint(best)(torch.as_tensor(x))["span"].sigmoid().numpy(), prob, atol=1e-6)


@pytest.mark.parametrize("more", [{}, dict(mirror=True, pastes=2)])
def test_resumed_as_uninterrupted(more, tmp_path):
    whole = fit(tiny(tmp_path/"whole", ema=.8, **more))
    fit(tiny(tmp_path/"halves", ema=.8, epochs=2, **more))
    halves = fit(tiny(tmp_path/"halves", ema=.8, resume=True, **more))
    for f in ("last.pt", "best_model.pt"):
        a, b = (load_checkpoint(r.folder/f) for r in (whole, halves))
        for k in a["model"] if "model" in a else ("weights", "average", "exp_avg", "rng"): assert torch.equal(*((o["model"] if "model" in o else o)[k] for o in (a, b))), (f, k)
    np.testing.assert_array_equal(whole.predictions()[1], halves.predictions()[1])


def test_another_average_is_another_run(run):
    with pytest.raises(MoolaError, match=r"was begun with another ema \(0.8, now 0.9\)"): fit(tiny(run.folder, ema=.9, epochs=6, resume=True))


def test_fit_many_as_fit(run):
    windows = simulate_windows(24, 7)
    result, = fit_many([run.config], windows, [split_windows(windows, run.config.valid_fraction, run.config.test_fraction)], progress=False)
    best = load_checkpoint(run.folder/"best_model.pt")
    assert result.best_epoch == best["epoch"]
    for k, v in best["model"].items(): assert torch.equal(v, result.best[k]), k
