"Every console script has its page with all its options, and a help that can be read; a file of the wrong kind is answered with the right command."
import importlib
import importlib.util
import json
import re

import pandas as pd
import pytest

from moola import simulate_bars, simulate_windows, write_windows

PLACES = r"[A-Z]+|N|X|true\|false|COMMAND|HH:MM-HH:MM|[A-Z]+=[A-Z]+,\.\.\.|[A-Z]+,[A-Z]+,\.\.\.|[\w.]+(\|[\w.]+)+"


@pytest.fixture(scope="module")
def commands(root):
    "The program that writes the pages."
    spec = importlib.util.spec_from_file_location("write_commands", root/".ci"/"commands.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def parsers(commands):
    "Every command's parser, and those of subcommands, by the command's name."
    return {name: [p, *commands.subcommands(p).values()] for name, entry in commands.scripts().items() for p in [commands.parser_of(entry)]}


def shown(parser): return [a for a in parser._actions if a.dest not in ("help", "command") and a.help != "==SUPPRESS==" or a.dest == "command" and a.option_strings]


def test_every_command_has_its_page(commands, parsers, root):
    "With each option by its name, in tables that are those of the code, and an example with what it prints."
    pages = {p.stem for p in (root/"nbs/commands").glob("*.ipynb")}
    assert pages == set(commands.scripts())
    for name in commands.scripts():
        cells = json.loads((root/f"nbs/commands/{name}.ipynb").read_text())["cells"]
        text = "\n".join("".join(c["source"]) for c in cells)
        for p in parsers[name]:
            for a in shown(p): assert f"`{(a.option_strings or [a.metavar])[-1]}`" in text, (name, a.dest)
        assert any("".join(o.get("text", "")) for c in cells for o in c.get("outputs", [])), name
    assert [n for n, e in commands.scripts().items() if commands.stale(n, e)] == []


def test_help(parsers):
    "Each option says what its value is, which choices it has and what happens without it; a command's own options come first."
    wrong = []
    for several in parsers.values():
        for p in several:
            text = p.format_help()
            titles = [g.title for g in p._action_groups if g._group_actions]
            if "training" in titles and titles[-1] != "training": wrong.append(f"{p.prog}: {titles}")
            if max(map(len, text.splitlines())) > 200: wrong.append(f"{p.prog}: a line is too long")
            for a in shown(p):
                where = f"{p.prog} {(a.option_strings or [a.metavar])[-1]}"
                if a.nargs != 0 and not re.fullmatch(PLACES, str(a.metavar or "")): wrong.append(f"{where}: its value is called {a.metavar}")
                if len(a.option_strings) > 1: wrong.append(f"{where}: two spellings")
                if a.option_strings and not re.search(r"\(default: [^)]+.*\)$|required", a.help): wrong.append(f"{where}: no default")
                if not a.help or a.help.endswith("."): wrong.append(f"{where}: {a.help!r}")
                if a.choices and not all(str(c) in a.metavar for c in a.choices): wrong.append(f"{where}: choices not shown")
    assert not wrong, "\n".join(wrong)


def test_spellings():
    "An option may be spelt as the config has it, and a switch as YAML, a shell or papermill writes it."
    from moola.core.command import config_parser
    from moola.core.config import make_config
    parser = config_parser("moola_train", "Train.")
    for word, value in {"true": True, "True": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "False": False}.items():
        given = {k: v for k, v in vars(parser.parse_args(["--mirror", word, "--batch_size=16"])).items() if v is not None}
        config = make_config(**given)
        assert (config.mirror, config.batch_size) == (value, 16)
    assert parser.parse_args(["--mirror"]).mirror is True


WRONG = """moola_train --data bars.csv: moola_predict
moola_train --data bars.parquet: moola_predict
moola_evaluate --data bars.csv: moola_predict
moola_evaluate --data bars.parquet: moola_predict
moola_label --labels bars.parquet --no-browser: moola_predict
moola_predict windows.parquet: moola_train
moola_label windows.parquet --labels new.parquet --no-browser: moola_train
moola_follow bars.parquet: moola_predict
moola_export --bars windows.parquet model.onnx: moola_train"""


@pytest.mark.parametrize("case", WRONG.splitlines())
def test_a_file_of_the_wrong_kind(case, commands, tmp_path, monkeypatch, capfd):
    "One sentence names the command that takes it, and nothing is left behind."
    simulate_bars(300, 1).to_csv(tmp_path/"bars.csv", index=False)
    pd.read_csv(tmp_path/"bars.csv", parse_dates=["timestamp"]).to_parquet(tmp_path/"bars.parquet")
    write_windows(simulate_windows(12), tmp_path/"windows.parquet")
    (tmp_path/"settings.ini").touch()
    before = sorted(p.name for p in tmp_path.rglob("*"))
    line, cure = case.rsplit(": ", 1)
    name, *words = line.split()
    module, function = commands.scripts()[name].split(":")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: getattr(importlib.import_module(module), function)(words)
    said = e.value.code
    assert cure in said and "\n" not in said and said.startswith(f"{name}: "), said
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
