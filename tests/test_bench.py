"The label store: files of others, two benches, failures."
import multiprocessing as mp
import os
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from moola.core.errors import MoolaError
from moola.data.plant import simulate_windows
from moola.data.windows import write_windows
from moola.labels.bench import LabelStore


@pytest.fixture
def path(tmp_path):
    "A labelled-windows file with columns of others."
    file = tmp_path/"train.parquet"
    write_windows(simulate_windows(20, seed=1), file)
    d = pd.read_parquet(file)
    d.assign(broker=np.arange(len(d)), tags=[["x", str(i)] for i in range(len(d))]).to_parquet(file)
    return file


def test_foreign_columns_survive(path):
    "Prices and foreign columns are the same to the bit after many changes; pandas reads the file; the backup is the file as it was."
    before, bytes_before = pq.read_table(path), path.read_bytes()
    store = LabelStore(path, "ann")
    first = next(iter(store.rows))
    store.add(window_id="new", label="retracement", expansion_start=np.int64(3), expansion_end=9, features=np.ones((105, 4)).tolist())
    store.change(first, note="wide")
    store.remove(store.add(window_id="gone"))
    after = pq.read_table(path)
    assert after.slice(0, len(before)).select(before.column_names).equals(before) and len(after) == len(before) + 1
    d = pd.read_parquet(path)
    assert d.note[0] == "wide" and d.broker.tolist()[:3] == [0, 1, 2] and np.isnan(d.broker.iloc[-1])
    assert store.backup.read_bytes() == bytes_before and len(list(path.parent.glob("*.backup.parquet"))) == 1


def test_one_bench_undoes_its_own_only(path):
    "Undo takes back the values of its change and keeps what another bench has set meanwhile in the same row."
    a, b = LabelStore(path, "ann"), LabelStore(path, "bob")
    row = next(iter(a.rows))
    a.change(row, note="mine")
    b.change(row, quality="B")
    a.undo()
    b.sync()
    assert (b[row]["note"], b[row]["quality"]) == (None, "B")
    a.redo()
    b.remove(row)
    with pytest.raises(MoolaError, match="it may have been removed elsewhere"): a.change(row, note="again")
    a.undo()
    assert a[row]["note"] is None and len(a) == len(LabelStore(path))
    a.redo()
    assert LabelStore(path)[row]["note"] == "mine"


def many(path, who):
    "Ten labels by one bench."
    store = LabelStore(path, who)
    for i in range(10): store.add(window_id=f"{who}{i}")


def test_benches_at_once(path):
    "Four processes write at once, and every label is there."
    n = len(LabelStore(path))
    work = [mp.get_context("spawn").Process(target=many, args=(path, who)) for who in ("ann", "bob", "cid")]
    for p in work: p.start()
    many(path, "dan")
    for p in work: p.join()
    assert [p.exitcode for p in work] == [0, 0, 0]
    rows = LabelStore(path).table.to_pylist()
    assert len(rows) == n + 40 and {f"{w}{i}" for w in ("ann", "bob", "cid", "dan") for i in range(10)} <= {r["window_id"] for r in rows}


def test_a_failed_save_changes_nothing(path, monkeypatch):
    "A disk that is full leaves the file, and the store goes on from it."
    store = LabelStore(path)
    store.add(window_id="first")
    whole = path.read_bytes()
    with monkeypatch.context() as m:
        def full(*args): raise OSError("no space left")
        m.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space"): store.add(window_id="lost")
        with pytest.raises(OSError, match="no space"): store.undo()
    assert path.read_bytes() == whole
    store.add(window_id="second")
    names = [r["window_id"] for r in LabelStore(path).table.to_pylist()]
    assert names[-2:] == ["first", "second"] and store.undo() and store.undo() and not store.undo()


def test_a_deleted_file_comes_back(path):
    "Rows outlive their file."
    store = LabelStore(path)
    n = len(store)
    path.unlink()
    store.add(window_id="more")
    assert len(LabelStore(path)) == n + 1


@pytest.mark.parametrize("wrong, words", [
    (dict(), "a label needs a window_id"), (dict(window_id="a", colour="red"), "labels have no column colour"),
    (dict(window_id="a", label="retracement", expansion_start=5, expansion_end=3), "bars 5 to 3 don't fit"),
    (dict(window_id="a", label="retracement", expansion_start="5", expansion_end="9"), "don't fit"),
    (dict(window_id="a", quality="E"), "choose A, B, C or D"), (dict(window_id="a", label="", expansion_start=5, expansion_end=9), "choose consolidation")])
def test_wrong_rows(path, wrong, words):
    "A wrong row is one sentence, and no change."
    store, stamp = LabelStore(path), path.stat()
    with pytest.raises(MoolaError, match=words): store.add(**wrong)
    assert path.stat() == stamp and not store.done and len(store) == len(LabelStore(path))


def test_wrong_files(tmp_path):
    "A file that is no file of labels says so."
    (tmp_path/"a.parquet").write_text("no")
    with pytest.raises(MoolaError, match="cannot be read as parquet"): LabelStore(tmp_path/"a.parquet")
    pd.DataFrame(dict(x=[1])).to_parquet(tmp_path/"b.parquet")
    with pytest.raises(MoolaError, match="has no column window_id, label"): LabelStore(tmp_path/"b.parquet")
    with pytest.raises(MoolaError, match="There is no folder"): LabelStore(tmp_path/"no/c.parquet")
    store = LabelStore(tmp_path/"new.parquet")
    store.add(window_id="a")
    assert store.backup is None and len(LabelStore(tmp_path/"new.parquet")) == 1


def test_thousands_of_labels(tmp_path):
    "A save of a large file takes well under a second."
    file = tmp_path/"large.parquet"
    write_windows(simulate_windows(500, seed=1), file)
    d = pd.read_parquet(file)
    pd.concat([d.assign(window_id=d.window_id + str(i)) for i in range(4)]).to_parquet(file, index=False)
    store, times = LabelStore(file), []
    for _ in range(3):
        start = time.perf_counter()
        store.add(window_id="x")
        times.append(time.perf_counter() - start)
    print(f"{len(store)} labels, {file.stat().st_size/1e6:.1f} MB: {min(times):.3f} s a change")
    assert min(times) < 3
