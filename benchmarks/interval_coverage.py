"""How often intervals hold the truth, and how often a recipe is told apart from itself, on simulated windows whose truth is known.

    python benchmarks/interval_coverage.py                                      # every table, about half an hour on a core
    python benchmarks/interval_coverage.py intervals --repeats 200              # one table, roughly
    python benchmarks/interval_coverage.py --save benchmarks/results/coverage   # and keep them for the site
"""
from functools import partial
from multiprocessing import get_context

import numpy as np
from table import arguments, show_table

from moola.core.names import W
from moola.metrics import intervals
from moola.metrics.chance import position_prior
from moola.metrics.decision import decide
from moola.metrics.intervals import Interval, compare_recipes, interval, paired_interval, score_of

METRICS = dict(average_precision="AP", pooled_f1="pooled F1", span_f1="span F1")
SIZES = (26, 52, 174, 1000)
DESIGNS = ("independent", "sessions", "uneven", "re-cut")
LIBRARIES = ("numpy", "scipy")


def red_noise(rng, *shape, memory=.8):
    "Standard normal noise along the bars of a window, each like the last."
    z = rng.normal(size=(*shape, W)).astype("f4")
    for i in range(1, W): z[..., i] = memory*z[..., i-1] + np.sqrt(1-memory**2)*z[..., i]
    return z


def population(sessions=6000, size=6, networks=2, skill=1.75, spread=(.82, .65), seeds=0., recut=False, own=.3, turn=0., seed=7):
    """Targets (sessions, size, W) and probabilities (networks, sessions, size, W) in steps of 1/255.

    A span stands out by a skill that differs between sessions, windows and networks (`spread`, `seeds`); noise is shared by networks but for
    the part `own`. `turn` is how much the networks' skill differs between sessions by recipe. With `recut` a session is one base, cut `size` times."""
    rng = np.random.default_rng(seed)
    n = 1 if recut else size
    start = rng.integers(23, 86, (sessions, n, 1))
    length = np.clip(np.rint(np.exp(np.log(5) + .94*rng.normal(size=start.shape))), 2, 32)
    inside = (np.arange(W) >= start) & (np.arange(W) < start+length)
    shift = np.sort(rng.integers(-12, 13, (sessions, size, 1)), 1) if recut else np.zeros((1, 1, 1), int)
    at = np.arange(W)+shift

    def cut(o): return np.where((at >= 0) & (at < W), np.take_along_axis(o, np.broadcast_to(at.clip(0, W-1), (sessions, size, W)), -1), 0)

    def level(scale): return scale*(spread[0]*rng.normal(size=(sessions, 1, 1)) + spread[1]*rng.normal(size=(sessions, n, 1))).astype("f4")
    clear, loud, shared = skill+level(1), level(.5), red_noise(rng, sessions, n)
    bend = turn*rng.normal(size=(sessions, 1, 1))
    prob = np.empty((networks, sessions, size, W), "u1")
    for k in range(networks):
        z = np.sqrt(1-own)*shared + np.sqrt(own)*red_noise(rng, sessions, n)
        z = z + loud - 2.2 + inside*(clear + bend + .4*rng.normal(size=clear.shape) + seeds*rng.normal())
        prob[k] = np.rint(255/(1+np.exp(-1.3*cut(z))))
    return cut(inside).astype(bool), prob


def flat(o):
    "All windows of all sessions in a row."
    return o.reshape(*o.shape[:-3], -1, W)


def truth(target, prob, metric):
    "The score of a whole population, for each network: it is what repeated draws scatter around."
    t = flat(target)
    return np.array([score_of(t, flat(p)/255, metric)(np.ones((1, len(t))))[0, 0] for p in prob])


def draw(rng, design, n, shape):
    "Session and place of each of `n` windows, and their cluster."
    sessions, size = shape
    if design == "independent": return rng.integers(0, sessions, n), rng.integers(0, size, n), np.arange(n)
    sizes = np.full(-(-n//size), size)
    if design == "uneven": sizes = np.minimum(np.ceil(rng.lognormal(1, .9, n)), size).astype(int)
    cluster = np.repeat(np.arange(len(sizes)), sizes)[:n]
    place = np.concatenate([np.arange(k) for k in sizes])[:n]
    return rng.integers(0, sessions, len(sizes))[cluster], place, cluster


def one_by_one(score, n, rng, draws=400):
    "The percentile interval from drawing single windows, for comparison."
    return np.nanpercentile(score(rng.multinomial(n, np.full(n, 1/n), draws).astype(float))[:, 0], [2.5, 97.5])


def repeat_intervals(design, pop, n, repeats, seed):
    "Covered or not, width: a row a repeat, for each metric single and paired, and for single windows drawn (average precision)."
    target, prob, known = pop
    rng, out = np.random.default_rng(seed), []
    for _ in range(repeats):
        s, place, cluster = draw(rng, design, n, target.shape[:2])
        t, p = target[s, place], prob[:, s, place]/255
        row = []
        for m in METRICS:
            a, b = (score_of(t, o, m) for o in p)
            for i, x in ((interval(a, cluster, None if m == "span_f1" else t.sum(1)), known[m][0]), (paired_interval(a, b, cluster), known[m][0]-known[m][1])):
                row += [np.nan if np.isnan(i.low) else i.low <= x <= i.high, i.high-i.low]
            if m == "average_precision": before = one_by_one(a, n, rng)
        out.append([*row, before[0] <= known["average_precision"][0] <= before[1], before[1]-before[0]])
    return np.array(out, float)


def spread_out(work, repeats, processes):
    "Run `work(repeats, seed)` in pieces, on several processes, and join what it returns."
    size = 50 if repeats > 100 else repeats
    jobs = [(min(size, repeats-k), 1000+k) for k in range(0, repeats, size)]
    if processes == 1: return np.concatenate([work(*j) for j in jobs])
    with get_context("fork").Pool(processes) as pool: return np.concatenate(pool.starmap(work, jobs))


def built(design, **kwargs):
    "A population of two networks and its true scores."
    size = dict(uneven=20).get(design, 3 if design == "re-cut" else 6)
    target, prob = population(sessions=2400 if size == 20 else 8000, size=size, recut=design == "re-cut", **kwargs)
    return target, prob, {m: truth(target, prob, m) for m in METRICS}


def correlation(target, prob):
    "Intraclass correlation of the windows' F1 within sessions."
    k, f = target.shape[1], window_f1(target, prob)
    between, within = k*f.mean(1).var(ddof=1), f.var(1, ddof=1).mean()
    return (between-within)/(between+(k-1)*within)


def window_f1(target, prob):
    "F1 of each window at .5, (sessions, size)."
    marked = prob >= 128
    tp, both = (target & marked).sum(-1), target.sum(-1)+marked.sum(-1)
    return np.where(both > 0, 2*tp/np.maximum(both, 1), 1.)


def percent(o):
    "A share in %, of what is known."
    return "none" if np.isnan(o).all() else f"{100*np.nanmean(o):.1f}"


def table_intervals(repeats, processes, save):
    rows, notes = [], []
    for design in DESIGNS:
        pop = built(design)
        if design in ("sessions", "re-cut"): notes.append(f"Correlation of the windows' F1, {design}: {correlation(pop[0], pop[1][0]):.2f}.")
        for n in SIZES:
            many = repeats if n < 1000 else max(repeats//2, 1)
            r = spread_out(partial(repeat_intervals, design, pop, n), many, processes)
            rows.append([f"{n:,} windows, {design}", *(percent(r[:, k]) for k in range(0, 12, 2)), percent(r[:, 12]), f"{np.nanmean(r[:, 1]):.2f}"])
            print(rows[-1], flush=True)
    notes.append(f"{repeats:,} draws a cell, half of them with 1,000 windows: a cell of 95 % is read with ±{196*np.sqrt(.95*.05/repeats):.1f} %.")
    notes.append("Sessions hold six windows, uneven ones 1 to 20, a base is cut three times. "
                 f"True AP {pop[2]['average_precision'][0]:.2f}. 'One by one' draws single windows, for AP.")
    head = ("", *(f"{w}, {kind}" for w in METRICS.values() for kind in ("single", "paired")), "AP, one by one", "width, AP")
    show_table("How often a 95 % interval holds the truth, in %", rows, LIBRARIES, notes, save and save/"intervals.json", head)


def table_few(repeats, processes, save):
    pop, rows, fewest = built("sessions"), [], intervals.FEWEST
    for sessions in (2, 3, 4, 5, 6, 8):
        intervals.FEWEST = 2
        r = spread_out(partial(repeat_intervals, "sessions", pop, 6*sessions), repeats, processes)
        rows.append([f"{sessions} sessions of six", *(percent(r[:, k]) for k in range(0, 12, 2)), f"{np.nanmean(r[:, 1]):.2f}", f"{np.nanmean(r[:, 3]):.2f}"])
    intervals.FEWEST = fewest
    head = ("", *(f"{w}, {kind}" for w in METRICS.values() for kind in ("single", "paired")), "width, AP", "width, paired AP")
    note = f"Intervals hold the truth even with two sessions, but say nothing: moola gives none below {fewest}."
    show_table("Intervals of few sessions, in %", rows, LIBRARIES, (note,), save and save/"few.json", head)


def repeat_recipes(pop, n, seeds, repeats, seed):
    "Verdicts of each metric, and does the interval of the first hold the true difference? `pop` holds two recipes."
    target, a, b, gap = pop
    rng, out = np.random.default_rng(seed), []
    for repeat in range(repeats):
        s, place, cluster = draw(rng, "sessions", n, target.shape[:2])
        pick = rng.permutation(len(a))
        i, j = (pick[:seeds[0]], pick[seeds[0]:sum(seeds)]) if a is b else (pick[:seeds[0]], rng.permutation(len(b))[:seeds[1]])
        t = target[s, place]
        of = [{m: score_of(t, o[k][:, s, place]/255, m) for m in METRICS} for o, k in ((a, i), (b, j))]
        found = compare_recipes(*of, cluster)
        first = of[0]["average_precision"], of[1]["average_precision"]
        plain = paired_interval(*first, np.arange(n)) if repeat % 5 == 0 else Interval(0, np.nan, np.nan)
        none = [np.nan if c.verdict == "none" else c.verdict != "not told apart" for c in found]
        hold = np.nan if np.isnan(found[0].low) else found[0].low <= gap <= found[0].high
        out.append([*none, hold, np.nan if np.isnan(plain.low) else plain.low > 0 or plain.high < 0])
    return np.array(out, float)


SPREAD = .22 # Of a network's skill between seeds: makes the AP of networks spread by .053


def table_recipes(repeats, processes, save):
    both = {}
    target, a = population(1500, networks=40, seeds=SPREAD)
    ap = truth(target, a, "average_precision")
    both["the same recipe"] = target, a, a, 0.
    for words, more in (("a better recipe", .35), ("a far better recipe", .8)):
        t, b = population(1500, networks=40, seeds=SPREAD, skill=1.75+more, turn=.3)
        assert (t == target).all()
        both[words] = target, b, a, truth(target, b, "average_precision").mean() - ap.mean()
    rows = []
    for words, pop in both.items():
        for n in (26, 52, 174, 300):
            for seeds in ((1, 1), (2, 2), (4, 4), (8, 8), (1, 4)) if pop[1] is pop[2] else ((4, 4),):
                r = spread_out(partial(repeat_recipes, pop, n, seeds), repeats, processes)
                rows.append([f"{words}, {n} windows, {seeds[0]} networks against {seeds[1]}", percent(r[:, 0]), percent(r[:, 1]), percent(r[:, 2]),
                             percent(r[:, 1:3].max(1)), percent(r[:, 3]), percent(r[:, 4])])
                print(rows[-1], flush=True)
    gaps = ", ".join(f"{w} by {p[3]:.3f}" for w, p in both.items() if p[3])
    notes = [f"{repeats:,} comparisons a row, windows in sessions of six. The networks' AP spreads by {ap.std(ddof=1):.3f} between seeds. "
             f"True differences in AP: {gaps}.",
             "'Before' is what a paired interval over windows, without seeds, told apart."]
    show_table("How often two recipes are told apart, in %", rows, LIBRARIES, notes, save and save/"recipes.json",
               ("", "AP, primary", "pooled F1", "span F1", "a secondary metric", "interval of AP holds the truth", "before, AP"))


def skill_of(ap):
    "The skill at which a population has this average precision."
    low, high = -1., 4.
    for _ in range(12):
        middle = (low+high)/2
        low, high = (middle, high) if truth(*population(800, networks=1, skill=middle), "average_precision")[0] < ap else (low, middle)
    return middle


def repeat_decisions(pop, n, seeds, repeats, seed):
    "Answers of a decision, as numbers of `ANSWERS`: those of today's rule (above a chance level's point) last."
    target, prob, boosting = pop
    rng, out = np.random.default_rng(seed), []
    for _ in range(repeats):
        s, place, cluster = draw(rng, "sessions", n, target.shape[:2])
        other, where, _ = draw(rng, "sessions", 4*n, target.shape[:2])
        t, prior = target[s, place], position_prior(target[other, where])
        prior = np.broadcast_to(prior, t.shape)
        if prob is None: p = np.clip(prior + .02*red_noise(rng, seeds, 1), 0, 1) + np.zeros((1, n, 1))
        else: p = prob[rng.permutation(len(prob))[:seeds]][:, s, place]/255
        model, chance = score_of(t, p), score_of(t, prior)
        answer = decide(model, dict(prior=chance), dict(boosting=score_of(t, boosting[s, place]/255)), cluster).answer
        out.append([ANSWERS.index(answer), one_by_one(score_of(t, p[0]), n, rng)[0] > chance(np.ones((1, n)))[0, 0]])
    return np.array(out, float)


ANSWERS = ("deploy", "not better", "not above chance", "undecided")


def table_decisions(repeats, processes, save):
    skill = {ap: skill_of(ap) for ap in (.17, .25, .34, .49)}
    target, boosting = population(1500, networks=25, skill=skill[.25])
    models = {"random labels": population(1500, networks=24, skill=0, own=1, seed=8)[1], "position only": None}
    models |= {f"true AP {ap}": population(1500, networks=24, skill=k, seeds=SPREAD)[1] for ap, k in skill.items()}
    rows = []
    for words, prob in models.items():
        for n in (26, 52, 174):
            r = spread_out(partial(repeat_decisions, (target, prob, boosting[24]), n, 4), repeats, processes)
            rows.append([f"{words}, {n} windows", *(percent(r[:, 0] == k) for k in range(len(ANSWERS))), percent(r[:, 1])])
            print(rows[-1], flush=True)
    notes = [f"{repeats:,} decisions a row from four networks, windows in sessions of six; the position prior is learned from four times as many "
             f"windows, and gradient boosting has a true AP of {truth(target, boosting[24:], 'average_precision')[0]:.2f}. So a true AP of .34 and .49 "
             "should be deployed, and nothing else.",
             "'Before' is one network whose windows, drawn one by one, lie above the prior's score."]
    show_table("What the decision says, in %", rows, LIBRARIES, notes, save and save/"decisions.json", ("", *ANSWERS, "before: above chance"))


TABLES = dict(intervals=table_intervals, few=table_few, recipes=table_recipes, decisions=table_decisions)

if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all where none is named")
    parser.add_argument("--repeats", type=int, default=2000, help="draws a cell")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    for name in given.tables or TABLES: TABLES[name](given.repeats, given.processes, given.save)
