"The stream: what no page has room to show."
import json
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

from moola.core.errors import MoolaError
from moola.core.names import DISPLACEMENT, FEATURES, OHLC, W
from moola.data.bars import segment_bars
from moola.data.read import read_bars
from moola.data.simulate import simulate_bars
from moola.detection.detector import Detector
from moola.detection.followed import collect, replay
from moola.detection.scan import scan
from moola.detection.stream import Stream
from moola.detection.stream_state import load_stream
from moola.models.exact import pack, read_spans
from moola.models.jade import Jade

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


NUMBERS = ("bar", "spacing", "stretch", "window", "decoded", "told", "ids", "types", "unit", "zone", "time", "closed")


def contents(stream):
    "All that a stream remembers, and that still matters: sums of unsettled bars, types of the windows that hold them."
    t = stream.tail
    since = dict(time=t.first, prices=t.first, total=stream.decoded, windows=stream.decoded, live=stream.told, kind=max(t.first, stream.decoded-stream.last))
    numbers = [getattr(stream, k) for k in NUMBERS], stream.open, t.first, t.end
    return *numbers, {k: t[k, min(max(a, t.first), t.end), t.end].tobytes() for k, a in since.items()}


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
    half.save(tmp_path/"state.json")
    again = detector.stream(state=tmp_path/"state.json", **kw)
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
                 (row | dict(open="x"), "is no number"), (row | dict(timestamp=None), "is no time"), (row | dict(timestamp=float(i)), "are not times|cannot be read"),
                 (row | dict(timestamp=b.timestamp.tz_localize("UTC")), "has a time zone"), ({k: v for k, v in row.items() if k != "low"}, "a bar needs timestamp, open, high, low, close"),
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
    return detector, json.loads(stream.save(tmp_path_factory.mktemp("state")/"state.json").read_text())


@pytest.mark.parametrize("change", [dict(format="moola stream 1"), dict(format=7), dict(detector="0"*64), dict(row=5), dict(bars=[]), dict(told=10**9)])
def test_a_wrong_state_is_refused(change, saved, tmp_path):
    detector, state = saved
    (tmp_path/"state.json").write_text(json.dumps(state | change))
    with pytest.raises(MoolaError) as e: load_stream(tmp_path/"state.json", detector)
    assert "\n" not in str(e.value)


def test_a_damaged_file_is_refused(saved, tmp_path):
    "Any flipped bit, any missing end, and a file of another kind."
    detector, state = saved
    path = tmp_path/"state.json"
    data, rng = json.dumps(state).encode(), np.random.default_rng(0)
    for i in rng.integers(0, len(data), 60):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << rng.integers(8)]) + data[i+1:])
        with pytest.raises(MoolaError) as e: load_stream(path, detector)
        assert "\n" not in str(e.value)
    for i in rng.integers(0, len(data), 20):
        path.write_bytes(data[:i])
        with pytest.raises(MoolaError): load_stream(path, detector)
    for other in (pickle.dumps(print), b"[]", b"3", b"{}", b"["*100_000):
        path.write_bytes(other)
        with pytest.raises(MoolaError): load_stream(path, detector)
    with pytest.raises(MoolaError, match="does not exist"): load_stream(tmp_path/"none.json", detector)


def test_settings_are_checked(saved, tmp_path):
    detector, state = saved
    (tmp_path/"state.json").write_text(json.dumps(state))
    load_stream(tmp_path/"state.json", detector, bar="1min", stride=1)
    with pytest.raises(MoolaError, match="was saved with stride 1, not 2"): load_stream(tmp_path/"state.json", detector, stride=2)
    with pytest.raises(MoolaError, match="was saved with bar"): load_stream(tmp_path/"state.json", detector, bar="5min")
    with pytest.raises(MoolaError, match="no option 'tride'"): load_stream(tmp_path/"state.json", detector, tride=2)
    for wrong, text in ((dict(threshold=0), "threshold is 0"), (dict(min_length=0), "min_length"), (dict(max_gap=-1), "max_gap"), (dict(bar=0), "bar is 0"),
                        (dict(stride=80), "stride is 80")):
        with pytest.raises(MoolaError, match=text): detector.stream(**wrong)


def test_import_is_light():
    "A program that follows a stream loads neither training nor plotting."
    code = "import sys, moola.detection.stream; print(*(m for m in ('matplotlib','sklearn','moola.training','moola.views','IPython') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
    assert OHLC


def test_fields_and_times_are_read_as_those_of_a_file():
    bars, detector = simulate_bars(300, seed=4), detector_of()
    plain = replay(bars, detector, threshold=.3)
    epoch = bars.timestamp.astype("datetime64[ms]").astype("int64")
    klines = [dict(t=int(t), s="X", o=str(b.open), h=str(b.high), l=str(b.low), c=str(b.close), x=True) for t, b in zip(epoch, bars.itertuples())]
    days = [dict(Date=b.timestamp.strftime("%d/%m/%Y"), Time=b.timestamp.strftime("%H:%M"), Open=b.open, High=b.high, Low=b.low, Last=b.close) for b in bars.itertuples()]
    for rows, kw in ((klines, {}), (days, dict(time_format="%d/%m/%Y %H:%M"))):
        stream = Stream(detector, threshold=.3, **kw)
        found = collect(stream, [stream.push(r) for r in rows])
        assert np.array_equal(found.probabilities.probability, plain.probabilities.probability, equal_nan=True)
        assert (found.probabilities.timestamp.dt.tz_localize(None).to_numpy() == bars.timestamp.to_numpy()).all()
        assert found.spans.start_bar.tolist() == plain.spans.start_bar.tolist() and len(plain.spans)
    with pytest.raises(MoolaError, match="day first .* or month first"): Stream(detector).push(days[0] | dict(Date="04/03/2024"))
    stream = Stream(detector)
    stream.push(klines[0])
    with pytest.raises(MoolaError, match="not written like those before it"): stream.push(klines[1] | dict(t="2024-01-01 10:00"))


def test_a_bar_that_goes_on_changes_nothing():
    bars, detector = simulate_bars(150, seed=4), detector_of()
    stream, other = Stream(detector, threshold=.3), Stream(detector, threshold=.3)
    for b in bars.itertuples():
        before = contents(stream)
        assert not stream.push(b._replace(close=b.open), closed=False).events
        assert contents(stream) == before
        assert str(stream.push(b).events) == str(other.push(b).events)


def test_a_bar_length_that_never_settles_is_said():
    bars, stream = simulate_bars(230, seed=4), Stream(detector_of())
    uneven = bars.assign(timestamp=bars.timestamp.iloc[0] + pd.to_timedelta([i*60 + i//50*7 for i in range(len(bars))], "s"))
    with pytest.warns(UserWarning, match="the length of a bar is not known yet"):
        for b in uneven.itertuples(): stream.push(b)
