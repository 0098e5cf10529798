"The explorer: its answers against plain loops, and itself in JupyterLab, driven as a reader drives it."
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import clean_env

from moola.core.config import make_config
from moola.core.errors import MoolaError
from moola.data.bars import cut_windows
from moola.data.plant import simulate_windows
from moola.data.simulate import simulate_bars
from moola.data.spans import iou
from moola.metrics.decode import threshold_spans
from moola.training.fit import fit
from moola.views.explore import explore
from moola.views.gallery import window_table
from moola.views.outcomes import SHOWS, Explored, Knobs, explored_run, explored_windows, matching, neighbour, outcomes, part_words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A small finished run."
    out = tmp_path_factory.mktemp("artifacts")/"small"
    return fit(make_config("baseline_100ep", n_windows=80, epochs=12, batch_size=8, lr=.01, pos_weight=4., device="cpu", progress=False,
                           output=str(out))).folder


@pytest.fixture
def spoiled(folder, tmp_path): return shutil.copytree(folder, tmp_path/"spoiled")


@pytest.fixture
def noise():
    "Windows with several spans or none, read by chance."
    windows, rng = simulate_windows(60, seed=3), np.random.default_rng(0)
    windows.window = windows.window % 40
    prob = np.convolve(rng.random(60*105), np.ones(5)/5, "same").reshape(60, 105)
    return Explored(windows, prob, np.repeat(["valid", "test"], 30), "noise", .5, 2, (), "origin")


@pytest.mark.parametrize("knobs", [Knobs(), Knobs(.6, 3), Knobs(.6, 1, 2), Knobs(.45, 4, 6), Knobs(1., 1), Knobs(0.)])
def test_outcomes(noise, knobs):
    "Each window's counts are what a plain loop over its spans counts."
    table, found, scores = outcomes(noise, knobs)
    for i, row in table.iterrows():
        pred, sure = threshold_spans(noise.prob[i], knobs.threshold, knobs.min_length, knobs.max_gap)
        touched = iou(noise.windows.spans[i], pred) > 0
        assert (row.labelled, row.predicted) == touched.shape
        assert (row.missed, row.false_alarms) == ((~touched.any(1)).sum(), (~touched.any(0)).sum())
        assert found[i].tolist() == pred.tolist() and np.allclose(scores[i], sure)
    assert set(table.labelled) == {0, 1, 2} and table.uncertainty.between(0, 1).all()


def test_agrees_with_the_gallery(folder):
    "At the threshold of the run, the counts are those of the table that the gallery is picked from."
    e = explored_run(folder)
    table, _, _ = outcomes(e, e.knobs)
    same = ["id", "type", "labelled", "predicted", "missed", "false_alarms"]
    from moola.training.run import Run
    both = pd.concat([window_table(Run(folder), simulate_windows(80), part) for part in ("valid", "test")], ignore_index=True)
    pd.testing.assert_frame_equal(table[same], both[same], check_dtype=False)


@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("kind", ["any", "consolidation", "both or unknown"])
@pytest.mark.parametrize("part", ["all", "test"])
def test_steps_visit_all_that_match(noise, show, kind, part):
    "Steps from the first window that matches visit each one once, and lead back."
    table = outcomes(noise, Knobs(.55, 2))[0]
    rows = matching(table, show, kind, part)
    picked = table.loc[rows]
    if not len(rows): return
    assert len(set(rows)) == len(rows)
    assert part == "all" or set(picked.part) == {part}
    assert kind == "any" or set(picked.type) == {kind}
    if show in ("missed", "false alarms"): assert (picked[show.replace(" ", "_")] > 0).all() and (np.diff(rows) > 0).all()
    way = [rows[0]]
    while (to := neighbour(rows, way[-1], 1)) is not None: way.append(to)
    back = [way[-1]]
    while (to := neighbour(rows, back[-1], -1)) is not None: back.append(to)
    assert way == rows.tolist() == back[::-1]
    assert neighbour(rows, rows[0], len(rows)) in (rows[-1], None)


def test_sliders_and_filters(folder):
    "A slider moves what it must and nothing else; a filter that nothing matches says so, and all comes back."
    x = explore(folder, features=["range_z"])
    seen = lambda: (x.chart.spans, x.chart.threshold, x.chart.bars["about"]["title"])  # noqa: E731
    first, bars = seen(), x.chart.bars
    assert "validation windows" in x.head.value and len(x.rows) == (x.explored.part == "valid").sum() and x.place.value.startswith("<b>1</b>")
    x.threshold.value = .9
    assert seen() != first and x.knobs == Knobs(.9, 2) and x.chart.bars is bars and list(x.chart.features) == ["range_z"]
    assert x.chart.threshold == .9 and x.chart.spans == x.found[x.row].tolist()
    x.threshold.value, x.show.value = 1., "false alarms"
    assert x.row is None and x.chart.layout.display == "none" and "No validation window has a false alarm at threshold 1.000." in x.words.value
    assert x.previous.disabled and x.next.disabled
    x.step()
    x.threshold.value = 0.
    assert x.row is None or x.table.false_alarms[x.row] > 0
    x.show.value = "missed"
    assert x.row is None and "missed span" in x.words.value
    x.show.value = "all windows"
    x.reset.click()
    assert seen() == first and x.knobs == x.explored.knobs
    x.threshold.value = round(x.explored.threshold*200)/200
    assert seen() == first and x.knobs == x.explored.knobs
    x.part.value = "test"
    assert x.table.part[x.row] == "test" and "test windows" in x.head.value and "nothing was chosen on them" in x.head.value
    x.leap("sim")
    assert "no window has the id &#x27;sim&#x27;: did you mean" in x.words.value
    x.leap(x.shown.id.iloc[-1])
    assert x.row == x.shown.index[-1] and x.next.disabled


def test_two_controls_at_once(folder):
    "Jupyter may answer controls in several threads: whatever comes first, what is shown in the end is what the controls say."
    x = explore(folder)

    def turn(control, values):
        for v in values: control.value = v
    work = [(x.threshold, [.9, .1, .5, .4]), (x.show, ["missed", "false alarms", "all windows", "false alarms"]), (x.part, ["test", "valid", "test"])]
    threads = [threading.Thread(target=turn, args=w) for w in work]
    for t in threads: t.start()
    for t in threads: t.join()
    rows = matching(outcomes(x.explored, Knobs(.4, 2))[0], "false alarms", part="test")
    assert x.rows.tolist() == rows.tolist() and x.knobs == Knobs(.4, 2)
    before, words = (x.chart.spans, x.chart.threshold, x.chart.bars), x.words.value
    x.draw(x.row)
    assert ((x.chart.spans, x.chart.threshold, x.chart.bars), x.words.value) == (before, words)


def test_before_and_after(folder, tmp_path):
    "Where the source bars are known, by time or by price, the chart holds what came before and after, and the spans lie where they are."
    bars = simulate_bars(1500, seed=3)
    bars.to_csv(tmp_path/"bars.csv", index=False)
    ohlc, starts = cut_windows(bars, 140)
    x = explore(ohlc, folder, bars=tmp_path/"bars.csv")
    x.turn(Knobs(.3, 1, 0))
    for _ in range(20):
        a, b = x.chart.frame
        close = np.frombuffer(x.chart.bars["columns"]["close"]["data"])
        lo = max(0, starts[x.row] - 500)
        assert np.array_equal(close, bars.close[lo:starts[x.row]+605]) and (a, b) == (starts[x.row] - lo, starts[x.row] - lo + 105)
        assert x.chart.spans == (x.found[x.row] + a).tolist() and x.chart.visible == [max(0, a - 40), min(len(close), b + 40)]
        assert np.isnan(x.chart.probability[:a]).all() and np.array_equal(x.chart.probability[a:b], x.explored.prob[x.row])
        x.step()
    assert x.next.disabled
    other = explore(ohlc, folder, bars=simulate_bars(1500, seed=4))
    assert other.chart.frame == [] and len(other.chart) == 105 and "None of the 11 windows lies in the bars" in other.head.value
    with pytest.raises(MoolaError, match="no.csv"): explore(ohlc, folder, bars="no.csv")


def test_parts(folder):
    "Windows are what they were to the network, however they are named or cut; those of a run only as held out."
    windows = simulate_windows(80)
    e = explored_windows(windows, folder)
    held = explored_run(folder)
    assert set(e.windows.ids[e.part == "test"]) == set(held.windows.ids[held.part == "test"])
    train = e.windows[e.part == "train"]
    train.ids = np.array([f"mine{i}" for i in range(len(train))])
    assert set(explored_windows(train, folder).part) == {"train"}
    assert set(explored_windows(train.ohlc, folder).part) == {"train"}
    assert "looks better than it is" in part_words(explored_windows(train, folder))
    assert list(explore(windows, folder).part.options) == [("all", "all"), ("training", "train"), ("validation", "valid"), ("test", "test")]
    with pytest.raises(MoolaError, match="there is no part 'train' to explore: choose from valid, test"): explore(folder, part="train")


def test_unlabelled(folder):
    "Windows without labels show what is predicted, and speak of no misses."
    x = explore(simulate_windows(6, seed=1).ohlc, folder)
    assert list(x.show.options) == ["all windows", "most uncertain first", "with a predicted span"]
    assert "Labelled" not in x.words.value and "missed" not in x.words.value and "6 new windows" in x.head.value


def test_what_is_wrong(folder, spoiled, tmp_path, monkeypatch):
    "Wrong input is one sentence."
    def said(*args, **kwargs):
        with pytest.raises(MoolaError) as e: explore(*args, **kwargs)
        return str(e.value)
    monkeypatch.chdir(tmp_path)
    (tmp_path/"settings.ini").touch()
    assert said() == "there is no finished run below artifacts/: train one with moola_train, or name the folder of a run"
    assert said("nowhere") == "there is no folder nowhere: name the folder of a run"
    assert said(simulate_windows(8)) == "windows need a detector: explore(windows, detector), where the folder of a run will do"
    assert said(simulate_windows(8), "nowhere") == "there is no model nowhere: name a folder, a checkpoint, or one of recommended, student, student-live"
    assert said("student") == "student comes with moola and is no run: it is used with --model"
    assert said("no.parquet", folder) == "There is no file no.parquet."
    assert said(folder, features=["rsi"]).startswith("there is no feature 'rsi': choose from open_norm, ")
    (spoiled/"predictions.parquet").rename(spoiled/"kept")
    m = json.loads((spoiled/"metadata.json").read_text())
    (spoiled/"metadata.json").write_text(json.dumps(m | dict(status="running", epochs_done=2)))
    assert said(spoiled) == f"{spoiled} lacks predictions.parquet: the run is stopped after 12 of 12 epochs; --resume goes on"
    (spoiled/"kept").rename(spoiled/"predictions.parquet")
    m["config"]["data"] = "/elsewhere/train_latest.parquet"
    (spoiled/"metadata.json").write_text(json.dumps(m))
    assert said(spoiled) == "the run's windows are not at /elsewhere/train_latest.parquet: name the file as data"
    assert set(explored_windows(simulate_windows(8), spoiled).part) == {"unknown"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory, chromium):
    "JupyterLab on the loopback, with settings of its own: its address, its folder and its token."
    folder, home, port, token = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("home"), free_port(), os.urandom(16).hex()
    notes = home/"settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    notes.parent.mkdir(parents=True)
    notes.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    env = clean_env() | {"HOME": str(home), "JUPYTER_CONFIG_DIR": str(home/"config"), "JUPYTER_RUNTIME_DIR": str(home/"runtime"),
                         "JUPYTER_DATA_DIR": str(home/"data"), "JUPYTERLAB_SETTINGS_DIR": str(home/"settings"),
                         "JUPYTERLAB_WORKSPACES_DIR": str(home/"workspaces"), "OMP_NUM_THREADS": "1"}
    with (home/"log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
            "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"], env=env, cwd=folder, stdout=log, stderr=log)
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                if server.poll() is not None: break
                try: urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=5).close(); break
                except OSError: time.sleep(.1)
            if server.poll() is not None: pytest.fail(f"JupyterLab did not start:\n{(home/'log').read_text()[-3000:]}")
            yield address, folder, token
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture
def notebook(lab, browser, folder):
    "A page of JupyterLab in which the one line has been run, and what its console complained of."
    address, place, token = lab
    cell = nbformat.v4.new_code_cell(f"from moola.views.explore import explore\nexplore({str(folder)!r})")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=dict(kernelspec=dict(name="python3", display_name="Python 3", language="python"))),
                   place/"look.ipynb")
    page, complaints = browser.new_page(viewport=dict(width=1400, height=1100)), []
    page.set_default_timeout(60_000)
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") and "to activate" not in m.text else None)
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.goto(f"{address}/lab/tree/look.ipynb?token={token}")
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    page.locator(".moola-explorer .moola-legend [data-name='time']").wait_for()
    yield page, complaints
    page.close()


def test_in_jupyterlab(notebook, folder, tmp_path):
    "Buttons, keys, sliders, filters, jumps and features, in a real browser."
    from playwright.sync_api import expect
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
