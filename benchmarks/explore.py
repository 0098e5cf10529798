"""How long the explorer takes to answer a control in JupyterLab: from the key or the slider to the painted chart, with all that lies between.

    python benchmarks/explore.py [windows ...] [--save FILE]

It starts a JupyterLab of its own on the loopback and opens the explorer in headless Chromium, which draws on the processor; a browser with a graphics
card is quicker. *Python* is the part of the kernel alone.
"""
import io
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
from playwright.sync_api import sync_playwright
from table import arguments, seconds, show_table

from moola.core.names import W
from moola.data.bars import cut_windows
from moola.data.plant import simulate_labelled_bars
from moola.data.windows import Windows
from moola.views.explore import Explorer
from moola.views.outcomes import Explored, unlabelled

# Notes when the kernel has answered, and when the explorer has last drawn or changed anything.
WATCH = """
globalThis.felt = { said: 0, idle: false, touched: 0, painted: 0 };
felt.touch = () => {
  felt.touched = performance.now();
  if (felt.waiting) return;
  felt.waiting = true;
  requestAnimationFrame(() => setTimeout(() => { felt.waiting = false; felt.painted = performance.now(); }));
};
globalThis.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    this.addEventListener('message', e => {
      const text = typeof e.data === 'string' ? e.data : new TextDecoder('latin1').decode(e.data);
      felt.said = performance.now();
      if (/"execution_state": ?"(idle|busy)"/.test(text)) felt.idle = text.includes('"idle"');
    });
  }
};
for (const name of ['fillRect', 'clearRect', 'stroke', 'fill']) {
  const draw = CanvasRenderingContext2D.prototype[name];
  CanvasRenderingContext2D.prototype[name] = function (...args) { felt.touch(); return draw.apply(this, args); };
}
"""
# Milliseconds of each of some turns of a control, from the event to the last frame that it changed.
TURNS = """([control, n]) => new Promise(done => {
  const box = document.querySelector('.moola-explorer'), times = [];
  new MutationObserver(felt.touch).observe(box, { subtree: true, childList: true, characterData: true, attributes: true });
  const key = (e, key) => e.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
  const slider = i => box.querySelectorAll('.noUi-handle')[i], there = i => i % 4 < 2;
  const act = {
    step: i => key(box.querySelector('.moola-chart'), there(i) ? 'ArrowRight' : 'ArrowLeft'),
    threshold: i => key(slider(0), there(i) ? 'ArrowRight' : 'ArrowLeft'),
    'minimum length': i => key(slider(1), there(i) ? 'ArrowRight' : 'ArrowLeft'),
    filter: i => {
      const menu = box.querySelector('select');
      menu.selectedIndex = (menu.selectedIndex + 1) % menu.options.length;
      menu.dispatchEvent(new Event('change', { bubbles: true }));
    },
  }[control];
  const turn = i => {
    const start = performance.now();
    felt.idle = false;
    act(i);
    const look = () => {
      const now = performance.now(), quiet = Math.min(now - felt.said, now - felt.touched) > 200;
      if (now - start > 30000) return done([]);
      if (felt.said < start || !felt.idle || felt.waiting || !quiet) return setTimeout(look, 20);
      if (i > 1) times.push(felt.painted - start);
      i < n + 1 ? setTimeout(() => turn(i + 1), 50) : done(times);
    };
    look();
  };
  turn(0);
})"""
CONTROLS = ("step", "threshold", "minimum length", "filter")


def windows_of(n, around):
    "Windows of simulated bars, with smooth noise for probabilities; the bars too, or None."
    bars, rng = simulate_labelled_bars(60, seed=1).bars, np.random.default_rng(0)
    ohlc, _ = cut_windows(bars, 5)
    some = unlabelled(ohlc[np.arange(n) % len(ohlc)])
    windows = Windows(some.ids, some.ohlc, some.rows, some.window)
    noise = np.cumsum(rng.standard_normal((n, W)), 1)/6 - 1
    return Explored(windows, (1/(1+np.exp(-noise))).astype(np.float32), np.full(n, "new"), "noise", .4, 2, (), "origin"), bars if around else None


def explorer_of(n, features, around):
    "The explorer that is measured."
    explored, bars = windows_of(n, around)
    return Explorer(explored, features=features, bars=bars)


def picture(explorer):
    "The same window as a still picture."
    import matplotlib.pyplot as plt
    fig, _ = explorer.still()
    fig.savefig(io.BytesIO())
    plt.close(fig)


def turns(explorer):
    "What a reader does, each time with another value."
    def turn(control, *values):
        each = itertools.cycle(values)
        return lambda: setattr(control, "value", next(each))
    steps = itertools.cycle((1, -1))
    return {"step": lambda: explorer.step(next(steps)), "threshold": turn(explorer.threshold, *np.linspace(.2, .8, 9)),
            "minimum length": turn(explorer.min_length, 1, 4, 7), "filter": turn(explorer.show, "with a predicted span", "most uncertain first", "all windows")}


@contextmanager
def jupyterlab(folder):
    "JupyterLab on the loopback, with settings of its own: its address and its token."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    token, home = os.urandom(16).hex(), folder/"home"
    home.mkdir()
    env = os.environ | {"HOME": str(home), "PYTHONPATH": str(Path(__file__).parent), **{f"JUPYTER_{k}_DIR": str(home/k.lower()) for k in ("CONFIG", "RUNTIME", "DATA")},
                        **{f"JUPYTERLAB_{k}_DIR": str(home/k.lower()) for k in ("SETTINGS", "WORKSPACES")}}
    words = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
             "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *words], env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try: urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token={token}", timeout=5).close(); break
            except OSError: time.sleep(.1)
        yield f"http://127.0.0.1:{port}", token
    finally:
        server.terminate()
        server.wait(30)


def felt(browser, lab, folder, n, features, around):
    "Milliseconds of each turn, by control, in a notebook of JupyterLab."
    cell = nbformat.v4.new_code_cell(f"from explore import explorer_of\nexplorer_of({n}, {features!r}, {around})")
    about = dict(kernelspec=dict(name="python3", display_name="Python 3", language="python"))
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=about), folder/f"look-{n}-{around}.ipynb")
    tab = browser.new_page(viewport=dict(width=1400, height=1100))
    tab.set_default_timeout(120_000)
    tab.add_init_script(WATCH)
    tab.goto(f"{lab[0]}/lab/tree/look-{n}-{around}.ipynb?reset&token={lab[1]}")
    for _ in range(20):  # a page that is still loading may take the focus away
        tab.locator(".jp-CodeCell .cm-content").first.click()
        tab.keyboard.press("Control+Enter")
        tab.wait_for_timeout(500)
        if tab.locator(".jp-CodeCell .jp-InputPrompt").first.text_content() != "[ ]:": break
    tab.locator(".moola-explorer .moola-legend [data-name='time']").wait_for()
    tab.wait_for_timeout(2000)
    times = {k: np.array(tab.evaluate(TURNS, [k, 20])) for k in CONTROLS}
    tab.close()
    return times


def measure(browser, lab, folder, n, features, around):
    "The rows of one explorer."
    explorer = explorer_of(n, features, around)
    reference, alone = seconds(lambda: picture(explorer), 5)*1e3, {k: seconds(act)*1e3 for k, act in turns(explorer).items()}
    where = f"{n:,} windows{' among their bars' if around else ''}, {len(features)} features"
    for name, times in felt(browser, lab, folder, n, features, around).items():
        half, most = (np.median(times), np.quantile(times, .95)) if len(times) else (np.nan, np.nan)
        yield f"{name}, {where}", f"{alone[name]:.0f} ms", f"{half:.0f} ms", f"{most:.0f} ms", f"{reference:.0f} ms"


def main(sizes, save=None):
    matplotlib.use("agg")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    kinds = [((), False), (("range_z", "efficiency_10", "expansion_proxy"), True)]
    with tempfile.TemporaryDirectory() as place, jupyterlab(Path(place)) as lab, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path)
        rows = [r for n in sizes for features, around in kinds for r in measure(browser, lab, Path(place), n, features, around)]
        browser.close()
    show_table("The explorer: from a control to the painted chart", rows, ("anywidget", "jupyterlab", "matplotlib", "numpy", "playwright"), (
        "From the event in JupyterLab to the last frame that it changes; the browser waits for its next frame, up to 17 ms. Median and 95th percentile of 20.",
        "Picture: the window as a still picture. Steps and sliders are to answer within 100 ms."), save, ("", "Python", "median", "95 of 100", "picture"))


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=[200, 2000], metavar="windows", help="default: 200 and 2,000")
    main(**vars(parser.parse_args()))
