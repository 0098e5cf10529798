"Checkpoints from elsewhere: damaged, cut short, made to run a program or to fill the memory, with something wrong in any field."
import io
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.detection.detector import Detector
from moola.models.checkpoint import FORMAT, Checkpoint, check_checkpoint, load_checkpoint, model_from_checkpoint, read_checkpoint, save_checkpoint
from moola.training.fit import fit


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    "The checkpoint of a short training, with a small network, and the calibration and feature reference that every finished run has."
    folder = tmp_path_factory.mktemp("runs")/"tiny"
    return fit(make_config("stones_only", output=str(folder), epochs=1, n_windows=24, hidden=2, device="cpu", progress=False)).folder/"best_model.pt"


@pytest.fixture(scope="module")
def fields(file): return read_checkpoint(file)


class Data(bytes):
    "Bytes that a failing test does not show."
    def __repr__(self): return f"{len(self)} bytes"


@pytest.fixture(scope="module")
def data(file): return Data(file.read_bytes())


def same(a, b):
    "Are two checkpoints equal, tensors and NaN included?"
    if isinstance(a, torch.Tensor): return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict): return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


def check_refused(path, original=None):
    "Reading `path` gives one sentence, or, where nothing that counts was changed, the very same checkpoint."
    try: got = read_checkpoint(path)
    except MoolaError as e:
        assert "\n" not in str(e)
        assert len(str(e)) < 600
        assert str(path) in str(e)
        return str(e)
    assert original is not None, "a broken checkpoint was read"
    assert same(got, original)


def test_what_training_writes(file, fields):
    c = torch.load(file, weights_only=True)
    assert set(c) == set(Checkpoint.model_fields) - {"about"}
    assert c["format"] == FORMAT
    if c["calibration"] is not None: assert c["calibration"]["windows"] == c["data"]["split"]["valid"]
    assert c["feature_reference"]["windows"] == c["data"]["split"]["train"]
    assert list(c["feature_reference"]["features"]) == c["features"]
    assert same(fields, check_checkpoint(c))
    detector = Detector.load(file.parent, "cpu")
    assert detector.calibration == (c["calibration"] and (c["calibration"]["a"], c["calibration"]["b"]))
    assert detector.feature_reference == c["feature_reference"]
    assert (detector.min_length, detector.max_gap) == (c["decoder"]["min_length"], c["decoder"]["max_gap"])


def test_metadata_holds_the_calibration(file, fields):
    import json
    assert json.loads((file.parent/"metadata.json").read_text())["calibration"] == fields["calibration"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bits(where, data, fields, tmp_path):
    broken = bytearray(data)
    for at, mask in where: broken[int(at*len(data))] ^= mask
    (tmp_path/"x.pt").write_bytes(broken)
    check_refused(tmp_path/"x.pt", fields)


def test_every_byte_of_the_directory(data, fields, tmp_path):
    "The end of the file, where an archive says what it holds."
    for at in range(len(data)-400, len(data), 3):
        (tmp_path/"x.pt").write_bytes(data[:at] + bytes([data[at] ^ 0xff]) + data[at+1:])
        check_refused(tmp_path/"x.pt", fields)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), end=st.just(b"") | st.binary(max_size=30))
@example(at=0., end=b"")
@example(at=.99999, end=b"")
def test_cut_short(at, end, data, fields, tmp_path):
    (tmp_path/"x.pt").write_bytes(data[:int(at*len(data))] + end)
    if end: check_refused(tmp_path/"x.pt", fields)  # the last bytes of an archive say how long its comment is: they may be others
    else: assert "cannot be read as a checkpoint" in check_refused(tmp_path/"x.pt")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=300))
def test_junk(junk, tmp_path):
    (tmp_path/"x.pt").write_bytes(junk)
    check_refused(tmp_path/"x.pt")


def rewritten(data, change, compression=zipfile.ZIP_STORED, more=()):
    "The archive with its entries changed: `change(name, content)` gives the new content."
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for i in old.infolist(): new.writestr(i.filename, change(i.filename, old.read(i)))
        for name, content in more: new.writestr(name, content)
    return out.getvalue()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bits_with_checksums_put_right(where, data, fields, tmp_path):
    "Whoever changes the file on purpose also changes its checksums: the description is what stands then."
    def change(name, content):
        if not name.endswith("data.pkl"): return content
        broken = bytearray(content)
        for at, mask in where: broken[int(at*len(content))] ^= mask
        return bytes(broken)
    (tmp_path/"x.pt").write_bytes(rewritten(data, change))
    try: got = read_checkpoint(tmp_path/"x.pt")
    except MoolaError as e: assert "\n" not in str(e)
    else: assert model_from_checkpoint(got)(torch.zeros(1, 105, len(got["features"])))["span"].shape == (1, 105)


class Runs:
    "Unpickled, it would write a file."
    def __init__(self, code): self.code = code
    def __reduce__(self): return exec, (self.code,)


class Calls:
    def __init__(self, f, *args): self.call = f, args
    def __reduce__(self): return self.call


@pytest.mark.parametrize("how", ["torch.save", "as pickle", "in the archive", "in a field", "os.system"])
def test_no_program_runs(how, data, fields, tmp_path):
    mark, path = tmp_path/"was here", tmp_path/"x.pt"
    evil = Calls(os.system, f"touch '{mark}'") if how == "os.system" else Runs(f"open({str(mark)!r}, 'w')")
    if how in ("torch.save", "os.system"): torch.save(evil, path)
    elif how == "in a field": torch.save(fields | {"data": {"sha256": evil}}, path)
    elif how == "as pickle": path.write_bytes(pickle.dumps(evil))
    else: path.write_bytes(rewritten(data, lambda name, content: pickle.dumps(evil, 2) if name.endswith("data.pkl") else content))
    assert "cannot be read as a checkpoint" in check_refused(path)
    assert not mark.exists()


def test_archives_that_unpack_to_more(data, tmp_path):
    "A compressed entry of a hundred megabytes of zeros, and entries that share their bytes."
    bomb, twice = tmp_path/"bomb.pt", tmp_path/"twice.pt"
    bomb.write_bytes(rewritten(data, lambda _, c: c, zipfile.ZIP_DEFLATED, [("archive/data/9", bytes(10**8))]))
    with pytest.warns(UserWarning, match="Duplicate name"): twice.write_bytes(rewritten(data, lambda _, c: c, more=[("archive/data/0", b"")]))
    assert bomb.stat().st_size < 10**6
    tracemalloc.start()
    for path in (bomb, twice): assert "cannot be read as a checkpoint" in check_refused(path)
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_storage_smaller_than_it_says(fields, tmp_path):
    "Tensors that are a view of one number, and tensors that share their numbers, are larger than the file."
    wide = {k: torch.zeros(1).expand(v.shape) for k, v in fields["model"].items()}
    torch.save(fields | {"model": wide}, tmp_path/"x.pt")
    assert "larger than what the file holds" in check_refused(tmp_path/"x.pt")
    one = torch.zeros(max(v.numel() for v in fields["model"].values()))
    torch.save(fields | {"model": {k: one[:v.numel()].view(v.shape) for k, v in fields["model"].items()}}, tmp_path/"x.pt")
    check_refused(tmp_path/"x.pt", fields | {"model": {k: torch.zeros_like(v) for k, v in fields["model"].items()}})


def nested(depth):
    "Lists in lists: as text it would be twice as long with every step."
    o = ["x"]
    for _ in range(depth): o = [o, o]
    return o


def circle():
    o = []
    o.append(o)
    return o


STRANGE = [None, True, -1, 0, 3, 10**30, -2**63, 1.5, float("nan"), float("inf"), -1e308, "", "x", "\0", "x"*10**6,
           [], {}, (), [1], [None], {"a": 1}, {1: 2}, {"x": {}},
           torch.zeros(3), torch.tensor(1), torch.zeros(0), nested(3), nested(60), circle(), OrderedDict(a=1), {"a": torch.ones(2)}, b"bytes"]


def replaced(o, path, value):
    "A copy of nested dicts and lists with one place changed."
    if not path: return value
    if isinstance(o, dict): return {k: replaced(v, path[1:], value) if k == path[0] else v for k, v in o.items()}
    return type(o)(replaced(v, path[1:], value) if i == path[0] else v for i, v in enumerate(o))


def places(o, path=()):
    "The path of everything in a checkpoint."
    yield path
    if isinstance(o, dict): yield from (p for k, v in o.items() for p in places(v, (*path, k)))
    elif isinstance(o, (list, tuple)): yield from (p for i, v in enumerate(o[:3]) for p in places(v, (*path, i)))


FREE = {"data", "versions", "git"}  # descriptions: whatever numbers and words they hold


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choice=st.data(), strange=st.sampled_from(range(len(STRANGE))))
def test_strange_values_in_any_place(choice, strange, fields):
    "Everything that is accepted makes a network that answers; the rest is refused in one sentence."
    all_places = list(places(fields))
    place, value = all_places[choice.draw(st.integers(0, len(all_places)-1))], STRANGE[strange]
    try: got = check_checkpoint(replaced(fields, place, value), "x.pt")
    except MoolaError as e:
        assert "\n" not in str(e)
        assert len(str(e)) < 600
        assert str(e).startswith("x.pt ")
        return
    assert place, "something that is no checkpoint was accepted"
    assert model_from_checkpoint(got)(torch.zeros(1, 105, len(got["features"])))["span"].isfinite().all()


@pytest.mark.parametrize("name", list(Checkpoint.model_fields))
def test_strange_fields(name, fields, tmp_path):
    "The same through a file, field by field."
    for value in STRANGE:
        try: torch.save(fields | {name: value}, tmp_path/"x.pt")
        except RecursionError: continue
        try: got = read_checkpoint(tmp_path/"x.pt")
        except MoolaError as e: assert "\n" not in str(e)
        else: assert name in FREE | {"about", "calibration", "feature_reference", "epoch", "format", "pos_weight"}, got[name]


@pytest.mark.parametrize("name", list(Checkpoint.model_fields)[1:-1])
def test_missing_fields(name, fields):
    with pytest.raises(MoolaError, match=f"it has no {name}"): check_checkpoint({k: v for k, v in fields.items() if k != name})


WEIGHTS = {
    "missing": (lambda w: {k: v for k, v in w.items() if k != "span_head.1.bias"}, "its network lacks span_head.1.bias"),
    "unexpected": (lambda w: w | {"other": torch.ones(2)}, "its network holds other, which its config does not have"),
    "renamed": (lambda w: {k.replace("lstm", "gru"): v for k, v in w.items()}, r"its network lacks lstm\.\S+, .* and 5 more"),
    "none": (lambda w: {}, "it has 0 weights, too few for 1 layers"),
    "shape": (lambda w: w | {"span_head.1.bias": torch.ones(2)}, r"its weight span_head.1.bias has shape \(2,\), not \(1,\)"),
    "transposed": (lambda w: w | {"lstm.weight_ih_l0": w["lstm.weight_ih_l0"].T}, r"has shape \(12, 8\), not \(8, 12\)"),
    "half": (lambda w: {k: v.half() for k, v in w.items()}, "is torch.float16"),
    "double": (lambda w: {k: v.double() for k, v in w.items()}, "is torch.float64"),
    "whole numbers": (lambda w: {k: v.long() for k, v in w.items()}, "is torch.int64"),
    "complex": (lambda w: w | {"span_head.1.bias": torch.ones(1, dtype=torch.complex64)}, "is torch.complex64"),
    "sparse": (lambda w: w | {"lstm.weight_ih_l0": w["lstm.weight_ih_l0"].to_sparse()}, "torch.sparse_coo"),
    "meta": (lambda w: w | {"lstm.weight_ih_l0": w["lstm.weight_ih_l0"].to("meta")}, "its weight lstm.weight_ih_l0 is on meta"),
    "nan": (lambda w: w | {"lstm.weight_ih_l0": w["lstm.weight_ih_l0"]*float("nan")}, "its weight lstm.weight_ih_l0 is not finite"),
    "infinite": (lambda w: w | {"lstm.bias_hh_l0": w["lstm.bias_hh_l0"] + float("inf")}, "its weight lstm.bias_hh_l0 is not finite"),
    "strided": (lambda w: w | {"lstm.weight_ih_l0": w["lstm.weight_ih_l0"].T.contiguous().T}, "larger than what the file holds"),
    "list": (lambda w: w | {"span_head.1.bias": [1.]}, "its weights are not all tensors"),
    "numbered": (lambda w: w | {7: torch.ones(1)}, "should be a valid string|not all tensors")}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights(case, fields):
    change, message = WEIGHTS[case]
    with pytest.raises(MoolaError, match=message): check_checkpoint(fields | {"model": change(fields["model"])})


CONFIGS = {
    "hidden of another size": (dict(hidden=3), "has shape"), "a network beyond all memory": (dict(hidden=10**12), "shape|too large|overflow|memory|less than or equal"),
    "more layers": (dict(layers=2), "its network lacks lstm.bias_hh_l1"), "layers without end": (dict(layers=10**9), "too few for 1000000000 layers|less than or equal"),
    "a task more": (dict(tasks=("type", "ptr", "span", "countdown")), "its network lacks countdown_head"),
    "a task fewer": (dict(tasks=("span",)), "its network holds project.0.bias"), "an unknown option": (dict(colour="red"), "colour"),
    "a wrong type": (dict(epochs="many"), "epochs"), "an unknown swing rule": (dict(swing_rule="mine"), "swing_rule")}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs(case, fields):
    change, message = CONFIGS[case]
    with pytest.raises(MoolaError, match=message): check_checkpoint(fields | {"config": fields["config"] | change})


def test_features(fields):
    names = fields["features"]
    for wrong in (names[::-1], names[:-1], [*names, "position_encoding"], ["volume", *names[1:]], [names[0]]*len(names), []):
        with pytest.raises(MoolaError, match="features"): check_checkpoint(fields | {"features": wrong})
        with pytest.raises(MoolaError, match="features"): check_checkpoint(fields | {"config": fields["config"] | {"features": tuple(wrong)}})


def test_feature_reference(fields):
    ref = fields["feature_reference"]
    one = ref["features"]["range_z"]
    for wrong in (dict(edges=one["edges"][::-1]), dict(shares=one["shares"][:-1]), dict(shares=[s/2 for s in one["shares"]]), dict(freedom=0.)):
        changed = ref | {"features": ref["features"] | {"range_z": one | wrong}}
        with pytest.raises(MoolaError, match="range_z"): check_checkpoint(fields | {"feature_reference": changed})
    with pytest.raises(MoolaError, match="describes other features"):
        check_checkpoint(fields | {"feature_reference": ref | {"features": {k: v for k, v in ref["features"].items() if k != "range_z"}}})


@pytest.mark.parametrize("version", [FORMAT+1, 99, -1, "1", 1., True, None])
def test_other_formats_are_refused(version, fields):
    with pytest.raises(MoolaError, match="use the moola that wrote it, or a newer one"): check_checkpoint(fields | {"format": version})


def test_the_first_format_is_migrated(fields, tmp_path):
    "Before checkpoints named a format they had no decoder, no calibration and no reference, and configs had fewer options."
    old = {k: fields[k] for k in ("model", "config", "features", "epoch", "threshold", "data", "versions", "git", "pos_weight")}
    old["config"] = {k: v for k, v in fields["config"].items() if k not in ("right_context", "soft_bars")} | {"min_length": 3}
    save_checkpoint(tmp_path/"best_model.pt", old)
    detector = Detector.load(tmp_path, "cpu")
    assert (detector.min_length, detector.max_gap, detector.calibration, detector.feature_reference) == (3, 0, None, None)
    assert read_checkpoint(tmp_path)["format"] == FORMAT
    with pytest.raises(MoolaError, match="does not know its training features"): detector.drift(None)


def test_folders(file, fields, tmp_path):
    "A run's folder, a promoted model's, which comes first, and the file itself."
    with pytest.raises(MoolaError, match="holds no best_model.pt and no model.pt"): read_checkpoint(tmp_path)
    save_checkpoint(tmp_path/"best_model.pt", fields | {"epoch": 5})
    assert read_checkpoint(tmp_path)["epoch"] == 5
    save_checkpoint(tmp_path/"model.pt", fields | {"epoch": 6, "about": {"name": "the promoted one"}})
    assert [read_checkpoint(p)["epoch"] for p in (tmp_path, tmp_path/"best_model.pt", str(tmp_path/"model.pt"))] == [6, 5, 6]
    with pytest.raises(MoolaError, match="is no file"): load_checkpoint(tmp_path)
    os.mkfifo(tmp_path/"pipe")
    with pytest.raises(MoolaError, match="is no file"): read_checkpoint(tmp_path/"pipe")


def test_writing_is_all_or_nothing(fields, tmp_path):
    path = tmp_path/"best_model.pt"
    save_checkpoint(path, fields)
    with pytest.raises((pickle.PicklingError, AttributeError)): save_checkpoint(path, fields | {"data": lambda: 0})
    assert same(read_checkpoint(path), fields)


def test_memory_of_a_refusal(fields, tmp_path):
    "A file that describes a network of terabytes is refused without building it."
    code = """import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6*2**30, 6*2**30))
from moola.models.checkpoint import read_checkpoint
from moola.core.errors import MoolaError
try: read_checkpoint(sys.argv[1])
except MoolaError as e: print('refused', e)"""
    torch.save(fields | {"config": fields["config"] | {"hidden": 10**6}}, tmp_path/"x.pt")
    command, env = [sys.executable, "-c", code, tmp_path/"x.pt"], os.environ | {"OMP_NUM_THREADS": "1"}
    assert subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.startswith("refused")


def test_no_temporary_files(file): assert sorted(p.suffix for p in Path(file).parent.glob("*.part*")) == []


def test_numpy_numbers_are_refused(fields):
    with pytest.raises(MoolaError, match="holds a float64"): check_checkpoint(fields | {"threshold": np.float64(.4)})
