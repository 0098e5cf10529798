"""Run notebooks and store what they show, then write README.md.

    python .ci/pages.py                          # every page, in the order of the wings
    python .ci/pages.py nbs/data nbs/train.ipynb # some

The pages of nbs/analysis read a run of each variant, which is trained for them. Cells marked `#| eval: false`, and other pages with `skip_exec: true` in
their front matter, keep the output they have. A page that fails is left as it was, and named at the end.
"""
import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = ("position_encoding", "stones_only", "baseline_100ep", "recommended")
STILL = re.compile(r"^#\|\s*eval:\s*false", re.M)


def pages(named):
    "The notebooks under these files and folders."
    out = [p for n in named for p in (sorted(n.rglob("*.ipynb")) if n.is_dir() else [n])]
    if missing := [p for p in out if not p.is_file()]: sys.exit(f"pages: there is no {missing[0]}")
    return [p for p in out if ".ipynb_checkpoints" not in p.parts and not p.name.startswith(("_", "."))]


def wanted(output):
    "Is this output worth storing? Progress bars and other lines on standard error are not."
    return output.get("name") != "stderr" and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def run_page(path):
    "Run a page in its folder, and store its outputs; returns what went wrong, or None."
    nb = nbformat.read(path, 4)
    if nb.cells and "skip_exec: true" in nb.cells[0].source: return None
    client = NotebookClient(nb, timeout=1800, extra_arguments=["--log-level=ERROR"], resources={"metadata": {"path": str(path.parent)}})
    try:
        with client.setup_kernel():
            for i, cell in enumerate(nb.cells):
                if cell.cell_type != "code" or STILL.search(cell.source): continue
                client.execute_cell(cell, i)
                cell.outputs = [o for o in cell.outputs if wanted(o)]
    except CellExecutionError as e: return f"{path.relative_to(ROOT)}: {str(e).strip().splitlines()[-1]}"
    nbformat.write(nb, path)


def take(path, executed):
    "Store the outputs of a page that papermill ran."
    nb = nbformat.read(path, 4)
    ran = [c for c in nbformat.read(executed, 4).cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for cell, one in zip(nb.cells, ran, strict=True):
        if cell.cell_type == "code": cell.outputs = [o for o in one.outputs if wanted(o)]
    nbformat.write(nb, path)


def analyse(paths):
    "Train a run of each variant and read them with pages of nbs/analysis."
    if not paths: return
    with tempfile.TemporaryDirectory() as folder:
        def run(*words): subprocess.run(list(map(str, words)), cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for v in VARIANTS: run("moola_train", "--variant", v, "--output", f"artifacts/{v}")
        for path in tqdm(paths, unit="page"):
            read = ("runs", ",".join(f"artifacts/{v}" for v in VARIANTS)) if path.stem == "compare" else ("run", f"artifacts/{VARIANTS[-1]}")
            run("papermill", "-k", "python3", path, path.name, "-p", *read)
            take(path, Path(folder)/path.name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, default=[ROOT/"nbs"], help="notebooks, or folders of them; default: all")
    parser.add_argument("--workers", type=int, default=1, help="pages at a time")
    o = parser.parse_args()
    todo = pages([p.resolve() for p in o.pages])
    with ThreadPoolExecutor(o.workers) as pool: failed = [w for w in tqdm(pool.map(run_page, todo), total=len(todo), unit="page") if w]
    analyse([p for p in todo if p.parent == ROOT/"nbs/analysis"])
    for command in (["nbdev_clean"], [sys.executable, ".ci/readme.py"]): subprocess.run(command, cwd=ROOT, check=True)
    if failed: sys.exit("\n".join(("These pages failed and are as they were:", *failed)))


if __name__ == "__main__": main()
