"moola_follow: a file that grows, and a server on the loopback."
import io
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from moola.data.simulate import simulate_bars
from moola.detection.detector import Detector
from moola.detection.follow import arriving, moola_follow


@pytest.fixture(scope="module")
def bars(): return simulate_bars(700, seed=26)


@pytest.fixture(scope="module")
def expected(bars):
    stream = Detector.load("student-live", "cpu").stream()
    return [(e.kind, e.id, e.row) for b in bars.itertuples() for e in stream.push(b).events if e.kind in ("new", "final")]


def test_a_file_that_grows(bars, expected, tmp_path):
    "The events are those of a stream, and half a line waits for its other half."
    text, file = bars.to_csv(index=False), tmp_path/"bars.csv"
    cut = len(text)//2
    file.write_text(text[:cut])
    code = "from moola.detection.follow import moola_follow; import sys; moola_follow(sys.argv[1:])"
    p = subprocess.Popen([sys.executable, "-c", code, str(file), "--json", "--events", "new,final"], stdout=subprocess.PIPE, text=True)
    try:
        seen = [json.loads(p.stdout.readline())]
        with file.open("a") as f: f.write(text[cut:])
        while len(seen) < len(expected): seen.append(json.loads(p.stdout.readline()))
    finally:
        p.kill()
        p.wait()
    assert [(e["kind"], e["id"], e["row"]) for e in seen] == expected


def test_webhook_and_exec(bars, expected, tmp_path, monkeypatch, capsys):
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if len(got) == 1 else 200)
            self.end_headers()
        def log_message(self, *args): pass
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(sys, "stdin", io.StringIO(bars.to_csv(index=False)))
    script = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read()+chr(10))"
    (tmp_path/"take.py").write_text(script)
    words = ["-", "--events", "new,final", "--webhook", f"http://127.0.0.1:{server.server_port}/", "--exec", f"{sys.executable} {tmp_path}/take.py {tmp_path}/log"]
    moola_follow(words)
    server.shutdown()
    assert [(e["kind"], e["id"], e["row"]) for e in got] == expected
    assert [json.loads(o)["row"] for o in (tmp_path/"log").read_text().splitlines()] == [r for *_, r in expected]
    assert "HTTP Error 500" in capsys.readouterr().err


def test_half_a_line_waits(tmp_path):
    file = tmp_path/"a.csv"
    file.write_text("a,b\n1,")
    with file.open() as f, file.open("a") as more:
        lines = arriving(f, .01)
        assert next(lines) == ["a,b"]
        threading.Thread(target=lambda: (time.sleep(.05), more.write("2\n3"), more.flush())).start()
        assert next(lines) == ["1,2"]


def test_help_is_light():
    code = "import sys, moola.detection.follow as c; c.follow_parser().format_help(); print(*(m for m in ('torch','pandas') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_times_of_another_form(bars, expected, tmp_path, capsys):
    "A file with days first is refused, naming the option that settles it, and read with it; what is wrong later is said with the file's name."
    file, written = tmp_path/"bars.csv", bars.assign(timestamp=bars.timestamp.dt.strftime("%d/%m/%Y %H:%M")).rename(columns=dict(timestamp="Date/Time", close="Last"))
    written.to_csv(file, index=False)
    with pytest.raises(SystemExit, match="--time-format"): moola_follow([str(file), "--once"])
    moola_follow([str(file), "--once", "--json", "--events", "new,final", "--time-format", "DMY"])
    assert [(e["kind"], e["id"], e["row"]) for e in map(json.loads, capsys.readouterr().out.splitlines())] == expected
    written.assign(low=0.5*written.high.max()+written.high).to_csv(file, index=False)
    with pytest.raises(SystemExit, match="bars.csv: bar .* the low .* is above"): moola_follow([str(file), "--once", "--time-format", "DMY"])
