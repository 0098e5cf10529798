"What looks at runs, as its users run it: the papermill notebooks, the guide's own snippets, and the report."
import contextlib
import json
import os
import re
import shutil
import sys
import warnings
from pathlib import Path

import matplotlib
import nbformat
import pytest
from bs4 import BeautifulSoup
from papermill import execute_notebook

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.training.fit import fit
from moola.training.run import TABLES, Run, find_run, find_runs, finished_runs
from moola.views.command import moola_report

matplotlib.use("agg")

PICTURES = dict(convergence={"convergence", "training"}, separation={"separation", "thresholds", "reliability", "window_types"},
                compare={"compare", "compare_scores", "compare_differences"}, gallery={"gallery"})


def tiny(folder, variant): return fit(make_config(variant, n_windows=40, epochs=3, device="cpu", progress=False, output=str(folder)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "Two small finished runs, in a project of their own."
    project = tmp_path_factory.mktemp("project")
    (project/"settings.ini").touch()
    return [tiny(project/"artifacts"/v, v) for v in ("baseline_100ep", "stones_only")]


@pytest.fixture
def folder(runs, tmp_path):
    "A copy of the first run, to be spoiled."
    return Path(shutil.copytree(runs[0].folder, tmp_path/"artifacts"/"spoiled", ignore=shutil.ignore_patterns("*.png")))


@pytest.fixture(scope="module")
def execute(root, tmp_path_factory):
    "Run the cells of an analysis notebook in this process, with parameters as papermill sets them; what they print comes back."
    def _execute(name, cwd, **params):
        import io

        from IPython.core.interactiveshell import InteractiveShell
        shell, out = InteractiveShell(), io.StringIO()
        shell.enable_gui = lambda gui=None: None   # %matplotlib inline asks for it; there is no window here
        notebook = nbformat.read(root/f"nbs/analysis/{name}.ipynb", 4)
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            for cell in notebook.cells:
                if cell.cell_type != "code": continue
                shell.run_cell(cell.source).raise_error()
                if "parameters" in cell.metadata.get("tags", []): shell.user_ns.update(params)
        return out.getvalue()
    return _execute


def said_by(command, *args):
    "The sentence that a command ends with."
    with pytest.raises(SystemExit) as e: command([str(a) for a in args])
    assert isinstance(e.value.code, str) and "\n" not in e.value.code
    return e.value.code


@pytest.mark.parametrize("name", PICTURES)
def test_notebooks_under_papermill(name, runs, root, tmp_path):
    """Without a folder, from anywhere in the project, each notebook takes what is finished below artifacts/; it shows its pictures, and writes them
    beside the run."""
    folder, inside = runs[0 if name == "compare" else 1].folder, runs[0].folder.parents[1]/"nbs"
    inside.mkdir(exist_ok=True)
    assert find_run(runs[1].folder).folder == runs[1].folder
    with contextlib.chdir(inside):
        assert find_run().folder.name == find_run("artifacts/stones_only").folder.name == "stones_only"
        assert [r.folder.name for r in find_runs()] == ["baseline_100ep", "stones_only"]
    before = {p.name for p in folder.glob("*.png")}
    done = execute_notebook(root/f"nbs/analysis/{name}.ipynb", None, cwd=inside, progress_bar=False)
    assert {p.name for p in folder.glob("*.png")} - before == {f"{p}.png" for p in PICTURES[name]}
    outputs = [o for c in done.cells for o in c.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == len(PICTURES[name])
    assert not [o for o in outputs if o.output_type == "error"]


def test_papermill_says_what_is_missing(folder, root, run, tmp_path):
    "An incomplete folder ends papermill with one sentence that names what is missing, and a non-zero exit."
    (folder/"gradient_stats.csv").unlink()
    out = run("papermill", root/"nbs/analysis/convergence.ipynb", tmp_path/"out.ipynb", "-p", "run", folder, cwd=tmp_path, code=1)
    assert [line for line in out.splitlines() if line.startswith("MoolaError: ")] == [
        f"MoolaError: {folder} lacks gradient_stats.csv: the run is finished, so that was lost later"]


@pytest.mark.parametrize("newest", [0, 1])
def test_runs_that_end_in_the_same_second(newest, runs, tmp_path):
    for i, r in enumerate(runs):
        copy = Path(shutil.copytree(r.folder, tmp_path/r.folder.name))/"metadata.json"
        copy.write_text(json.dumps(json.loads(copy.read_text()) | {"ended": "2024-01-01T00:00:00+00:00"}))
        os.utime(copy, ns=(10, 10 + (i == newest)))
    assert finished_runs(tmp_path)[0].folder.name == runs[newest].folder.name


MISSING = dict(convergence=TABLES, separation=["probability_stats.csv", "predictions.parquet"], compare=["epoch_metrics.csv", "predictions.parquet"],
               gallery=["test_predictions.parquet"])


@pytest.mark.parametrize("name", MISSING)
def test_incomplete_folders(name, folder, execute, tmp_path):
    "All that is missing is named in one sentence, with how far the run came; so are a folder without a run, and none at all."
    key = "runs" if name == "compare" else "run"
    def said(**params):
        with pytest.raises(MoolaError) as e: execute(name, tmp_path, **params)
        return str(e.value)
    metadata = json.loads((folder/"metadata.json").read_text())
    (folder/"metadata.json").write_text(json.dumps(metadata | dict(status="running", epochs_done=2)))
    for f in MISSING[name]: (folder/f).unlink()
    names = " and ".join([", ".join(MISSING[name][:-1]), MISSING[name][-1]] if len(MISSING[name]) > 1 else MISSING[name])
    after = 0 if "epoch_metrics.csv" in MISSING[name] else 3
    assert said(**{key: str(folder)}) == f"{folder} lacks {names}: the run is stopped after {after} of 3 epochs; --resume goes on"
    (folder/"metadata.json").unlink()
    assert said(**{key: str(folder)}) == f"{folder} holds no run: there is no metadata.json"
    assert said(**{key: "elsewhere"}) == "there is no folder elsewhere: name the folder of a run"
    (tmp_path/"settings.ini").touch()
    assert said().startswith("there is no finished run below artifacts/: train one with moola_train")
    wrong = key[:-1]
    assert said(**{wrong: "a"}) == f"unknown parameter {wrong!r}: did you mean {key!r}?"


def test_a_run_that_goes_on(folder, execute, tmp_path):
    "The convergence page shows a run that has not ended, or was killed in the middle of a line."
    metadata = json.loads((folder/"metadata.json").read_text())
    kept = {k: v for k, v in metadata.items() if k not in ("scores", "words", "criteria", "timings", "ended")}
    (folder/"metadata.json").write_text(json.dumps(kept | dict(status="running", epochs_done=0, best=None)))
    (folder/"predictions.parquet").unlink()
    with (folder/"epoch_metrics.csv").open("a") as f: f.write("4,1.23,")
    assert "Gradient norms from" in execute("convergence", tmp_path, run=str(folder))
    assert (folder/"convergence.png").exists()


def test_moved_windows(folder, execute, tmp_path):
    "Where the labelled windows are not at hand, the gallery says so, and the separation page goes on without them."
    metadata = json.loads((folder/"metadata.json").read_text())
    metadata["config"]["data"] = "/elsewhere/train_latest.parquet"
    (folder/"metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(MoolaError, match="the run's windows are not at /elsewhere/train_latest.parquet: name the file as data"):
        execute("gallery", tmp_path, run=str(folder))
    assert "No comparison of window types: the run's windows are not at" in execute("separation", tmp_path, run=str(folder))
    assert (folder/"reliability.png").exists() and not (folder/"window_types.png").exists()
    metadata["config"] |= dict(data="", data_seed=5)
    (folder/"metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(MoolaError, match="holds other windows than"): execute("gallery", tmp_path, run=str(folder))


def test_other_windows_are_not_paired(runs, folder, execute, tmp_path):
    "Runs on other windows stand side by side, but nothing is paired."
    metadata = json.loads((folder/"metadata.json").read_text())
    metadata["data"]["sha256"] = "0"*64
    (folder/"metadata.json").write_text(json.dumps(metadata))
    said = execute("compare", tmp_path, runs=[str(folder), str(runs[1].folder)])
    assert "No two runs share the windows of spoiled" in said
    assert (folder/"compare.png").exists() and not (folder/"compare_differences.png").exists()


# The deployment guide's own snippets, word for word but for the name of the run.
GUIDE = ["""
import pandas as pd
import matplotlib.pyplot as plt

# Load metrics
epoch_df = pd.read_csv("artifacts/position_encoding_v1/epoch_metrics.csv")
prob_df = pd.read_csv("artifacts/position_encoding_v1/probability_stats.csv")

# Check convergence
print(f"Final Span F1: {epoch_df['span_f1'].iloc[-1]:.4f}")
print(f"Best F1: {epoch_df['span_f1'].max():.4f} @ epoch {epoch_df['span_f1'].idxmax()}")

# Check probability separation
val_prob = prob_df[prob_df["phase"] == "val"]
print(f"Final separation: {val_prob['separation'].iloc[-1]:.4f}")

# Plot convergence
plt.figure(figsize=(12, 5))
plt.subplot(1, 2, 1)
plt.plot(epoch_df['epoch'], epoch_df['train_loss'], label='Train')
plt.plot(epoch_df['epoch'], epoch_df['val_loss'], label='Val')
plt.legend()
plt.xlabel('Epoch')
plt.ylabel('Loss')
plt.title('Loss Convergence')

plt.subplot(1, 2, 2)
plt.plot(epoch_df['epoch'], epoch_df['span_f1'])
plt.xlabel('Epoch')
plt.ylabel('Span F1')
plt.title('F1 Evolution')
plt.tight_layout()
plt.savefig('position_encoding_convergence.png')
""", """
import pandas as pd

epoch_df = pd.read_csv("artifacts/stones_only/epoch_metrics.csv")
prob_df = pd.read_csv("artifacts/stones_only/probability_stats.csv")

print(f"Final Span F1: {epoch_df['span_f1'].iloc[-1]:.4f}")
print(f"Final Val Loss: {epoch_df['val_loss'].iloc[-1]:.4f}")

val_prob = prob_df[prob_df["phase"] == "val"]
print(f"Final separation: {val_prob['separation'].iloc[-1]:.4f}")
""", """
import pandas as pd
import matplotlib.pyplot as plt

# Load data
epoch_df = pd.read_csv("artifacts/baseline_100ep/epoch_metrics.csv")
loss_df = pd.read_csv("artifacts/baseline_100ep/loss_components.csv")
prob_df = pd.read_csv("artifacts/baseline_100ep/probability_stats.csv")

# Convergence check
plt.figure(figsize=(15, 5))

plt.subplot(1, 3, 1)
plt.plot(epoch_df['epoch'], epoch_df['train_loss'], label='Train')
plt.plot(epoch_df['epoch'], epoch_df['val_loss'], label='Val')
plt.legend()
plt.xlabel('Epoch')
plt.ylabel('Loss')
plt.title('Overall Convergence')

# Loss components
val_loss = loss_df[loss_df['phase'] == 'val']
plt.subplot(1, 3, 2)
plt.plot(val_loss['epoch'], val_loss['loss_type'], label='Type')
plt.plot(val_loss['epoch'], val_loss['loss_ptr'], label='Pointer')
plt.plot(val_loss['epoch'], val_loss['loss_span'], label='Span')
plt.plot(val_loss['epoch'], val_loss['loss_countdown'], label='Countdown')
plt.legend()
plt.xlabel('Epoch')
plt.ylabel('Loss Component')
plt.title('Loss Breakdown')

# Probability separation
val_prob = prob_df[prob_df['phase'] == 'val']
plt.subplot(1, 3, 3)
plt.plot(val_prob['epoch'], val_prob['in_span_mean'], label='In-span')
plt.plot(val_prob['epoch'], val_prob['out_span_mean'], label='Out-span')
plt.legend()
plt.xlabel('Epoch')
plt.ylabel('Mean Probability')
plt.title('Probability Distribution')

plt.tight_layout()
plt.savefig('baseline_analysis.png')
print("✓ Saved: baseline_analysis.png")

# Check for problems
print("\\nDiagnostics:")
grad_df = pd.read_csv("artifacts/baseline_100ep/gradient_stats.csv")
if grad_df['total_grad_norm'].max() > 100:
    print("⚠️ Exploding gradients detected")
if grad_df['total_grad_norm'].min() < 0.001:
    print("⚠️ Vanishing gradients detected")
"""]


@pytest.mark.parametrize("i", range(3))
def test_guide_snippets(i, runs, tmp_path, capsys):
    "The guide's snippets work unchanged on the files of a run."
    for name, r in (("position_encoding_v1", runs[0]), ("baseline_100ep", runs[0]), ("stones_only", runs[1])):
        shutil.copytree(r.folder, tmp_path/"artifacts"/name)
    with contextlib.chdir(tmp_path): exec(compile(GUIDE[i], "guide", "exec"), {})
    matplotlib.pyplot.close("all")
    said, e = capsys.readouterr().out, runs[i == 1].epochs
    if i < 2: assert f"Final Span F1: {e.span_f1.iloc[-1]:.4f}" in said
    assert {p.name for p in tmp_path.glob("*.png")} == [{"position_encoding_convergence.png"}, set(), {"baseline_analysis.png"}][i]
    if i == 2: assert "detected" not in said


def test_snippets_are_the_guides(shared):
    "They are what the guide has."
    guide = shared/"reference/deployment-guide.md"
    if not guide.exists(): pytest.skip("no guide here")
    assert re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.M | re.S) == [s.removeprefix("\n") for s in GUIDE]


def test_report(folder, run, tmp_path):
    "One page with everything in it: the scores, the sentences, the decision, the pictures, and nothing from outside."
    out = run(sys.executable, "-c", "from moola.views.command import moola_report; moola_report()", folder, cwd=tmp_path)
    assert out.strip().splitlines()[-1] == f"The page: {folder/'report.html'}"
    text = (folder/"report.html").read_text()
    page, r = BeautifulSoup(text, "html.parser"), Run(folder)
    sources = [t.get(a) for t in page.find_all(True) for a in ("src", "href", "srcset", "data") if t.get(a)]
    assert len(sources) == 8 and all(s.startswith("data:image/png;base64,") for s in sources)
    assert not page.find_all(["script", "link", "object"]) and "url(" not in text and "@import" not in text
    assert len(page.find_all("iframe")) == 1 and page.iframe["srcdoc"] and len(text) < 2_000_000
    cells = [c.text for c in page.find_all("td")]
    for part, s in r.metadata["scores"].items():
        assert f"{s['windows']} {part}" in cells
        for d in s["intervals"].values(): assert any(c.startswith(f"{d['value']:.3f} ") for c in cells)
    for sentence in r.metadata["words"]: assert sentence in page.text
    assert re.search("[Dd]eploy|Pretrain:|Investigate|Undecided", page.text)
    markdown = (folder/"report.md").read_text()
    assert all((folder/name).exists() for name in re.findall(r"!\[.*?\]\((.*?)\)", markdown)) and markdown.count("![") == 7
    for sentence in r.metadata["words"]: assert sentence in markdown
    for d in r.metadata["scores"]["test"]["intervals"].values(): assert f"{d['value']:.3f} " in markdown


def test_report_without_windows(folder, capsys):
    "The page goes without the gallery where the windows are gone, and says so."
    metadata = json.loads((folder/"metadata.json").read_text())
    metadata["config"]["data"] = "/elsewhere/train_latest.parquet"
    (folder/"metadata.json").write_text(json.dumps(metadata))
    moola_report([str(folder)])
    assert (folder/"report.html").read_text().count("data:image/png") == 5
    assert "There is no gallery and no comparison of window types: the run's windows are not at" in (folder/"report.md").read_text()


def test_report_refuses(folder, run, tmp_path):
    "Wrong input is one sentence and a non-zero exit, and nothing is written."
    command = (sys.executable, "-c", "from moola.views.command import moola_report; moola_report()")
    assert run(*command, "nowhere", cwd=tmp_path, code=1) == "moola_report: there is no folder nowhere: name the folder of a run\n"
    assert "unrecognized arguments: --rum" in run(*command, "--rum", "x", cwd=tmp_path, code=2)
    assert said_by(moola_report, tmp_path) == f"moola_report: {tmp_path} holds no run: there is no metadata.json"
    assert "the run's windows are not at no.parquet" in said_by(moola_report, folder, "--data", "no.parquet")
    (folder/"predictions.parquet").unlink()
    assert said_by(moola_report, folder).endswith("lacks predictions.parquet: the run is finished, so that was lost later")
    (folder/"metadata.json").write_text("{")
    assert "metadata.json is damaged" in said_by(moola_report, folder)
    assert not list(folder.glob("report.*"))
