"Reading, checking and cutting bars, on made-up files and on the real ones; the simulated bars beside the real ones."
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stylised_facts import REAL_FACTS, REAL_HOURS, range_by_hour, stylised_facts

from moola.core.errors import MoolaError
from moola.core.names import OHLC, W
from moola.data.bars import bar_length, check_bars, cut_windows, segment_bars
from moola.data.read import as_bars, read_bars
from moola.data.simulate import SESSION, TICK, session_times, simulate_bars

FILES = ['btcperp_1m_202201', 'es_1m_202303', 'es_1m_202504', 'es_1m_lean_2013_2020', 'es_5m_202507', 'estx50fut_1m_2006',
         'eurusd_1m_lean_oanda', 'nq_1m_202311', 'nq_1m_202605', 'nq_2m_202603']
MEASURED = {'NQ 2023-11': 'nq_1m_202311', 'NQ 2026-05': 'nq_1m_202605', 'ES 2023-03': 'es_1m_202303', 'ES 2025-04': 'es_1m_202504'}


@pytest.fixture
def bars(): return simulate_bars(300, seed=3)


def write(bars, path, **kw):
    bars.to_parquet(path) if path.suffix == '.parquet' else bars.to_csv(path, index=kw.pop('index', False), **kw)
    return path


@pytest.mark.parametrize('file', FILES)
def test_real_files_read_and_pass(shared, file):
    bars = read_bars(shared / 'data' / f'{file}.parquet')
    assert list(bars.columns[:5]) == ['timestamp', *OHLC]
    assert (bars[OHLC].dtypes == 'float64').all()
    minutes = int(file.split('_')[1][0]) if 'lean' not in file else 1
    assert bar_length(bars) == pd.Timedelta(minutes=minutes)
    ohlc, starts = cut_windows(bars, stride=W)
    last = bars.timestamp.to_numpy()[starts + W - 1] - bars.timestamp.to_numpy()[starts]
    assert len(ohlc) and (last == np.timedelta64((W - 1) * minutes, 'm')).all()


@pytest.mark.parametrize('file', ['es_1m_202303', 'eurusd_1m_lean_oanda'])
def test_csv_and_parquet_agree(shared, tmp_path, file):
    bars = read_bars(shared / 'data' / f'{file}.parquet').head(2000)
    pd.testing.assert_frame_equal(read_bars(write(bars, tmp_path / 'x.csv')), bars, check_exact=True, check_dtype=False)


@pytest.mark.parametrize('name', ['timestamp', 'ts_event', 'Datetime', 'DATE', 'time', '<DateTime>'])
def test_time_names(bars, tmp_path, name):
    for suffix in ('.csv', '.parquet'):
        got = read_bars(write(bars.rename(columns={'timestamp': name, 'open': 'Open', 'close': 'CLOSE'}), tmp_path / f'x{suffix}'))
        assert (got.timestamp == bars.timestamp).all() and (got[OHLC] == bars[OHLC]).all(axis=None)


@pytest.mark.parametrize('suffix', ['.csv', '.csv.gz', '.parquet'])
@pytest.mark.parametrize('index', ['timestamp', 'when', None])
def test_time_as_index(bars, tmp_path, suffix, index):
    path, indexed = tmp_path / f'x{suffix}', bars.set_index('timestamp').rename_axis(index)
    if suffix != '.parquet' and index == 'when': indexed = indexed.rename_axis('ts')
    indexed.to_parquet(path) if suffix == '.parquet' else indexed.to_csv(path)
    got = read_bars(path)
    assert (got.timestamp == bars.timestamp).all() and list(got.columns) == ['timestamp', *OHLC]


@pytest.mark.parametrize('unit', ['s', 'ms', 'us', 'ns'])
def test_epoch_numbers(bars, tmp_path, unit):
    counted = bars.assign(timestamp=bars.timestamp.to_numpy(f'datetime64[{unit}]').astype('int64'))
    got = read_bars(write(counted, tmp_path / 'x.csv'))
    assert str(got.timestamp.dt.tz) == 'UTC' and (got.timestamp.dt.tz_localize(None) == bars.timestamp).all()


def test_date_and_time_in_two_columns(bars, tmp_path):
    two = bars.assign(Date=bars.timestamp.dt.strftime('%Y-%m-%d'), Time=bars.timestamp.dt.strftime('%H:%M:%S')).drop(columns='timestamp')
    got = read_bars(write(two, tmp_path / 'x.csv', sep=';'))
    assert (got.timestamp == bars.timestamp).all() and list(got.columns) == ['timestamp', *OHLC]


def test_zones_stay_and_mixed_offsets_become_utc(bars, tmp_path):
    zoned = bars.assign(timestamp=bars.timestamp.dt.tz_localize('America/New_York'))
    assert str(read_bars(write(zoned, tmp_path / 'x.parquet')).timestamp.dt.tz) == 'America/New_York'
    assert (read_bars(write(zoned, tmp_path / 'x.csv')).timestamp == zoned.timestamp).all()
    summer = zoned.assign(timestamp=pd.date_range('2024-03-09 23:00', periods=len(bars), freq='5min', tz='America/New_York'))
    got = read_bars(write(summer, tmp_path / 'y.csv'))
    assert str(got.timestamp.dt.tz) == 'UTC' and (got.timestamp == summer.timestamp).all()
    assert segment_bars(got).tolist() == [[0, 300]]


def counted(t, unit): return t.dt.tz_convert('UTC').dt.as_unit(unit).astype('int64')


WHEN = {'text': lambda t: t.astype(str), 'ISO text': lambda t: pd.Series([o.isoformat() for o in t]), 'typed': lambda t: t,
        'seconds': lambda t: counted(t, 's'), 'milliseconds': lambda t: counted(t, 'ms'), 'nanoseconds': lambda t: counted(t, 'ns'), 'index': lambda t: t}
PRICES = {'plain': '{}', 'upper': '{}', 'title': '{}', 'numbered': '{}', 'short': '{}', 'angled': '<{}>'}


def vendor_name(column, style):
    if style == 'short': return column[0]
    if style == 'numbered': return f'{OHLC.index(column)+1}. {column}'
    return PRICES[style].format({'upper': column.upper(), 'title': column.title()}.get(style, column))


NAMES = ['timestamp', 'ts_event', 'Datetime', 'TIME', 'Date', 'Gmt time']


@settings(max_examples=60, deadline=None)
@given(when=st.sampled_from(list(WHEN)), style=st.sampled_from(list(PRICES)), name=st.sampled_from(NAMES),
       zone=st.sampled_from(['UTC', 'America/New_York', 'Asia/Tokyo', 'Europe/Berlin', '+05:30']),
       suffix=st.sampled_from(['.csv', '.csv.gz', '.parquet', '']), shuffle=st.randoms(),
       extra=st.lists(st.sampled_from(['Adj Close', 'symbol', 'Volume', 'VWAP', 'Dividends']), unique=True), start=st.integers(0, 500_000))
def test_vendors(tmp_path_factory, when, style, name, zone, suffix, shuffle, extra, start):
    "Whatever the columns are called and however they write the time, the bars are the same, at the same instants, in the same zone where the file has one."
    plain = simulate_bars(30, 3)
    times = pd.Series(pd.date_range(pd.Timestamp('2023-03-26') + pd.Timedelta(minutes=start), periods=30, freq='min', tz='UTC').tz_convert(zone))
    table = plain[OHLC].rename(columns=lambda c: vendor_name(c, style)).assign(**dict.fromkeys(extra, 1.))
    if when == 'index': table = table.set_axis(pd.DatetimeIndex(times, name=name if suffix.startswith('.csv') else None))
    else: table.insert(0, name, WHEN[when](times))
    columns = list(table)
    shuffle.shuffle(columns)
    table, before = table[columns], table.copy()
    if suffix:
        path = tmp_path_factory.getbasetemp() / f'vendor{suffix}'
        table.to_parquet(path) if suffix == '.parquet' else table.to_csv(path, index=when == 'index')
        got = read_bars(path)
    else: got = as_bars(table)
    assert (got.timestamp == times).all() and (got[OHLC] == plain[OHLC]).all(axis=None)
    assert list(got)[:5] == ['timestamp', *OHLC] and set(got) >= {e.lower() for e in extra}
    kept = when in ('typed', 'index') and suffix in ('', '.parquet')
    assert str(got.timestamp.dt.tz) == str(times.dt.tz) if kept else got.timestamp.dt.tz is not None
    if not suffix: pd.testing.assert_frame_equal(table, before[columns])


@pytest.mark.parametrize('date,time', [('%Y%m%d', '%H%M%S'), ('%Y%m%d', '%H%M'), ('%d.%m.%Y', '%H:%M'), ('%Y-%m-%d', '%H:%M:%S')])
def test_dates_and_times_as_numbers_and_with_dots(bars, tmp_path, date, time):
    two = bars.assign(DATE=bars.timestamp.dt.strftime(date), TIME=bars.timestamp.dt.strftime(time)).drop(columns='timestamp')
    assert (read_bars(write(two, tmp_path / 'x.csv')).timestamp == bars.timestamp).all()


def test_dots_mean_day_first(bars):
    day = bars.assign(timestamp=pd.Series(pd.date_range('2024-02-03', periods=300, freq='min')).dt.strftime('%d.%m.%Y %H:%M:%S.000'))
    assert as_bars(day).timestamp[0] == pd.Timestamp('2024-02-03')
    assert as_bars(bars.assign(timestamp=np.arange(300) + 20240101)[:31]).timestamp.iloc[-1] == pd.Timestamp('2024-01-31')


def test_tables_of_other_kinds(bars):
    two = bars.set_index('timestamp').rename(columns=str.title)
    two.columns = pd.MultiIndex.from_product([two.columns, ['ES=F']], names=['Price', 'Ticker'])
    pd.testing.assert_frame_equal(as_bars(two), bars)
    with pytest.raises(MoolaError, match='should be a pandas DataFrame, not a list'): as_bars([1, 2])


def test_extra_columns_come_last(bars, tmp_path):
    got = read_bars(write(bars.assign(symbol='ES', Volume=7)[['symbol', 'Volume', 'close', 'low', 'high', 'open', 'timestamp']], tmp_path / 'x.csv'))
    assert list(got.columns) == ['timestamp', *OHLC, 'volume', 'symbol']


BROKEN = {
    'high below close': (dict(row=7, high=0.), r'x: 1 row breaks the rule that high >= max\(open, close\): row 7 \(2024-01-07 18:07:00\)'),
    'low above open': (dict(row=8, low=1e6), r'low <= min\(open, close\): row 8'),
    'nan': (dict(row=9, close=np.nan), 'prices are finite: row 9'),
    'infinite': (dict(row=10, open=np.inf), 'prices are finite: row 10'),
    'repeated time': (dict(row=11, timestamp=pd.Timestamp('2024-01-07 18:10')), 'timestamps increase strictly: row 11'),
    'time goes back': (dict(row=12, timestamp=pd.Timestamp('2023-01-07')), 'timestamps increase strictly: row 12'),
    'no time': (dict(row=13, timestamp=pd.NaT), 'every bar has a time: row 13')}


@pytest.mark.parametrize('case', BROKEN)
def test_broken_bars_are_named(bars, case):
    change, message = BROKEN[case]
    for column in set(change) - {'row'}: bars.loc[change['row'], column] = change[column]
    with pytest.raises(MoolaError, match=message): check_bars(bars, 'x')


def test_many_broken_rows_are_counted(shared):
    bars = read_bars(shared / 'data' / 'nq_1m_202311.parquet')
    bars.loc[::100, 'high'] = bars.low[::100] - 1
    with pytest.raises(MoolaError, match=r'nq: 148 rows break .*: row 0 .*row 400 \([^)]*\), …'): check_bars(bars, 'nq')


def test_negative_prices_pass():
    bars = simulate_bars(50)
    bars[OHLC] -= 20_000
    assert (check_bars(bars)[OHLC] < 0).all(axis=None)


@pytest.mark.parametrize('text, message', [
    ('', 'x.csv is empty'),
    ('timestamp,open,high,low,close\n', 'x.csv has no bars'),
    ('timestamp,open,high,low\n2024-01-01,1,2,0\n', 'x.csv has no column close; it has timestamp, open, high, low'),
    ('open,high,low,close\n1,2,0,1\n', 'x.csv has no column timestamp'),
    ('timestamp,open,high,low,close\n2024-01-01,1,2,0,one\n', "x.csv: close is not a number in 1 row, the first row 0: 'one'"),
    ('timestamp,open,high,low,close\n2024-01-01 10:00,1,2,0,1\nlater,1,2,0,1\n', "x.csv: 1 of 2 times cannot be read, the first in row 1: 'later'"),
    ('timestamp,open,high,low,close\n1,1,2,0,1\n', 'numbers that are not times'),
    ('timestamp,open,high,low,close,Close\n2024-01-01,1,2,0,1,1\n', 'column close more than once'),
    ('timestamp,open,high,low,close\n2024-01-01,1,2,0,\n', 'prices are finite')])
def test_bad_csv(tmp_path, text, message):
    (tmp_path / 'x.csv').write_text(text)
    with pytest.raises(MoolaError, match=message): read_bars(tmp_path / 'x.csv')


def test_bad_files(tmp_path):
    with pytest.raises(MoolaError, match='There is no file'): read_bars(tmp_path / 'x.csv')
    (tmp_path / 'x.xls').write_text('')
    with pytest.raises(MoolaError, match='should end in'): read_bars(tmp_path / 'x.xls')
    (tmp_path / 'x.parquet').write_text('not parquet')
    with pytest.raises(MoolaError, match='x.parquet cannot be read as parquet'): read_bars(tmp_path / 'x.parquet')


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=400), st.integers(1, 40), st.integers(1, 30))
def test_windows_never_cross_a_gap(steps, stride, width):
    times = pd.Timestamp('2024-01-01') + pd.to_timedelta(np.cumsum(steps), unit='min')
    bars = pd.DataFrame({'timestamp': times, **{c: np.arange(len(steps), dtype=float) for c in OHLC}})
    segments = segment_bars(bars)
    assert segments[0, 0] == 0 and segments[-1, 1] == len(bars) and (segments[1:, 0] == segments[:-1, 1]).all()
    ohlc, starts = cut_windows(bars, stride, width)
    assert ohlc.shape == (len(starts), width, 4)
    for s, w in zip(starts, ohlc):
        assert (w[:, 0] == np.arange(s, s + width)).all()
        assert ((segments[:, 0] <= s) & (s + width <= segments[:, 1])).sum() == 1
        assert not width > 1 or (np.diff(times[s:s + width]) == bar_length(bars)).all()
    if stride == 1: assert len(starts) == np.maximum(np.diff(segments) - width + 1, 0).sum()


def test_session_times():
    t = pd.Series(session_times(12 * SESSION))
    assert set(t.dt.hour) == set(range(24)) - {17} and t.is_monotonic_increasing and t.is_unique
    assert set(t.dt.day_of_week) == {0, 1, 2, 3, 4, 6}


@pytest.mark.parametrize('n', [1, 2, SESSION + 1])
def test_simulated_bars(n):
    bars = simulate_bars(n, seed=5)
    pd.testing.assert_frame_equal(check_bars(bars), bars)
    assert len(bars) == n and (bars[OHLC] % TICK == 0).all(axis=None)
    pd.testing.assert_frame_equal(bars, simulate_bars(n, seed=5))
    assert n == 1 or not bars[OHLC].equals(simulate_bars(n, seed=6)[OHLC])


def test_simulated_bars_survive_a_file(tmp_path):
    bars = simulate_bars(3000, seed=1)
    for suffix in ('.csv', '.parquet'):
        pd.testing.assert_frame_equal(read_bars(write(bars, tmp_path / f'x{suffix}')), bars, check_exact=True, check_dtype=False)


@pytest.mark.parametrize('name', MEASURED)
def test_published_facts_are_those_of_the_files(shared, name):
    measured = stylised_facts(read_bars(shared / 'data' / f'{MEASURED[name]}.parquet'))
    assert list(measured.index) == list(REAL_FACTS[name])
    np.testing.assert_allclose(measured.to_numpy(), list(REAL_FACTS[name].values()), atol=1e-4)


def test_published_hours_are_those_of_the_files(shared):
    hours = pd.concat([range_by_hour(read_bars(shared / 'data' / f'{f}.parquet')) for f in MEASURED.values()], axis=1).mean(axis=1)
    assert list(hours.index) == list(REAL_HOURS)
    np.testing.assert_allclose(hours.to_numpy(), list(REAL_HOURS.values()), atol=1e-3)


def test_simulated_facts_are_near_the_real_ones():
    real = pd.DataFrame(REAL_FACTS)
    bars = simulate_bars(60 * SESSION, seed=2)
    facts = stylised_facts(bars)
    for name, slack in [('excess kurtosis of returns', 5), *((f'autocorrelation of |returns|, lag {k}', .06) for k in (1, 5, 15, 30, 60)),
                        ('range / |return|', .1), ('body share of range', .02), ('upper wick share', .02), ('lower wick share', .02),
                        ('flat bars', .01), ('close = open', .05), ('opens within a tick of the last close', .1), ('median range in ticks', 3)]:
        assert real.loc[name].min() - slack < facts[name] < real.loc[name].max() + slack, name
    assert abs(facts['autocorrelation of returns, lag 1']) < .03
    assert np.corrcoef(range_by_hour(bars), list(REAL_HOURS.values()))[0, 1] > .95


def test_import_is_light():
    code = "import sys, moola.data.read; print(sorted({'pandera', 'matplotlib', 'torch', 'scipy.signal'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
