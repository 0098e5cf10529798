"The explorer, the chart and the bench in JupyterLab, driven as a reader drives them: one server for all three, and a workspace and a kernel for each."
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from conftest import clean_env
from playwright.sync_api import expect
from test_chart import BARS
from test_explore import folder  # noqa: F401  a fixture

from moola.labels.bench import LabelStore
from moola.views.outcomes import explored_run, matching, outcomes


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory, chromium):
    "JupyterLab on the loopback, with settings of its own: its address, its folder and its token."
    place, home, port, token = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("home"), free_port(), os.urandom(16).hex()
    notes = home/"settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    notes.parent.mkdir(parents=True)
    notes.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    env = clean_env() | {"HOME": str(home), "JUPYTER_CONFIG_DIR": str(home/"config"), "JUPYTER_RUNTIME_DIR": str(home/"runtime"),
                         "JUPYTER_DATA_DIR": str(home/"data"), "JUPYTERLAB_SETTINGS_DIR": str(home/"settings"),
                         "JUPYTERLAB_WORKSPACES_DIR": str(home/"workspaces"), "OMP_NUM_THREADS": "1"}
    with (home/"log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
            "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={place}",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"], env=env, cwd=place, stdout=log, stderr=log)
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                if server.poll() is not None: break
                try: urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=5).close(); break
                except OSError: time.sleep(.1)
            if server.poll() is not None: pytest.fail(f"JupyterLab did not start:\n{(home/'log').read_text()[-3000:]}")
            yield address, place, token
        finally:
            server.terminate()
            server.wait(30)


def run_cell(tab, i):
    "Run a cell; a page that is still loading may take the focus away, and then the keys are pressed once more."
    tab.add_locator_handler(tab.locator(".jp-Dialog"), lambda dialog: dialog.locator(".jp-mod-accept").click())  # a busy machine is asked which kernel it wants
    for _ in range(20):
        tab.locator(".jp-CodeCell .cm-content").nth(i).click()
        tab.keyboard.press("Control+Enter")
        tab.wait_for_timeout(500)
        if tab.locator(".jp-CodeCell .jp-InputPrompt").nth(i).text_content() != "[ ]:": break


def opened(lab, browser, name, cells, complains=lambda message: False, **viewport):
    "A page of JupyterLab with a notebook of these cells, in a workspace of its own, and what goes wrong in it."
    address, place, token = lab
    about = dict(kernelspec=dict(name="python3", display_name="Python 3", language="python"))
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata=about), place/f"{name}.ipynb")
    page, complaints = browser.new_page(viewport=viewport), []
    page.set_default_timeout(60_000)
    page.on("console", lambda m: complaints.append(m.text) if complains(m) else None)
    page.on("pageerror", lambda e: complaints.append(f"{e} {e.stack}"))
    page.goto(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb?token={token}")
    return page, complaints


@pytest.fixture
def notebook(lab, browser, folder):  # noqa: F811
    "A page of JupyterLab in which the one line has been run, and what its console complained of."
    def complains(m): return m.type in ("error", "warning") and "to activate" not in m.text
    cells = [f"from moola.views.explore import explore\nexplore({str(folder)!r})"]
    page, complaints = opened(lab, browser, "look", cells, complains, width=1400, height=1100)
    run_cell(page, 0)
    page.locator(".moola-explorer .moola-legend [data-name='time']").wait_for()
    yield page, complaints
    page.close()


def test_explorer(notebook, folder, tmp_path):  # noqa: F811
    "Buttons, keys, sliders, filters, jumps and features, in a real browser."
    expect.set_options(timeout=30_000)
    page, complaints = notebook
    e = explored_run(folder)
    n = {p: int((e.part == p).sum()) for p in ("valid", "test")}
    place, words, head, image = (page.locator(f".moola-explorer {s}") for s in (".moola-place", ".moola-words", ".moola-head", ".moola-stage"))

    def shown():
        page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        return image.screenshot()

    def changed(before):
        for _ in range(100):
            if shown() != before: return
            page.wait_for_timeout(50)
        pytest.fail("the chart stays as it was")
    expect(head).to_contain_text(f"{n['valid']} validation windows of the run small")
    expect(place).to_have_text(f"1 of {n['valid']}")
    before = shown()
    page.get_by_title("Next window").click()
    expect(place).to_have_text(f"2 of {n['valid']}")
    changed(before)
    page.keyboard.press("ArrowRight")
    expect(place).to_have_text(f"3 of {n['valid']}")
    image.click()
    page.keyboard.press("ArrowLeft")
    expect(place).to_have_text(f"2 of {n['valid']}")
    page.keyboard.press("End")
    expect(place).to_have_text(f"{n['valid']} of {n['valid']}")
    expect(page.get_by_title("Next window")).to_be_disabled()
    page.keyboard.press("Home")
    expect(place).to_have_text(f"1 of {n['valid']}")
    for _ in range(400):  # a key that is held down: from the second on these are repeats, and those that come while a step is under way are dropped
        page.keyboard.down("ArrowRight")
        if int(place.text_content().split()[0]) >= 4: break
        page.wait_for_timeout(50)
    assert int(place.text_content().split()[0]) >= 4
    page.keyboard.up("ArrowRight")
    page.keyboard.press("Home")
    expect(place).to_have_text(f"1 of {n['valid']}")
    expect(words).to_contain_text("Labelled bars")
    assert page.locator(".jp-Notebook .jp-Cell").count() == 1 and page.locator(".jp-mod-collapsed").count() == 0

    slider = page.locator(".moola-explorer .widget-slider", has_text="Threshold")
    before, box = shown(), slider.locator(".noUi-handle").bounding_box()
    page.mouse.move(box["x"] + box["width"]/2, box["y"] + box["height"]/2)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"], steps=5)
    page.mouse.up()
    expect(slider.locator(".widget-readout")).to_have_text("1.000")
    changed(before)
    expect(words).to_contain_text("Predicted bars: none")
    before = shown()
    slider.locator(".noUi-handle").press("ArrowLeft")
    expect(slider.locator(".widget-readout")).to_have_text("0.995")
    changed(before)
    expect(place).to_have_text(f"1 of {n['valid']}")

    show = page.locator(".moola-explorer select").nth(0)
    show.select_option("false alarms")
    expect(words).to_contain_text("No validation window has a false alarm at threshold 0.995.")
    expect(image).to_be_hidden()
    page.get_by_role("button", name="Reset").click()
    knobs = e.knobs
    expect(place).to_have_text(f"1 of {len(matching(outcomes(e, knobs)[0], 'false alarms', part='valid'))}")
    expect(image).to_be_visible()
    show.select_option("most uncertain first")
    row = matching(outcomes(e, knobs)[0], "most uncertain first", part="valid")[0]
    image.click()
    page.keyboard.press("Home")
    expect(words).to_contain_text(f"Uncertainty {outcomes(e, knobs)[0].uncertainty[row]:.2f} bits")
    page.locator(".moola-explorer select").nth(2).select_option("test")
    expect(head).to_contain_text(f"{n['test']} test windows of the run small")

    jump = page.get_by_placeholder("id of a window")
    jump.fill("nobody")
    jump.press("Enter")
    expect(words).to_contain_text("no window has the id 'nobody'")
    show.select_option("all windows")
    jump.fill(e.windows.ids[-1])
    jump.press("Enter")
    expect(place).to_have_text(f"{n['test']} of {n['test']}")
    expect(jump).to_have_value("")

    height = image.bounding_box()["height"]
    page.get_by_text("Features below the probability").click()
    page.get_by_role("button", name="range_z").click()
    page.wait_for_function("(h) => document.querySelector('.moola-explorer .moola-stage').getBoundingClientRect().height > h + 20", arg=height)
    expect(page.locator(".moola-explorer .moola-legend")).to_have_count(3)
    page.locator(".jp-OutputArea").first.screenshot(path=tmp_path/"explorer.png")
    assert not complaints


def test_chart(lab, browser, tmp_path):
    "The widget draws, tells the kernel of clicks and of what is on screen, and follows what is assigned and the theme of the notebook."
    cells = ["from moola import simulate_bars\nfrom moola.views.chart import chart\nc = chart(simulate_bars(1500, seed=3), labels=[(1400, 1410)])\nc",
             "print('told', c.clicked, c.selected, c.visible)\nc.spans, c.visible = [(1300, 1310)], (1290, 1390)"]
    tab, complaints = opened(lab, browser, "chart", cells, lambda m: m.type == "error", width=1280, height=1000)
    run_cell(tab, 0)
    stage, time = tab.locator(".moola-stage"), tab.locator(".moola-legend [data-name='time']")
    expect(time).to_have_text(f"{BARS.timestamp.iloc[-1]:%Y-%m-%d %H:%M}", timeout=60_000)
    assert tab.locator(".moola-chart").get_attribute("data-theme") == "light"
    box = stage.bounding_box()
    tab.mouse.click(box["x"] + box["width"]/2, box["y"] + 100)
    clicked = BARS.index[BARS.timestamp == time.text_content()][0]
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.down("Shift")
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"]/2 + 50, box["y"] + 100, steps=3)
    tab.mouse.up()
    tab.keyboard.up("Shift")
    tab.wait_for_timeout(400)  # what is on screen is told when it comes to rest
    assert tab.locator(".jp-Notebook .jp-Cell").count() == 2
    run_cell(tab, 1)
    told = tab.locator(".jp-OutputArea-output pre", has_text="told")
    expect(told).to_contain_text(re.compile(rf"told {clicked} \[\d+, \d+\] \[1254, 1494\]"))
    expect(time).to_have_text(f"{BARS.timestamp.iloc[1389]:%Y-%m-%d %H:%M}")
    expect(tab.locator(".moola-key")).to_have_text("labelledpredicted")
    tab.evaluate("document.body.dataset.jpThemeLight = 'false'")
    expect(tab.locator(".moola-chart")).to_have_attribute("data-theme", "dark")
    tab.locator(".jp-OutputArea").first.screenshot(path=tmp_path/"chart.png")
    tab.close()
    assert not complaints


def test_bench(lab, browser):
    "The widget marks by mouse and by keys, and the kernel holds what was saved."
    place = lab[1]
    cells = ["from moola import simulate_bars\nfrom moola.labels.label import label\nb = label(simulate_bars(1500, seed=3), 'bench.parquet')\nb",
             "print('told', [(r['w'], r['first'], r['last'], r['label']) for r in b.bench.rows()])"]
    tab, complaints = opened(lab, browser, "bench", cells, width=1280, height=1100)
    run_cell(tab, 0)
    stage = tab.locator(".moola-stage")
    expect(tab.locator(".moola-legend [data-name='time']")).not_to_be_empty(timeout=60_000)
    tab.wait_for_timeout(300)
    box = stage.bounding_box()
    tab.mouse.move(box["x"] + box["width"]*.4, box["y"] + 100)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"]*.45, box["y"] + 100, steps=4)
    tab.mouse.up()
    expect(tab.locator(".moola-card")).to_have_count(1)
    tab.keyboard.press("r")
    tab.keyboard.press("Enter")
    tab.keyboard.press("n")
    expect(tab.locator(".moola-count")).to_contain_text("1 labelled · 1 nothing here")
    expect(tab.locator(".moola-saved")).to_have_text("Saved in bench.parquet")
    assert tab.locator(".jp-Notebook .jp-Cell").count() == 2
    run_cell(tab, 1)
    told = tab.locator(".jp-OutputArea-output pre", has_text="told")
    expect(told).to_contain_text(re.compile(r"told \[\(0, \d+, \d+, 'retracement'\), \(1, None, None, None\)\]"))
    tab.close()
    assert len(LabelStore(place/"bench.parquet")) == 2 and not complaints
