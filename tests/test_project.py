"What a change must keep: clean notebooks, exported code, a wheel that works anywhere, commands that do what the README says."
import re
import shlex
import sys
import zipfile

import pytest


def test_hooks_change_nothing(checkout, run):
    "`nbdev_clean` and `nbdev_export` leave the project as it is, and ruff finds nothing: the same hooks as at a commit."
    run("pre-commit", "run", "--all-files", "--show-diff-on-failure", cwd=checkout)
    assert run("git", "status", "--porcelain", cwd=checkout) == ""


def test_hooks_clean_what_is_dirty(checkout, run):
    "A page that was run by hand, and code that was not exported, are put right and reported."
    page, module = checkout/"nbs/00_errors.ipynb", checkout/"moola/errors.py"
    clean, exported = page.read_text(), module.read_text()
    page.write_text(clean.replace('"execution_count": null', '"execution_count": 7'))
    module.unlink()
    run("pre-commit", "run", "--all-files", cwd=checkout, code=1)
    assert (page.read_text(), module.read_text()) == (clean, exported)


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
from moola.bars import simulate_bars
from moola.predict import Detector, scan
from moola.production import default_model
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
    assert {f"moola/production/{p.name}" for p in checkout.glob("artifacts/production/*")} <= held
    assert not [n for n in held if n.startswith(("tests", "nbs", "benchmarks"))]
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", tmp_path/"elsewhere", wheel, cwd="/")
    version = re.search(r"^version = (.+)$", (root/"settings.ini").read_text(), re.M)[1]
    assert run(sys.executable, "-I", "-W", "ignore", "-c", IMPORT_ALL, tmp_path/"elsewhere", cwd="/").split()[-1] == version
    assert int(run(sys.executable, "-I", "-W", "ignore", "-c", PREDICT, tmp_path/"elsewhere", cwd="/").split()[-1]) > 0


ARTIFACTS = """epoch_metrics.csv loss_components.csv uncertainty_params.csv probability_stats.csv feature_stats.csv gradient_stats.csv
best_model.pt last.pt metadata.json predictions.parquet train.ipynb""".split()


def test_train_notebook(root, run, tmp_path):
    "papermill runs the training notebook from any folder, and the run folder holds all that it should."
    notebook, out = root/"nbs/train.ipynb", tmp_path/"tiny"
    if not notebook.exists(): pytest.skip("no train.ipynb yet")
    out.mkdir()
    log = run("papermill", notebook, out/"train.ipynb", "-p", "epochs", "2", "-p", "n_windows", "24", "-p", "output", out,
              "-p", "device", "cpu", "--log-output", cwd=tmp_path)
    assert "Epoch 2/2: train_loss=" in log
    assert [f for f in ARTIFACTS if not (out/f).exists()] == []
    assert len((out/"epoch_metrics.csv").read_text().splitlines()) == 3


def test_readme_is_index(checkout, run):
    "README.md is what `make readme` writes from index.ipynb."
    if not (checkout/"nbs/index.ipynb").exists(): pytest.skip("no index.ipynb yet")
    run("python", ".ci/readme.py", cwd=checkout)
    assert run("git", "status", "--porcelain", cwd=checkout) == ""


def readme_commands(text):
    "The shell lines of the README's fenced blocks, comments and prompts taken off."
    for block in re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line.removeprefix("$ "), comments=True): yield words


def test_readme_commands(root, run):
    "The README names the two commands, and each line of shell in it names targets, options and parameters that exist."
    commands = list(readme_commands((root/"README.md").read_text()))
    if not commands: pytest.skip("no commands in the README yet")
    assert ["make", "train"] in commands
    assert ["make", "test"] in commands
    for words in commands:
        if words[0] == "make": run("make", "--dry-run", *words[1:], cwd=root)
        if words[0].startswith("moola_"):
            known = run(words[0], "--help", cwd=root)
            assert [w for w in words if w.startswith("--") and w.split("=")[0] not in known] == []
        if words[0] == "papermill":
            known = run("papermill", "--help-notebook", words[1], cwd=root)
            names = [words[i+1] for i, w in enumerate(words) if w in ("-p", "-r", "--parameters")]
            assert [n for n in names if not re.search(rf"^\s*{n}:", known, re.M)] == []


def test_makefile_says_what_is_wrong(checkout, run):
    "A Python that is missing ends the command with one sentence."
    out = run("make", "train", "PYTHON=no-such-python", cwd=checkout, code=2)
    assert "moola needs Python 3.11 or newer, and 'no-such-python' is missing" in out
