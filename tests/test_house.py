"The rules of the house: which way imports run, how long files and pages are, and that public names are shown at work."
import ast
import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
WINGS = "core data models metrics training transfer detection views labels evaluation release pod scale".split()
EXPORT, HIDE = re.compile(r"^#\|\s*exporti?\b", re.M), re.compile(r"^#\|\s*hide\b", re.M)


@cache
def modules():
    return {p.relative_to(ROOT/"moola").as_posix(): ast.parse(p.read_text())
            for p in sorted((ROOT/"moola").rglob("*.py")) if p.name not in ("__init__.py", "_modidx.py")}


@cache
def pages():
    return {p.relative_to(ROOT/"nbs").as_posix(): json.loads(p.read_text())["cells"] for p in sorted((ROOT/"nbs").rglob("*.ipynb"))
            if ".ipynb_checkpoints" not in p.parts}


def source(cell): return "".join(cell["source"])


def imports(name, tree, deep=True):
    "The package's modules that a module imports, by file; with `deep` inside functions too."
    for node in ast.walk(tree) if deep else tree.body:
        if not isinstance(node, ast.ImportFrom) or (node.level == 0 and not (node.module or "").startswith("moola.")): continue
        base = node.module.split(".")[1:] if node.level == 0 else [*name.split("/")[:-1][:len(name.split("/"))-node.level], *(node.module or "").split(".")]
        path = "/".join(filter(None, base))
        if (ROOT/"moola"/f"{path}.py").exists(): yield f"{path}.py"
        for a in node.names:
            if (ROOT/"moola"/path/f"{a.name}.py").exists(): yield f"{path}/{a.name}.py"


@cache
def arrows(deep=False): return {name: set(imports(name, tree, deep)) - {name} for name, tree in modules().items()}


def test_imports_run_one_way():
    "From the wings below to those above in the list, also inside functions; only a command may open what it needs."
    rank = {w: i for i, w in enumerate(WINGS)}
    wing = lambda name: name.split("/")[0]
    assert {wing(name) for name in modules()} == set(WINGS)
    tops, all_ = arrows(), arrows(deep=True)
    back = [f"{a} -> {b}" for a, many in all_.items() for b in (tops[a] if a.endswith("command.py") else many) if rank[wing(b)] > rank[wing(a)]]
    assert back == []


def test_no_circle_and_few_floors():
    "Every file stands above what it imports, and every wing above the wings it imports from: at most eight floors."
    down, done = arrows(), {}

    def floor(name, path=()):
        assert name not in path, f"a circle: {' -> '.join((*path, name))}"
        if name not in done: done[name] = 1 + max((floor(b, (*path, name)) for b in down[name]), default=0)
        return done[name]

    for name in down: floor(name)
    wings = defaultdict(set)
    for a, many in down.items(): wings[a.split("/")[0]] |= {b.split("/")[0] for b in many} - {a.split("/")[0]}

    @cache
    def level(w): return 1 + max((level(o) for o in wings[w]), default=0)

    assert max(map(level, WINGS)) <= 8


def test_pages_import_what_comes_before():
    "Within a wing, a page imports from pages of smaller numbers."
    number = {}
    for name, cells in pages().items():
        exports = [m[1] for c in cells for m in [re.match(r"#\|\s*default_exp ([\w.]+)", source(c))] if m]
        if exports: number[exports[0].replace(".", "/")+".py"] = Path(name).name[:2]
    up = [f"{a} ({number[a]}) -> {b} ({number[b]})" for a, many in arrows().items() for b in many
          if a.split("/")[0] == b.split("/")[0] and number[b] > number[a]]
    assert up == []


def test_pages_are_numbered():
    "The pages of a wing are numbered in reading order: one after the other, no number twice."
    for wing in WINGS:
        numbers = sorted(int(Path(name).name[:2]) for name in pages() if name.startswith(f"{wing}/"))
        assert numbers == list(range(numbers[0], numbers[0]+len(numbers))) and numbers[0] < 2, f"{wing} has pages {numbers}"


def test_files_are_short():
    lines = {name: len((ROOT/"moola"/name).read_text().splitlines()) for name in modules()}
    assert {n: k for n, k in lines.items() if k > 350} == {}


def words(cells): return sum(len(re.sub(r"```.*?```", "", source(c), flags=re.S).split()) for c in cells if c["cell_type"] == "markdown")


def test_pages_are_short():
    counted = {name: words(cells) for name, cells in pages().items() if not name.startswith("commands/")}  # tables of options
    assert {n: k for n, k in counted.items() if k > 1000} == {}


def exported(cells):
    for c in cells:
        text = source(c)
        if c["cell_type"] == "code" and EXPORT.search(text): yield text


def test_a_cell_holds_one_idea():
    "Lines of exported code in a cell, imports left out: the median over the whole house is at most ten."
    lengths = []
    for cells in pages().values():
        for text in exported(cells):
            lines = [x for x in text.splitlines() if x.strip() and not x.startswith("#|")]
            if not all(re.match(r"from |import |\s|\)", x) for x in lines): lengths.append(len(lines))
    assert median(lengths) <= 10


def named(tree): return {x.id for x in ast.walk(tree) if isinstance(x, ast.Name)} | {x.attr for x in ast.walk(tree) if isinstance(x, ast.Attribute)}


def parsed(text):
    try: return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", text, flags=re.M))
    except SyntaxError: return ast.parse("")


def public_names():
    "Every public name that a page exports, and whether a reader sees it at work: in code that is shown, or as what such a function returns."
    shown, returned, names = set(), {}, []
    for page, cells in pages().items():
        for c in cells:
            if c["cell_type"] == "code" and not EXPORT.search(source(c)) and not HIDE.search(source(c)): shown |= named(parsed(source(c)))
        for text in exported(cells):
            for node in ast.parse(text).body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    if any("patch" in named(d) for d in node.decorator_list): continue
                    names.append((page, node.name))
                    if isinstance(node, ast.FunctionDef) and node.returns: returned[node.name] = set(re.findall(r"\w+", ast.unparse(node.returns)))
                elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    names += [(page, x.id) for t in targets for x in ast.walk(t) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)]
    shown |= set().union(*(r for f, r in returned.items() if f in shown))
    return {(page, n): n in shown for page, n in names if not n.startswith("_")}


def test_public_names_are_shown():
    "A reader sees every public name at work on some page; what isn't worth showing starts with an underscore."
    needs_a_pod = {("pod/06_connection.ipynb", "transfer")}  # tests/test_pod.py has one
    assert {k for k, seen in public_names().items() if not seen} == needs_a_pod


def test_signatures_hold_no_link():
    "nbdev makes a link of a backticked public name, also in a signature's comments, where it shows as bare Markdown."
    names = {n for _, n in public_names() if not n.isupper()}  # constants have no page of their own
    found = [f"{page}: {line.strip()}" for page, cells in pages().items() for text in exported(cells) for line in text.splitlines()
             if names & set(re.findall(r"`(\w+)`", line.partition(" # ")[2])) and re.match(r"    \w+:|\)", line)]
    assert found == []


def inner_imports(tree):
    "Imports inside functions."
    return sum(isinstance(x, (ast.Import, ast.ImportFrom)) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for x in f.body
               ) + sum(isinstance(x, (ast.Import, ast.ImportFrom)) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef))
                       for b in f.body if not isinstance(b, (ast.Import, ast.ImportFrom, ast.FunctionDef)) for x in ast.walk(b))


def test_imports_stand_at_the_top():
    "One inside a function needs a reason, a heavy library on a light path; their number can't rise."
    assert sum(map(inner_imports, modules().values())) <= 114   # some since commands open a cluster, or pretrain, when they are run
