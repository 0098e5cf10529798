"Every layout of bars that is known is written out and read back; files that leave a question open are refused with the answer named."
import csv
import json
import re
import warnings

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import KINDS
from vendors import VENDORS, table

from moola.core.errors import MoolaError
from moola.data.bars import (
    GAPS,
    OHLC,
    bar_length,
    check_bars,
    cut_windows,
    find_stretches,
    gap_rule,
    need_windows,
    segment_bars,
    unread_bars,
)
from moola.data.read import as_bars, read_bars, reading_words
from moola.data.simulate import simulate_bars
from moola.data.times import TimeReader, read_times

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def bars():
    out = simulate_bars(400, seed=3).assign(volume=7)
    return out.assign(timestamp=pd.date_range("2024-03-04 18:00", periods=400, freq="min"))


def write(text, folder, name="x.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda v: v.name)
def test_vendor(vendor, bars, tmp_path):
    got = read_bars(vendor.write(bars, tmp_path), **vendor.options)
    assert (got[OHLC].to_numpy() == bars[OHLC].to_numpy()).all()
    assert str(got.timestamp.dt.tz or "") == vendor.clock
    assert (got.timestamp.dt.tz_localize(None) == bars.timestamp).all()
    json.dumps(got.attrs["reading"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_kind(kind, bars, tmp_path):
    "One file of each kind: read right, or refused with the cause and the cure."
    if kind.start: bars = bars.assign(timestamp=pd.date_range(kind.start, periods=len(bars), freq=kind.step))
    path = write(kind.write(bars), tmp_path, kind.file)
    if kind.refused:
        with pytest.raises(MoolaError, match=kind.refused): read_bars(path, **kind.options)
        return
    got = read_bars(path, **kind.options)
    assert re.search(kind.says, reading_words(got)) and str(got.timestamp.dt.tz or "") == kind.zone
    assert (got.timestamp.dt.tz_localize(None)[:len(bars)] == bars.timestamp).all()
    same = got[:len(bars)].drop(index=200)[OHLC].to_numpy() / bars.drop(index=200)[OHLC].to_numpy()
    np.testing.assert_allclose(same, same[0, 0], rtol=1e-3 if kind.options.get("decimal") else 1e-6)


def test_page_shows_the_vendors(root):
    page = nbformat.read(root / "nbs" / "tutorials" / "bring_bars.ipynb", as_version=4)
    assert any(table() in cell.source for cell in page.cells), "print the table with python tests/vendors.py"


DATES = {"%Y-%m-%d": "", "%Y/%m/%d": "", "%Y.%m.%d": "", "%Y%m%d": "", "%d/%m/%Y": "DMY", "%m/%d/%Y": "MDY", "%d.%m.%Y": "", "%d-%m-%Y": "DMY", "%d-%b-%Y": "",
         "%b %d, %Y": "", "%d %B %Y": "", "%d/%m/%y": "DMY", "%m/%d/%y": "MDY", "%d.%m.%y": "", "%a %d %b %Y": ""}
CLOCKS = ["%H:%M", "%H:%M:%S", "%H%M%S", "%I:%M %p", "%H:%M:%S.%f", "%I:%M:%S%p"]


@settings(max_examples=80, deadline=None)
@given(date=st.sampled_from(list(DATES)), clock=st.sampled_from(CLOCKS), joined=st.sampled_from([" ", None]), step=st.sampled_from([1, 5, 60]),
       start=st.integers(0, 30_000_000), zone=st.sampled_from(["", "Z", "+05:30"]))
def test_formats_survive(date, clock, joined, step, start, zone):
    "Whatever a column's format, the same times come back, in one column or two; where a reading is left open, the option settles it."
    times = pd.Series(pd.date_range(pd.Timestamp("1999-01-01") + pd.Timedelta(minutes=start % 13_000_000), periods=60, freq=f"{step}min"))
    if joined is None: zone = ""
    days, clocks = times.dt.strftime(date), times.dt.strftime(clock) + zone
    if joined is None: got, how = read_times(days, time_format=DATES[date] or None, clock=clocks)
    else: got, how = read_times(days + joined + clocks, time_format=DATES[date] or None)
    if zone: assert got.dt.tz is not None
    assert (got.dt.tz_localize(None) == times).all(), how
    one = TimeReader(how if how != "ISO" else None)
    if joined is not None: assert [one(v) for v in (days + joined + clocks)[:3]] == got[:3].tolist()


@settings(max_examples=60, deadline=None)
@given(unit=st.sampled_from(["s", "ms", "us", "ns"]), start=st.integers(200_000_000, 1_700_000_000), step=st.sampled_from([1, 60, 300, 86_400]), text=st.booleans(), real=st.booleans())
def test_epochs_survive(unit, start, step, text, real):
    times = pd.Series(pd.to_datetime(start + step * np.arange(40), unit="s", utc=True))
    x = times.dt.tz_localize(None).to_numpy(f"datetime64[{unit}]").astype("int64")
    x = pd.Series(x).astype(str) if text else pd.Series(x).astype(float) if real else pd.Series(x)
    got, how = read_times(x)
    assert how == unit and (got == times).all()


@pytest.mark.parametrize("form", ["%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y%m%d", "%d%m%Y", "%y%m%d%H%M"])
def test_digits_survive(form):
    times = pd.Series(pd.date_range("2023-12-20", periods=60, freq="D" if "%H" not in form else "37min"))
    got, _ = read_times(times.dt.strftime(form).astype("int64"))
    assert (got == times).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5000), st.sampled_from(["America/New_York", "Europe/Berlin", "Australia/Sydney", "UTC"]), st.sampled_from([5, 15, 60]))
def test_zones_survive_autumn(shift, zone, minutes):
    "A clock without a zone, read with its zone, gives the instants back over a whole year, in a file and in a stream."
    times = pd.Series(pd.date_range(pd.Timestamp("2023-09-25", tz="UTC") + pd.Timedelta(minutes=shift), periods=3000, freq=f"{minutes}min").tz_convert(zone))
    assert (read_times(times.dt.tz_localize(None), zone=zone)[0] == times).all()
    near = times[(times.diff() - times.dt.tz_localize(None).diff() != pd.Timedelta(0)).shift(-8, fill_value=False)].index[-1:]
    part = times[near[0]:near[0] + 40] if len(near) else times[:40]
    read = TimeReader(zone=zone)
    assert [read(t) for t in part.dt.tz_localize(None)] == part.tolist()


@pytest.mark.parametrize("x, options, words", [
    (["04/03/2024 18:00", "04/03/2024 18:01"], {}, "day first .* month first .*DMY"),
    (["01/04/2024", "02/04/2024", "03/04/2024"], {}, "day first .* month first"),
    ([1735671600000, 1735671660000, 1735707540000000], {}, "changes its unit"),
    ([1, 2, 3], {}, "numbers that are not times"),
    (["2024-01-01", "2999-01-01"], {}, "1 of 2 times cannot be read, the first in row 1"),
    (["30/02/2024", "01/03/2024"], {}, "1 of 2 times"),
    (["2024-03-04 18:00 XYZ"], {}, "time zone 'XYZ' is unknown"),
    (["2024-03-04"], dict(zone="Mars/Phobos"), "unknown"),
    (["2024-03-04"], dict(time_format="day"), "time_format must be"),
    (["2024-03-10 02:30"], dict(zone="America/New_York"), "skip"),
    (["2024-01-01 10:00Z", "2024-01-01 10:01"], {}, "has no zone|cannot be read")])
def test_times_refused(x, options, words):
    with pytest.raises(MoolaError, match=words): read_times(pd.Series(x), **options)


HEAD = "timestamp,open,high,low,close\n"


@pytest.mark.parametrize("text, words", [
    ("time,open,high,low,close\n18:00,1,2,0,1\n18:01,1,2,0,1\n", "a clock .* and no date"),
    ("5,1,2,3,4,9\n6,1,2,3,4,9\n", "no header"),
    (HEAD.replace("close", "close,Close") + "2024-01-01,1,2,0,1,1\n", "close more than once"),
    (HEAD + "2024-01-01,1,2,0,1\n2024-01-01,1,2,0,1.5\n", "two different bars, the first 2024-01-01.*1 2 0 1 and 1 2 0 1.5"),
    ("timestamp,open,high,low,close\n" + "".join(f"2024-01-01 10:{i:02d},15991,75,15992,25,15990,25,15991,75\n" for i in range(9)), "5 columns and the rows have 9; a decimal comma"),
    ("timestamp;open;high;low;close\n" + "".join(f"2024-01-01 10:{i:02d};151,234;151,240;151,230;151,235\n" for i in range(9)), "decimal="),
    (b"\0" * 5000, "zero bytes"),
    (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "zero bytes|no "),
    (HEAD + "2024-01-01,1,0,2,1\n2024-01-02,1,0,2,1\n", "high and low look exchanged"),
    (",".join(f"c{i}" for i in range(20_000)) + "\n" + ",".join("1" * 20_000) + "\n", "no column"),
    (HEAD + "2024-01-01,1,2,0," + "x" * 1_000_000 + "\n", "x.csv")])
def test_refusals_are_short(text, words, tmp_path):
    with pytest.raises(MoolaError, match=words) as e: read_bars(write(text, tmp_path))
    assert len(str(e.value)) <= 600 and str(e.value).isprintable()


def test_layouts(bars, tmp_path):
    "Title, comment, blanks, pipes, trailing commas, repeated headers, zip and footer leave the bars as they are."
    rows = [f"{t:%Y-%m-%d %H:%M:%S},{o},{h},{lo},{c}" for t, o, h, lo, c in bars[["timestamp", *OHLC]].itertuples(index=False)]
    body, head = "\n".join(rows) + "\n", HEAD
    texts = {"title": "Bars of ES\nexported today\n\n" + head + body, "comment": "# exported\n#\n" + head + body, "pipes": (head + body).replace(",", "|"),
             "trailing": head + body.replace("\n", ",\n"), "footer": head + body + "total, 400 bars of one contract, all in all, and more, still more, more\n",
             "again": head + "\n".join(rows[:99]) + "\n" + head + "\n".join(rows[99:]) + "\n", "blanks": "date time open high low close\n" + body.replace(",", "  "),
             "row numbers": "timestamp,open,high,low,close\n" + "".join(f"{i},{r}\n" for i, r in enumerate(rows)), "quoted": head + "".join('"' + r.replace(",", '","') + '"\n' for r in rows)}
    for kind, text in texts.items():
        got = read_bars(write(text, tmp_path))
        assert (got.timestamp == bars.timestamp).all() and (got[OHLC] == bars[OHLC]).all(axis=None), kind
    pd.DataFrame(bars).to_feather(tmp_path / "x.feather")
    assert (read_bars(tmp_path / "x.feather").close == bars.close).all()


def test_index_comes_first(bars):
    indexed = bars.set_index("timestamp")
    for helper in (dict(date=pd.Timestamp("2020-01-01")), dict(t=range(400)), dict(time="x")):
        assert (as_bars(indexed.assign(**helper)).timestamp == bars.timestamp).all()
    text = bars.set_index(bars.timestamp.astype(str))[OHLC].rename_axis(None)
    assert (as_bars(text).timestamp == bars.timestamp).all()
    pair = pd.concat({"SPY": indexed, "QQQ": indexed + 1}, names=["symbol"])
    with pytest.raises(MoolaError, match="2 symbols: SPY, QQQ; choose one"): as_bars(pair)
    assert (as_bars(pair, symbol="QQQ").close == bars.close + 1).all()
    wide = pd.concat({"SPY": indexed[OHLC], "QQQ": indexed[OHLC] + 1}, axis=1)
    with pytest.raises(MoolaError, match="2 symbols"): as_bars(wide)
    assert (as_bars(wide, symbol="SPY").close == bars.close).all()


def test_a_roll_ends_a_stretch(bars):
    got = as_bars(bars.assign(contract=["NQH4"] * 200 + ["NQM4"] * 200))
    assert segment_bars(got).tolist() == [[0, 200], [200, 400]] and "symbol changes in row 200" in reading_words(got)


def test_what_cannot_fail_a_file(bars):
    odd = bars.assign(volume="1.10K", note=[object()] * 400, flag=True, close_time="never")
    assert (as_bars(odd).close == bars.close).all()


CASES = [("A36_missing_minutes.csv", "gaps"), ("A29_yen_future_prices.csv", "")]


def test_cases(shared):
    "The files of ../shared/cases: read as expected, or refused with the cause named."
    folder = shared / "cases"
    if not folder.is_dir(): pytest.skip("no cases here")
    with (folder / "expect.tsv").open() as f: rows = list(csv.DictReader(f, delimiter="\t"))
    wrong = [w for row in rows if (w := case_fault(folder / row["file"], row))]
    assert not wrong, "\n".join(wrong)


def case_fault(path, row):
    kind, _, words = row["expect"].partition(":")
    try:
        got = read_bars(path)
        if kind == "error": need_windows(find_stretches(got), path.name)
    except MoolaError as e: return "" if kind in ("either", "error") and re.search(words, str(e).replace(path.stem, ""), re.I) else f"{path.name}: {e}"
    if kind == "error": return f"{path.name} was read"
    t = got.timestamp.iloc[[0, -1]]
    t = t if t.dt.tz is None else t.dt.tz_convert("UTC").dt.tz_localize(None)
    if t.tolist() != [pd.Timestamp(row["first"]), pd.Timestamp(row["last"])] or len(got) != int(row["bars"]): return f"{path.name}: {t.tolist()}, {len(got)} bars"
    if row["close"] and abs(got.close[0] - float(row["close"])) > 1e-6: return f"{path.name}: {got.close[0]}"
    if kind == "warn" and not re.search(words, reading_words(got), re.I): return f"{path.name}: no warning"
    return ""


def test_real_files_warn_seldom(shared):
    warned = {f.stem: w for f in sorted((shared / "data").glob("*_*m_*.parquet")) if (w := read_bars(f).attrs["reading"]["warnings"])}
    assert set(warned) <= {"es_1m_lean_2013_2020"}, warned


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([.5, 1, 1, 1, 2, 5, 16, 17, 60, 61, 1440]), min_size=2, max_size=200), st.sampled_from(GAPS))
def test_gaps_one_bar_at_a_time(steps, gaps):
    "Stretches of a whole file are those that a stream makes, which sees a bar and the next."
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.r_[0, np.cumsum(steps)], unit="min")
    bars = pd.DataFrame({"timestamp": times, **{c: np.arange(len(times), dtype=float) for c in OHLC}})
    whole = find_stretches(bars, gaps, "1min")
    prices, ends = [0.], []
    for step, close in zip(np.diff(times.as_unit("ns").asi8), bars.close[1:]):
        put, end = gap_rule(step, pd.Timedelta("1min"), gaps)
        prices += [prices[-1]] * int(put)
        if end: ends.append(len(prices))
        prices.append(close)
    assert whole.bars.close.tolist() == prices and whole.segments[1:, 0].tolist() == ends
    assert (whole.filled == (np.r_[-1, whole.row[:-1]] == whole.row)).all()
    if gaps == "fill":
        inside = np.diff(whole.bars.timestamp) == np.timedelta64(1, "m")
        assert inside.sum() == len(prices) - len(whole.segments)
    told = unread_bars(whole, width=5)
    assert told["bars"] == len(bars) and 0 <= told["unread"] <= len(bars)
    assert sum(len(cut_windows(whole.bars[a:b], width=5, segments=[[0, b - a]])[1]) for a, b in whole.segments) == len(cut_windows(whole.bars, width=5, segments=whole.segments)[1])


def test_daily_bars_join(bars):
    daily = bars.assign(timestamp=pd.bdate_range("2022-01-03", periods=400))
    s = find_stretches(daily)
    assert s.gaps == "join" and s.segments.tolist() == [[0, 400]] and bar_length(daily) == pd.Timedelta("1D")
    assert s.jumped.sum() == 79 and unread_bars(s)["unread"] == 0
    with pytest.raises(MoolaError, match="--gaps join"): need_windows(find_stretches(daily, "split"), "x")


def test_input_stays_as_it_is(bars):
    before = bars.copy()
    got = as_bars(bars)
    pd.testing.assert_frame_equal(bars, before)
    assert "reading" not in bars.attrs and got.attrs["reading"]["said"] == []
    pd.testing.assert_frame_equal(check_bars(got), got)


def test_no_warning_reaches_the_screen(bars, tmp_path):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        mixed = "".join(f"2024-03-04 18:{i % 60:02d}:{i // 60:02d},1,2,0,1,{'x' if i > 3000 else 5}\n" for i in range(3500))
        for text in (HEAD + "13/02/2024,1,2,0,1\n14/02/2024,1,2,0,1\n", "timestamp,open,high,low,close,note\n" + mixed):
            try: read_bars(write(text, tmp_path))
            except MoolaError: pass
    assert not seen
