"The stream: what no page has room to show."
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moola.bars import OHLC, W, read_bars, segment_bars, simulate_bars
from moola.errors import MoolaError
from moola.exact import pack, read_spans
from moola.features import DISPLACEMENT, FEATURES
from moola.model import Jade
from moola.predict import Detector, scan
from moola.stream import COLUMNS, NUMBERS, Stream, collect, load_stream, replay

SOME = dict(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def detector_of(names=FEATURES, seed=0, layers=1, right_context=-1, hidden=8):
    "A detector of one network with large random weights, so that its answers differ from bar to bar."
    torch.manual_seed(seed)
    model = Jade(len(names), hidden=hidden, layers=layers, right_context=right_context).eval().requires_grad_(False)
    for p in model.parameters(): p.mul_(3)
    return Detector([model], tuple(names), "origin", .5, 2, torch.device("cpu"), [f"network {seed}"], 0, (1.3, -.4))


def with_gaps(n, cuts, seed=0):
    "Simulated bars with a minute missing before each row of `cuts`."
    bars, later = simulate_bars(n, seed), np.zeros(n, "int64")
    for c in cuts: later[c:] += 1
    return bars.assign(timestamp=np.datetime64("2024-01-07T18:00", "us") + (np.arange(n) + later) * np.timedelta64(1, "m"))


def high(bars, detector, share=.12, **options):
    "A threshold that marks about this share of all bars."
    return float(scan(bars, detector, progress=False, **options).probabilities.probability.quantile(1-share))


def check(seen, found):
    "A stream has given what a scan gives, to the last bit."
    pd.testing.assert_frame_equal(seen.probabilities, found.probabilities, check_exact=True)
    pd.testing.assert_frame_equal(seen.spans.drop(columns="final"), found.spans, check_exact=True)


def contents(stream):
    "All that a stream remembers."
    t = stream.tail
    return [getattr(stream, k) for k in NUMBERS], stream.open, t.first, t.end, {k: t[k, t.first, t.end].tobytes() for k in COLUMNS}


@pytest.mark.parametrize("file,first,n,max_gap", [("nq_1m_202311", 600, 1000, 0), ("es_1m_202504", 1100, 600, 2), ("eurusd_1m_lean_oanda", 380, 640, 1),
                                                  ("estx50fut_1m_2006", 600, 700, 0), ("es_5m_202507", 0, 600, 2)])
def test_prefixes_of_real_bars(file, first, n, max_gap, shared):
    "After any number of bars: the scan of these bars. A final span is in all scans to come, and no other is final."
    bars, detector = read_bars(shared/"data"/f"{file}.parquet")[first:first+n].reset_index(drop=True), detector_of(FEATURES + DISPLACEMENT)
    assert len(segment_bars(bars)) > 1
    kw = dict(threshold=high(bars, detector), max_gap=max_gap)
    stream, updates, final = Stream(detector, **kw), [], {}
    at = {W, n, *np.random.default_rng(0).integers(W, n, 9), *(c+k for c in segment_bars(bars)[1:4, 0] for k in (0, 1) if W <= c+k <= n)}
    for k, b in enumerate(bars.itertuples(), 1):
        updates.append(stream.push(b))
        for e in updates[-1].events:
            if e.kind == "final": final[e.start_bar, e.end_bar] = e.probability, e.confidence, e.move, e.window_type, e.type_probability
        if k not in at or np.diff(segment_bars(bars[:k])).max() < W: continue
        found = scan(bars[:k], detector, progress=False, check=False, **kw)
        check(collect(stream, updates), found)
        there = {(s.start_bar, s.end_bar): (s.probability, s.confidence, s.move, s.window_type, s.type_probability) for s in found.spans.itertuples()}
        assert final.items() <= there.items()
    assert len(final) > 4
    kinds = {e.kind for u in updates for e in u.events}
    assert kinds >= {"new", "changed", "final"}


def test_final_as_early_as_said_and_not_earlier():
    bars, detector = with_gaps(700, [430]), detector_of()
    stream = Stream(detector, threshold=high(bars, detector), max_gap=1)
    events = [e for b in bars.itertuples() for e in stream.push(b).events]
    final = [e for e in events if e.kind == "final"]
    assert {e.row for e in final if 430-84 < e.end_bar < 430} == {430}
    assert {e.since_end for e in final if e.end_bar <= 430-84 or e.start_bar >= 430} == {83}
    new = {e.id: e for e in events if e.kind == "new"}
    assert min(e.since_end for e in events) == 19 == min(e.since_start - e.bars + 1 for e in new.values())
    for e in final: assert e.id in new
    assert len(final) == len({e.id for e in final})


@settings(**SOME)
@given(stride=st.integers(1, 20), right_context=st.integers(0, 104), place=st.tuples(st.integers(0, 40), st.integers(60, 104)), max_gap=st.integers(0, 4),
       min_length=st.integers(1, 5), cuts=st.lists(st.integers(1, 259), max_size=3), seed=st.integers(0, 99), share=st.floats(.02, .5))
def test_all_options(stride, right_context, place, max_gap, min_length, cuts, seed, share):
    cuts = [120, *cuts] if max(cuts, default=0) > 225 else cuts
    if np.diff(sorted({0, *cuts, 260})).max() < W: return
    bars, detector = with_gaps(260, cuts, seed), detector_of()
    options = dict(stride=stride, from_bar=place[0], to_bar=place[1], right_context=right_context)
    kw = dict(threshold=high(bars, detector, share, **options), min_length=min_length, max_gap=max_gap, bar="1min", **options)
    check(replay(bars, detector, **kw), scan(bars, detector, progress=False, batch=7, threads=2, **kw))


@pytest.mark.parametrize("kw", [dict(layers=2), dict(right_context=5), dict(right_context=0), dict(names=("move_5", "open_norm")), dict(names=FEATURES[:12])])
def test_all_networks(kw):
    bars, detector = simulate_bars(240, 3), detector_of(**kw)
    check(replay(bars, detector, threshold=.5), scan(bars, detector, threshold=.5, progress=False))


@pytest.mark.parametrize("kw", [dict(types=False), dict(max_gap=1)])
def test_without_types_or_calibration(kw):
    bars, detector = simulate_bars(240, 3), replace(detector_of(), calibration=None)
    check(replay(bars, detector, threshold=.5, **kw), scan(bars, detector, threshold=.5, progress=False, **kw))


def test_network_without_types():
    torch.manual_seed(0)
    model = Jade(13, tasks=("span",), hidden=8).eval().requires_grad_(False)
    detector, bars = replace(detector_of(), models=[model]), simulate_bars(240, 3)
    check(replay(bars, detector, threshold=.5), scan(bars, detector, threshold=.5, progress=False))
    with pytest.raises(MoolaError, match="cannot tell window types"): read_spans(np.zeros((1, W, 13), np.float32), [pack(model)], types=True)


def test_several_networks():
    a, b, bars = detector_of(seed=1), detector_of(seed=2), simulate_bars(240, 3)
    both = replace(a, models=a.models + b.models)
    check(replay(bars, both, threshold=.5), scan(bars, both, threshold=.5, progress=False))


@settings(**SOME)
@given(n=st.integers(1, 9), n_features=st.integers(1, 19), hidden=st.integers(1, 20), layers=st.integers(1, 2), limit=st.sampled_from([-1, 0, 3, 30]),
       place=st.tuples(st.integers(0, 30), st.integers(0, 30)), seed=st.integers(0, 99))
def test_read_spans(n, n_features, hidden, layers, limit, place, seed):
    "The compiled pass agrees with torch, and with itself in any batch."
    torch.manual_seed(seed)
    model = Jade(n_features, hidden=hidden, layers=layers, right_context=limit if layers == 1 else -1).eval().requires_grad_(False)
    for p in model.parameters(): p.mul_(3)
    x, (first, last) = torch.rand(n, 31, n_features)*2 - 1, sorted(place)
    found = read_spans(x.numpy(), [pack(model)], first, last)
    np.testing.assert_allclose(found, model(x)["span"].sigmoid()[:, first:last+1], atol=2e-6)
    typed = read_spans(x.numpy(), [pack(model)], first, last, types=True)
    np.testing.assert_array_equal(typed[:, :-1], found)
    np.testing.assert_allclose(typed[:, -1], model(x)["type"].softmax(1)[:, 1], atol=2e-6)
    for i in range(n): np.testing.assert_array_equal(read_spans(x[i:i+1].numpy(), [pack(model)], first, last, types=True)[0], typed[i])


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "-05:00"])
def test_time_zones(zone):
    "Zones are kept, through a restart too, and the night when clocks go back has no gap."
    bars, detector = with_gaps(330, [200]), detector_of()
    bars["timestamp"] = (bars.timestamp + pd.Timedelta("300D") - pd.Timedelta("9h")).dt.tz_localize("UTC").dt.tz_convert(zone)
    check(replay(bars, detector, threshold=.5), scan(bars, detector, threshold=.5, progress=False))
    with pytest.raises(MoolaError, match="has no time zone, unlike the bars before it"):
        stream = Stream(detector)
        for b in (*bars[:3].itertuples(), bars.iloc[3].to_dict() | dict(timestamp=pd.Timestamp("2030-01-01"))): stream.push(b)


@pytest.mark.parametrize("zone", [None, "America/New_York", "-05:00"])
@pytest.mark.parametrize("at", [0, 1, 60, 104, 105, 230, 231, 390])
def test_restart(at, zone, tmp_path):
    bars, detector = with_gaps(400, [40, 230]), detector_of()
    if zone: bars["timestamp"] = bars.timestamp.dt.tz_localize(zone)
    kw = dict(threshold=high(bars, detector), max_gap=1)
    whole, half = Stream(detector, **kw), Stream(detector, **kw)
    events = [whole.push(b).events for b in bars.itertuples()]
    updates = [half.push(b) for b in bars[:at].itertuples()]
    half.save(tmp_path/"state.pt")
    again = detector.stream(state=tmp_path/"state.pt", **kw)
    assert contents(again) == contents(half)
    updates += [again.push(b) for b in bars[at:].itertuples()]
    assert contents(again) == contents(whole)
    assert [str(u.events) for u in updates] == [str(e) for e in events]
    check(collect(again, updates), scan(bars, detector, progress=False, **kw))


def test_what_is_refused_changes_nothing():
    bars, detector = with_gaps(200, [40]), detector_of()
    stream, other = Stream(detector, threshold=.5), Stream(detector, threshold=.5)
    rng, last = np.random.default_rng(0), bars.iloc[0]
    for i, b in enumerate(bars.itertuples()):
        row = b._asdict()
        wrong = [(row | dict(high=b.low-1), "the high .* is below"), (row | dict(low=b.high+1), "the low .* is above"), (row | dict(close=np.inf), "infinite"),
                 (row | dict(open="x"), "is no number"), (row | dict(timestamp=None), "is no time"), (row | dict(timestamp=float(i)), "is no time"),
                 (row | dict(timestamp=b.timestamp.tz_localize("UTC")), "has a time zone"), ({k: v for k, v in row.items() if k != "low"}, "has no low"),
                 (last, f"bar {last.timestamp} is a duplicate"),
                 (early := bars.iloc[max(i-2, 0)], f"bar {early.timestamp} is out of order: the last bar was that of {last.timestamp}")]
        for k in rng.permutation(len(wrong))[:3]:
            if k in (6, 8, 9) and i < 3: continue
            before = contents(stream)
            with pytest.raises(MoolaError, match=wrong[k][1]): stream.push(wrong[k][0])
            assert contents(stream) == before
        stream.push(b)
        other.push(b)
        last = bars.iloc[i]
        assert contents(stream) == contents(other)


def test_closing_a_stretch():
    bars, detector = with_gaps(330, [200]), detector_of()
    kw = dict(threshold=high(bars, detector))
    a, b = Stream(detector, **kw), Stream(detector, **kw)
    ua, ub = ([s.push(r) for r in bars[:200].itertuples()] for s in (a, b))
    ua.append(a.close())
    assert {e.kind for e in ua[-1].events} == {"final"}
    assert not a.open
    assert a.close().events == ()
    contiguous = bars.iloc[199].to_dict() | dict(timestamp=bars.timestamp[199] + pd.Timedelta("1min"))
    with pytest.raises(MoolaError, match="but the stretch has been closed"): a.push(contiguous)
    for s, u in ((a, ua), (b, ub)): u += [s.push(r) for r in bars[200:].itertuples()]
    for s, u in ((a, ua), (b, ub)): check(collect(s, u), scan(bars, detector, progress=False, **kw))
    short = Stream(detector)
    for r in bars[:50].itertuples(): short.push(r)
    assert len(short.close().settled["time"]) == 0


def test_length_of_a_bar():
    "The first spacing that holds for 105 bars, or what is given."
    detector, bars = detector_of(), simulate_bars(400, 2)
    rng = np.random.default_rng(1)
    odd = np.concatenate([np.cumsum(rng.integers(1, 4, 150)), np.arange(250)+400])
    bars["timestamp"] = np.datetime64("2024-01-07T18:00", "us") + odd * np.timedelta64(1, "m")
    check(replay(bars, detector, threshold=.5), scan(bars, detector, threshold=.5, bar="1min", progress=False))
    bars["timestamp"] = np.datetime64("2024-01-07T18:00", "us") + np.r_[np.arange(150), 149+5*np.arange(1, 251)] * np.timedelta64(1, "m")
    for bar in ("1min", "5min"): check(replay(bars, detector, threshold=.5, bar=bar), scan(bars, detector, threshold=.5, bar=bar, progress=False))
    check(replay(bars, detector, threshold=.5), scan(bars, detector, threshold=.5, bar="1min", progress=False))


def test_memory_does_not_grow():
    stream = Stream(detector_of(), threshold=.99)
    for b in with_gaps(1500, [700]).itertuples(): stream.push(b)
    assert len(stream.tail.data["time"]) == 512
    assert stream.tail.end - stream.tail.first <= 2*W


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    "A detector, and the state of a stream of it with open spans."
    detector, bars = detector_of(), with_gaps(300, [120])
    stream = Stream(detector, threshold=high(bars, detector, .3))
    for b in bars.itertuples(): stream.push(b)
    assert stream.open
    return detector, torch.load(stream.save(tmp_path_factory.mktemp("state")/"state.pt"), weights_only=True)


def changed(state, path, value):
    "The state with one of its parts replaced."
    out = {k: dict(v) if isinstance(v, dict) else v for k, v in state.items()}
    where = out
    for k in path[:-1]: where = where[k]
    where[path[-1]] = value(where[path[-1]]) if callable(value) else value
    return out


DAMAGE = [
    (("format",), "moola stream 2"), (("format",), 7), (("detector",), "0"*64), (("rows",), [0, 300]), (("rows",), [5, 1]), (("rows",), [0]),
    (("settings", "threshold"), float("nan")), (("settings", "threshold"), 2.), (("settings", "stride"), -1), (("settings", "stride"), True),
    (("settings", "max_gap"), "0"), (("settings", "to_bar"), 500), (("settings", "min_length"), 0), (("numbers", "zone"), "Mars/Olympus"),
    (("numbers", "unit"), "fortnight"), (("numbers", "closed"), 1), (("numbers", "types"), 1), (("numbers", "time"), None), (("numbers", "time"), 2**70),
    (("tail", "kind"), lambda v: v-1), (("tail", "kind"), lambda v: v*float("nan")), (("tail", "windows"), lambda v: v+1),
    (("numbers", "window"), lambda v: v+1), (("numbers", "window"), 0), (("numbers", "told"), 10**9), (("numbers", "stretch"), lambda v: v+250),
    (("numbers", "bar"), -1), (("numbers", "bar"), 1.5), (("numbers", "ids"), 0), (("numbers",), []), (("open",), None), (("open",), [[0, 1, 2]]),
    (("open",), lambda v: v[:-1]), (("open",), lambda v: v + torch.tensor([0, 0, 1])), (("open",), torch.zeros(1, 3)),
    (("open",), torch.tensor([[0, 290, 280]])), (("open",), torch.tensor([[0, 1, 2]])), (("tail",), {}), (("tail", "prices"), lambda v: v[:, :3]),
    (("tail", "prices"), lambda v: -v), (("tail", "prices"), lambda v: v*float("nan")), (("tail", "prices"), lambda v: v.float()),
    (("tail", "time"), lambda v: v.flip(0)), (("tail", "time"), lambda v: v+1), (("tail", "total"), lambda v: v+200),
    (("tail", "total"), lambda v: v*float("nan")), (("tail", "windows"), lambda v: v-1000), (("tail", "live"), lambda v: v+2), (("tail", "live"), 3),
    (("tail", "live"), lambda v: v.to_sparse())]


@pytest.mark.parametrize("where,value", DAMAGE)
def test_a_wrong_state_is_refused(where, value, saved, tmp_path):
    detector, state = saved
    torch.save(changed(state, where, value), tmp_path/"state.pt")
    with pytest.raises(MoolaError) as e: load_stream(tmp_path/"state.pt", detector)
    assert "\n" not in str(e.value)


def test_a_damaged_file_is_refused(saved, tmp_path):
    "Any flipped byte, any missing end, and a file that holds a program."
    detector, state = saved
    path = tmp_path/"state.pt"
    torch.save(state, path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    reference = contents(load_stream(path, detector))
    for i in rng.integers(0, len(data), 60):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << rng.integers(8)]) + data[i+1:])
        try: assert contents(load_stream(path, detector)) == reference
        except MoolaError as e: assert "\n" not in str(e)
    for i in rng.integers(0, len(data), 20):
        path.write_bytes(data[:i])
        with pytest.raises(MoolaError): load_stream(path, detector)
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(MoolaError): load_stream(path, detector)
    for other in ([], 3, {}, {"model": torch.zeros(3)}):
        torch.save(other, path)
        with pytest.raises(MoolaError): load_stream(path, detector)
    with pytest.raises(MoolaError, match="does not exist"): load_stream(tmp_path/"none.pt", detector)


def test_settings_are_checked(saved, tmp_path):
    detector, state = saved
    torch.save(state, tmp_path/"state.pt")
    load_stream(tmp_path/"state.pt", detector, bar="1min", stride=1)
    with pytest.raises(MoolaError, match="was saved with stride 1, not 2"): load_stream(tmp_path/"state.pt", detector, stride=2)
    with pytest.raises(MoolaError, match="was saved with bar"): load_stream(tmp_path/"state.pt", detector, bar="5min")
    with pytest.raises(MoolaError, match="no option 'tride'"): load_stream(tmp_path/"state.pt", detector, tride=2)
    for wrong, text in ((dict(threshold=0), "threshold is 0"), (dict(min_length=0), "min_length"), (dict(max_gap=-1), "max_gap"), (dict(bar=0), "bar is 0"),
                        (dict(stride=64), "stride is 64")):
        with pytest.raises(MoolaError, match=text): detector.stream(**wrong)


def test_import_is_light():
    "A program that follows a stream loads neither training nor plotting."
    code = "import sys, moola.stream; print(*(m for m in ('matplotlib','sklearn','moola.training','moola.analysis','IPython') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
    assert OHLC
