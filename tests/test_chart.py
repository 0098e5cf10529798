"The chart in a real browser: a file from disk, driven as a reader drives it."
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from moola.core.errors import MoolaError
from moola.core.names import OHLC
from moola.data.simulate import simulate_bars
from moola.views.chart import Chart, chart, chart_page, write_chart
from moola.views.embed import embed_chart, embed_windows

ORANGE, BLUE = (222, 143, 5), (1, 115, 178)


def some_bars(n=1500):
    bars = simulate_bars(n, seed=3)
    return bars.assign(volume=np.arange(n) % 50 + 1.)


BARS = some_bars()
PROBABILITY = np.where(np.arange(len(BARS)) < 104, np.nan, np.arange(len(BARS)) % 100 / 100)
MARKS = dict(labels=[(700, 712), (1400, 1410)], spans=[(705, 715), (1450, 1460)], probability=PROBABILITY, threshold=.6,
             features=dict(range=BARS.high - BARS.low))


class Page:
    "A chart that is open in a tab."
    def __init__(self, tab): self.tab = tab

    def js(self, code): return self.tab.evaluate(f"moolaChart.{code}")

    def rest(self): self.tab.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    @property
    def seen(self):
        "First row on screen, and one past the last."
        self.rest()
        return [round(x, 2) for x in self.js("seen()")]

    def at(self, row, y=.4):
        "Where a bar is on the page."
        self.rest()
        box = self.tab.locator(".moola-stage").bounding_box()
        return box["x"] + self.js(f"chart.timeScale().logicalToCoordinate({row})"), box["y"] + y*box["height"]

    def word(self, name): return self.tab.locator(f'.moola-legend [data-name="{name}"]').first.text_content()

    def pixel(self, x, y): return Image.open(io.BytesIO(self.tab.screenshot())).convert("RGB").getpixel((round(x), round(y)))


@pytest.fixture
def opened(browser, tmp_path):
    "Opens charts as files; whatever they ask for or complain of fails the test."
    wrong, contexts = [], []

    def open_chart(bars, width=1280, height=800, scheme="light", **marks):
        file = write_chart(tmp_path/f"{len(contexts)}.html", bars, **marks)
        context = browser.new_context(viewport=dict(width=width, height=height), color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("console", lambda m: wrong.append(m.text))
        tab.on("pageerror", lambda e: wrong.append(str(e)))
        tab.on("request", lambda r: wrong.append(r.url) if r.url != file.as_uri() else None)
        tab.goto(file.as_uri())
        tab.wait_for_function("() => globalThis.moolaChart?.seen() && document.querySelector('.moola-legend')?.textContent")
        return Page(tab)
    yield open_chart
    for c in contexts: c.close()
    assert not wrong


@pytest.fixture
def page(opened): return opened(BARS, title="Simulated bars", **MARKS)


def test_legend(page):
    "The legend reads the bar under the crosshair: prices, change, volume, probability, feature; without one, the last bar on screen."
    assert page.seen == [1260, 1500] and page.word("time") == f"{BARS.timestamp.iloc[-1]:%Y-%m-%d %H:%M}"
    for row in (1300, 1433):
        page.tab.mouse.move(*page.at(row))
        b, before = BARS.iloc[row], BARS.close.iloc[row-1]
        assert page.word("time") == f"{b.timestamp:%Y-%m-%d %H:%M}"
        assert [page.word(k) for k in "OHLC"] == [f"{b[c]:.2f}" for c in OHLC]
        by = b.close - before
        assert page.word("change") == f"{by:+.2f} ({100*by/before:+.2f} %)".replace("-", "−")
        assert page.word("V") == f"{b.volume:g}" and page.word("P") == f"{PROBABILITY[row]:.2f}"
        assert float(page.word("range")) == pytest.approx(b.high - b.low, rel=1e-3)
    page.js("show(0, 100)")
    page.tab.mouse.move(*page.at(50))
    assert page.word("P") == "–"


def test_mouse(page):
    "The wheel zooms, a drag pans, and neither leads beyond the bars."
    first = page.seen
    page.tab.mouse.move(*page.at(1380))
    page.tab.mouse.wheel(0, -300)
    a, b = page.seen
    assert first[0] < a < 1380 < b and b - a < 235
    start, end = page.at(1380), page.at(1400)
    page.tab.mouse.move(*start)
    page.tab.mouse.down()
    page.tab.mouse.move(*end, steps=4)
    page.tab.mouse.up()
    assert a - 21 < page.seen[0] < a - 5 and page.seen[1] - page.seen[0] == pytest.approx(b - a, abs=1)
    page.tab.mouse.move(*start)
    for _ in range(40): page.tab.mouse.wheel(0, 400)
    assert page.seen == [0, 1500]


def test_keys_and_buttons(page):
    "Arrows, Home, End, plus and minus, F; spans one after the other; keys that are typed into the date stay there."
    key = page.tab.keyboard.press
    page.tab.mouse.click(*page.at(1400))
    key("ArrowLeft")
    assert page.seen == [1254, 1494]
    key("Shift+ArrowLeft")
    assert page.seen == [1062, 1302]
    key("ArrowRight")
    assert page.seen == [1068, 1308]
    key("Home")
    assert page.seen == [0, 240]
    key("End")
    assert page.seen == [1260, 1500]
    key("+")
    assert page.seen == [1300, 1460]
    key("-")
    assert page.seen == [1260, 1500]
    key("f")
    assert page.seen == [0, 1500]
    page.tab.get_by_role("button", name="Zoom in").click()
    assert page.seen == [250, 1250]
    page.tab.get_by_role("button", name="All bars").click()
    assert page.seen == [0, 1500]
    for row in (700, 705, 1400, 1450):
        key("n")
        page.rest()
        assert page.js("row") == row and page.seen[0] <= row < page.seen[1]
    key("n")
    assert page.tab.locator(".moola-note").text_content() == "No span after this"
    page.tab.get_by_role("button", name="Previous span").click()
    page.rest()
    assert page.js("row") == 1400
    before = page.seen
    key("g")
    page.tab.keyboard.type("n-f+p")
    assert page.tab.get_by_role("textbox", name="Go to").input_value() == "n-f+p" and page.seen == before


def test_jump(page):
    "A date leads to its bar, or to the next one; what is no date, or beyond the bars, is said."
    note = page.tab.locator(".moola-note")

    def jump(text):
        page.tab.get_by_role("textbox", name="Go to").fill(text)
        page.tab.keyboard.press("Enter")
        page.rest()
        return note.text_content()
    when = BARS.timestamp.iloc[400]
    assert jump(f"{when:%Y-%m-%d %H:%M}") == "" and page.js("row") == 400 and sum(page.seen)/2 == pytest.approx(400.5, abs=1)
    assert page.word("C") == f"{BARS.close.iloc[400]:.2f}"
    day = BARS.timestamp.iloc[-1].normalize()
    assert jump(f"{day:%Y-%m-%d}") == "" and page.js("row") == BARS.timestamp.searchsorted(day)
    for wrong in ("tomorrow", "2024-13-01", "2024-02-30", "2024-01-08 25:00"): assert jump(wrong) == "Write a time as 2024-01-31 09:30"
    assert jump("2031-01-01").startswith("The last bar is 2024-01-") and jump("1999-01-01").startswith("The first bar is 2024-01-07 18:00")
    assert page.tab.get_by_role("textbox", name="Go to").get_attribute("aria-invalid") == "true"


def test_spans_are_drawn(page):
    "Labelled spans in orange, predicted ones in blue: a strip at the top of each, a wash behind the candles, and nothing elsewhere."
    page.js("show(1380, 1480)")
    page.tab.mouse.move(5, 5)
    page.tab.wait_for_timeout(100)
    top = page.tab.locator(".moola-stage").bounding_box()["y"]
    inside, predicted, outside = page.at(1405), page.at(1455), page.at(1430)
    assert page.pixel(inside[0], top + 2) == ORANGE and page.pixel(predicted[0], top + 7) == BLUE
    assert page.pixel(inside[0], top + 7) != BLUE and page.pixel(outside[0] + 1, top + 2) == (255, 255, 255)
    red, _, blue = page.pixel(inside[0] + (page.at(1406)[0] - inside[0])/2, inside[1])  # between two candles
    assert red - blue > 20
    page.js("set({labels: [[1425, 1435]]})")
    page.tab.wait_for_timeout(100)
    assert page.pixel(outside[0] + 3, top + 2) == ORANGE and page.pixel(inside[0], top + 2) != ORANGE


def test_clicks_and_selection(page):
    "A click names its bar; a drag with Shift, or while selecting, names its bars and pans nothing."
    page.tab.evaluate("moolaChart.events = {click: b => moolaClicked = b, select: (a, b) => moolaSelected = [a, b]}")
    page.tab.mouse.click(*page.at(1333))
    assert page.tab.evaluate("moolaClicked") == 1333
    before = page.seen
    for shift in (True, False):
        if shift: page.tab.keyboard.down("Shift")
        else: page.js("select(true)")
        page.tab.mouse.move(*page.at(1350 + shift))
        page.tab.mouse.down()
        page.tab.mouse.move(*page.at(1340), steps=3)
        page.tab.mouse.up()
        if shift: page.tab.keyboard.up("Shift")
        assert page.tab.evaluate("moolaSelected") == [1340, 1351 + shift] and page.seen == before
        assert page.js("groups.picked") == [[1340, 1351 + shift]]
    page.tab.keyboard.press("Escape")
    assert page.js("groups.picked") == [] and page.tab.evaluate("moolaSelected") == [None, None]


def test_theme(page):
    "Light or dark follows the system and the page around, also while the chart is open; the button overrides both."
    root = page.tab.locator(".moola-chart")

    def theme(js=None, scheme=None):
        if js: page.tab.evaluate(js)
        if scheme: page.tab.emulate_media(color_scheme=scheme)
        page.tab.wait_for_timeout(50)
        shade = sum(page.pixel(*page.at(1350.5, .05)))/765
        name = root.get_attribute("data-theme")
        assert shade > .9 if name == "light" else shade < .2
        return name
    assert theme() == "light" and theme(scheme="dark") == "dark" and theme(scheme="light") == "light"
    assert theme("document.body.dataset.jpThemeLight = 'false'") == "dark"
    assert theme("document.body.dataset.jpThemeLight = 'true'", "dark") == "light"
    assert theme("delete document.body.dataset.jpThemeLight; document.body.dataset.vscodeThemeKind = 'vscode-high-contrast-light'") == "light"
    assert theme("document.body.dataset.vscodeThemeKind = 'vscode-dark'", "light") == "dark"
    assert theme("delete document.body.dataset.vscodeThemeKind; document.documentElement.classList.add('quarto-dark')") == "dark"
    page.tab.get_by_role("button", name="Light or dark").click()
    assert theme() == "light"


@pytest.mark.parametrize("width", [1280, 800, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widths(opened, width, scheme):
    "Nothing is wider than the screen, controls and legends are on it, and the attribution is there."
    tab = opened(BARS, width, scheme=scheme, title="Simulated bars", **MARKS).tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for e in tab.locator(".moola-chart button, .moola-chart input, .moola-legend").all():
        box = e.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 800
    assert tab.locator("a[href*='tradingview.com']").first.is_visible()


def test_hidden_at_first(page):
    "A chart that is made where nothing is shown, such as a closed tab, shows what it should once it is seen; one that is removed leaves nothing."
    page.tab.evaluate('''() => {
        const box = document.createElement('div');
        box.id = 'hidden';
        box.style.display = 'none';
        document.body.append(box);
        const state = JSON.parse(document.getElementById('state').textContent);
        globalThis.second = new moolaChart.constructor(box, {...state, height: 400, visible: [100, 200]});
    }''')
    page.rest()
    page.tab.evaluate("document.getElementById('hidden').style.display = ''")
    page.tab.wait_for_function("() => globalThis.second.seen()?.join() === '100,200' && document.querySelector('#hidden canvas').width > 300")
    assert page.seen == [1260, 1500]
    page.tab.evaluate("second.destroy()")
    page.tab.emulate_media(color_scheme="dark")
    assert page.tab.locator("#hidden *").count() == 0


def test_gaps_and_clocks(opened):
    "A weekend takes no room, and an hour that the clocks repeat is shown twice, as in the data."
    utc = pd.to_datetime(["2024-11-01 20:58", "2024-11-01 20:59", "2024-11-03 05:30", "2024-11-03 05:31", "2024-11-03 06:30", "2024-11-03 06:31",
                          "2024-11-03 07:00"], utc=True)
    bars = BARS[OHLC][:7].assign(timestamp=utc.tz_convert("America/New_York"))
    page = opened(bars)
    x = [page.at(i)[0] for i in range(7)]
    assert np.ptp(np.diff(x)) < 1e-6
    for i, words in enumerate(["11-01 16:58", "11-01 16:59", "11-03 01:30", "11-03 01:31", "11-03 01:30", "11-03 01:31", "11-03 02:00"]):
        page.tab.mouse.move(*page.at(i))
        assert page.word("time") == f"2024-{words} America/New_York" and page.word("C") == f"{bars.close.iloc[i]:.2f}"


def test_windows_one_after_the_other(opened):
    "Prices without times count bars; other bars and marks come into the same chart."
    windows = BARS[OHLC].to_numpy()[:210].reshape(2, 105, 4)
    page = opened(windows[0], spans=[(90, 99)])
    assert page.seen == [0, 105] and page.word("time") == "bar 104"
    other = chart_page(windows[1], probability=np.full(105, .5), threshold=.4)
    page.tab.evaluate("s => moolaChart.set({...s, spans: []})", json.loads(re.search(r'id="state">(.*?)</script>', other)[1]))
    assert page.seen == [0, 105] and page.word("C") == f"{windows[1, -1, 3]:.2f}" and page.word("P") == "0.50"
    assert page.js("chart.panes().length") == 2
    line = page.tab.evaluate_handle("moolaChart.line")
    page.js("set({threshold: .7})")
    assert page.tab.evaluate("l => l === moolaChart.line && l.options().price", line) == .7  # the panes stay
    page.js("set({probability: null})")
    assert page.js("chart.panes().length") == 1
    page.tab.get_by_role("textbox", name="Go to").fill("17")
    page.tab.keyboard.press("Enter")
    page.rest()
    assert page.js("row") == 17
    page.tab.get_by_role("textbox", name="Go to").fill("105")
    page.tab.keyboard.press("Enter")
    assert page.tab.locator(".moola-note").text_content() == "The last bar is bar 104"


def test_many_bars(opened):
    "200,000 bars open, fit the screen, and zoom in again."
    n = 200_000
    few = some_bars(20_000)
    bars = pd.concat([few]*10, ignore_index=True).assign(timestamp=pd.date_range("2024-01-01", periods=n, freq="min"))
    page = opened(bars, probability=np.tile(np.linspace(0, 1, 1000), 200), threshold=.9, spans=np.arange(0, n - 100, 100)[:, None] + [90, 100])
    page.js("fit()")
    assert page.seen == [0, n]
    page.js("centre(123456)")
    page.rest()
    assert page.js("row") == 123456 and page.word("C") == f"{bars.close.iloc[123456]:.2f}"


def test_embedded(browser, tmp_path):
    "In a page of others: the chart covers its picture, follows the page's theme and asks for nothing; windows step; without scripts the picture stays."
    from playwright.sync_api import expect
    windows = [dict(name=f"w{i}", words=f"Window {i}", bars=BARS[OHLC].to_numpy()[105*i:105*i + 105 - 5*i], spans=[(9, 20 + i)]) for i in range(3)]
    chart, steps = embed_chart(BARS, "Some bars", **MARKS).data, embed_windows(windows).data
    file = tmp_path/"page.html"
    file.write_text(f"<!doctype html><html><body>{chart}{steps}</body></html>")
    tab, wrong = browser.new_page(viewport=dict(width=800, height=1200)), []
    tab.on("console", lambda m: wrong.append(m.text))
    tab.on("pageerror", lambda e: wrong.append(str(e)))
    tab.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "data:", "about:")) else None)
    tab.goto(file.as_uri())
    one, many = (tab.frame_locator(f"iframe >> nth={i}") for i in (0, 1))
    expect(one.locator(".moola-legend [data-name='time']")).to_have_text(f"{BARS.timestamp.iloc[-1]:%Y-%m-%d %H:%M}", timeout=30_000)
    expect(one.locator(".moola-chart")).to_have_attribute("data-theme", "light")
    tab.evaluate("document.body.classList.add('quarto-dark')")
    for frame in (one, many): expect(frame.locator(".moola-chart")).to_have_attribute("data-theme", "dark")
    expect(many.locator(".moola-words")).to_have_text("Window 0")
    many.locator(".moola-stage").click()
    tab.keyboard.press("ArrowRight")
    expect(many.locator(".moola-words")).to_have_text("Window 1")
    expect(many.locator("select")).to_have_value("1")
    many.get_by_role("button", name="Next window").click()
    expect(many.locator(".moola-place")).to_have_text("3 of 3")
    expect(many.get_by_role("button", name="Next window")).to_be_disabled()
    for frame, height in ((one, 480), (many, 560)):
        box = frame.locator(".moola-chart").evaluate("o => o.getBoundingClientRect().bottom")
        assert height - 2 <= box <= height
    tab.close()
    context = browser.new_context(java_script_enabled=False, viewport=dict(width=800, height=1200))
    still = context.new_page()
    still.goto(file.as_uri())
    shot = np.asarray(Image.open(io.BytesIO(still.screenshot())).convert("RGB"), int)
    assert (np.abs(shot - BLUE).sum(-1) < 30).sum() > 100 and not wrong
    context.close()


def test_file(tmp_path):
    "A file is replaced only on request, no half of one is left, and a title can't break out of the page."
    file = write_chart(tmp_path/"a.html", BARS, title="</script><b>")
    whole = file.read_text()
    assert "<title>&lt;/script&gt;&lt;b&gt;</title>" in whole and whole.count("</script>") == 2
    with pytest.raises(MoolaError, match="is there already"): write_chart(file, BARS)
    with pytest.raises(MoolaError, match="don't fit 1,500 bars"): write_chart(file, BARS, overwrite=True, spans=[(0, 1501)])
    assert file.read_text() == whole and write_chart(file, BARS, overwrite=True).read_text() != whole
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


def test_traits():
    "What is assigned later is checked as well, and travels as bytes."
    c = chart(BARS, **MARKS)
    assert len(c) == 1500 and c.spans == [[705, 715], [1450, 1460]] and c.get_state()["probability"]["dtype"] == "float32"
    for name, wrong in dict(spans=[(3, 2)], labels=[(0, 2000)], probability=[.5], threshold=7, features=dict(a=[1]), visible=(0, 9999)).items():
        before = getattr(c, name)
        with pytest.raises(MoolaError): setattr(c, name, wrong)
        assert getattr(c, name) is before
    with pytest.raises(TypeError): chart(BARS, spams=[])
    with pytest.raises(TypeError): write_chart("a.html", BARS, spams=[])
    assert isinstance(c, Chart)
