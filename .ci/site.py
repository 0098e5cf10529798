"""Build the site where there is no Quarto: nbdev prepares the notebooks in `_proc/`, smalldocs renders them into `_proc/_docs/`.

Then finish it, so that a copy of the folder works without a network and without a server: links to the site's own address become relative,
and mathematics and fonts come from `nbs/assets/`. `python .ci/site.py _docs` finishes what Quarto has rendered."""
import atexit
import gc
import os
import re
import sys
import warnings
from collections import Counter
from pathlib import Path

import yaml
from nbdev.serve import proc_nbs
from smalldocs.config import load
from smalldocs.site import Site

KATEX = re.compile(r"https://cdn\.jsdelivr\.net/npm/katex@[^/\"']+/dist/")
WEB_FONT = re.compile(r"@import\s*(?:url\([^)]*\)|\"[^\"]*\"|'[^']*')[^;{}]*;")  # the themes' fonts; styles.css brings the site's own
EMPTY_LINE = '<code class="sourceCode python">\n', '<code class="sourceCode python">'  # nbdev starts a signature with one
OTHER_HOST = r"""((?:https?:)?//[^"'<> )]+)"""
LOADED = [re.compile(before + OTHER_HOST) for before in (  # what a browser fetches by itself, unlike a link that somebody follows
    r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc=["']?""", r"""<link\b(?=[^>]*\brel=["']?(?:stylesheet|icon|preload))[^>]*?\bhref=["']?""",
    r"""\burl\(["']?""", r"""@import\s*["']""")]


# What smalldocs says it doesn't read: `Named` reads the first, and KaTeX is the only method it has.
KNOWN = "output-file is not read", "html-math-method is ignored"


class Named(Site):
    "smalldocs' site, with each page under the name that nbdev gives it and Quarto publishes it by: `spans.html`, not `03_spans.html`."
    def read(self, src):
        page = super().read(src)
        if name := page.front.get("output-file"): page.out = src.with_name(name)
        return page

    def find_page(self, target):
        return super().find_page(target) or next((p for p in self.pages.values() if p.out == target), None)


def render():
    "Render the site; its folder, and what smalldocs warns of."
    processed = proc_nbs(force=True, n_workers=0)  # in this process: each page leaves a shell, which at the end has all objects searched for cycles
    atexit.register(gc.freeze)                     # and there are none to search now; it took most of a minute
    site = Named(load(processed))
    print(f"Wrote {site.build()} pages to {os.path.relpath(site.out)}")
    twice = [f"{n} pages are named {out}" for out, n in Counter(p.out for p in site.pages.values()).items() if n > 1]
    return site.out, twice + [w for w in site.warnings if not any(k in w for k in KNOWN)]


def localize(text, base, up):
    "A page with the site's own address `base`, and the hosts of what the site holds itself, replaced by `up`, the way from the page to the site's root."
    own = re.compile(rf"""(\b(?:href|src)=["']){re.escape(base)}(?:/([^"'#?]*))?(?=["'#?])""")
    text = own.sub(lambda m: f"{m[1]}{up}{m[2] or 'index.html'}", KATEX.sub(f"{up}assets/katex/", text))
    script = f'<script src="{up}assets/site.js"></script>'
    return text if script in text else text.replace("</head>", f"{script}\n</head>", 1)


def finish(docs, base):
    "Make the pages in `docs` stand alone; what they still load from elsewhere."
    elsewhere = []
    for path in sorted(p for p in docs.rglob("*") if p.suffix in (".html", ".css")):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".css": text = WEB_FONT.sub("", text)
        else: text = localize(text, base, "../" * len(path.relative_to(docs).parent.parts)).replace(*EMPTY_LINE)
        path.write_text(text, encoding="utf-8")
        elsewhere += [f"{path.relative_to(docs)} loads {url}" for url in sorted({url for pattern in LOADED for url in pattern.findall(text)})]
    index = docs/"search.json"
    if index.exists():  # as a script too, for pages opened from a disk
        Path(f"{index}.js").write_text(f"window.searchIndex = {index.read_text(encoding='utf-8')};\n", encoding="utf-8")
    return elsewhere


def main(rendered=None):
    warnings.filterwarnings("ignore", message="Found cells containing imports")  # a lesson cell may import what it shows
    docs, problems = (Path(rendered), []) if rendered else render()
    problems += finish(docs, yaml.safe_load(Path("_quarto.yml").read_text(encoding="utf-8"))["website"]["site-url"].rstrip("/"))
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems and not rendered else 0  # of what Quarto loads from elsewhere, the log tells


if __name__ == "__main__": sys.exit(main(*sys.argv[1:]))
