"""series-v1: bars in a row with expansions in one bar of fifty, for one network, averaged networks and their students.

    python benchmarks/series_v1.py --device cuda --save benchmarks/results/series-v1.json
    python benchmarks/series_v1.py --expansions 60 --epochs 30 --networks 2 --unlabelled 20000 --right-context 31 --only simulated

Three series. `simulated`: sessions of `simulate_labelled_bars`, whose expansions are all known; teachers learn from 174 simulated windows, and
everyone's unlabelled bars are sessions of the same market whose labels nobody reads. `rule`: real bars of another month and of another
instrument, labelled by the hindsight rule in windows 25 bars apart, the strongest first, where labels of two windows overlap; teachers learn from
windows of three other months that the same rule labelled.
`planted`: real bars of two months that nothing reads, with a surge pasted into each 230 bars. Teachers learn from 130 of the labelled windows
of the two other months, and the surges that are scored come from the other 44. Real surges that are there already count as false alarms of
everybody. Teachers see as many unlabelled windows as labelled ones. Students learn from unlabelled bars of other files than those that are scored.

Everything is kept in --output: networks, answers, students, and what each reader says of each bar that is scored (SERIES.npz); a run that was
stopped goes on. Rows are written as they come. After --limit seconds no further student is begun.
"""
import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import real_rule_v1
import torch
from real_rule_v1 import TESTS, TRAIN
from series_networks import background, edges, networks
from table import machine

from moola.core.files import project_root
from moola.core.names import OHLC, W
from moola.data.bars import segment_bars
from moola.data.plant import simulate_labelled_bars, simulate_windows
from moola.data.simulate import SESSION
from moola.data.spans import mask_to_spans, match_spans
from moola.data.windows import read_windows
from moola.labels.rule import hindsight_spans
from moola.metrics.decode import threshold_spans
from moola.metrics.intervals import interval, paired_interval, score_of
from moola.metrics.scores import counts_f1
from moola.models.series_reader import SeriesReader
from moola.training.augment import AFTER, BEFORE
from moola.training.distil import EVERY, ask, distil

SEED, HELD_OUT = 15, 44
TEST = ("nq_1m_202605", "es_1m_202504")
UNLABELLED = ("es_1m_lean_2013_2020", "nq_1m_202311", "es_1m_202303", "nq_2m_202603", "es_5m_202507", "estx50fut_1m_2006", "btcperp_1m_202201", "eurusd_1m_lean_oanda")


def real_folder():
    "Where the real bars are: below the project or beside it."
    root = project_root()
    return next((p for p in (root/"shared"/"data", root.parent/"shared"/"data", root/"artifacts"/"shared"/"data") if p.is_dir()), None)


def pasted(ohlc, windows, rng):
    "`paste_surges` with the bars of each label, which it doesn't give."
    x, target = ohlc.copy(), np.zeros(len(ohlc), bool)
    for begin in range(0, len(x)-EVERY, EVERY):
        i = rng.integers(len(windows))
        a, b = windows.spans[i][0]
        lo, hi = max(a-rng.integers(*BEFORE), 0), min(b+rng.integers(*AFTER), W)
        core, at = windows.ohlc[i, lo:hi], begin + 1 + rng.integers(0, EVERY-(hi-lo)-1)
        end, size = at+len(core), (x[max(at-50, 0):at+50, 1] - x[max(at-50, 0):at+50, 2]).mean()
        core = (core-core[0, 0]) * size/(windows.ohlc[i, :, 1]-windows.ohlc[i, :, 2]).mean() + x[at-1, 3]
        x[end:] += core[-1, 3] - x[end-1, 3]
        x[at:end] = core
        target[at+a-lo:at+b-lo] = True
    return x, target


def simulated(o):
    "Stretches to score with their labels, unlabelled bars, and labelled windows."
    test = simulate_labelled_bars(o.expansions, seed=SEED)
    target = np.zeros(len(test.bars), bool)
    for a, b in test.spans: target[a:b] = True
    x, cuts = np.ascontiguousarray(test.bars[OHLC]), range(SESSION, len(target), SESSION)
    market = simulate_labelled_bars(o.unlabelled//EVERY, seed=SEED+1).bars
    return list(zip(np.split(x, cuts), np.split(target, cuts))), [market], simulate_windows(174, 7)


def real_bars(file):
    "Checked bars, as shared/data has them."
    bars = pd.read_parquet(file)[["timestamp", *OHLC]]
    return bars.assign(timestamp=pd.to_datetime(bars.timestamp))


def planted(o, folder):
    windows, rng, tests, n = read_windows(folder/"windows_174.parquet"), np.random.default_rng(SEED), [], 0
    order = np.random.default_rng(SEED).permutation(len(windows))
    for name in TEST:
        bars = real_bars(folder/f"{name}.parquet")
        for a, b in segment_bars(bars):
            if b-a <= EVERY + W or n >= EVERY*o.expansions: continue
            tests.append(pasted(np.ascontiguousarray(bars[OHLC][a:b]), windows[order[:HELD_OUT]], rng))
            n += b-a
    unlabelled, read = [], 0
    for name in UNLABELLED:
        if read < o.unlabelled: unlabelled.append(real_bars(folder/f"{name}.parquet"))
        read += len(unlabelled[-1])
    return tests, unlabelled, windows[order[HELD_OUT:]]


def rule_marks(ohlc, step=25):
    "Bars of a stretch that the rule labels, (n,) bool: of windows `step` bars apart, the strongest label first and none over another."
    starts, mask = np.arange(0, len(ohlc)-W+1, step), np.zeros(len(ohlc), bool)
    spans, _, strength = hindsight_spans(ohlc[starts[:, None] + np.arange(W)])
    for i in np.argsort(-strength, kind="stable"):
        a, b = spans[i] + starts[i]
        if strength[i] > 0 and not mask[a:b].any(): mask[a:b] = True
    return mask


def by_rule(o, folder):
    tests = []
    for name in (n for names in TESTS.values() for n in names):
        bars = real_bars(folder/f"{name}.parquet")
        stretches = [np.ascontiguousarray(bars[OHLC][a:b]) for a, b in segment_bars(bars) if b-a > EVERY + W]
        tests += [(x, rule_marks(x)) for x in stretches]
    apart = [n for names in TESTS.values() for n in names]
    return tests, [real_bars(folder/f"{n}.parquet") for n in (*TEST, *UNLABELLED) if n not in apart], real_rule_v1.load(TRAIN)


def blocks_of(tests, probs):
    "Labels and answers in blocks of 230 bars, (n, 2, 230)."
    out = []
    for (_, t), p in zip(tests, probs):
        n = len(t)//EVERY*EVERY
        out.append(np.stack([t[:n], np.nan_to_num(p)[:n].astype(float)], 1).reshape(-1, EVERY, 2).transpose(0, 2, 1))
    return np.concatenate(out)


def score(tests, probs):
    "Scores over all stretches; blocks of 230 bars are drawn. Threshold of spans: the best bar F1, on the same bars for everyone."
    v = blocks_of(tests, probs)
    t, p = v[:, 0].astype(bool), v[:, 1]
    order = np.argsort(-p, axis=None)
    tp, m = t.ravel()[order].cumsum(), np.arange(1, t.size+1)
    cut = p.ravel()[order][np.argmax(2*tp/(m+t.sum()))]
    half = p.ravel()[order][np.searchsorted(tp, t.sum()/2)]
    pairs = [(mask_to_spans(a), threshold_spans(b, cut, 2)[0]) for a, b in zip(t, p)]
    hit, n_true, n_found = sum(len(match_spans(a, b, .5)) for a, b in pairs if len(a) and len(b)), *(sum(map(len, o)) for o in zip(*pairs))
    alarms = sum(int(not tt[a:b].any()) for tt, pp in zip(t, p) for a, b in threshold_spans(pp, half, 2)[0])
    counts = np.stack([(t & (p >= cut)).sum(1), (~t & (p >= cut)).sum(1), (t & (p < cut)).sum(1)], 1)
    return dict(average_precision=list(interval(score_of(t, p), np.arange(len(t)), t.sum(1))),
                bar_f1=list(interval(lambda w: counts_f1(counts, w)[:, None], np.arange(len(t)), t.sum(1))),
                event_f1=2*hit/(n_true+n_found), false_alarms_a_day=alarms/(t.size/SESSION), bars=int(t.size), labelled=float(t.mean()))


def less(tests, probs, others):
    "Average precision of the first less that of the second."
    v, w = blocks_of(tests, probs), blocks_of(tests, others)
    return list(paired_interval(score_of(v[:, 0], v[:, 1]), score_of(v[:, 0], w[:, 1]), np.arange(len(v))))


def run(name, data, o, rows):
    "Score everyone on one series; the students that differ in one thing come after a break."
    tests, unlabelled, windows = data()
    began, both = time.perf_counter(), background(windows, unlabelled, len(windows))
    everyone = networks(both, name, o.networks, o.epochs, o.output/"networks", o.device)
    kept = [getattr(everyone, k) for k in ("features", "swing_rule", "threshold", "min_length", "device", "runs")]
    single = type(everyone)(everyone.models[:1], *kept)
    last = networks(both, name, 1, o.epochs, o.output/"networks", o.device, averaged=False)
    plain = networks(windows, f"{name}-labelled", 1, o.epochs, o.output/"networks", o.device)
    print(f"{name}: networks after {time.perf_counter()-began:.0f} s", flush=True)
    readers = {"one network, last epoch": last, "one network, no background": plain, "one network": single, "averaged": everyone}
    found = {k: [ask(d, x, o.stride) for x, _ in tests] for k, d in readers.items()}
    there = [~np.isnan(p) for p in found["averaged"]]   # where windows don't reach, nobody is scored
    scored = [(x[k], t[k]) for (x, t), k in zip(tests, there)]
    def cut(probs): return [p[k] for p, k in zip(probs, there)]
    def keep(): np.savez_compressed(o.output/f"{name}.npz", length=[len(t) for _, t in tests], ohlc=np.concatenate([x for x, _ in tests]),
                                    target=np.concatenate([t for _, t in tests]), edges=at_close, **{k: np.concatenate(p) for k, p in found.items()})
    def tell(k, seconds=None):
        s = score(scored, cut(found[k]))
        d = {f"less_{v}": less(scored, cut(found[k]), cut(found[w])) for v, w in (("averaged", "averaged"), ("one", "one network")) if k not in (w, "averaged")}
        rows.append(dict(series=name, reader=k, **s, **d, seconds=seconds))
        print(f"{name:10} {k:34} AP {np.round(s['average_precision'], 3)} F1 {s['bar_f1'][0]:.3f} event F1 {s['event_f1']:.3f} false alarms {s['false_alarms_a_day']:.2f} "
              f"less averaged {np.round(d.get('less_averaged', [0]), 3)} {seconds or 0:.0f} s", flush=True)
        o.write(rows)
    for k in found: tell(k)
    at_close = np.concatenate([edges(x, everyone) for x, _ in tests]).astype(np.float16)
    keep()
    print(f"{name}: read after {time.perf_counter()-began:.0f} s", flush=True)
    plans = {f"student, {r} bars ahead": dict(right_context=r) for r in o.right_context}
    for k, plan in [*plans.items(), (None, None), *o.variants.items()]:
        if k is None:
            yield
            continue
        if time.perf_counter() - o.began > o.limit:
            print(f"{name}: no time for {k}", flush=True)
            continue
        start, plan = time.perf_counter(), dict(epochs=o.student_epochs) | plan
        few, label = plan.pop("bars", None), plan.pop("labelled", True)
        bars = unlabelled if few is None else [b.iloc[:max(int(few*len(b)), 2*W)] for b in unlabelled]
        net = distil(everyone, bars, o.output/f"{name} {k}", windows if label else None, answers=o.answers or o.output/"answers", device=o.device, overwrite=True, **plan)
        read = SeriesReader(net.cpu()).read
        found[k] = [read(x) for x, _ in tests]
        tell(k, time.perf_counter() - start)
        keep()


SERIES = ("simulated", "planted", "rule")
VARIANTS = {
    "student, 31, pasted three times": dict(pastes=3),
    "student, 31, pasted three times, twice as long": dict(pastes=3, epochs=40),
    "student, 31, pasted three times, 64 channels": dict(pastes=3, channels=64),
    "student, 31, a quarter of the bars": dict(bars=.25),
    "student, 31, nothing pasted": dict(labelled=False),
    "student, 31, 64 channels": dict(channels=64),
    "student, 31, twice as long": dict(epochs=40),
    "student, 31, teachers at stride 2": dict(stride=2),
}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--expansions", type=int, default=240, help="expansions to score, one in 230 bars")
    p.add_argument("--unlabelled", type=int, default=200_000, help="bars that the teachers read")
    p.add_argument("--networks", type=int, default=4)
    p.add_argument("--epochs", type=int, default=200)
    p.add_argument("--student-epochs", type=int, default=20)
    p.add_argument("--stride", type=int, default=1, help="bars between the windows of the networks' scan that is scored")
    p.add_argument("--right-context", type=int, nargs="+", default=[31, 10, 3, 0])
    p.add_argument("--only", nargs="+", choices=SERIES, default=SERIES, help="series; default: all")
    p.add_argument("--variants", nargs="*", metavar="WORD", help="also students that differ in one thing; with words, those whose name ends in one of them")
    p.add_argument("--device", default="cpu")
    p.add_argument("--limit", type=float, default=1e9, help="seconds after which no further student is begun")
    p.add_argument("--output", type=Path, default=Path(os.environ.get("OUT") or project_root()/"artifacts"/"benchmarks"/"series-v1"))
    p.add_argument("--answers", type=Path, help="folder of the teachers' answers; default: answers in --output")
    p.add_argument("--save", type=Path)
    o = p.parse_args()
    o.began, rows = time.perf_counter(), []
    o.variants = {} if o.variants is None else {k: v for k, v in VARIANTS.items() if not o.variants or k.endswith(tuple(o.variants))}
    where = machine("torch", "numba") if o.device == "cpu" else f"{torch.cuda.get_device_name(0)}, {machine('torch', 'numba')}"
    about = {k: v for k, v in vars(o).items() if k not in ("save", "output", "answers", "began", "variants", "limit")}
    def write(rows):
        for f in filter(None, (o.save, o.output/"series-v1.json")): f.write_text(json.dumps(dict(machine=where, options=about, rows=rows), indent=1))
    o.write = write
    o.output.mkdir(parents=True, exist_ok=True)
    print(where, about, flush=True)
    folder = real_folder()
    data = dict(simulated=lambda: simulated(o), planted=lambda: planted(o, folder), rule=lambda: by_rule(o, folder))
    parts = [run(k, data[k], o, rows) for k in o.only if k == "simulated" or folder]
    for part in parts: next(part)            # the readers that everyone wants
    for part in parts: next(part, None)      # what differs in one thing
    if not folder: print("no shared/data: the series of real bars is left out")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
