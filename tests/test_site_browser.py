"The site in a real browser, at the width of a desk and of a phone: pages, navigation, search, the dark theme."
import functools
import re
import threading
from collections import defaultdict
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import expect

WIDTHS = dict(desk=dict(viewport=dict(width=1280, height=900)), phone=dict(viewport=dict(width=390, height=844), is_mobile=True, has_touch=True))
# What the pages ask the network for: the themes' fonts, and KaTeX. The tests answer in its place.
OUTSIDE = {
    r"https://fonts\.googleapis\.com/css2.*": dict(body="", content_type="text/css"),
    r"https://cdn\.jsdelivr\.net/npm/katex@.*\.css": dict(body="", content_type="text/css"),
    r"https://cdn\.jsdelivr\.net/npm/katex@.*\.js": dict(body="", content_type="text/javascript")}


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


def answered(answer):
    "A handler that gives the same answer to everybody."
    return lambda route: route.fulfill(**answer)


@pytest.fixture
def page(browser, address, width):
    "A tab whose addresses are below that of the site; whatever goes wrong in it fails the test."
    context = browser.new_context(base_url=address, **WIDTHS[width])
    context.set_default_timeout(10_000)
    wrong, tab = [], context.new_page()
    context.route(lambda url: not url.startswith(address), lambda route: wrong.append(f"{tab.url} asks for {route.request.url}") or route.abort())
    for url, answer in OUTSIDE.items(): context.route(re.compile(url), answered(answer))
    tab.on("console", lambda m: m.type in ("error", "warning") and wrong.append(f"{tab.url} says {m.text}"))
    tab.on("pageerror", lambda e: wrong.append(f"{tab.url} fails: {e}"))
    tab.on("requestfailed", lambda r: r.failure != "net::ERR_ABORTED" and wrong.append(f"{tab.url} does not get {r.url}: {r.failure}"))  # a page that is left
    tab.on("response", lambda r: r.status >= 400 and wrong.append(f"{tab.url} gets {r.status} for {r.url}"))
    yield tab
    context.close()
    assert not wrong, "\n".join(wrong)


LOOK = """async () => {
    const main = document.querySelector('main'), images = [...document.images];
    for (const o of images) { o.loading = 'eager'; await o.decode().catch(() => 0); }
    const scrolls = o => { for (; o && o !== main; o = o.parentElement) if (/auto|scroll/.test(getComputedStyle(o).overflowX)) return true; };
    const wide = [...main.querySelectorAll('*')].filter(o => o.getBoundingClientRect().right > innerWidth + 1 && !scrolls(o));
    return {title: main.querySelector('h1').innerText,
            broken: images.filter(o => !o.naturalWidth).length,
            small: images.filter(o => o.getBoundingClientRect().width < 200).length,
            beyond: document.documentElement.scrollWidth - innerWidth,
            wide: wide.slice(0, 3).map(o => o.outerHTML.slice(0, 120))};
}"""


def test_every_page(page, pages):
    "Every page has a title, every figure is there and large enough to be read, and nothing is wider than the screen."
    wrong = defaultdict(list)
    for name in pages:
        page.goto(name)
        seen = page.evaluate(LOOK)
        if not seen["title"].strip(): wrong[name].append("has no title")
        for what in ("broken", "small"):
            if seen[what]: wrong[name].append(f"has {seen[what]} figures that are {what}")
        if seen["beyond"] > 0: wrong[name].append(f"is {seen['beyond']} pixels wider than the screen")
        if seen["wide"]: wrong[name].append(f"reaches beyond the screen: {seen['wide']}")
    assert not wrong, "\n".join(f"{name} {what}" for name, all in wrong.items() for what in all)


def test_navigation(page, width):
    "The sidebar leads to a page, says where one is, and the foot of the page leads on."
    page.goto("index.html")
    sidebar = page.locator("#quarto-sidebar")
    if width == "phone":
        expect(sidebar).not_to_be_in_viewport()
        page.locator(".quarto-btn-toggle:visible").first.click()
    sidebar.get_by_role("link", name="spans", exact=True).click()
    title = page.get_by_role("heading", level=1)
    expect(title).to_have_text("spans")
    expect(page.locator("#quarto-sidebar a.sidebar-link.active")).to_have_text("spans")
    page.locator(".nav-page-next a").click()
    expect(title).to_have_text("windows")


def test_search(page, width):
    "A function is found by its name and a topic by its words; the keyboard opens what was found."
    page.goto("index.html")
    if width == "phone": page.locator(".navbar-toggler").click()
    box = page.locator(".smalldocs-search input:visible").first
    box.fill("hindsight_spans")
    found = page.locator("a.search-result:visible")
    expect(found.first).to_have_attribute("href", re.compile("label.html"))
    box.fill("embargo")
    expect(found.filter(has_text="splits").first).to_be_visible()
    box.press("ArrowDown")
    where = found.first.get_attribute("href")
    box.press("Enter")
    page.wait_for_url(re.compile(re.escape(where.removeprefix("./"))))
    expect(page.get_by_role("heading", level=1)).to_be_visible()


SHADES = "o => getComputedStyle(document.body)[o].match(/[0-9.]+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 765"


def test_dark(page, width):
    "The toggle makes the page dark, with light words, and the next page stays dark."
    page.goto("index.html")
    assert page.evaluate(SHADES, "backgroundColor") > .9
    if width == "phone": page.locator(".navbar-toggler").click()
    page.locator(".quarto-color-scheme-toggle:visible").first.click()
    for name in ("index.html", "experiments.html"):
        page.goto(name)
        page.wait_for_function("document.documentElement.classList.contains('quarto-dark')")
        assert page.evaluate(SHADES, "backgroundColor") < .2 and page.evaluate(SHADES, "color") > .6
