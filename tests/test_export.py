"ONNX export: what no page has room to show."
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from moola.core.config import VARIANTS, make_config
from moola.core.errors import MoolaError
from moola.data.features import named_features
from moola.data.simulate import simulate_bars
from moola.detection import export
from moola.detection.command import moola_export
from moola.detection.detector import Detector, load_predictor
from moola.detection.export import check_onnx, check_windows, export_onnx, free_path, onnx_model, onnx_schema
from moola.models.jade import Jade
from moola.training.fit import fit

NAMES = VARIANTS["recommended"].features


def detector_of(*options, names=NAMES):
    "A detector of networks with large random weights, so that their answers differ from bar to bar."
    models = []
    for seed, o in enumerate(options):
        torch.manual_seed(seed)
        models.append(Jade(len(names), **o).eval().requires_grad_(False))
        for p in models[-1].parameters(): p.mul_(2)
    return Detector(models, tuple(names), "origin", .5, 2, torch.device("cpu"), [f"network {i}" for i in range(len(models))])


def agrees(detector, proto, windows):
    x = named_features(windows, detector.features)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    answers = session.run(None, {"features": x})
    assert answers[0].std() > .005
    assert len(answers) == 1 + all("type" in m.tasks for m in detector.models)
    assert check_onnx(proto, detector, windows) < 1e-5


@pytest.fixture(scope="module")
def small():
    "A detector and its graph, which takes seconds to write."
    detector = detector_of({"hidden": 8, "right_context": 2})
    return detector, onnx_model(detector)


def test_two_bars_ahead_agree_with_torch(small): agrees(*small, check_windows(most=16))


def test_several_networks_agree_with_torch():
    "One has two layers, the other no type."
    detector = detector_of({"layers": 2}, {"tasks": ("span",), "hidden": 8})
    agrees(detector, onnx_model(detector), check_windows(most=16))


def test_a_bar_sees_no_more_than_its_right_context(small):
    "In the file as in the network; and no window is an answer too."
    session = onnxruntime.InferenceSession(small[1].SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(2, 105, len(NAMES))).astype(np.float32)
    other = x.copy()
    other[:, 60:] += 1
    a, b = (session.run(["probability"], {"features": o})[0] for o in (x, other))
    np.testing.assert_array_equal(a[:, :58], b[:, :58])
    assert (a[:, 58:60] != b[:, 58:60]).all()
    assert [o.shape for o in session.run(None, {"features": x[:0]})] == [(0, 105), (0, 2)]


@pytest.mark.parametrize("message", ["DLL load failed", "libcudart.so.12: cannot open shared object file"])
def test_a_broken_installation_gives_its_own_error(message, monkeypatch):
    def broken(name): raise ImportError(message)
    monkeypatch.setattr(export, "import_module", broken)
    with pytest.raises(MoolaError, match=f"onnxruntime is installed but cannot be loaded: {message}"): export.onnx_module("onnxruntime")


def test_nothing_is_written_where_the_check_fails(small, tmp_path, monkeypatch):
    detector, proto = small
    monkeypatch.setattr(export, "onnx_model", lambda d: proto)
    right = export.torch_answers
    monkeypatch.setattr(export, "torch_answers", lambda d, x: {k: v+.1 for k, v in right(d, x).items()})
    with pytest.raises(MoolaError, match="differs from torch by .* nothing was written"): export_onnx(detector, tmp_path/"model.onnx")
    monkeypatch.setattr(export, "torch_answers", lambda d, x: {k: v*np.nan for k, v in right(d, x).items()})
    with pytest.raises(MoolaError, match="differs from torch by inf"): export_onnx(detector, tmp_path/"model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_is_never_replaced_unasked(small, tmp_path, monkeypatch):
    detector, proto = small
    monkeypatch.setattr(export, "onnx_model", lambda d: proto)
    path = tmp_path/"model.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(MoolaError, match="is there already"): export_onnx(detector, path)
    assert path.read_bytes() == b"mine"
    with pytest.raises(MoolaError, match="cannot be read as an ONNX model"): onnx_schema(path)
    assert export_onnx(detector, path, overwrite=True) < 1e-5
    assert [f["name"] for f in onnx_schema(path)["features"]] == list(NAMES)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    (tmp_path/"folder.onnx").mkdir()
    with pytest.raises(MoolaError, match="is a folder"): free_path(tmp_path/"folder.onnx", True)


def test_a_foreign_file_has_no_schema(small, tmp_path):
    proto = onnx.ModelProto()
    proto.CopyFrom(small[1])
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path/"other.onnx")
    with pytest.raises(MoolaError, match="was not written by moola"): onnx_schema(tmp_path/"other.onnx")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [fit(make_config("recommended", output=str(root/f"run{seed}"), epochs=1, n_windows=24, hidden=16, pastes=0, seed=seed, device="cpu",
                            progress=False)).folder for seed in (1, 2)]


def test_command(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate_bars(300, 2).to_csv("bars.csv", index=False)
    moola_export([*map(str, runs), "both.onnx", "--bars", "bars.csv"])
    assert "2 networks of 19 features" in (said := capsys.readouterr().out)
    assert "on bars.csv" in said
    schema = onnx_schema("both.onnx")
    assert schema["networks"] == ["run1", "run2"]
    assert schema["threshold"] == load_predictor(runs, "cpu").threshold
    with pytest.raises(SystemExit, match="moola_export: both.onnx is there already"): moola_export([str(runs[0]), "both.onnx"])
    with pytest.raises(SystemExit, match="hold no window"):
        simulate_bars(104, 2).to_csv("few.csv", index=False)
        moola_export([str(runs[0]), "one.onnx", "--bars", "few.csv"])
    with pytest.raises(SystemExit, match="does not end in .onnx"): moola_export([str(runs[0])])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bars.csv", "both.onnx", "few.csv"]


def test_without_the_extra(runs, tmp_path, monkeypatch):
    "One sentence, before anything is loaded."
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SystemExit, match=r"moola_export: onnx is not installed: an export needs pip install 'moola\[onnx\]'"):
        moola_export([str(runs[0]), str(tmp_path/"model.onnx")])
    assert not list(tmp_path.iterdir())


def test_help_is_light():
    code = "import sys, moola.detection.command as e; e.export_parser().format_help(); print(*(m for m in ('torch','pandas','onnx','numba') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
