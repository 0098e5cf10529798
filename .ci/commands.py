"""Write nbs/commands/: a page for every console script of settings.ini, with what it is for, an example with what it prints, and every option.

The options come from the parsers themselves, the printed lines from a run of each example in a folder with the sample. `--check` names the pages whose
options are no longer those of the code, and writes nothing. The names of commands write only those."""
import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

from nbdev.clean import nbdev_clean

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT/"nbs"/"commands"

# What --help has no room for, and lines to try in the folder that `moola_sample sample` has filled. A command that is not here shows its help.
ABOUT = {
    "moola_sample": ("It needs no data, so it comes first. All prices are simulated with fixed seeds, so everybody gets the same files.", ["moola_sample sample"]),
    "moola_train": ("The run's folder holds the weights, the tables of every epoch and the executed notebook, and is complete after each epoch. "
                    "Without `--data` it trains on simulated windows.",
                    ["moola_train --data sample/windows.parquet --epochs 60 --output artifacts/first"]),
    "moola_evaluate": ("A single test set of 26 windows gives wide intervals; cross-validation scores every window outside the lock-box. The page that it writes holds the "
                       "scores, the baselines and the differences to them, each with its interval.\n\n"
                       "Markets are watched bar by bar, where most alarms are false. With `--bars` and `--labels` finished models are scored there, and the command says what is "
                       "left of the move after an alarm, beside random times and a plain rule. It is a measurement, not a backtest: no costs, no sizes.",
                       ["moola_evaluate --folds 3 --seeds 2 --progress false"]),
    "moola_predict": ("Without `--model` it takes the project's model in production, or `student`, which comes with moola and has seen simulated bars only.",
                      ["moola_predict sample/bars.csv --min-move-atr 2 --out spans.csv"]),
    "moola_report": ("One page that opens in any browser, and travels as one file.", ["moola_report artifacts/first"]),
    "moola_export": ("The file needs onnxruntime and the features, nothing else of moola.", ["moola_export artifacts/first model.onnx"]),
    "moola_promote": ("The model that `moola_predict` takes by default is the promoted one. `--check` only goes through the list.",
                      ["moola_promote artifacts/first --check"]),
    "moola_pod": ("The parameters of a run are those of [moola_train](moola_train.ipynb). The lines below are from [the tutorial](../tutorials/pod.ipynb).", []),
    "moola_follow": ("Half of the first words about expansions come within four bars of their start, some later. With a model that reads windows `--patience` chooses between early and sure.",
                     ["moola_follow sample/bars.csv --once --events new --min-move-atr 4"]),
    "moola_label": ("Labels are saved after every change. It goes on until Ctrl-C; here it is stopped at once.",
                    ["moola_label sample/bars.csv --labels labels.parquet --no-browser"]),
    "moola_distil": ("A small convolution learns what one or several networks answer on unlabelled bars, and then reads a long series far faster than they do.",
                     ["moola_distil --bars sample/bars.csv --epochs 2 --output artifacts/student"]),
    "moola_scan": ("It needs the extra `moola[cluster]`. Started again it reads only what is new or has changed. `--cluster ssh` gives the work to "
                   "[pods](../scale/02_pods.ipynb), to which it sends the files.",
                   ["mkdir bars", "cp sample/bars.csv bars/ES.csv", "cp sample/windows.parquet bars/notes.parquet", "moola_scan bars --out scanned --workers 1",
                    "moola_scan bars --out scanned --workers 1"]),
    "moola_sweep": ("It needs the extra `moola[cluster]`. The file names what is varied and what all runs share; [its fields](../scale/04_grid.ipynb) hold ranges to search, too. "
                    "Started again it trains only what is missing. `--cluster ssh` trains on [pods](../scale/02_pods.ipynb).",
                    [("grid.yaml", "data: sample/windows.parquet\nepochs: 20\npastes: 0\nbase: {hidden: 16}\ngrid:\n  lr: [0.001, 0.01]\n  hidden: [8, 16]\nseeds: 2\n"),
                     "moola_sweep grid.yaml --workers 2", "moola_sweep grid.yaml --workers 2"]),
    "moola_pretrain": ("[What it brings](../transfer/03_pretrain.ipynb) has been measured.",
                       ["moola_pretrain sample/bars.csv --objective masked --epochs 3 --steps 30 --hidden 16 --progress false",
                        "moola_train --data sample/windows.parquet --init artifacts/pretrained --freeze-epochs 5 --epochs 30 --hidden 16 --output artifacts/started"]),
}
FAILS = {"moola_promote", "moola_scan"}  # their examples end with a code that isn't zero, as they should
SERVES = {"moola_label"}   # goes on until it is stopped
OWN = ("positional arguments", "options")
SHOWN = {"moola_pod": ("tutorials/pod.ipynb", "!moola_pod check")}


def scripts():
    "The console scripts: name -> module:function."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT/"settings.ini", encoding="utf-8")
    return dict(s.split("=") for s in config["DEFAULT"]["console_scripts"].split())


class Caught(BaseException):
    "A parser, on its way out of its command."


def parser_of(entry):
    "The parser that a command makes, without running the command."
    module, function = entry.split(":")
    def catch(self, *args, **kwargs): raise Caught(self)
    with patch.object(argparse.ArgumentParser, "parse_args", catch):
        try: getattr(import_module(module), function)([])
        except Caught as e: return e.args[0]


def subcommands(parser): return next((a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)), {})


def own_options(parser):
    own = [a for g in parser._action_groups if g.title in OWN for a in g._group_actions]
    return [a for a in own if a.dest != "help" and not isinstance(a, argparse._SubParsersAction)]


def parts(parser):
    "Titles, words and options: the command's own, or those of each subcommand, then groups that others share."
    subs = subcommands(parser) or {parser.prog: parser}
    out, shared = [], {}
    for name, p in subs.items():
        p.format_help()  # puts the groups in order
        many = p is not parser
        out.append((f"{parser.prog} {name}" if many else "", p.description if many else "", own_options(p)))
        for g in p._action_groups:
            if g.title not in OWN: shared.setdefault(g.title, ([], g))[0].append(name)
    return out + [(title.capitalize(), f"{g.description or ''}{f' Options of {chr(44).join(names)}.'.replace(',', ', ') if len(subs) > 1 else ''}".strip(), g._group_actions)
                  for title, (names, g) in shared.items()]


def option_row(a):
    "An option, its value, its default and its meaning, as cells of a Markdown table."
    text = (a.help or "").replace("%(default)s", str(a.default)).replace("%%", "%")
    text, default = re.fullmatch(r"(.*?)(?: \(default: (.*)\))?", text, re.S).groups()
    value = "" if a.nargs == 0 else str(a.metavar or "")
    name = f"`{a.option_strings[-1]}`" if a.option_strings else f"`{value}`"
    words = [name, ", ".join(value.split("|")) if a.option_strings else "", default or ("required" if a.required and a.option_strings else ""), text]
    return "| " + " | ".join(w.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*") for w in words) + " |"


def tables(parser):
    "Every option, in Markdown."
    out = ["## Options"]
    for title, words, actions in parts(parser):
        rows = [option_row(a) for a in actions if a.help != argparse.SUPPRESS]
        if title: out.append(f"### {title}")
        if words: out.append(words)
        if rows: out.append("\n".join(["| option | value | default | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(out)


def source_page(entry):
    "The notebook that a command's module comes from, seen from its page."
    text = Path(import_module(entry.split(":")[0]).__file__).read_text()
    return "../" + re.search(r"File to edit: (?:\.\./)+nbs/(\S+\.ipynb)", text)[1]


def printed(line, folder, name):
    "What a command prints, without what hangs on the machine."
    env = os.environ | {"COLUMNS": "110", "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(shlex.split(line), cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        text = ""
        for row in program.stdout:
            text += row
            if name in SERVES and "Ctrl-C" in row: program.send_signal(signal.SIGINT)
    if program.returncode and name not in FAILS | SERVES: sys.exit(f"{line} ended with {program.returncode}: {text}")
    return shortened(text.replace(f"{Path(folder).resolve()}/", "").replace(f"{folder}/", ""))


def shortened(text):
    "Printed lines, without the middle of many, and without what differs from one time to the next."
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines(keepends=True)
    text = "".join(lines if len(lines) <= 24 else [*lines[:10], "...\n", *lines[-10:]])
    for this, that in {r"token=\S+": "token=…", r"(http://127\.0\.0\.1):\d+": r"\1:PORT", r", [\d.]+ s \([\d,]+ bars/s\)": ""}.items(): text = re.sub(this, that, text)
    return text


def cell(kind, source, **more): return {"cell_type": kind, "metadata": {}, "source": source.splitlines(keepends=True), **more}


def code(source, text):
    outputs = [{"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}] if text else []
    return cell("code", source, execution_count=None, outputs=outputs)


def example(line, folder, name):
    "A cell with a line and what it prints, or with a file, given by name and text, that the next line reads."
    if isinstance(line, str): return code(f"#| eval: false\n!{line}", printed(line, folder, name))
    (Path(folder)/line[0]).write_text(line[1])
    return code(f"#| eval: false\n%%writefile {line[0]}\n{line[1].rstrip()}", "")


def from_page(page, start):
    "The first cell of another page that runs a command, with its stored output."
    cells = json.loads((ROOT/"nbs"/page).read_text())["cells"]
    return next(c for c in cells if c["cell_type"] == "code" and "".join(c["source"]).split("\n", 1)[-1].startswith(start))


def page(name, entry, folder):
    "The page of a command as a notebook."
    parser = parser_of(entry)
    words, lines = ABOUT.get(name, ("", [f"{name} --help"]))
    cells = [cell("markdown", f"# {name}\n\n> {parser.description.rstrip('.')}"),
             cell("markdown", f"{words} [Its page in the reference]({source_page(entry)}) shows how it works.".strip()),
             cell("markdown", "## Example")]
    if name in SHOWN: cells.append(from_page(*SHOWN[name]))
    cells += [example(line, folder, name) for line in lines]
    cells.append(cell("markdown", tables(parser)))
    for i, c in enumerate(cells): c["id"] = f"{name.removeprefix('moola_')}{i}"
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def stale(name, entry):
    "Does a page lack an option, its default or its meaning as the code has it, or the way to the page of its module?"
    path = PAGES/f"{name}.ipynb"
    if not path.exists(): return True
    cells = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"]]
    return cells[-1] != tables(parser_of(entry)) or f"({source_page(entry)})" not in cells[1]


def main(*argv):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what runs in the background ignore Ctrl-C, and so would the commands
    every = scripts()
    if argv == ("--check",):
        if old := [n for n, e in every.items() if stale(n, e)]: sys.exit(f"no longer as the code has it: {', '.join(old)}; python .ci/commands.py writes them")
        return
    PAGES.mkdir(exist_ok=True)
    for gone in {p.stem for p in PAGES.glob("*.ipynb")} - set(every): (PAGES/f"{gone}.ipynb").unlink()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder)/"settings.ini").touch()  # a project of its own
        run = any("artifacts/first" in str(ABOUT.get(n)) for n in argv)
        for before in ("moola_sample", *["moola_train"]*run):  # which the others read
            if argv and before not in argv: printed(ABOUT[before][1][0], folder, before)
        for name, entry in every.items():
            if argv and name not in argv: continue
            (PAGES/f"{name}.ipynb").write_text(json.dumps(page(name, entry, folder), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"Wrote nbs/commands/{name}.ipynb")
    nbdev_clean(fname=str(PAGES))


if __name__ == "__main__": main(*sys.argv[1:])
