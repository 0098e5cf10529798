"Every stored figure is made by one command, and a failed benchmark changes nothing."
import re
import sys

import pytest


@pytest.fixture
def figures(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root/"benchmarks"))
    import figures
    return figures


def test_every_stored_figure_has_its_command(figures):
    stored = {p.relative_to(figures.RESULTS).with_suffix("").as_posix() for p in figures.RESULTS.rglob("*.json") if p.parent.name != "coverage"}
    assert stored | {"coverage"} == set(figures.FIGURES)


def test_commands_name_what_scripts_take(figures, root, tmp_path):
    "Scripts exist and know each option; experiments are named one by one, without those that have tables of their own."
    for name in figures.FIGURES:
        for words in figures.commands(name, tmp_path):
            script = (root/"benchmarks"/words[1]).read_text()
            for option in (w for w in words if w.startswith("--")):
                assert re.search(rf"[\"']{option}[\"']", script) or option == "--save" and "arguments(" in script or option[2:] in ("labels", "seeds"), (name, option)
    last = figures.commands("simulated-v1", tmp_path)[0]
    assert {"guide", "pasted labels", "boosting"} <= set(last) and not [w for w in last if w.startswith(("averaged", "right context", "teachers", "taught"))]


def test_one_that_fails_changes_nothing(figures, tmp_path, monkeypatch, capsys):
    "A file is replaced once its benchmark has ended well; the same commit makes it once."
    results = tmp_path/"results"
    results.mkdir()
    for n in ("good", "bad"): (results/f"{n}.json").write_text("old")
    write = tmp_path/"write.py"
    write.write_text("import sys; open(sys.argv[1], 'w').write('new'); sys.exit(int(sys.argv[2]))")
    for name, value in dict(RESULTS=results, WORK=tmp_path/"work", cuda=lambda: False, real=lambda: False, commit=lambda: "abc").items(): monkeypatch.setattr(figures, name, value)
    monkeypatch.setattr(figures, "FIGURES", {"good": (f"{{python}} {write} {{file}} 0", (figures.CPU,)), "bad": (f"{{python}} {write} {{file}} 1", (figures.CPU,)),
                                             "card": ("nothing", (figures.GPU,))})
    monkeypatch.setattr(sys, "argv", ["figures.py"])
    with pytest.raises(SystemExit, match="failed, and left as they were: bad"): figures.main()
    assert [(results/f"{n}.json").read_text() for n in ("good", "bad")] == ["new", "old"]
    assert "left as it was: card, which needs a CUDA GPU" in capsys.readouterr().out
    (results/"good.json").write_text("kept")
    with pytest.raises(SystemExit, match="bad"): figures.main()
    assert (results/"good.json").read_text() == "kept" and "made by this commit already: good" in capsys.readouterr().out
