"""series-v1: bars in a row with expansions in one bar of thirty, for one network, averaged networks and their students.

    python benchmarks/series_v1.py --device cuda --variants --save benchmarks/results/series-v1.json
    python benchmarks/series_v1.py --expansions 60 --epochs 30 --networks 2 --unlabelled 20000 --right-context 31 --only simulated

Four series. `simulated`: sessions of `simulate_labelled_bars`, whose expansions are all known; teachers learn from 174 simulated windows, and
everyone's unlabelled bars are sessions of the same market whose labels nobody reads.
`planted`: real bars of two months that nothing reads, with a surge pasted into each 230 bars, several times over with other surges at other
places. Teachers learn from 130 of the labelled windows of the two other months, and the surges that are scored come from the other 44. Real surges
that are there already count as false alarms of everybody. An interval draws 230 bars with all that was pasted there.
`other months`: four files of index futures, labelled by the hindsight rule in windows 25 bars apart, the strongest first, where labels of two
windows overlap. Each file is read by networks that learned from windows of the three others. `other instruments`: a currency, a coin and a
European index, labelled in the same way, read by the networks of the first file.

Teachers see as many unlabelled windows as labelled ones. Students learn from unlabelled bars of other files than those that are scored.

Everything is kept in --output: networks, answers, students, and what each reader says of each bar that is scored (read/PART/READER.npz), so a run that
was stopped goes on, and several can share the work: `--share 0/6` reads every sixth part and scores nothing; a run without it scores them all.
"""
import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import real_rule_v1
import torch
from series_networks import background, networks
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
from moola.transfer.distil import EVERY, ask, distil

SEED, HELD_OUT = 15, 44
TEST = ("nq_1m_202605", "es_1m_202504")
MONTHS = ("nq_1m_202605", "es_1m_202303", "es_1m_202504", "nq_1m_202311")
INSTRUMENTS = ("estx50fut_1m_2006", "btcperp_1m_202201", "eurusd_1m_lean_oanda")
UNLABELLED = ("es_1m_lean_2013_2020", "nq_1m_202311", "es_1m_202303", "nq_2m_202603", "es_5m_202507", "estx50fut_1m_2006", "btcperp_1m_202201", "eurusd_1m_lean_oanda")


class Stretch(NamedTuple):
    "Bars in a row that are scored: (n, 4), their labels (n,), the series, and a number that the same bars with other surges share."
    ohlc: np.ndarray
    target: np.ndarray
    series: str
    place: int


class Part(NamedTuple):
    "What the same networks read and learn from; `more` bars are there for students that learn from several times as many."
    name: str
    tests: list
    unlabelled: list
    windows: object
    more: list | None = None


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
    test = simulate_labelled_bars(o.expansions, seed=SEED)
    target = np.zeros(len(test.bars), bool)
    for a, b in test.spans: target[a:b] = True
    x, cuts = np.ascontiguousarray(test.bars[OHLC]), range(SESSION, len(target), SESSION)
    tests = [Stretch(a, b, "simulated", i) for i, (a, b) in enumerate(zip(np.split(x, cuts), np.split(target, cuts)))]
    market, more = (simulate_labelled_bars(k*o.unlabelled//EVERY, seed=SEED+1).bars for k in (1, 4))
    return Part("simulated", tests, [market], simulate_windows(174, 7), [more])


def real_bars(file):
    "Checked bars, as shared/data has them."
    bars = pd.read_parquet(file)[["timestamp", *OHLC]]
    return bars.assign(timestamp=pd.to_datetime(bars.timestamp))


def stretches(folder, names):
    "Bars of these files without a gap, (n, 4), where they are long enough to score."
    for name in names:
        bars = real_bars(folder/f"{name}.parquet")
        for a, b in segment_bars(bars):
            if b-a > EVERY + W: yield np.ascontiguousarray(bars[OHLC][a:b])


def unlabelled(folder, names, most=None):
    "The bars of these files, as many files as it takes."
    out, read = [], 0
    for name in names:
        if most is None or read < most: out.append(real_bars(folder/f"{name}.parquet"))
        read += len(out[-1])
    return out


def planted(o, folder):
    windows, rng = read_windows(folder/"windows_174.parquet"), np.random.default_rng(SEED)
    order = np.random.default_rng(SEED).permutation(len(windows))
    real, held = list(stretches(folder, TEST)), windows[order[:HELD_OUT]]
    tests = [Stretch(*pasted(x, held, rng), "planted", i) for _ in range(o.plantings) for i, x in enumerate(real)]
    return Part("planted", tests, unlabelled(folder, UNLABELLED, o.unlabelled), windows[order[HELD_OUT:]])


def rule_marks(ohlc, step=25):
    "Bars of a stretch that the rule labels, (n,) bool: of windows `step` bars apart, the strongest label first and none over another."
    starts, mask = np.arange(0, len(ohlc)-W+1, step), np.zeros(len(ohlc), bool)
    spans, _, strength = hindsight_spans(ohlc[starts[:, None] + np.arange(W)])
    for i in np.argsort(-strength, kind="stable"):
        a, b = spans[i] + starts[i]
        if strength[i] > 0 and not mask[a:b].any(): mask[a:b] = True
    return mask


def by_rule(folder):
    "A part for each month that is scored; its networks learn from the other three, and the first part's read the other instruments as well."
    for i, month in enumerate(MONTHS):
        where = [(month, "other months"), *((n, "other instruments") for n in INSTRUMENTS if i == 0)]
        real = [(x, series) for name, series in where for x in stretches(folder, [name])]
        bars = unlabelled(folder, [n for n in dict.fromkeys((*MONTHS, *UNLABELLED)) if n != month and n not in INSTRUMENTS])
        yield Part(f"rule-{i}", [Stretch(x, rule_marks(x), series, 1000*i+j) for j, (x, series) in enumerate(real)], bars,
                   real_rule_v1.load([n for n in MONTHS if n != month]))


def blocks_of(tests, probs):
    "Labels and answers in blocks of 230 bars, (n, 2, 230), and the place of each, (n,). Bars without an answer are left out."
    out, places = [], []
    for s, p in zip(tests, probs):
        there = ~np.isnan(p)
        t, p = s.target[there], p[there]
        n = len(t)//EVERY
        out.append(np.stack([t[:n*EVERY], p[:n*EVERY].astype(float)], 1).reshape(-1, EVERY, 2).transpose(0, 2, 1))
        places.append(1000*s.place + np.arange(n))
    return np.concatenate(out), np.unique(np.concatenate(places), return_inverse=True)[1]


def score(v, place):
    "Scores over all blocks; places are drawn. Threshold of spans: the best bar F1, on the same bars for everyone."
    t, p = v[:, 0].astype(bool), v[:, 1]
    order = np.argsort(-p, axis=None)
    tp, m = t.ravel()[order].cumsum(), np.arange(1, t.size+1)
    cut = p.ravel()[order][np.argmax(2*tp/(m+t.sum()))]
    half = p.ravel()[order][np.searchsorted(tp, t.sum()/2)]
    pairs = [(mask_to_spans(a), threshold_spans(b, cut, 2)[0]) for a, b in zip(t, p)]
    hit, n_true, n_found = sum(len(match_spans(a, b, .5)) for a, b in pairs if len(a) and len(b)), *(sum(map(len, o)) for o in zip(*pairs))
    alarms = sum(int(not tt[a:b].any()) for tt, pp in zip(t, p) for a, b in threshold_spans(pp, half, 2)[0])
    counts = np.stack([(t & (p >= cut)).sum(1), (~t & (p >= cut)).sum(1), (t & (p < cut)).sum(1)], 1)
    return dict(average_precision=list(interval(score_of(t, p), place, t.sum(1))),
                bar_f1=list(interval(lambda w: counts_f1(counts, w)[:, None], place, t.sum(1))),
                event_f1=2*hit/(n_true+n_found), false_alarms_a_day=alarms/(t.size/SESSION), bars=int(t.size), labelled=float(t.mean()))


def less(v, w, place):
    "Average precision of the first less that of the second."
    return list(paired_interval(score_of(v[:, 0], v[:, 1]), score_of(w[:, 0], w[:, 1]), place))


STUDENT, TEACHERS, ONE = "student, {} bars ahead", "averaged", "one network"
NETWORKS = ("one network, last epoch", "one network, no background", ONE, TEACHERS)


def detectors(part, o):
    "The networks of a part, by what they are called in the table."
    both, where = background(part.windows, part.unlabelled, len(part.windows)), o.output/"networks"
    everyone = networks(both, part.name, o.networks, o.epochs, where, o.device)
    kept = [getattr(everyone, k) for k in ("features", "swing_rule", "threshold", "min_length", "device", "runs")]
    last = networks(both, part.name, 1, o.epochs, where, o.device, averaged=False)
    plain = networks(part.windows, f"{part.name}-labelled", 1, o.epochs, where, o.device)
    return dict(zip(NETWORKS, (last, plain, type(everyone)(everyone.models[:1], *kept), everyone)))


def student(k, plan, teachers, part, o):
    "A student of the teachers, with what the plan changes."
    plan = dict(epochs=o.student_epochs) | plan
    share, windows = plan.pop("bars", 1), part.windows if plan.pop("labelled", True) else None
    bars = part.more if share > 1 else [b.iloc[:max(int(share*len(b)), 2*W)] for b in part.unlabelled]
    return distil(teachers, bars, o.output/f"{part.name} {k}", windows, answers=o.output/"answers"/part.name, device=o.device, overwrite=True, **plan)


def read_part(part, o):
    "What every reader says of the bars of a part, in the order of its stretches, and the machines that read; readers whose answers are in the folder do no work."
    folder, began = o.output/"read"/part.name, time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    plans = {STUDENT.format(r): dict(right_context=r) for r in o.right_context}
    plans |= {k: plan for k, plan in o.variants.items() if (part.name in WITH_VARIANTS or k in EVERYWHERE) and (plan.get("bars", 1) <= 1 or part.more)}
    if todo := [k for k in (*NETWORKS, *plans) if not (folder/f"{k}.npz").exists()]:
        known = detectors(part, o)
        for k in todo:
            read = partial(ask, known[k], stride=o.stride) if k in known else SeriesReader(student(k, plans[k], known[TEACHERS], part, o).cpu()).read
            np.savez(folder/f"{k}.npz", answers=np.concatenate([read(s.ohlc) for s in part.tests]), machine=o.machine)
            print(f"{part.name}: {k} after {time.perf_counter()-began:.0f} s", flush=True)
    cuts, kept = np.cumsum([len(s.target) for s in part.tests])[:-1], {k: np.load(folder/f"{k}.npz") for k in (*NETWORKS, *plans)}
    return {k: np.split(f["answers"], cuts) for k, f in kept.items()}, {str(f["machine"]) for f in kept.values()}


def rows_of(parts, found):
    "The table: every reader on every series, less the averaged networks and less one."
    rows = []
    for series in dict.fromkeys(s.series for p in parts for s in p.tests):
        tests, at = zip(*((s, (i, j)) for i, p in enumerate(parts) for j, s in enumerate(p.tests) if s.series == series))
        readers = [k for k in found[at[0][0]] if all(k in found[i] for i, _ in at)]
        there = [~np.isnan(found[i][TEACHERS][j]) for i, j in at]   # where windows don't reach, nobody is scored
        blocks = {k: blocks_of(tests, [np.where(t, found[i][k][j], np.nan) for (i, j), t in zip(at, there)]) for k in readers}
        for k, (v, place) in blocks.items():
            row = dict(series=series, reader=k, **score(v, place), places=int(place.max()+1))
            row |= {f"less_{n}": less(v, blocks[of][0], place) for n, of in (("averaged", TEACHERS), ("one", ONE)) if k not in (of, TEACHERS)}
            rows.append(row)
            print(f"{series:18} {k:34} AP {np.round(row['average_precision'][:3], 3)} F1 {row['bar_f1'][0]:.3f} event F1 {row['event_f1']:.3f} false alarms "
                  f"{row['false_alarms_a_day']:.2f} less averaged {np.round(row.get('less_averaged', [0])[:3], 3)} less one {np.round(row.get('less_one', [0])[:3], 3)}", flush=True)
    return rows


SERIES, WITH_VARIANTS = ("simulated", "planted", "rule"), ("simulated", "planted")
VARIANTS = {
    "student, 31, four times the bars": dict(bars=4),
    "student, 31, a quarter of the bars": dict(bars=.25),
    "student, 31, nothing pasted": dict(labelled=False),
    "student, 31, pasted three times": dict(pastes=3),
    "student, 31, 64 channels": dict(channels=64),
    "student, 31, twice as long": dict(epochs=40),
    "student, 31, teachers at stride 2": dict(stride=2),
}
EVERYWHERE = ("student, 31, 64 channels",)  # on the series labelled by the rule as well


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--expansions", type=int, default=960, help="simulated expansions to score, one in 230 bars")
    p.add_argument("--plantings", type=int, default=6, help="times that surges are pasted into the real bars that are scored")
    p.add_argument("--unlabelled", type=int, default=200_000, help="bars that the teachers read")
    p.add_argument("--networks", type=int, default=4)
    p.add_argument("--epochs", type=int, default=200)
    p.add_argument("--student-epochs", type=int, default=20)
    p.add_argument("--stride", type=int, default=1, help="bars between the windows of the networks' scan that is scored")
    p.add_argument("--right-context", type=int, nargs="*", default=[31, 10, 3, 0])
    p.add_argument("--only", nargs="+", choices=SERIES, default=SERIES, help="series; default: all")
    p.add_argument("--variants", nargs="*", metavar="WORD", help="also students that differ in one thing; with words, those whose name ends in one of them")
    p.add_argument("--share", metavar="I/N", help="read the I-th of each N parts, from 0, and score nothing")
    p.add_argument("--device", default="cpu")
    p.add_argument("--output", type=Path, default=project_root()/"artifacts"/"benchmarks"/"series-v1")
    p.add_argument("--save", type=Path)
    o = p.parse_args()
    o.variants = {} if o.variants is None else {k: v for k, v in VARIANTS.items() if not o.variants or k.endswith(tuple(o.variants))}
    about = {k: v for k, v in vars(o).items() if k not in ("save", "output", "share", "variants")}
    o.machine = machine("torch", "numba") if o.device == "cpu" else f"{torch.cuda.get_device_name(0)}, {machine('torch', 'numba')}"
    print(o.machine, about, flush=True)
    folder, parts = real_folder(), [simulated(o)] if "simulated" in o.only else []
    if folder and "planted" in o.only: parts.append(planted(o, folder))
    if folder and "rule" in o.only: parts += by_rule(folder)
    if not folder: print("no shared/data: the series of real bars are left out")
    if o.share:
        i, n = map(int, o.share.split("/"))
        for part in parts[i::n]: read_part(part, o)
        return
    found, machines = zip(*(read_part(part, o) for part in parts))
    rows = rows_of(parts, found)
    if o.save: o.save.write_text(json.dumps(dict(machine="; ".join(sorted(set.union(*machines))), options=about, rows=rows), indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
