"The site builds without a warning, every page is found from the sidebar, and every link ends somewhere."
import importlib.util
import json
import posixpath
import re
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup


@pytest.fixture(scope="module")
def site(built):
    "The pages of the site: file name -> parsed page."
    folder = built/"_proc"/"_docs"
    return {p.relative_to(folder).as_posix(): BeautifulSoup(p.read_text(), "html.parser") for p in folder.rglob("*.html")}


@pytest.fixture(scope="module")
def notebooks(built):
    "Page names as Quarto publishes them, such as `data/bars.html` -> the notebook below `nbs/`."
    names = {}
    for nb in (built/"_proc").rglob("*.ipynb"):
        front = "".join(json.loads(nb.read_text())["cells"][0]["source"])
        meta = next((m for m in yaml.safe_load_all(front) if isinstance(m, dict)), {}) if front.startswith("---") else {}
        here = nb.relative_to(built/"_proc")
        names[here.with_name(meta.get("output-file", here.stem + ".html")).as_posix()] = here.as_posix()
    return names


def joined(page, path): return posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(path))) if path else page


def test_site(site, built, notebooks):
    "Pages are named as Quarto names them, each is in the sidebar once, and every link to a page of the site ends there, in this copy."
    base = yaml.safe_load((built/"_quarto.yml").read_text())["website"]["site-url"].rstrip("/")
    ids = {name: {t["id"] for t in page.find_all(id=True)} for name, page in site.items()}
    assert set(notebooks) == set(site)

    unlisted, lost, leave = [], [], []
    for name, page in site.items():
        lost += [f"{name}: {t.get_text()} is a link of its own already" for t in page.select("a:has(> code)") if str(t.next_sibling or "").startswith("](")]
        listed = [joined(name, a["href"]) for a in page.select("#quarto-sidebar a.sidebar-link[href]")]
        if listed.count(name) != 1: unlisted.append(f"{name}: {listed.count(name)} times in the sidebar")
        for link in page.select("a[href], img[src]"):
            href = link.get("href", link.get("src"))
            url = urlsplit(href)
            if href.startswith(base): leave.append(f"{name}: {href} leaves this copy of the site")
            if url.scheme or url.netloc: continue
            target = joined(name, url.path)
            known = target in site or (built/"_proc"/"_docs"/target).exists()
            if not known or (url.fragment and unquote(url.fragment) not in ids[target]): lost.append(f"{name}: {href}")
    assert not unlisted + lost + leave, "\n".join(unlisted + lost + leave)


QUARTO = """<html><head>
<link href="https://cdn.jsdelivr.net/npm/katex@0.15.1/dist/katex.min.css" rel="stylesheet"/>
<script src="https://cdn.jsdelivr.net/npm/katex@0.15.1/dist/katex.min.js"></script>
<script src="https://elsewhere.example/widgets.js"></script>
</head><body>
<a href="https://moola.example/moola/data/bars.html#read">read</a> <a href="https://moola.example/moola/">start</a> <a href="https://moola.example/moolah">another</a>
</body></html>"""


def test_finish(root, tmp_path):
    "What another program has rendered is finished too: its links, mathematics and fonts; what it loads beside is named."
    spec = importlib.util.spec_from_file_location("build_site", root/".ci"/"site.py")
    build_site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_site)
    (tmp_path/"data").mkdir()
    (tmp_path/"site_libs").mkdir()
    page, css = tmp_path/"data"/"windows.html", tmp_path/"site_libs"/"theme.css"
    page.write_text(QUARTO)
    css.write_text('@import url(https://fonts.googleapis.com/css2?family=Lato:ital,wght@0,400;1,400&display=swap);body{margin:0}')
    elsewhere = build_site.finish(tmp_path, "https://moola.example/moola")
    once = page.read_text()
    found = BeautifulSoup(once, "html.parser")
    assert [a["href"] for a in found.select("a")] == ["../data/bars.html#read", "../index.html", "https://moola.example/moolah"]
    assert found.link["href"] == "../assets/katex/katex.min.css" and found.script["src"] == "../assets/katex/katex.min.js"
    assert css.read_text() == "body{margin:0}"
    assert elsewhere == ["data/windows.html loads https://elsewhere.example/widgets.js"]
    build_site.finish(tmp_path, "https://moola.example/moola")
    assert page.read_text() == once


def test_signatures(site):
    "A signature is code: nbdev makes a link of a backticked name in its comments too, which shows as bare Markdown."
    assert [f"{name}: {code.text.strip()[:200]}" for name, page in site.items() for code in page.select("pre code") if "](http" in code.text] == []


def test_source_links(site, built, notebooks):
    "Every page links to its notebook, and everything that is documented to the line where it begins."
    repo = yaml.safe_load((built/"_quarto.yml").read_text())["website"]["repo-url"] + "/blob/main/"
    lost = []
    for name, page in site.items():
        links = {a["href"].removeprefix(repo): a for a in page.select(f'a[href^="{repo}"]')}
        if f"nbs/{notebooks[name]}" not in links: lost.append(f"{name} has no link to its notebook")
        for href, a in links.items():
            file, _, line = href.partition("#L")
            if not (built/file).exists(): lost.append(f"{name}: {href}")
            if not line: continue
            about = a.find_next(["h2", "h3", "h4", "h5"]).text.strip().split(".")[-1]
            code = (built/file).read_text().splitlines()[int(line)-1:][:8]
            if not any(re.match(rf"\s*(def|class) (__)?{about}(__)?\b", c) for c in code): lost.append(f"{name}: {href} is not {about}")
    assert not lost, "\n".join(lost)


def test_title_cells(root):
    "A page's first markdown cell is its title and subtitle: nbdev makes front matter of it and drops whatever else it holds."
    for nb in (root/"nbs").rglob("*.ipynb"):
        if ".ipynb_checkpoints" in nb.parts: continue
        first = next("".join(c["source"]) for c in json.loads(nb.read_text())["cells"] if c["cell_type"] == "markdown")
        assert re.fullmatch(r"# .+(\n+> .+)?(\n+- [\w-]+: .+)*\n*", first), f"{nb.name}: {first[:200]!r}"


def test_configuration_agrees(root):
    "settings.ini, which nbdev reads, and _quarto.yml, which makes the site, say the same."
    from nbdev.config import get_config
    cfg, web = get_config(path=root), yaml.safe_load((root/"_quarto.yml").read_text())
    assert (root/"nbs/_quarto.yml").resolve() == root/"_quarto.yml"
    site = web["website"]
    assert web["project"]["output-dir"] == cfg.doc_path.name
    assert (site["title"], site["repo-url"], site["repo-branch"]) == (cfg.title, cfg.git_url, cfg.branch)
    assert site["site-url"] == cfg.doc_host + cfg.doc_baseurl
    assert site["description"].split(",")[0] == cfg.description.split(",")[0]
