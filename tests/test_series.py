"The convolution over a series: what no page has room to show."
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moola.core.errors import MoolaError
from moola.core.names import OHLC
from moola.data.features import feature_series
from moola.data.plant import simulate_labelled_bars, simulate_windows
from moola.data.read import read_bars
from moola.data.simulate import simulate_bars
from moola.data.windows import write_windows
from moola.detection.detector import Detector
from moola.models.checkpoint import load_checkpoint, save_checkpoint
from moola.models.series import FULL, SeriesNet, feature_state, series_features
from moola.models.series_reader import PART, SeriesReader
from moola.models.student import load_student, save_student
from moola.transfer.distil import ask, bar_pieces, collect_answers, distil, paste_surges

SOME = dict(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
BARS = np.ascontiguousarray(simulate_bars(1500, seed=3)[OHLC])


def net_of(right_context=FULL, channels=32, seed=0, rule="origin"):
    "A network with large random weights, so that its answers differ from bar to bar."
    torch.manual_seed(seed)
    net = SeriesNet(channels, right_context, rule).eval()
    for p in net.parameters(): p.requires_grad_(False).mul_(1.5)
    return net


def by_torch(net, ohlc): return net(torch.as_tensor(series_features(ohlc, swing_rule=net.swing_rule)[None]))[0].sigmoid().numpy()


@pytest.mark.parametrize("right", [0, 1, 3, 10, 20, 31])
@pytest.mark.parametrize("channels", [4, 24, 32])
def test_the_reader_is_the_network(right, channels):
    net = net_of(right, channels)
    reader = SeriesReader(net)
    for n in (1, 2, 30, 63, 700):
        assert np.abs(reader.read(BARS[:n]) - by_torch(net, BARS[:n])).max() < 1e-5


@settings(**SOME)
@given(st.lists(st.integers(1, 1499), max_size=8), st.sampled_from([0, 3, 10, 31]))
def test_same_bits_in_any_chunking(cuts, right):
    reader = SeriesReader(net_of(right))
    whole = reader.read(BARS)
    s = reader.stream()
    parts = [s.push(o) if len(o) != 1 else s.push(o[0]) for o in np.array_split(BARS, sorted(cuts))]
    assert np.array_equal(np.concatenate([*parts, s.finish()]), whole)


@pytest.mark.parametrize("right", [0, 3, 31])
def test_a_live_bar_has_the_bits_of_the_file(right):
    reader = SeriesReader(net_of(right))
    s = reader.stream()
    assert np.array_equal(np.concatenate([*(s.push(o) for o in BARS), s.finish()]), reader.read(BARS))
    short = reader.stream()
    parts = [short.push(o) for o in BARS[:5]]
    assert np.array_equal(np.concatenate([*parts, short.finish()]), reader.read(BARS[:5]))


def test_threads_and_parts_change_no_bit():
    reader, ohlc = SeriesReader(net_of(10)), np.ascontiguousarray(simulate_bars(2*PART+50, seed=4)[OHLC])
    one, s = reader.read(ohlc), reader.stream()
    assert np.array_equal(reader.read(ohlc, threads=3), one)
    assert np.array_equal(np.concatenate([s.push(ohlc), s.finish()]), one)


@pytest.mark.parametrize("n", [0, 1, 7, 100, 600])
def test_a_restored_state_goes_on(n, tmp_path):
    reader = SeriesReader(net_of(3))
    s = reader.stream()
    first = s.push(BARS[:n])
    np.savez(tmp_path/"state.npz", **s.state())
    with np.load(tmp_path/"state.npz") as kept: again = reader.resume(dict(kept))
    assert np.array_equal(np.concatenate([first, again.push(BARS[n:]), again.finish()]), reader.read(BARS))
    assert sum(v.nbytes for v in s.state().values() if isinstance(v, np.ndarray)) < 50_000


@pytest.mark.parametrize("rule", ["origin", "strict", "close"])
def test_features_are_those_of_the_series(rule, shared):
    ohlc = np.ascontiguousarray(read_bars(shared/"data"/"nq_1m_202311.parquet")[OHLC])[:5000]
    x, state = series_features(ohlc, swing_rule=rule), feature_state()
    assert np.array_equal(x[:12].T, feature_series(ohlc, swing_rule=rule))
    assert np.array_equal(np.concatenate([series_features(o, state, rule) for o in np.array_split(ohlc, 7)], 1), x)


@pytest.mark.parametrize("factor", [.001, 7., 1e6])
def test_scale_changes_nothing(factor):
    reader = SeriesReader(net_of())
    assert np.abs(reader.read(BARS*factor) - reader.read(BARS)).max() < 1e-4
    assert np.array_equal(reader.read(BARS*4), reader.read(BARS))   # a power of two changes no bit


@pytest.mark.parametrize("right", [0, 3, 10, 31])
def test_later_bars_change_nothing(right):
    reader, other = SeriesReader(net_of(right)), BARS.copy()
    at = 700
    other[at:] = BARS[:len(BARS)-at][::-1]
    a, b = reader.read(BARS), reader.read(other)
    assert np.array_equal(a[:at-right], b[:at-right])
    assert a[at-right] != b[at-right]


def test_mean_range_forgets_but_view_is_limited():
    "Features hold the past; the network itself sees 62 bars back."
    net, x = net_of(0), series_features(BARS)
    other = x.copy()
    other[:, :300] = 0
    a, b = (net(torch.as_tensor(o[None]))[0] for o in (x, other))
    assert not torch.equal(a[:362], b[:362]) and torch.allclose(a[362:], b[362:], atol=1e-6)


@pytest.mark.parametrize("call, words", [
    (lambda: SeriesNet(right_context=32), "from 0 to 31"), (lambda: SeriesNet(channels=30), "multiple of 4"),
    (lambda: SeriesNet(swing_rule="mine"), "swing_rule"), (lambda: series_features(np.zeros((3, 5))), "4 wide"),
    (lambda: SeriesReader(net_of()).read(np.full((3, 4), np.nan)), "finite"), (lambda: SeriesReader(net_of()).resume(dict(a=1)), "no state"),
    (lambda: list(bar_pieces("nowhere.csv")), "there are no bars"), (lambda: load_student("nowhere.pt"), "there is no model")])
def test_wrong_input_is_one_sentence(call, words):
    with pytest.raises(MoolaError, match=words) as e: call()
    assert "\n" not in str(e.value)


def test_a_stream_that_ended_or_another_state():
    s = SeriesReader(net_of()).stream()
    s.push(BARS[:10])
    s.finish()
    with pytest.raises(MoolaError, match="after a gap"): s.push(BARS[10])
    with pytest.raises(MoolaError, match="another network"): SeriesReader(net_of(channels=64)).resume(s.state())


def test_a_damaged_student_is_refused(tmp_path):
    save_student(tmp_path/"s.pt", net_of(3))
    c = load_checkpoint(tmp_path/"s.pt")
    for change in (dict(kind="run"), dict(features=["open"]), dict(channels=64), dict(more=1), dict(model=c["model"] | {"head.bias": torch.tensor([np.nan])})):
        save_checkpoint(tmp_path/"bad.pt", c | change)
        with pytest.raises(MoolaError): load_student(tmp_path/"bad.pt")
    assert load_student(tmp_path/"s.pt")[1]["right_context"] == 3


class Teacher:
    "A detector that counts what it is asked."
    features, swing_rule, models, runs, threshold, min_length, max_gap, asked = (), "origin", [], ["test"], .5, 2, 0, 0

    def scan(self, bars, **options):
        self.asked += 1
        p = np.clip((bars.high-bars.low).to_numpy()/20, 0, 1)
        p[:23] = np.nan
        return type("Scan", (), dict(probabilities=pd.DataFrame(dict(probability=p))))


def test_answers_are_kept(tmp_path):
    teacher, windows, bars = Teacher(), simulate_windows(8), simulate_bars(600, seed=1)
    files = collect_answers(teacher, bar_pieces(bars, 300), tmp_path, windows)
    assert (teacher.asked, len(files)) == (8, 8)
    assert collect_answers(teacher, bar_pieces(bars, 300), tmp_path, windows) == files and teacher.asked == 8


def test_no_unlabelled_bars_warns(tmp_path):
    with pytest.warns(UserWarning, match="no unlabelled bars"): distil(Teacher(), None, tmp_path, simulate_windows(8), simulated=800, epochs=1)
    assert (tmp_path/"student.pt").exists()


def test_pasted_surges_are_bars():
    x = paste_surges(BARS, simulate_windows(20), np.random.default_rng(0))
    assert x.shape == BARS.shape and np.isfinite(x).all() and ask(Teacher(), x, 8).shape == (len(x),)
    assert (x[:, 1] >= x[:, [0, 2, 3]].max(1)-1e-9).all() and (x[:, 2] <= x[:, [0, 1, 3]].min(1)+1e-9).all()


def test_answers_may_lie_elsewhere_and_be_absent(tmp_path):
    from moola.transfer.distil import soft_loss
    distil(Teacher(), simulate_bars(600, seed=1), tmp_path/"student", epochs=1, answers=tmp_path/"answers")
    assert (tmp_path/"student"/"student.pt").exists()
    assert soft_loss(torch.zeros(2, 5), torch.full((2, 5), torch.nan)).item() == 0


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    "A student of a teacher that marks wide bars, in its folder, and a file of bars."
    folder = tmp_path_factory.mktemp("students")
    distil(Teacher(), simulate_bars(1500, seed=1), folder/"student", simulate_windows(8), right_context=3, epochs=2)
    simulate_bars(1600, seed=2).to_csv(folder/"bars.csv", index=False)
    return folder


def test_the_commands_take_a_student(taught, capsys):
    from moola.detection.command import moola_predict
    from moola.transfer.distil_command import moola_distil
    student, out = str(taught/"student"), taught/"spans.csv"
    moola_predict([str(taught/"bars.csv"), "--model", student, "--out", str(out), "--alarms-per-day", "4", "--base-rate", ".02", "--quiet"])
    said = capsys.readouterr().out
    assert "3 bars ahead" in said and "each bar read once" in said and out.exists()
    table = pd.read_csv(out)
    assert 0 < len(table) <= 8 and table.confidence.notna().all()
    for words, call in {"has no stride": lambda: moola_predict([str(taught/"bars.csv"), "--model", student, "--stride", "3"]),
                        "mean the same": lambda: moola_predict([str(taught/"bars.csv"), "--model", student, "--threshold", ".5", "--alarms-per-day", "3"]),
                        "is a student: the teachers": lambda: moola_distil([student, "--bars", str(taught/"bars.csv"), "--output", str(taught/"other")]),
                        "there is no nowhere": lambda: moola_distil([student, "--bars", "nowhere"]),
                        "student is a student: the teachers": lambda: moola_distil(["student", "--bars", str(taught/"bars.csv"), "--output", str(taught/"other")]),
                        "pastes is 0": lambda: moola_distil(["--pastes", "0", "--bars", str(taught/"bars.csv"), "--output", str(taught/"other")])}.items():
        with pytest.raises(SystemExit) as e: call()
        assert words in str(e.value), (words, e.value)


def test_a_student_as_onnx(taught, capsys):
    "Any number of stretches of any length, with torch's answers; what it needs to be told is in the file."
    runtime, path = pytest.importorskip("onnxruntime"), taught/"student.onnx"
    pytest.importorskip("onnxscript")
    from moola.detection.command import moola_export
    from moola.detection.export import onnx_schema
    moola_export([str(taught/"student"), str(path), "--bars", str(taught/"bars.csv")])
    assert "1 student of 17 features" in capsys.readouterr().out
    net, session = load_student(taught/"student")[0], runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = series_features(simulate_bars(700, seed=9)[OHLC].to_numpy())
    for part in (x[None], x[None, :, :63], np.stack([x[:, i:i+99] for i in range(5)]), x[None, :, :1], x[None][:0]):
        with torch.no_grad(): np.testing.assert_allclose(session.run(None, dict(features=part))[0], net(torch.from_numpy(part)).sigmoid(), atol=1e-5)
    schema = onnx_schema(path)
    assert (schema["warm_up"], schema["right_context"], schema["window"], len(schema["features"])) == (59, 3, None, 17)
    read_bars(taught/"bars.csv")[:50].to_csv(taught/"few.csv", index=False)
    with pytest.raises(SystemExit, match="it takes 63 bars without a gap"): moola_export([str(taught/"student"), str(taught/"other.onnx"), "--bars", str(taught/"few.csv")])
    assert not (taught/"other.onnx").exists()


def test_a_followed_file_gives_the_scan(taught, capsys):
    from moola.detection.detector import Detector
    from moola.detection.follow import moola_follow
    detector, bars = Detector.load(taught/"student", "cpu"), read_bars(taught/"bars.csv")
    level = detector.scan(bars, alarms_per_day=6.).about["threshold"]
    moola_follow([str(taught/"bars.csv"), "--model", str(taught/"student"), "--once", "--json", "--events", "final", "--threshold", str(level)])
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    first = bars.iloc[:1380]   # the first session, after which the market is closed
    assert len([s for s in said if '"end_bar": ' in s]) >= len(detector.scan(first, threshold=level).spans) > 0


def test_a_student_is_not_written_over_and_is_no_run(taught):
    from moola.training.run import find_run
    with pytest.raises(MoolaError, match="already there"): distil(Teacher(), simulate_bars(600, seed=1), taught/"student", epochs=1)
    with pytest.raises(MoolaError, match="holds a student"): find_run(taught/"student")
    with pytest.raises(MoolaError, match="without a gap"): distil(Teacher(), simulate_bars(60, seed=1), taught/"short", epochs=1)
    with pytest.raises(MoolaError, match="from 1 to 63"): distil(Teacher(), simulate_bars(600, seed=1), taught/"wide", stride=64)


def test_a_stopped_student_goes_on(tmp_path, monkeypatch):
    "The same weights as without a stop."
    from moola.transfer import distil as page
    files = collect_answers(Teacher(), bar_pieces(simulate_bars(1300, seed=1), 650), tmp_path, stride=8)
    def fresh():
        torch.manual_seed(0)
        return SeriesNet(8)
    whole, half, plain = fresh(), fresh(), page._epoch
    page.teach(whole, files, epochs=3)
    def stop_at_two(net, optimizer, files, labelled, e, *rest):
        if e == 2: raise KeyboardInterrupt
        return plain(net, optimizer, files, labelled, e, *rest)
    monkeypatch.setattr(page, "_epoch", stop_at_two)
    with pytest.raises(KeyboardInterrupt): page.teach(half, files, epochs=3, state=tmp_path/"last.pt")
    monkeypatch.setattr(page, "_epoch", plain)
    assert len(page.teach(again := fresh(), files, epochs=3, state=tmp_path/"last.pt")) == 3
    for k, v in whole.state_dict().items(): assert torch.equal(v, again.state_dict()[k]), k


@pytest.fixture
def project(taught, tmp_path, monkeypatch):
    "A project with the student, and bars with known expansions that it has not read."
    (tmp_path/"settings.ini").touch()
    shutil.copytree(taught/"student", tmp_path/"artifacts"/"student")
    labelled = simulate_labelled_bars(12, seed=8)
    labelled.bars.to_csv(tmp_path/"bars.csv", index=False)
    times = labelled.bars.timestamp.to_numpy()
    pd.DataFrame(dict(start_time=times[labelled.spans[:, 0]], end_time=times[labelled.spans[:, 1]-1])).to_csv(tmp_path/"labels.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_student_goes_into_production(project, capsys):
    "Judged on bars in a row, with a card of its own; what is in production is the student, and whatever is put in its place is refused."
    from moola.release.command import moola_promote
    words = ["artifacts/student", "--bars", "bars.csv", "--labels", "labels.csv"]
    with pytest.raises(SystemExit, match="is not promoted: it fails .* checks"): moola_promote(words)
    assert "pass  judged on bars in a row" in (said := capsys.readouterr().out) and "0.0% of the bars, five in a row, are among those" in said
    assert not (project/"artifacts"/"production").exists()
    for _ in range(2): moola_promote([*words, "--force", "a try"])
    production, bars = project/"artifacts"/"production", read_bars("bars.csv")
    one, other = Detector.load(None, "cpu"), Detector.load("artifacts/student", "cpu")
    assert one.once and one.runs == [str(production)] and one.threshold == other.threshold
    np.testing.assert_array_equal(*(d.scan(bars).probabilities.probability for d in (one, other)))
    card, about = (production/"README.md").read_text(), json.loads((production/"model.json").read_text())
    assert "Promoted although" in card and "a try" in card and about["variant"] == "student" and str(project) not in json.dumps(about)
    moola_promote(["--rollback"])
    (production/"model.pt").write_bytes((production/"model.pt").read_bytes().replace(b"series", b"sories", 1))
    with pytest.raises(MoolaError, match="is not the model that .* describes"): Detector.load(production, "cpu")


@pytest.mark.parametrize("words, said", [
    ([], "it fails .* checks .*judged on bars in a row"), (["--bars", "bars.csv"], "--labels is missing"), (["--labels", "labels.csv"], "--bars is missing"),
    (["--evaluation", "x"], "--evaluation is for a run"), (["--bars", "gone.csv", "--labels", "labels.csv"], "gone.csv"),
    (["--bars", "bars.csv", "--labels", "gone.csv"], "there is no file gone.csv"), (["--bars", "few.csv", "--labels", "first.csv"], "few.csv: .* are needed"),
    (["--check"], "it fails"), (["--force", " "], "--force needs a reason"), (["--fit-bars", "bars.csv"], "--fit-labels is missing: a student is fitted with both"),
    (["--fit-bars", "bars.csv", "--fit-labels", "labels.csv", "--check"], "--check changes nothing"),
    (["--bars", "bars.csv", "--labels", "labels.csv", "--fit-bars", "./bars.csv", "--fit-labels", "labels.csv"], "cannot both fit the student and judge it")])
def test_students_that_are_not_promoted(project, words, said):
    from moola.release.command import moola_promote
    read_bars("bars.csv")[:400].to_csv("few.csv", index=False)
    pd.read_csv("labels.csv")[:1].to_csv("first.csv", index=False)
    with pytest.raises(SystemExit, match=said): moola_promote(["artifacts/student", *words])
    assert not (project/"artifacts"/"production").exists()


def test_a_student_is_fitted_and_promoted(project, capsys):
    "One command gives it a threshold and a confidence on some bars, and judges it on others."
    from moola.release.command import moola_promote
    labelled = simulate_labelled_bars(12, seed=9)
    labelled.bars.to_csv("other.csv", index=False)
    times = labelled.bars.timestamp.to_numpy()
    pd.DataFrame(dict(start_time=times[labelled.spans[:, 0]], end_time=times[labelled.spans[:, 1]-1])).to_csv("others.csv", index=False)
    moola_promote(["artifacts/student", "--fit-bars", "other.csv", "--fit-labels", "others.csv", "--bars", "bars.csv", "--labels", "labels.csv", "--force", "a try"])
    student, production = Detector.load("artifacts/student", "cpu"), Detector.load(None, "cpu")
    assert student.span_calibration and production.span_calibration == student.span_calibration and production.threshold == student.threshold
    assert f"fitted on other.csv: threshold {student.threshold:.3f}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--fit-bars is for a student"): moola_promote([str(project), "--fit-bars", "other.csv", "--fit-labels", "others.csv"])


def test_fits_that_are_refused(project):
    "Nothing is written where there is nothing to fit, nor over a student in production."
    from moola.release.command import moola_promote
    from moola.release.student import fit_student
    student = project/"artifacts"/"student"/"student.pt"
    before, times = student.read_bytes(), read_bars("bars.csv").timestamp
    pd.DataFrame(dict(start_time=times[:1], end_time=times[1:2].array)).to_csv("early.csv", index=False)   # where no bar has an answer
    shutil.copy(student, "model.pt")
    with pytest.raises(SystemExit, match="there is no file gone.csv"):    # before the student is changed
        moola_promote(["artifacts/student", "--fit-bars", "bars.csv", "--fit-labels", "labels.csv", "--bars", "gone.csv", "--labels", "labels.csv"])
    for where, labels, said in ((student, "early.csv", "early.csv labels none of the bars that the student answers"), ("model.pt", "labels.csv", "before it goes into production"),
                                (student, "gone.csv", "gone.csv"), ("nowhere", "labels.csv", "there is no model nowhere")):
        with pytest.raises(MoolaError, match=said): fit_student(where, "bars.csv", labels)
    assert student.read_bytes() == before == Path("model.pt").read_bytes()


def test_bars_that_it_has_read_do_not_count(project):
    from moola.release.student import _unread, fit_student
    simulate_bars(1500, seed=1).to_csv("read.csv", index=False)
    from moola.evaluation.bars import seen_bars
    student = project/"artifacts"/"student"
    shutil.rmtree(student/"answers")    # marks in the student's own file tell
    assert not (read := _unread(student, "read.csv")).passed and read.reason.startswith("99.7% of the bars")    # its pieces end where a session does
    assert _unread(student, "bars.csv").passed
    found = [seen_bars(read_bars(f), Detector.load(student, "cpu")) for f in ("read.csv", "bars.csv")]
    assert found[0] > .99 and found[1] == 0
    assert "too few bars to tell" in _unread(student, few(project)).reason
    fit_student(student, "bars.csv", "labels.csv")
    assert not (fitted := _unread(student, "bars.csv")).passed and "0.0% of the bars, five in a row, are among those that its teachers answered, and 100.0%" in fitted.reason
    net, about = load_student(student)
    data = {k: v for k, v in about["data"].items() if k not in ("read", "fitted")}
    save_student(student/"student.pt", net, **{k: about[k] for k in ("threshold", "decoder", "calibration", "feature_reference", "teachers", "versions")}, data=data)
    assert not (old := _unread(student, "bars.csv")).passed and "that cannot be told" in old.reason


def few(folder):
    "A file of bars that don't move."
    flat = simulate_bars(80, seed=5).assign(open=1., high=1., low=1., close=1.)
    flat.to_csv(folder/"flat.csv", index=False)
    return "flat.csv"


def test_a_student_on_labelled_windows(project, capsys):
    "Scored on windows that it has not learned from, and refused on those that it has."
    from moola.evaluation.command import moola_evaluate
    for n, name in ((24, "new"), (8, "learned")): write_windows(simulate_windows(n), f"{name}.parquet")
    moola_evaluate(["artifacts/student", "--data", "new.parquet", "--device", "cpu"])
    said = capsys.readouterr().out
    assert "24 windows that none of the models has learned from, bars 59 to 104" in said and "student: average precision" in said
    for words, argv in {"the models have learned from all of these 8 windows": ["--data", "learned.parquet"], "--data FILE, or on bars in a row": [],
                        "--folds does not go with": ["--data", "new.parquet", "--folds", "3"],
                        "gone.parquet does not exist": ["--data", "gone.parquet"], "there is no model nowhere": ["nowhere", "--data", "new.parquet"]}.items():
        with pytest.raises(SystemExit, match=words): moola_evaluate(["artifacts/student", *argv])


def test_the_students_that_come_along(tmp_path, monkeypatch, capsys):
    "Commands on bars take it without a name; on bars that neither has read it stands above the networks, and its spans are final when its look ahead has passed."
    from moola.detection.command import moola_export, moola_predict
    from moola.evaluation.command import moola_evaluate
    from moola.metrics.calibration import calibrate_prob
    from moola.metrics.scores import average_precision
    monkeypatch.chdir(tmp_path)
    one, live, other = (Detector.load(name, "cpu") for name in ("student", "student-live", "recommended"))
    assert one.once and one.right_context == 31 and live.right_context == 3 and not other.once and Path(one.runs[0]).name == "student"
    labelled = simulate_labelled_bars(60, seed=77)
    target = np.zeros(len(labelled.bars), bool)
    for a, b in labelled.spans: target[a:b] = True
    found = [d.scan(labelled.bars, types=False, **how).probabilities.probability.to_numpy(float) for d, how in ((one, {}), (other, dict(stride=2)))]
    there = ~np.isnan(found).any(0)
    scores = [average_precision(target[None, there], p[None, there]) for p in found]
    assert scores[0] > scores[1] > .3
    assert abs(calibrate_prob(found[0][there], *one.calibration).mean() - target[there].mean()) < .01    # calibrated for bars in a row
    few, warning = labelled.bars[:3000], "fitted to labelled windows and says too much"
    assert warning in " ".join(other.scan(few, stride=8).words)
    for d, how in ((other, dict(stride=8, base_rate=.03)), (one, {})): assert warning not in " ".join(d.scan(few, **how).words)
    for student, late in ((one, 33), (live, 5)):
        stream = student.stream(bar="1min")
        finals = [e for b in labelled.bars[:2000].itertuples() for e in stream.push(b).events if e.kind == "final"]
        assert finals and max(e.row - e.end_bar for e in finals) <= late
        spans = student.scan(labelled.bars, types=False).spans
        sure = {(v.start_bar, v.end_bar): v.confidence for v in spans.itertuples()}
        assert all(sure[e.start_bar, e.end_bar] == e.confidence for e in finals)
        share = [target[a:b+1].mean() for a, b in sure]
        assert abs(spans.confidence.mean() - np.mean(share)) < .1      # of a span's bars as many are labelled as it says
    labelled.bars[:3000].to_csv("bars.csv", index=False)
    times = labelled.bars.timestamp.to_numpy()
    pd.DataFrame(dict(start_time=times[labelled.spans[:, 0]], end_time=times[labelled.spans[:, 1]-1]))[:10].to_csv("labels.csv", index=False)
    moola_predict(["bars.csv", "--out", "spans.csv", "--about", "about.json"])
    assert Path(json.loads(Path("about.json").read_text())["runs"][0]).name == "student"
    with pytest.raises(SystemExit, match="no stride; a model that reads windows, such as 'recommended', has one"): moola_predict(["bars.csv", "--stride", "3"])
    moola_export(["student", "student.onnx"])
    moola_evaluate(["student", "--bars", "bars.csv", "--labels", "labels.csv", "--plot", "rows.png"])
    write_windows(simulate_windows(24, 9), "new.parquet")
    moola_evaluate(["student", "--data", "new.parquet", "--device", "cpu"])
    assert len(pd.read_csv("spans.csv")) and Path("student.onnx").stat().st_size and "student" in capsys.readouterr().out
    save_student(tmp_path/"student", net_of(3))   # a file of that name is meant, where there is one
    assert Detector.load("student", "cpu").right_context == 3
