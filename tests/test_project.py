"What a change must keep: clean notebooks, exported code, a wheel that works anywhere, commands that do what the README says."
import json
import re
import sys
import zipfile

import pytest


def test_hooks(checkout, run):
    """One run of the hooks of a commit: a page that was run by hand and code that was not exported are put right and reported, all else stays as it is,
    and ruff finds nothing."""
    page, module = checkout/"nbs/core/00_errors.ipynb", checkout/"moola/core/errors.py"
    page.write_text(page.read_text().replace('"execution_count": null', '"execution_count": 7'))
    module.unlink()
    out = run("pre-commit", "run", "--all-files", "--show-diff-on-failure", cwd=checkout, code=1)
    assert re.findall(r"^(\w+?)\.+(Passed|Failed)$", out, re.M) == [("nbdev_clean", "Failed"), ("nbdev_export", "Failed"), ("ruff", "Passed")]
    assert run("git", "status", "--porcelain", cwd=checkout) == ""


def test_nbdev_hooks_install(checkout, run, tmp_path):
    "`nbdev_install_hooks` works as CONTRIBUTING has it, and adds nothing to what is committed."
    (tmp_path/"home").mkdir()
    out = run("env", f"HOME={tmp_path/'home'}", "nbdev_install_hooks", cwd=checkout)
    assert "Hooks are installed." in out
    assert "nbdev_merge" in run("git", "config", "merge.nbdev-merge.driver", cwd=checkout)
    assert run("git", "status", "--porcelain", cwd=checkout) == ""


IMPORT_ALL = """
import importlib, importlib.metadata as md, pathlib, pkgutil, sys
folder = sys.argv[1]; sys.path.insert(0, folder)
import moola
assert pathlib.Path(moola.__file__).is_relative_to(folder), moola.__file__
for m in pkgutil.walk_packages(moola.__path__, 'moola.'): importlib.import_module(m.name)
for d in md.distributions(path=[folder]):
    for e in d.entry_points: e.load()
print(moola.__version__)
"""


PREDICT = """
import sys; sys.path.insert(0, sys.argv[1])
from moola.data.simulate import simulate_bars
from moola.detection.detector import Detector
from moola.detection.scan import scan
from moola.models.included import default_model
assert default_model().is_relative_to(sys.argv[1]), default_model()
print(len(scan(simulate_bars(1000, 3), Detector.load(default_model(), "cpu"), progress=False).spans))
"""


def test_wheel(checkout, run, root, tmp_path):
    "The wheel, built from the source archive, holds every module, the papermill notebooks and the model; it imports and predicts in another folder."
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path/"dist", ".", cwd=checkout)
    wheel, = (tmp_path/"dist").glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {p.relative_to(checkout).as_posix() for p in (checkout/"moola").rglob("*.py")} <= held
    nbs = [checkout/"nbs/train.ipynb", *checkout.glob("nbs/analysis/*.ipynb")]
    assert {f"moola/notebooks/{p.relative_to(checkout/'nbs').as_posix()}" for p in nbs if p.exists()} <= held
    assert {f"moola/included/{m}/{n}" for m in ("recommended", "student", "student-live") for n in ("model.pt", "model.json", "README.md")} <= held
    assert not [n for n in held if n.startswith(("tests", "nbs", "benchmarks"))]
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", tmp_path/"elsewhere", wheel, cwd="/")
    version = re.search(r"^version = (.+)$", (root/"settings.ini").read_text(), re.M)[1]
    assert run(sys.executable, "-I", "-W", "ignore", "-c", IMPORT_ALL, tmp_path/"elsewhere", cwd="/").split()[-1] == version
    assert int(run(sys.executable, "-I", "-W", "ignore", "-c", PREDICT, tmp_path/"elsewhere", cwd="/").split()[-1]) > 0


def test_readme_is_index(checkout, run):
    "README.md is what `make readme` writes from index.ipynb."
    if not (checkout/"nbs/index.ipynb").exists(): pytest.skip("no index.ipynb yet")
    run("python", ".ci/readme.py", cwd=checkout)
    assert run("git", "status", "--porcelain", cwd=checkout) == ""


def blocks(text): return re.findall(r"^```(sh|python)\n(.*?)^```", text, re.M | re.S)


ARTIFACTS = """epoch_metrics.csv loss_components.csv uncertainty_params.csv probability_stats.csv feature_stats.csv gradient_stats.csv
best_model.pt last.pt metadata.json predictions.parquet train.ipynb report.html""".split()


def test_readme_runs(root, run, tmp_path):
    "Every block of the README runs as written, one after the other, in an empty folder; what `make` does is run by `.ci/run`."
    script = ["import subprocess"]
    for language, block in blocks((root/"README.md").read_text()):
        if block.startswith("make "):
            assert [line.split("#")[0].split() for line in block.splitlines()] == [["make", "train"], ["make", "test"]]
        elif language == "python": script.append(block)
        else: script.append(f"subprocess.run(['bash', '-euo', 'pipefail', '-c', {block!r}], check=True)")
    (tmp_path/"readme").mkdir()
    (tmp_path/"readme.py").write_text("\n".join(script))
    run("python", "-W", "error::UserWarning", tmp_path/"readme.py", cwd=tmp_path/"readme")
    made = tmp_path/"readme"
    assert len((made/"spans.csv").read_text().splitlines()) > 5
    assert [f for f in ARTIFACTS if not (made/"artifacts/position_encoding"/f).exists()] == []
    assert {p.name for p in made.iterdir()} == {"sample", "artifacts", "spans.csv"}
    assert (made/"artifacts/first/best_model.pt").exists()


def test_readme_names_commands_that_exist(root, run):
    "Each command of the README is installed and has a help, and none is missing from it."
    text = (root/"README.md").read_text()
    listed = re.search(r"^console_scripts = (.*)$", (root/"settings.ini").read_text(), re.M)[1].split()
    assert {c.split("=")[0] for c in listed} == set(re.findall(r"`(moola_\w+)", text))
    for target in re.findall(r"`?(make \w+[^`#\n]*)", text): run("make", "--dry-run", *target.split()[1:], cwd=root)


def test_makefile_says_what_is_wrong(checkout, run):
    "A Python that is missing ends the command with one sentence."
    out = run("make", "train", "PYTHON=no-such-python", cwd=checkout, code=2)
    assert "moola needs Python 3.11 or newer, and 'no-such-python' is missing" in out


def test_promises_are_kept_by_tests_that_exist(root):
    "Every test that the page of promises names is in the file that its link leads to, and every promise names one."
    text = "\n".join("".join(c["source"]) for c in json.loads((root/"nbs/promises.ipynb").read_text())["cells"] if c["cell_type"] == "markdown")
    promises = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    named = [re.findall(r"\[`(test_\w+)`\]\(https://github.com/moola/moola/blob/main/(tests/\w+\.py)\)", line) for line in promises]
    assert len(promises) > 20 and all(named)
    for test, file in {o for names in named for o in names}:
        assert re.search(rf"^def {test}\(", (root/file).read_text(), re.M), f"{file} has no {test}"
