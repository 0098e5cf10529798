"The labelled-windows file, what is derived from it, and the simulated windows."
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola.core.errors import MoolaError
from moola.core.names import LABELS, W
from moola.data.plant import simulate_windows
from moola.data.simulate import SESSION, simulate_bars
from moola.data.windows import Windows, join_windows, read_windows, window_targets, write_windows

SIM_12 = '927177b0587ea3bcff59ee5b2adea43bdfc8e752e05810cfb9366d45a3714d11'   # simulate_windows(12, seed=1, version=1)
SIM_174 = '24a37923c65b6adaed7f79422dd4ac7d95552edb36f0d2bc199fd542641afa91'  # simulate_windows()
REAL_174 = '0fbfce6cbc44ab614c86223bed116454d99fecdd6b9c89130dc0f8b6b90b5b30'  # windows_174.parquet


@pytest.fixture(scope='module')
def sim(): return simulate_windows(12, seed=1, version=1)


@pytest.fixture
def frame(sim, tmp_path): return pd.read_parquet(write_windows(sim, tmp_path / 'frame.parquet'))


@pytest.fixture(scope='module')
def real(shared): return read_windows(shared / 'data' / 'windows_174.parquet')


def read_back(frame, tmp_path):
    frame.to_parquet(tmp_path / 'w.parquet')
    return read_windows(tmp_path / 'w.parquet')


def same(a, b):
    assert (a.ids == b.ids).all() and (a.window == b.window).all() and a.fingerprint == b.fingerprint
    assert (a.ohlc == b.ohlc).all()
    pd.testing.assert_frame_equal(a.rows, b.rows)


def test_real_windows(real):
    assert len(real) == 174 and real.ohlc.shape == (174, W, 4) and real.fingerprint == REAL_174
    assert [len(s) for s in real.spans] == [1] * 174
    assert .05 < real.mask.mean() < .07
    assert not real.simulated and real.source == ['nq_1m_202311', 'es_1m_202303']
    assert real.timestamp.dtype == 'datetime64[ns]' and (real.base == real.ids).all()


def test_real_windows_round_trip(real, shared, tmp_path):
    path = write_windows(real, tmp_path / 'w.parquet')
    same(read_windows(path), real)
    before, after = pd.read_parquet(shared / 'data' / 'windows_174.parquet'), pd.read_parquet(path)
    assert list(before.columns) == list(after.columns)
    pd.testing.assert_frame_equal(before.drop(columns='features'), after.drop(columns='features'))
    assert all((np.stack(a) == np.stack(b)).all() for a, b in zip(before.features, after.features))


def test_inclusive_end_is_converted_once(sim):
    for spans, row in zip(sim.spans, sim.rows.itertuples()):
        assert spans.tolist() == [[row.expansion_start, row.expansion_end + 1]]
        assert spans.dtype == 'int64'
    assert (sim.mask.sum(1) == sim.rows.expansion_end - sim.rows.expansion_start + 1).all()


def test_simulated_windows_round_trip(sim, tmp_path):
    same(read_windows(write_windows(sim, tmp_path / 'w.parquet')), sim)


def test_same_bars_become_one_window(frame, tmp_path):
    twin = frame.iloc[[3, 5, 5]].assign(window_id=['again', 'b', 'c'], expansion_start=[90, 2, 2], expansion_end=[99, 4, 4], label=['retracement'] * 3)
    w = read_back(pd.concat([frame, twin], ignore_index=True), tmp_path)
    assert len(w) == 12 and len(w.rows) == 15 and w.window[-3:].tolist() == [3, 5, 5]
    assert w.ids[3] == frame.window_id[3] and len(w.spans[3]) == 2 and w.spans[3][1].tolist() == [90, 100]
    assert len(w.spans[5]) == 2 and w.spans[5][0].tolist() == [2, 5]
    assert w.window_type[5] == (1 if frame.label[5] == 'retracement' else -1)
    same(read_windows(write_windows(w, tmp_path / 'again.parquet')), w)


def test_extra_columns_pass_through(frame, tmp_path):
    extra = frame.assign(quality=[.5, np.nan] * 6, offset=range(12), base_window_id=['a', None] * 6, tag=pd.Categorical(['x', 'y'] * 6))
    w = read_back(extra, tmp_path)
    assert w.base.tolist() == ['a' if k % 2 == 0 else i for k, i in enumerate(w.ids)]
    again = read_windows(write_windows(w, tmp_path / 'again.parquet'))
    pd.testing.assert_frame_equal(again.rows, w.rows)
    pd.testing.assert_series_equal(again.rows.tag, extra.tag)


def test_only_the_needed_columns(frame, tmp_path):
    w = read_back(frame[['features', 'expansion_end', 'label', 'window_id', 'expansion_start']], tmp_path)
    assert w.timestamp is None and w.source == [] and (w.base == w.ids).all()


def test_times(frame, tmp_path):
    zoned = frame.assign(timestamp=frame.timestamp.dt.tz_localize('America/New_York'))
    assert (read_back(zoned, tmp_path).timestamp == (frame.timestamp + pd.Timedelta('5h')).to_numpy()).all()
    text = frame.assign(timestamp=[None, *frame.timestamp.astype(str)[1:]])
    w = read_back(text, tmp_path)
    assert np.isnat(w.timestamp[0]) and (w.timestamp[1:] == frame.timestamp.to_numpy()[1:]).all()
    with pytest.raises(MoolaError, match=r'2 rows have a timestamp that cannot be read: row 1 \(sim01\), row 2'):
        read_back(frame.assign(timestamp=['2024-01-01', 'x', 'y', *['2024-01-01'] * 9]), tmp_path)


def change(frame, row, **values):
    frame = frame.copy()
    for column, value in values.items():
        frame[column] = frame[column].astype(object)
        frame.at[row, column] = value
    return frame.infer_objects()


def bars_with(frame, row, bar, column, value):
    bars = np.stack(frame.features[row]).copy()
    bars[bar, column] = value
    return change(frame, row, features=bars.tolist())


BROKEN = {
    'unknown label': (lambda f: change(f, 2, label='breakout'),
                      r"w.parquet: 1 row has an unknown label \('breakout' is neither consolidation nor retracement\): row 2 \(sim02\)"),
    'missing label': (lambda f: change(f, 2, label=None), 'unknown label'),
    'capital label': (lambda f: change(f, 2, label='Retracement'), 'unknown label'),
    'negative start': (lambda f: change(f, 3, expansion_start=-1), r'an expansion_start outside 0 to 104: row 3 \(sim03\)'),
    'late end': (lambda f: change(f, 4, expansion_end=105), r'an expansion_end outside 0 to 104: row 4 \(sim04\)'),
    'end before start': (lambda f: change(f, 5, expansion_start=50, expansion_end=49), r'an expansion_end before its expansion_start: row 5'),
    'fraction': (lambda f: change(f, 5, expansion_start=20.5), 'expansion_start that is not a whole number: row 5'),
    'missing end': (lambda f: change(f, 5, expansion_end=None), 'expansion_end that is not a whole number: row 5'),
    'no id': (lambda f: change(f, 6, window_id=None), 'no window_id: row 6'),
    'short window': (lambda f: change(f, 7, features=np.stack(f.features[7])[:104].tolist()), r'not 105 bars but 104: row 7 \(sim07\)'),
    'missing window': (lambda f: change(f, 7, features=None), 'not 105 bars but 0: row 7'),
    'three prices': (lambda f: change(f, 8, features=[*np.stack(f.features[8])[:104].tolist(), [1., 2., 1.]]), 'without exactly four prices: row 8'),
    'nan': (lambda f: bars_with(f, 9, 50, 1, np.nan), r'a price that is missing or infinite: row 9 \(sim09\)'),
    'infinite': (lambda f: bars_with(f, 9, 50, 1, np.inf), 'a price that is missing or infinite: row 9'),
    'null price': (lambda f: change(f, 9, features=[*np.stack(f.features[9])[:104].tolist(), [1., 2., None, 1.]]),
                   'a price that is missing or infinite: row 9'),
    'high too low': (lambda f: bars_with(f, 10, 0, 1, 1.), 'a high below its open or close: row 10'),
    'low too high': (lambda f: bars_with(f, 11, 104, 2, 1e9), 'a low above its open or close: row 11'),
    'one id, two windows': (lambda f: change(f, 1, window_id='sim00'), 'the same window_id stands for different bars: sim00'),
    'a missing column': (lambda f: f.drop(columns=['label', 'features']), 'w.parquet has no column label, features; it has'),
    'flat prices': (lambda f: f.assign(features=[np.stack(x).ravel() for x in f.features]), r'features must be lists of 105 lists'),
    'text prices': (lambda f: f.assign(features=[np.stack(x).astype(str).tolist()[:104] + [['a'] * 4] for x in f.features]), 'not numbers'),
    'empty': (lambda f: f.head(0), 'w.parquet has no (windows|column)')}


@pytest.mark.parametrize('case', BROKEN)
def test_broken_files_are_refused(frame, tmp_path, case):
    spoil, message = BROKEN[case]
    with pytest.raises(MoolaError, match=message): read_back(spoil(frame), tmp_path)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(MoolaError, match='There is no file'): read_windows(tmp_path / 'none.parquet')
    with pytest.raises(MoolaError, match='is a folder, and one parquet file of labelled windows is wanted'): read_windows(tmp_path)
    (tmp_path / 'x.parquet').write_text('window_id,label')
    with pytest.raises(MoolaError, match='x.parquet cannot be read as parquet'): read_windows(tmp_path / 'x.parquet')


def test_whole_numbers_in_other_types(frame, tmp_path):
    w = read_back(frame.assign(expansion_start=frame.expansion_start.astype('float32'), expansion_end=frame.expansion_end.astype('int16')), tmp_path)
    assert (w.rows.expansion_start == frame.expansion_start).all() and w.rows.expansion_end.dtype == 'int64'


def test_writing_is_careful(sim, tmp_path):
    path = write_windows(sim, tmp_path / 'w.parquet')
    with pytest.raises(MoolaError, match='w.parquet exists; pass overwrite=True'): write_windows(sim[:3], path)
    write_windows(sim[:3], path, overwrite=True)
    assert len(read_windows(path)) == 3
    with pytest.raises(MoolaError, match='There is no folder'): write_windows(sim, tmp_path / 'none' / 'w.parquet')
    bare = Windows(sim.ids, sim.ohlc, sim.rows.iloc[2:].reset_index(drop=True), sim.window[2:])
    again = read_windows(write_windows(bare, tmp_path / 'v.parquet'))
    assert again.ids.tolist() == bare.ids.tolist() and [len(s) for s in again.spans][:3] == [0, 0, 1] and again.fingerprint == bare.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ['v.parquet', 'w.parquet']


def test_windows_without_spans(sim):
    bare = Windows(sim.ids[:2], sim.ohlc[:2], sim.rows.iloc[:1], sim.window[:1])
    assert bare.spans[1].shape == (0, 2) and bare.window_type[1] == -1 and not bare.mask[1].any()
    assert np.isnat(bare.timestamp[1]) and bare.base[1] == bare.ids[1]
    t = window_targets(bare)
    assert np.isnan(t['ptr'][1]).all() and (t['countdown'][1] == 1).all() and t['type'][1] == -1
    assert len(sim[:0]) == 0 and sim[:0].mask.shape == (0, W) and window_targets(sim[:0])['ptr'].shape == (0, 2)
    repr(bare), repr(sim[:0]), sim[:0]._repr_html_()


def test_targets(sim):
    t = window_targets(sim)
    assert {k: (v.shape, str(v.dtype)) for k, v in t.items()} == {
        'type': ((12,), 'int64'), 'ptr': ((12, 2), 'float32'), 'span': ((12, W), 'float32'), 'countdown': ((12, W), 'float32')}
    start, end = (np.array([s[0, i] for s in sim.spans]) for i in (0, 1))
    np.testing.assert_allclose(t['ptr'], np.stack([(start + end) / 2, end - start], 1) / W, atol=1e-6)
    np.testing.assert_allclose(t['countdown'], (np.clip(start[:, None] - np.arange(W), -20, 20) + 20) / 40, atol=1e-6)
    assert (t['span'].astype(bool) == sim.mask).all() and (t['type'] == sim.window_type).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-12, 11), max_size=20))
def test_indexing(sim_index):
    w = simulate_windows_cached()
    part = w[np.array(sim_index, dtype=int)]
    at = np.arange(12)[np.array(sim_index, dtype=int)]
    assert (part.ids == w.ids[at]).all() and (part.mask == w.mask[at]).all() and (part.window_type == w.window_type[at]).all()
    assert [s.tolist() for s in part.spans] == [w.spans[k].tolist() for k in at]


_cache = []
def simulate_windows_cached():
    if not _cache:
        w = simulate_windows(12, seed=1, version=1)
        more = w.rows.iloc[[2, 7, 7]].assign(expansion_start=[1, 96, 90], expansion_end=[3, 99, 92])
        _cache.append(Windows(w.ids, w.ohlc, pd.concat([more, w.rows], ignore_index=True), np.r_[[2, 7, 7], w.window]))
    return _cache[0]


def test_masks_slices_and_single_windows(sim):
    keep = sim.window_type == 1
    assert (sim[keep].ids == sim.ids[keep]).all() and (sim[3:9:2].ids == sim.ids[3:9:2]).all()
    assert len(sim[4]) == 1 and sim[-1].ids[0] == sim.ids[-1]
    with pytest.raises(IndexError): sim[12]


def test_fingerprint_is_of_content(sim, tmp_path):
    frame = pd.read_parquet(write_windows(sim, tmp_path / 'a.parquet'))
    assert read_back(frame.drop(columns=['timestamp', 'source'])[frame.columns[[4, 3, 2, 1, 0]]], tmp_path).fingerprint == sim.fingerprint
    pq.write_table(pq.read_table(tmp_path / 'a.parquet'), tmp_path / 'b.parquet', compression='none', row_group_size=3)
    assert read_windows(tmp_path / 'b.parquet').fingerprint == sim.fingerprint
    for other in (change(frame, 0, expansion_end=int(frame.expansion_end[0]) + 1), bars_with(frame, 0, 0, 1, 99_999.),
                  frame.assign(label=[LABELS[label == LABELS[0]] for label in frame.label]), frame[::-1]):
        assert read_back(other, tmp_path).fingerprint != sim.fingerprint


def test_repr_says_simulated(sim, real):
    assert repr(sim).endswith('source simulated)') and 'simulated' in sim._repr_html_()
    assert 'simulated' not in repr(real) and repr(real) == repr(real)


def test_simulation_is_pinned(sim):
    assert sim.fingerprint == SIM_12
    assert simulate_windows(version=1).fingerprint == SIM_174


@pytest.mark.parametrize('n, seed', [(1, 0), (7, 3), (174, 7), (174, 42), (1000, 5)])
def test_simulated_windows_are_valid(n, seed, tmp_path):
    w = simulate_windows(n, seed)
    assert len(w) == n and w.simulated and len(np.unique(w.ids)) == n
    same(read_windows(write_windows(w, tmp_path / 'w.parquet')), w)
    assert n == 1 or (np.diff(w.timestamp) >= np.timedelta64(2 * W, 'm')).all()
    ends = pd.Series(w.timestamp + np.timedelta64(W - 1, 'm'))
    assert ((pd.Series(w.timestamp) - pd.Timedelta('18h')).dt.floor('D') == (ends - pd.Timedelta('18h')).dt.floor('D')).all()


@pytest.mark.parametrize('seed', range(6))
def test_label_statistics(seed):
    w = simulate_windows(174, seed, version=1)
    start, end = (np.array([s[0, i] for s in w.spans]) for i in (0, 1))
    assert abs(w.mask.mean() - .071) < .001
    assert abs(np.median(end - start) - 5) <= 1 and 6.5 < (end - start).mean() < 7.55
    assert (w.window_type == 0).sum() == 92
    assert start.min() >= 23 and start.max() <= 85 and end.max() <= W
    assert np.abs(np.sort(start) - np.linspace(23, 85, 174)).max() < 5


def test_position_knows_little():
    w = simulate_windows(1500, seed=1, version=1)
    train, test = w.mask[:1000], w.mask[1000:]
    common = train.mean(0) > train.mean()
    guess = np.broadcast_to(common, test.shape)
    assert 2 * (guess & test).sum() / (guess.sum() + test.sum()) < .21


def test_bars_and_windows_share_one_market():
    bars, w = simulate_bars(20 * SESSION, seed=1), simulate_windows(120, seed=1)
    width = lambda ohlc: np.log(ohlc[..., 1] / ohlc[..., 2]).mean()
    assert .8 < width(w.ohlc) / width(bars[['open', 'high', 'low', 'close']].to_numpy()) < 1.3


# What files hold beside labels

@pytest.mark.parametrize("column", ["window_id", "timestamp"])
def test_an_index_is_read_as_a_column(frame, tmp_path, column):
    frame.set_index(column).to_parquet(tmp_path / "i.parquet")
    w = read_windows(tmp_path / "i.parquet")
    assert (w.ids == frame.window_id).all() and (w.timestamp == frame.timestamp.to_numpy()).all()


def test_a_row_without_an_expansion_is_background(frame, tmp_path):
    "Such a window has no span, keeps its time and its own columns, and comes back as it was."
    f = frame.assign(note=[f"n{i}" for i in range(len(frame))]).astype(dict(expansion_start="Int64", expansion_end="Int64"))
    f.loc[[2, 7], ["expansion_start", "expansion_end", "label"]] = None
    w = read_back(f, tmp_path)
    assert (w.ids == frame.window_id).all() and [i for i, s in enumerate(w.spans) if not len(s)] == [2, 7]
    assert (w.window_type[[2, 7]] == -1).all() and not w.mask[[2, 7]].any() and (w.timestamp == frame.timestamp.to_numpy()).all()
    again = read_windows(write_windows(w, tmp_path / "again.parquet"))
    assert again.fingerprint == w.fingerprint and again.background.note.tolist() == ["n2", "n7"]
    assert pd.read_parquet(tmp_path / "again.parquet").note.tolist() == f.note.tolist()
    assert join_windows([w, w]).timestamp[14] == w.timestamp[2] and w[[7, 1]].background.note.tolist() == ["n7"]


def test_labels_that_share_a_bar_are_one_span(frame, tmp_path):
    "Two labels of one surge: a perfect answer marks one run, so there is one span to find."
    f = pd.concat([frame, frame.iloc[[4]].assign(window_id="twin", expansion_start=frame.expansion_start[4] + 1)], ignore_index=True)
    w, plain = read_back(f, tmp_path), read_back(frame, tmp_path)
    assert w.spans[4].tolist() == plain.spans[4].tolist() and len(w.rows) == len(frame) + 1 and w.fingerprint != plain.fingerprint


ODD = {"far future": (lambda f: f.assign(timestamp=[*f.timestamp.astype(str)[:-1], "2999-01-01"]), "timestamp outside the years 1900 to 2200: row 11|cannot be read: row 11"),
       "numbers": (lambda f: f.assign(timestamp=np.r_[np.inf, np.ones(len(f) - 1)]), "a number instead of a timestamp: row 0"),
       "times as prices": (lambda f: f.assign(features=[[[pd.Timestamp("2024-01-01")] * 4] * 105] * len(f)), "features hold prices that are not numbers"),
       "yes and no": (lambda f: f.assign(expansion_start=True), "expansion_start that is not a whole number: row 0"),
       "lengths of time": (lambda f: f.assign(expansion_end=pd.to_timedelta(50, unit="s")), "expansion_end that is not a whole number: row 0")}


@pytest.mark.parametrize("case", ODD)
def test_odd_columns_are_named(frame, tmp_path, case):
    spoil, message = ODD[case]
    with pytest.raises(MoolaError, match=message): read_back(spoil(frame), tmp_path)


def test_a_table_of_text_names_the_right_command(tmp_path):
    (tmp_path / "bars.csv").write_text("timestamp,open\n")
    with pytest.raises(MoolaError, match="bars.csv is a table of text.*moola_predict"): read_windows(tmp_path / "bars.csv")
