"The bench in a real browser: its own page from its server."
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from test_chart import Page

from moola.core.errors import MoolaError
from moola.data.plant import simulate_windows
from moola.data.simulate import simulate_bars
from moola.data.windows import read_windows, write_windows
from moola.labels.bench import LabelStore
from moola.labels.command import BenchServer
from moola.labels.label import Bench

BARS = simulate_bars(1500, seed=3)
SUGGESTED = pd.DataFrame(dict(start_bar=[50, 150, 260], end_bar=[57, 158, 266], window_type=["retracement", None, "consolidation"]))


class BenchPage(Page):
    "A bench that is open in a tab."
    def js(self, code): return self.tab.evaluate(f"moolaBench.chart.{code}")

    def bench(self, code): return self.tab.evaluate(f"moolaBench.{code}")

    def edge(self, row): return self.at(row - .5)

    def drag(self, start, end):
        self.tab.mouse.move(*start)
        self.tab.mouse.down()
        self.tab.mouse.move((start[0] + end[0])/2, start[1], steps=2)
        self.tab.mouse.move(*end, steps=2)
        self.tab.mouse.up()

    def at(self, row, y=.4):
        "Where a bar is on the page; fractions are between bars."
        self.rest()
        box = self.tab.locator(".moola-stage").bounding_box()
        a, b = (self.js(f"chart.timeScale().logicalToCoordinate({r})") for r in (int(row), int(row) + 1))
        return box["x"] + a + (b - a)*(row - int(row)), box["y"] + y*box["height"]

    def press(self, *keys):
        for k in keys: self.tab.keyboard.press(k)

    def settled(self):
        "Wait until everything is saved; the rows."
        self.tab.wait_for_function("() => !moolaBench.queue.length && !moolaBench.busy && !moolaBench.looking")
        return self.bench("rows")


@pytest.fixture
def served(tmp_path):
    "Serves benches on one file of labels."
    servers = []

    def serve(bars=BARS, file=None, **options):
        server = BenchServer(Bench(bars, file or tmp_path/"labels.parquet", **options))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server
    yield serve
    for s in servers:
        s.shutdown()
        s.server_close()


@pytest.fixture
def opened(browser):
    "Opens benches in tabs; whatever they complain of, or ask of another host, fails the test."
    wrong, contexts = [], []

    def open_bench(server, width=1280, height=800, scheme="light", complains=True):
        context = browser.new_context(viewport=dict(width=width, height=height), color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        if complains: tab.on("console", lambda m: wrong.append(m.text))
        tab.on("pageerror", lambda e: wrong.append(str(e)))
        tab.on("request", lambda r: wrong.append(r.url) if not r.url.startswith((f"http://127.0.0.1:{server.server_port}/", "data:")) else None)
        tab.goto(server.address)
        tab.wait_for_function("() => globalThis.moolaBench?.chart.seen() && document.querySelector('.moola-legend')?.textContent")
        return BenchPage(tab)
    yield open_bench
    for c in contexts: c.close()
    assert not wrong


def spans(file): return [s.tolist() for s in read_windows(file).spans]


def test_by_mouse(served, opened, tmp_path):
    "Drag, mend at an edge, two clicks, type, quality, note, undo and redo; the file follows, and a reload shows it."
    file = tmp_path/"labels.parquet"
    page = opened(served(labeller="ann"))
    view = page.seen
    asked = []
    page.tab.on("request", lambda r: asked.append(r.url))
    page.tab.mouse.move(*page.at(40))
    page.tab.mouse.down()
    page.tab.mouse.move(*page.at(47), steps=20)
    page.rest()
    assert page.tab.locator(".moola-hint").text_content().startswith("Bars 40–47 · 8 bars") and not asked
    page.tab.mouse.up()
    page.settled()
    assert spans(file) == [[[40, 48]]] and page.seen == view and len(asked) == 1
    page.drag(page.edge(48), page.edge(52))
    page.settled()
    assert spans(file) == [[[40, 52]]]
    page.drag(page.edge(40), page.edge(38))
    page.settled()
    assert spans(file) == [[[38, 52]]]
    page.tab.mouse.click(*page.at(70))
    assert "click the last bar" in page.tab.locator(".moola-hint").text_content()
    page.tab.mouse.click(*page.at(65))
    page.settled()
    assert spans(file) == [[[38, 52], [65, 71]]]
    card = page.tab.locator(".moola-card.moola-held")
    card.get_by_role("button", name="Retracement").click()
    card.get_by_role("button", name="B", exact=True).click()
    card.get_by_role("textbox", name="Note").fill("wide, with news")
    page.press("Enter")
    page.settled()
    row = LabelStore(file).table.to_pandas().iloc[1]
    assert (row.label, row.quality, row.note, row.labeller) == ("retracement", "B", "wide, with news", "ann")
    assert row.timestamp == BARS.timestamp[0] and np.array_equal(np.stack(row.features), BARS[["open", "high", "low", "close"]][:105])
    for _ in range(4): page.press("z")
    page.settled()
    assert spans(file) == [[[38, 52]]]
    page.press("Shift+Z")
    page.settled()
    assert spans(file) == [[[38, 52], [65, 71]]]
    page.tab.reload()
    page.tab.wait_for_function("() => globalThis.moolaBench?.rows.length === 2")
    assert page.bench("at") == 1
    page.press("ArrowUp", "f")
    page.drag(page.edge(71), page.edge(68))
    page.settled()
    assert spans(file) == [[[38, 52], [65, 68]]]
    page.tab.get_by_role("button", name="Undo (Z)").click()
    page.settled()
    assert spans(file) == [[[38, 52], [65, 71]]]
    page.press("f")
    before = page.seen
    page.drag(page.at(120), page.at(112))
    assert len(page.settled()) == 2 and page.seen != before  # outside the window a drag pans


def test_by_keys(served, opened, tmp_path):
    "A window is labelled without the mouse; the next is empty, the third is skipped; undo goes back to where it was."
    file = tmp_path/"labels.parquet"
    page = opened(served())
    page.rest()
    page.press("ArrowRight", "Space", *["ArrowRight"]*6, "Space", "r", "Shift+C", "]", "}", "e")
    page.tab.keyboard.type("clear")
    page.press("Enter")
    page.settled()
    row = LabelStore(file).table.to_pandas().iloc[0]
    assert (row.expansion_start, row.expansion_end, row.label, row.quality, row.note) == (54, 60, "retracement", "C", "clear")
    page.press("Enter")
    assert page.bench("at") == 1
    page.press("n")
    page.settled()
    assert LabelStore(file).table["expansion_start"].to_pylist() == [54, None]
    page.press("Enter", "s")
    assert page.bench("at") == 3
    page.press("ArrowUp", "PageUp", "PageUp")
    assert page.bench("at") == 0
    page.press("ArrowDown", "ArrowDown", "ArrowDown", "z")
    page.settled()
    assert page.bench("at") == 1 and len(LabelStore(file)) == 1
    page.press("ArrowUp", "n")
    page.settled()
    assert spans(file) == [[]]
    page.press("z", "z", "z", "z")
    page.settled()
    row = LabelStore(file).table.to_pandas().iloc[0]
    assert (row.expansion_start, row.expansion_end, row.quality) == (53, 59, "C")
    page.press("Delete")
    assert page.settled() == [] and len(LabelStore(file)) == 0
    page.press("?")
    assert page.tab.locator(".moola-sheet").is_visible()


def test_suggestions(served, opened, tmp_path):
    "Hidden until H; taken over with its type, mended by its edge, dismissed for good."
    file = tmp_path/"labels.parquet"
    server = served(suggest=SUGGESTED)
    page = opened(server)
    page.press("t", "x")
    assert page.settled() == [] and page.js("groups.spans") == []
    page.press("h")
    page.settled()
    assert page.js("groups.spans") == [[50, 58], [150, 159], [260, 267]] and page.js("groups.offered") == [[50, 58]]
    assert page.tab.locator(".moola-hint").text_content().startswith("Suggested: bars 50–57 · 8 bars")
    page.press("t")
    row = page.settled()[0]
    assert (row["first"], row["last"], row["label"]) == (50, 57, "retracement") and page.js("groups.spans") == [[150, 159], [260, 267]]
    page.press("ArrowDown")
    page.drag(page.edge(159), page.edge(156))
    page.settled()
    assert spans(file) == [[[50, 58]], [[45, 51]]]
    page.press("ArrowDown", "x")
    page.settled()
    assert spans(file) == [[[50, 58]], [[45, 51]], []] and page.js("groups.spans") == []
    again = opened(server)
    again.press("h")
    again.settled()
    assert again.js("groups.spans") == [] and "Suggestion of bars" not in again.tab.locator(".moola-cards").text_content()
    page.press("z")
    page.settled()
    assert page.js("groups.spans") == [[260, 267]]
    page.drag(page.at(260), page.at(264))  # a drag from its first bar on marks a span
    page.settled()
    assert spans(file)[2] == [[50, 55]]


def test_looking_holds_up_nothing(tmp_path):
    "While a model reads the bars, labels are saved."
    looks, go, told = threading.Event(), threading.Event(), []

    class Slow:
        def scan(self, bars):
            looks.set()
            go.wait(30)
            return SimpleNamespace(spans=SUGGESTED)
    bench = Bench(BARS, tmp_path/"labels.parquet", Slow())
    asked = threading.Thread(target=lambda: told.append(bench.answer(dict(do="suggest", key="s"))))
    asked.start()
    assert looks.wait(30)
    saved = bench.answer(dict(do="add", id="a", w=0, values=dict(first=1, last=2, label="retracement"), key="a"))
    assert len(saved["rows"]) == 1 and len(LabelStore(tmp_path/"labels.parquet")) == 1 and not told
    go.set()
    asked.join(30)
    assert [s["span"] for s in told[0]["suggestions"]] == [[50, 58], [150, 159], [260, 267]]


def test_a_killed_bench_loses_nothing(tmp_path):
    "What was answered is in the file, also where the process is killed at once."
    code = f"""
import os, signal
from moola import simulate_bars
from moola.labels.label import Bench
bench = Bench(simulate_bars(1500, seed=3), {str(tmp_path/"labels.parquet")!r})
for w in range(3): print(len(bench.answer(dict(do="add", id=f"a{{w}}", w=w, values=dict(first=1, last=9, label="retracement"), key=f"k{{w}}"))["rows"]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL and done.stdout.split() == ["1", "2", "3"]
    again = Bench(BARS, tmp_path/"labels.parquet")
    assert [r["w"] for r in again.rows()] == [0, 1, 2] and again.now()["at"] == 3
    again.answer(dict(do="remove", id="a1", key="r"))
    assert len(LabelStore(tmp_path/"labels.parquet")) == 2


def test_a_killed_server_comes_back(opened, tmp_path, monkeypatch):
    "A tab that is still open saves what it holds once the command is started again: the address is the same."
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path/"state"))
    bars, labels = tmp_path/"bars.csv", tmp_path/"labels.parquet"
    BARS.to_csv(bars, index=False)
    run = [sys.executable, "-c", "from moola.labels.command import moola_label; moola_label()", str(bars), "--labels", str(labels), "--no-browser"]
    running = []

    def start():
        running.append(subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        running[-1].stdout.readline()
        return running[-1].stdout.readline().split()[1]
    try:
        address = start()
        page = opened(SimpleNamespace(address=address, server_port=int(re.search(r":(\d+)/", address)[1])), complains=False)
        running[0].kill()
        running[0].wait()
        page.drag(page.at(40), page.at(47))
        page.tab.wait_for_function("() => document.querySelector('.moola-saved').textContent.includes('start it again')")
        assert not labels.exists() and start() == address
        page.settled()
        assert spans(labels) == [[[40, 48]]]
    finally:
        for p in running: p.kill()


def test_findings(served, opened, tmp_path):
    "K lists what the check finds; each finding is a link to its window, which marks its bars and selects their label."
    windows = simulate_windows(12)
    windows.rows.loc[3, ["expansion_start", "expansion_end"]] = [100, 104]
    file = write_windows(windows, tmp_path/"windows.parquet")
    page = opened(served(read_windows(file), file))
    page.press("k")
    page.settled()
    assert "fewer than 30 windows" in page.tab.locator(".moola-hint").text_content()
    links = page.tab.locator(".moola-health a")
    n = [f["check"] for f in page.bench("findings")].index("edge")
    assert links.nth(n).get_attribute("href") == f"#window={windows.ids[3]}"
    links.nth(n).click()
    assert page.bench("at") == 3 and page.bench("row(moolaBench.selected).first") == 100 and page.js("groups.picked") == [[3*105 + 100, 4*105]]
    page.press(*["k"]*(len(page.bench("findings")) - n))
    assert page.bench("findingAt") == 0
    page.tab.goto(page.tab.url.split("#")[0] + links.nth(n).get_attribute("href"))
    assert page.bench("at") == 3
    page.tab.get_by_role("button", name="Close the list").click()
    assert page.tab.locator(".moola-health").is_hidden() and page.js("groups.picked") == []
    empty = opened(served(file=tmp_path/"none.parquet"))
    empty.press("k")
    empty.settled()
    assert "no labels to check yet" in empty.tab.locator(".moola-hint").text_content()


def test_look_alikes(served, opened, tmp_path):
    "The look-alikes of a span stand in a row, each a click away, and are taken over like suggestions."
    pytest.importorskip("moola.labels.similar")
    page = opened(served())
    assert page.tab.locator(".moola-found").is_hidden()
    page.press("Escape", "l")
    assert "Select a span first" in page.tab.locator(".moola-hint").text_content()
    page.drag(page.at(40), page.at(47))
    page.press("l")
    page.settled()
    found = page.bench("alike")
    assert len(found) > 2 and not any(s["span"][0] < 48 and s["span"][1] > 40 for s in found)
    chips = page.tab.locator(".moola-found button[title*='distance']")
    assert chips.count() == len(found)
    w = int(np.argmax([min(found[1]["span"][1], a + 105) - max(found[1]["span"][0], a) for a in page.bench("windows")]))
    chips.nth(1).click()
    assert page.bench("at") == w and page.js("groups.spans") == sorted(s["span"] for s in found)
    page.press("t")
    rows = page.settled()
    assert len(rows) == 2 and rows[1]["w"] == w and rows[1]["label"] == rows[0]["label"]
    assert "moola-known" in chips.nth(1).get_attribute("class")
    page.press("l")
    assert page.bench("alikeAt") == 2
    page.tab.get_by_role("button", name="Forget the look-alikes").click()
    assert page.tab.locator(".moola-found").is_hidden() and page.js("groups.spans") == []


def test_two_benches(served, opened, tmp_path):
    "Two servers on one file, changes in turn and at once: neither loses a label, and each shows the other's."
    file = tmp_path/"labels.parquet"
    a, b = opened(served(labeller="ann")), opened(served(labeller="bob"))
    b.press(*["ArrowDown"]*5)
    for _ in range(3):
        for p in (a, b):
            p.drag(p.at(p.bench("start") + 30), p.at(p.bench("start") + 36))
            p.press("ArrowDown")
    a.settled(), b.settled()
    table = LabelStore(file).table.to_pandas()
    assert sorted(table.labeller) == ["ann"]*3 + ["bob"]*3 and table.window_id.nunique() == 6
    a.tab.evaluate("window.dispatchEvent(new Event('focus'))")
    assert len(a.settled()) == 6
    b.press("z")
    b.settled()
    assert sorted(LabelStore(file).table["labeller"].to_pylist()) == ["ann"]*3 + ["bob"]*2


def test_a_lost_server(served, opened, tmp_path):
    "What can't be saved is said, kept, and saved once the server answers again."
    file = tmp_path/"labels.parquet"
    page = opened(served())
    failing = [True]
    page.tab.route("**/do", lambda r: r.fulfill(status=200, json=dict(again=True, error="disk full")) if failing[0] else r.continue_())
    page.drag(page.at(40), page.at(47))
    page.tab.wait_for_function("() => document.querySelector('.moola-saved').textContent === 'Not saved: disk full'")
    page.press("r")
    failing[0] = False
    page.settled()
    row = LabelStore(file).table.to_pandas().iloc[0]
    assert (row.expansion_start, row.expansion_end, row.label) == (40, 47, "retracement")
    assert page.tab.locator(".moola-saved").text_content() == "Saved in labels.parquet"


def test_mend_a_file(served, opened, tmp_path):
    "Windows without bars around them: only the window is on screen, and its labels are mended; foreign columns stay."
    file = tmp_path/"train.parquet"
    write_windows(simulate_windows(5, seed=1), file)
    old = read_windows(file)
    page = opened(served(old, file))
    page.press("ArrowDown")
    page.rest()
    (a, b), (low, high) = old.spans[1][0], page.seen
    assert (low, high) == (105, 210)
    page.drag(page.edge(105 + b), page.edge(105 + b + 3))
    page.settled()
    now = read_windows(file)
    assert now.spans[1].tolist() == [[a, b + 3]] and np.array_equal(now.ohlc, old.ohlc)
    assert now.rows[old.rows.columns].drop(columns="expansion_end").equals(old.rows.drop(columns="expansion_end"))
    page.tab.evaluate(f"location.hash = 'window={old.ids[3]}'")  # as a link to a row has it
    page.tab.wait_for_function("() => moolaBench.at === 3")
    page.rest()
    page.tab.keyboard.press("ArrowRight")  # every window counts its own bars, in the legend as on the cards
    assert page.tab.locator(".moola-legend [data-name='time']").text_content().strip() == "bar 53"
    page.tab.locator(".moola-date").fill("20")
    page.press("Enter")
    page.tab.wait_for_function("() => moolaBench.chart.row === 3*105 + 20")
    page.tab.evaluate("location.hash = 'window=nobody'")
    page.tab.wait_for_function("() => document.querySelector('.moola-hint').textContent === 'There is no window nobody here'")


@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widths(served, opened, tmp_path, width, scheme):
    "Nothing is wider than the screen, and every control is on it."
    page = opened(served(suggest=SUGGESTED), width, scheme=scheme)
    page.drag(page.at(40), page.at(47))
    page.press("h")
    page.settled()
    assert page.tab.locator(".moola-bench").get_attribute("data-theme") == scheme
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    for e in page.tab.locator(".moola-bench button:visible, .moola-bench input").all():
        box = e.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 800
    folder = os.environ.get("MOOLA_PICTURES")
    if folder: page.tab.screenshot(path=f"{folder}/label-{scheme}-{width}.png")


def ask(server, method, path, headers=None, body=None):
    c = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    c.request(method, path, body, headers or {})
    r = c.getresponse()
    data = r.read()
    c.close()
    return r.status, data


def test_token_and_loopback(served, tmp_path):
    "Without the token, or under another host's name, nothing is read or changed; the server listens on 127.0.0.1 only."
    server = served()
    assert server.server_address[0] == "127.0.0.1" and server.socket.getsockname()[0] == "127.0.0.1"
    add = json.dumps(dict(do="add", id="x", w=0, values=dict(first=1, last=2, label="retracement"), key="k"))
    for method, path, headers in [("GET", "/", {}), ("GET", "/?token=", {}), ("GET", f"/?token={server.token[:-1]}", {}), ("GET", "/?token=%C3%A9", {}),
                                  ("POST", "/do", {}),
                                  ("POST", "/do", {"X-Token": "no"}), ("POST", f"/do?token={server.token}", {}),
                                  ("GET", f"/?token={server.token}", {"Host": "evil.example"}),
                                  ("POST", "/do", {"X-Token": server.token, "Host": "evil.example:80"})]:
        status, data = ask(server, method, path, headers, add if method == "POST" else None)
        assert status == 403 and server.token.encode() not in data, (method, path, headers)
    assert ask(server, "GET", f"/etc/passwd?token={server.token}")[0] == 404
    assert ask(server, "POST", "/do", {"X-Token": server.token}, "no")[0] == 400
    assert ask(server, "POST", "/do", {"X-Token": server.token, "Content-Length": "9"*9})[0] == 413
    assert ask(server, "PUT", "/do", {"X-Token": server.token})[0] == 501 and not (tmp_path/"labels.parquet").exists()
    for host in socket.gethostbyname_ex(socket.gethostname())[2]:
        if host.startswith("127."): continue
        with pytest.raises(OSError): socket.create_connection((host, server.server_port), 2)
    status, data = ask(server, "POST", "/do", {"X-Token": server.token}, add)
    assert status == 200 and len(json.loads(data)["rows"]) == 1


def test_wrong_messages(served):
    "A message that can't be meant is one sentence, and no change."
    bench = served().bench
    for wrong in [dict(do="sing"), dict(), dict(do="add"), dict(do="add", id="a", w=99999),
                  dict(do="add", id="a", w=0, values=dict(first=5, last=3, label="retracement")),
                  dict(do="change", id="nobody", values={}), dict(do="dismiss", id="a", w=0, bars=[1])]:
        assert bench.answer(wrong)["error"] and not bench.rows() and not bench.steps
    assert not bench.answer(dict(do="undo"))["can"]["undo"]


def test_files_of_others(tmp_path):
    "A window of the file that lies in the bars takes its place; a timestamp column of text stays text; one label is one row."
    file = tmp_path/"labels.parquet"
    ohlc = BARS[["open", "high", "low", "close"]].to_numpy()
    pd.DataFrame(dict(window_id=["mine"], label=["retracement"], expansion_start=[5], expansion_end=[9], features=[ohlc[300:405].tolist()],
                      timestamp=["long ago"], broker=["x"])).to_parquet(file)
    bench = Bench(BARS, file)
    assert bench.starts[bench.place["mine"]] == 300 and bench.rows()[0]["first"] == 5
    bench.answer(dict(do="add", id="n", w=0, values=dict(first=1, last=2, label="retracement"), key="k"))
    d = pd.read_parquet(file)
    assert d.timestamp.tolist() == ["long ago", str(BARS.timestamp[0])] and d.broker[0] == "x" and pd.isna(d.broker[1])
    zoned = BARS.assign(timestamp=BARS.timestamp.dt.tz_localize("America/New_York", ambiguous="NaT", nonexistent="NaT"))
    other = Bench(zoned[:400], tmp_path/"zoned.parquet")
    other.answer(dict(do="nothing", id="n", w=1, key="k"))
    assert LabelStore(tmp_path/"zoned.parquet").table.schema.field("timestamp").type == pa.timestamp("ns", "America/New_York")
    assert pd.read_parquet(tmp_path/"zoned.parquet").timestamp[0] == zoned.timestamp[other.starts[1]]
    for wrong, words in [(dict(starts=[1490]), "begins at row 1490"), (dict(stride=0), "stride")]:
        with pytest.raises(MoolaError, match=words): Bench(BARS, file, **wrong)


def test_command(tmp_path):
    "The command prints an address that answers, and Ctrl-C ends it; wrong input is one sentence."
    bars, labels = tmp_path/"bars.csv", tmp_path/"labels.parquet"
    BARS.to_csv(bars, index=False)
    run = [sys.executable, "-c", "from moola.labels.command import moola_label; moola_label()"]
    p = subprocess.Popen([*run, str(bars), "--labels", str(labels), "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         env=dict(os.environ, XDG_STATE_HOME=str(tmp_path/"state")))
    try:
        p.stdout.readline()
        port, token = re.search(r"http://127.0.0.1:(\d+)/\?token=(\S+)", p.stdout.readline()).groups()
        c = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
        c.request("GET", f"/?token={token}")
        assert c.getresponse().status == 200
        c.close()
        p.send_signal(signal.SIGINT)
        assert "0 labels in" in p.communicate(timeout=20)[0] and p.returncode == 0
    finally:
        p.kill()
    for words, wrong in [("there is no file", ["no.csv", "--labels", labels]), ("should end in .parquet", [bars, "--labels", "a.csv"]),
                         ("to mend", ["--labels", labels]), ("required", [bars]), ("can't be used", [bars, "--labels", labels, "--port", "99999"]),
                         ("there is no model", [bars, "--labels", labels, "--model", "no"]),
                         ("There is no folder", [bars, "--labels", tmp_path/"no/a.parquet"])]:
        done = subprocess.run([*run, *map(str, wrong)], capture_output=True, text=True)
        assert done.returncode and words in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
