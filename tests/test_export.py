"ONNX export: what no page has room to show."
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from moola import export
from moola.bars import read_bars, simulate_bars
from moola.errors import MoolaError
from moola.export import check_onnx, check_windows, export_onnx, free_path, moola_export, onnx_model, onnx_schema
from moola.model import Jade
from moola.predict import Detector, load_predictor
from moola.training import fit, named_features
from moola.variants import VARIANTS, make_config

NAMES = VARIANTS["recommended"].features


def detector_of(*options, names=NAMES):
    "A detector of networks with large random weights, so that their answers differ from bar to bar."
    models = []
    for seed, o in enumerate(options):
        torch.manual_seed(seed)
        models.append(Jade(len(names), **o).eval().requires_grad_(False))
        for p in models[-1].parameters(): p.mul_(2)
    return Detector(models, tuple(names), "origin", .5, 2, torch.device("cpu"), [f"network {i}" for i in range(len(models))])


KINDS = {"whole": [{}], "two layers": [{"layers": 2}], "no bar ahead": [{"right_context": 0}], "19 bars ahead": [{"right_context": 19}],
         "104 bars ahead": [{"right_context": 104, "hidden": 8}], "more than a window": [{"right_context": 300, "hidden": 8}],
         "span only": [{"tasks": ("span",)}], "several": [{}, {"right_context": 5}, {"hidden": 8, "layers": 2}],
         "one without type": [{}, {"tasks": ("span", "countdown")}]}


@pytest.fixture(scope="module")
def real_windows(shared): return check_windows(read_bars(shared/"data/nq_1m_202311.parquet"), 64)


def agrees(options, windows):
    detector = detector_of(*options)
    proto = onnx_model(detector)
    x = named_features(windows, detector.features)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    answers = session.run(None, {"features": x})
    assert answers[0].std() > .005
    assert len(answers) == 1 + all("type" in m.tasks for m in detector.models)
    assert check_onnx(proto, detector, windows) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_agrees_with_torch(kind): agrees(KINDS[kind], check_windows(most=16))


@pytest.mark.parametrize("kind", ["whole", "19 bars ahead", "several"])
def test_onnx_agrees_on_real_bars(kind, real_windows): agrees(KINDS[kind], real_windows)


def test_a_bar_sees_no_more_than_its_right_context():
    "In the file as in the network."
    detector = detector_of({"right_context": 5, "hidden": 8})
    session = onnxruntime.InferenceSession(onnx_model(detector).SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(2, 105, len(NAMES))).astype(np.float32)
    other = x.copy()
    other[:, 60:] += 1
    a, b = (session.run(["probability"], {"features": o})[0] for o in (x, other))
    np.testing.assert_array_equal(a[:, :55], b[:, :55])
    assert (a[:, 55:60] != b[:, 55:60]).all()


def test_nothing_is_written_where_the_check_fails(tmp_path, monkeypatch):
    right = export.gate_order
    monkeypatch.setattr(export, "gate_order", lambda w: right(w)[::-1])
    with pytest.raises(MoolaError, match="differs from torch by .* nothing was written"): export_onnx(detector_of({}), tmp_path/"model.onnx")
    broken = detector_of({})
    broken.models[0].span_head[-1].bias.fill_(float("nan"))
    monkeypatch.undo()
    with pytest.raises(MoolaError, match="differs from torch by inf"): export_onnx(broken, tmp_path/"model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_is_never_replaced_unasked(tmp_path):
    path = tmp_path/"model.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(MoolaError, match="is there already"): export_onnx(detector_of({}), path)
    assert path.read_bytes() == b"mine"
    with pytest.raises(MoolaError, match="cannot be read as an ONNX model"): onnx_schema(path)
    assert export_onnx(detector_of({}), path, overwrite=True) < 1e-5
    assert [f["name"] for f in onnx_schema(path)["features"]] == list(NAMES)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    (tmp_path/"folder.onnx").mkdir()
    with pytest.raises(MoolaError, match="is a folder"): free_path(tmp_path/"folder.onnx", True)


def test_a_foreign_file_has_no_schema(tmp_path):
    proto = onnx_model(detector_of({"hidden": 8}))
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
    code = "import sys, moola.export as e; e.export_parser().format_help(); print(*(m for m in ('torch','pandas','onnx','numba') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
