"""How long the chart takes from a file to the first picture, and from frame to frame while it is panned and zoomed.

    python benchmarks/chart.py [bars ...] [--save FILE]

It runs in headless Chromium, which draws on the processor; a browser with a graphics card is quicker.
"""
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright
from table import arguments, show_table

from moola.data.simulate import simulate_bars
from moola.views.chart import chart, write_chart

READY = "() => globalThis.moolaChart?.seen() ? performance.now() : 0"
# Milliseconds from frame to frame, while each frame asks for another move.
FRAMES = """([start, move, n]) => new Promise(done => {
    const c = moolaChart, act = new Function('c', 'i', move), times = [];
    new Function('c', start)(c);
    let last = 0, i = 0;
    const frame = now => {
        if (last) times.push(now - last);
        last = now;
        act(c, i++);
        i > n ? done(times.slice(3)) : requestAnimationFrame(frame);
    };
    setTimeout(() => requestAnimationFrame(frame), 300);
})"""
MOVES = {"panning 240 bars": ("c.show(c.n - 240, c.n)", "c.pan(i < 60 ? -2 : 2)"),
         "panning half of all bars": ("c.show(0, c.n/2)", "c.pan(c.n/400*(i < 60 ? 1 : -1))"),
         "zooming from all bars to 240": ("c.fit()", "c.zoom(i < 60 ? .9 : 1/.9)")}


def a_chart(n):
    "Bars with volume, a probability, a feature and a span every 500 bars."
    bars, rng = simulate_bars(n, seed=1), np.random.default_rng(0)
    bars["volume"] = rng.integers(1, 500, n)
    prob = np.clip(.3 + np.cumsum(rng.standard_normal(n))/300 % .7, 0, 1)
    return bars, dict(probability=prob, threshold=.6, features=dict(range=bars.high - bars.low), spans=np.arange(400, n - 20, 500)[:, None] + [0, 12])


def opened(browser, file):
    "A tab with the chart, and seconds until it is there."
    tab = browser.new_page(viewport=dict(width=1280, height=800))
    tab.goto(file.as_uri(), wait_until="commit")
    ready = tab.wait_for_function(READY, timeout=120_000).json_value()
    return tab, ready/1e3


def measure(browser, n, folder):
    "The rows of one size."
    bars, marks = a_chart(n)
    start = time.perf_counter()
    file = write_chart(folder/f"{n}.html", bars, **marks)
    wrote, start = time.perf_counter() - start, time.perf_counter()
    chart(bars, **marks)
    made = time.perf_counter() - start
    tabs = [opened(browser, file) for _ in range(3)]
    ready, tab = min(t for _, t in tabs), tabs[-1][0]
    yield f"{n:,} bars: the widget in Python", f"{made:.2f} s", "", ""
    yield f"{n:,} bars: the file written, {file.stat().st_size/1e6:.1f} MB", f"{wrote:.2f} s", "", ""
    yield f"{n:,} bars: opened and drawn", f"{ready:.2f} s", "", ""
    for name, (begin, move) in MOVES.items():
        times = np.array(tab.evaluate(FRAMES, [begin, move, 120]))
        yield f"{n:,} bars: {name}", f"{np.median(times):.0f} ms", f"{np.quantile(times, .95):.0f} ms", f"{times.max():.0f} ms"


def main(sizes, save=None):
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path)
        rows = [r for n in sizes for r in measure(browser, n, Path(folder))]
        where = f"Headless Chromium {browser.version}, 1280 by 800 pixels; bars with volume, probability, a feature and spans."
        browser.close()
    show_table("The chart: from a file to a picture, and from frame to frame", rows, ("anywidget", "playwright"), (
        where, "The screen asks for a frame every 16.7 ms: nothing shown here can be less."), save, ("", "median", "95 of 100", "longest"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=[20_000, 200_000], metavar="bars", help="default: 20,000 and 200,000")
    main(**vars(parser.parse_args()))
