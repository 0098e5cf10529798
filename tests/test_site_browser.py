"The site in a real browser, at the width of a desk and of a phone: pages, navigation, search, the dark theme, and nothing from elsewhere."
import functools
import io
import re
import threading
from collections import defaultdict
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from matplotlib.image import imread
from playwright.sync_api import expect

WIDTHS = dict(desk=dict(viewport=dict(width=1280, height=900)), phone=dict(viewport=dict(width=390, height=844), is_mobile=True, has_touch=True))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@pytest.fixture(scope="module")
def address(built):
    "Where the site is served."
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(built/"_proc"/"_docs"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def pages(built):
    "Addresses of all pages, below that of the site."
    docs = built/"_proc"/"_docs"
    return sorted(p.relative_to(docs).as_posix() for p in docs.rglob("*.html"))


@pytest.fixture(params=WIDTHS)
def width(request): return request.param


@pytest.fixture
def page(browser, address, width):
    "A tab whose addresses are below that of the site; whatever goes wrong in it, asking another host too, fails the test. (To route its requests would switch its cache off.)"
    context = browser.new_context(base_url=address, **WIDTHS[width])
    context.set_default_timeout(10_000)
    wrong, tab = [], context.new_page()
    tab.on("request", lambda r: re.match(f"(?!{re.escape(address)})https?:", r.url) and wrong.append(f"{tab.url} asks for {r.url}"))
    tab.on("console", lambda m: m.type in ("error", "warning") and wrong.append(f"{tab.url} says {m.text}"))
    tab.on("pageerror", lambda e: wrong.append(f"{tab.url} fails: {e}"))
    tab.on("requestfailed", lambda r: r.failure != "net::ERR_ABORTED" and wrong.append(f"{tab.url} does not get {r.url}: {r.failure}"))  # a page that is left
    tab.on("response", lambda r: r.status >= 400 and wrong.append(f"{tab.url} gets {r.status} for {r.url}"))
    yield tab
    context.close()
    assert not wrong, "\n".join(wrong)


LOOK = r"""async () => {
    const main = document.querySelector('main'), images = [...document.images];
    for (const o of images) { o.loading = 'eager'; await o.decode().catch(() => 0); }
    await document.fonts.ready;
    const scrolls = o => { for (; o && o !== main; o = o.parentElement) if (/auto|scroll/.test(getComputedStyle(o).overflowX)) return true; };
    const hidden = 'svg *, .katex-mathml, .katex-mathml *', beyond = o => o.getBoundingClientRect().right > innerWidth + 1;
    const wide = [...main.querySelectorAll('*')].filter(o => !o.matches(hidden) && beyond(o) && !scrolls(o));
    const more = o => o.scrollWidth > o.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(o).overflowX);
    const secret = [...main.querySelectorAll('*')].filter(o => more(o) && !/gradient/.test(getComputedStyle(o).backgroundImage));
    const formulas = [...main.querySelectorAll('.math')];
    return {title: main.querySelector('h1').innerText,
            broken: images.filter(o => !o.naturalWidth).length,
            small: images.filter(o => o.getBoundingClientRect().width < 200).length,
            beyond: document.documentElement.scrollWidth - innerWidth,
            wide: wide.slice(0, 3).map(o => o.outerHTML.slice(0, 120)),
            secret: secret.slice(0, 3).map(o => o.outerHTML.slice(0, 120)),
            bare: formulas.filter(o => !o.querySelector('.katex-html') || o.querySelector('.katex-error')).length,
            fonts: [...document.fonts].filter(f => f.status === 'loaded').map(f => f.family.replaceAll('"', ''))};
}"""


@pytest.mark.parametrize("width", ["desk"])
def test_every_page(page, pages):
    "Every page has a title and its fonts, figures large enough to be read and formulas set; at both widths nothing is wider than the screen, and what scrolls shows it."
    wrong, mathematics = defaultdict(list), 0
    for name in pages:
        page.set_viewport_size(WIDTHS["desk"]["viewport"])
        page.goto(name, wait_until="domcontentloaded")  # figures and fonts are waited for in LOOK
        for width in WIDTHS:
            page.set_viewport_size(WIDTHS[width]["viewport"])
            seen = page.evaluate(LOOK)
            mathematics += "KaTeX_Main" in seen["fonts"]
            say = wrong[f"{name} on a {width}"].append
            if not seen["title"].strip(): say("has no title")
            for what in ("broken", "small"):
                if seen[what]: say(f"has {seen[what]} figures that are {what}")
            if seen["beyond"] > 0: say(f"is {seen['beyond']} pixels wider than the screen")
            if seen["wide"]: say(f"reaches beyond the screen: {seen['wide']}")
            if seen["secret"]: say(f"scrolls without a sign: {seen['secret']}")
            if seen["bare"]: say(f"has {seen['bare']} formulas that are not set")
            for font in {"Source Sans 3", "JetBrains Mono"} - set(seen["fonts"]): say(f"isn't set in {font}")
    assert not any(wrong.values()), "\n".join(f"{name} {what}" for name, all in wrong.items() for what in all)
    assert mathematics > 6


def shade(locator):
    "Pixels of a picture of an element, (height, width) in [0, 1], 1 is white."
    return imread(io.BytesIO(locator.screenshot(animations="disabled")))[..., :3].mean(-1)


def edge(box): return shade(box)[-12:-4, -4:-2].mean()  # the right edge, below a table's last row


def test_scrolling_shows(page, width):
    "A table that goes on to the right has a shadow there, until its end has come."
    page.goto("experiments.html")
    boxes = page.locator(".cell-output-display:has(table)")
    more = [b for b in boxes.all() if b.evaluate("o => o.scrollWidth > o.clientWidth + 40")]
    assert more or width == "desk"
    for box in more[:2]:
        assert edge(box) < .9
        box.evaluate("o => o.scrollLeft = o.scrollWidth")
        assert edge(box) > .97


def test_first_code(page, width):
    "On a desk, the first code of the landing page is seen whole."
    page.goto("index.html")
    first = page.locator("main pre code").first
    expect(first).to_be_visible()
    cut = first.evaluate("o => o.parentElement.scrollWidth - o.parentElement.clientWidth")
    assert cut <= 0 or width == "phone"


def test_navigation(page, width):
    "The sidebar leads to a page, says where one is, and the foot of the page leads on."
    page.goto("index.html")
    sidebar = page.locator("#quarto-sidebar")
    if width == "phone":
        expect(sidebar).not_to_be_in_viewport()
        page.locator(".quarto-btn-toggle:visible").first.click()
    while (closed := sidebar.locator(".sidebar-item-toggle.collapsed")).count(): closed.first.evaluate("o => o.click()"); page.wait_for_timeout(400)
    sidebar.get_by_role("link", name="Spans", exact=True).click()
    title = page.get_by_role("heading", level=1)
    expect(title).to_have_text("Spans")
    expect(page.locator("#quarto-sidebar a.sidebar-link.active")).to_have_text("Spans")
    page.locator(".nav-page-next a").click()
    expect(title).to_have_text("Labelled windows")


def test_stays(page, address, width):
    "A link to a function leads to a page of this copy of the site."
    page.goto("index.html")
    page.locator("main a:has(> code)").first.click()
    page.wait_for_url(re.compile(re.escape(address) + r"(?!index)"))
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def search_box(page, width):
    if width == "phone": page.locator(".navbar-toggler").click()
    return page.locator(".smalldocs-search input:visible").first


def test_search(page, width):
    "A function is found by its name and a topic by its words; the keyboard opens what was found."
    page.goto("index.html")
    box = search_box(page, width)
    box.fill("hindsight_spans")
    found = page.locator("a.search-result:visible")
    expect(found.first).to_have_attribute("href", re.compile("labels/rule.html"))
    box.fill("embargo")
    expect(found.filter(has_text="splits").first).to_be_visible()
    box.press("ArrowDown")
    where = found.first.get_attribute("href")
    box.press("Enter")
    page.wait_for_url(re.compile(re.escape(where.removeprefix("./"))))
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def test_from_disk(browser, built):
    "A copy of the site works as files too: links to functions, mathematics and the search."
    tab = browser.new_page()
    tab.set_default_timeout(10_000)
    docs, missed = (built/"_proc"/"_docs").as_uri(), []
    tab.on("requestfailed", lambda r: missed.append(r.url))
    tab.goto(f"{docs}/index.html")
    tab.locator("main a:has(> code)").first.click()
    tab.wait_for_url(re.compile(re.escape(docs) + r"/(?!index)"))
    tab.locator(".smalldocs-search input:visible").first.fill("losses")
    tab.locator("a.search-result:visible").first.click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Losses")
    expect(tab.locator(".math .katex-html").first).to_be_visible()
    tab.close()
    assert missed == []


FIRST = """async () => {
    const index = await (await fetch('search.json')).json(), norm = s => s.trim().toLowerCase();
    const fuse = new Fuse(index, {keys: [{name: 'title', weight: 2}, {name: 'section', weight: 2}, {name: 'text', weight: 1}],
                                  ignoreLocation: true, threshold: .3, minMatchCharLength: 2});
    const titles = index.filter(e => !e.section && e.title.length > 1).map(e => e.title);
    const firsts = titles.map(t => [t, fuse.search(t, {limit: 20})[0].item]);
    return firsts.filter(([t, e]) => norm(e.title) !== norm(t) || e.section).map(([t, e]) => [t, e.href]);
}"""


def test_search_titles(page, width):
    "Whoever types a page's title finds that page first."
    page.goto("index.html")
    if width == "desk": assert page.evaluate(FIRST) == []
    search_box(page, width).fill("labelled windows")
    expect(page.locator("a.search-result:visible").first).to_have_attribute("href", re.compile(r"windows\.html$"))


# Contrast of an element's words against the nearest background, as WCAG 2 counts it.
CONTRAST = """o => {
    const rgb = s => s.match(/[0-9.]+/g).map(Number), light = c => c.slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    const lum = c => { const [r, g, b] = light(c); return .2126 * r + .7152 * g + .0722 * b; };
    let under = o;
    while (under && (rgb(getComputedStyle(under).backgroundColor)[3] ?? 1) < .9) under = under.parentElement;
    const [a, b] = [lum(rgb(getComputedStyle(o).color)), lum(rgb(getComputedStyle(under || document.body).backgroundColor))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read(page, width, scheme):
    "Words stand out from what is under them, 4.5 to 1 at least: in what the search finds, in the sidebars, in code, tables and text."
    page.emulate_media(color_scheme=scheme)
    page.goto("experiments.html")
    page.wait_for_function("dark => document.documentElement.classList.contains('quarto-dark') === dark", arg=scheme == "dark")
    for words in ("main p", "main h2", "main td", "main thead th", "main p a", "main p code"):
        assert page.locator(words).first.evaluate(CONTRAST) >= 4.5, words
    search_box(page, width).fill("windows")
    expect(page.locator(".search-result-text:visible").first).to_be_visible()
    for part in ("title", "section", "text"):
        assert page.locator(f".search-result-{part}:visible").first.evaluate(CONTRAST) >= 4.5, part
    mark = page.locator(".search-result-text mark:visible").first
    assert mark.evaluate(CONTRAST) >= 4.5


SHADES = "o => getComputedStyle(document.body)[o].match(/[0-9.]+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 765"


def test_dark(page, width):
    "The toggle makes the page dark, with light words and dark figures, and the next page stays dark."
    page.goto("index.html")
    assert page.evaluate(SHADES, "backgroundColor") > .9
    assert shade(page.locator("main .cell-output img").first).mean() > .8
    if width == "phone": page.locator(".navbar-toggler").click()
    page.locator(".quarto-color-scheme-toggle:visible").first.click()
    for name in ("index.html", "experiments.html"):
        page.goto(name)
        page.wait_for_function("document.documentElement.classList.contains('quarto-dark')")
        assert page.evaluate(SHADES, "backgroundColor") < .2 and page.evaluate(SHADES, "color") > .6
        figure = page.locator("main .cell-output img").first
        assert figure.evaluate("o => o.decode().then(() => o.naturalWidth)") and shade(figure).mean() < .35
