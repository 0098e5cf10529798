"Write README.md from nbs/index.ipynb, as `nbdev_readme` does where there is Quarto."
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
import yaml
from nbconvert import MarkdownExporter
from nbdev.config import get_config
from nbdev.processors import FilterDefaults
from nbdev.serve_drv import exec_nb
from traitlets.config import Config

IMAGES = "README_files"
SHOWN = ["text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]  # of an output that comes in several forms, the first of these


def prepare(cell):
    "A code cell as a reader sees it: no directives, and no source where `echo` is false."
    options = dict(re.findall(r"^#\|\s*([\w-]+):?[ \t]*(.*)$", cell.source, re.M))
    cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip()
    if options.get("echo") == "false": cell.metadata["transient"] = {"remove_source": True}
    return options.get("include") != "false"


def main():
    cfg = get_config()
    root, nbs = cfg.config_path, cfg.nbs_path
    with tempfile.TemporaryDirectory() as tmp:
        exec_nb(nbs/cfg.readme_nb, Path(tmp)/"index.ipynb", FilterDefaults)
        nb = nbformat.read(Path(tmp)/"index.ipynb", 4)
    front = yaml.safe_load(nb.cells[0].source.strip().strip("-"))
    nb.cells = [c for c in nb.cells[1:] if c.cell_type == "markdown" or (c.cell_type == "code" and prepare(c))]

    nb.metadata["language_info"] = {"name": "python"}
    exporter = MarkdownExporter(config=Config(NbConvertBase={"display_data_priority": SHOWN}))
    body, resources = exporter.from_notebook_node(nb, {"output_files_dir": IMAGES})
    text = f"# {front['title']}\n\n> {front['description']}\n\n{body.strip()}\n"
    text = re.sub(rf"\]\((?![a-z]+:|[#/]|{IMAGES})", f"]({nbs.name}/", text)  # what is relative to the notebook
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.M))

    shutil.rmtree(root/IMAGES, ignore_errors=True)
    for name, data in resources["outputs"].items():
        (root/name).parent.mkdir(exist_ok=True)
        (root/name).write_bytes(data)
    (root/"README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__": main()
