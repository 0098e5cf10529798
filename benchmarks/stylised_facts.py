"""Facts that bars of all liquid markets share, of simulated bars beside four fortnights of real ones.

    python benchmarks/stylised_facts.py                    # the table of facts, and the mean range of each hour
    python benchmarks/stylised_facts.py NAME=FILE ...      # also of these files of one-minute bars in New York time

The facts are those of Cont (*Quantitative Finance* 1, 2001), and the shape of candles. The stored numbers were measured with the functions below on NQ from
2023-11-19 to 12-04 and from 2026-05-24 to 06-08, ES from 2023-03-08 to 03-23 and from 2025-04-20 to 05-05: 61,209 bars of free samples of data vendors.
"""
import sys

import numpy as np
import pandas as pd

from moola.core.names import OHLC
from moola.data.bars import segment_bars
from moola.data.read import read_bars
from moola.data.simulate import SESSION, TICK, simulate_bars


def _lagged(x, k, segment):
    "Correlation of `x` with itself `k` bars before, inside segments."
    a, b = x[:-k], x[k:]
    ok = np.isfinite(a) & np.isfinite(b) & (segment[k:] == segment[:-k])
    return float(np.corrcoef(a[ok], b[ok])[0, 1])


def stylised_facts(
    bars:pd.DataFrame, # One-minute bars
    tick:float=TICK,   # Points
) -> pd.Series:        # One number a fact
    "Facts about returns, their memory, and candles."
    o, h, l, c = bars[OHLC].to_numpy().T
    segment = np.repeat(np.arange(len(s := segment_bars(bars))), np.diff(s)[:, 0])
    inside = np.r_[False, segment[1:] == segment[:-1]]
    r = np.where(inside, np.diff(np.log(c), prepend=np.nan), np.nan)
    x, wide = r[inside], h > l
    share = lambda part: float((part[wide] / (h - l)[wide]).mean())
    return pd.Series({
        'excess kurtosis of returns': float(((x - x.mean())**4).mean() / x.var()**2 - 3),
        'autocorrelation of returns, lag 1': _lagged(r, 1, segment),
        **{f'autocorrelation of |returns|, lag {k}': _lagged(np.abs(r), k, segment) for k in (1, 5, 15, 30, 60)},
        'range / |return|': float((h - l)[inside].mean() / np.abs(np.diff(c, prepend=np.nan))[inside].mean()),
        'body share of range': share(np.abs(c - o)), 'upper wick share': share(h - np.maximum(o, c)), 'lower wick share': share(np.minimum(o, c) - l),
        'flat bars': float((~wide).mean()), 'close = open': float((c == o).mean()),
        'opens within a tick of the last close': float((np.abs(o[1:] - c[:-1])[inside[1:]] <= tick).mean()),
        'median range in ticks': float(np.median(h - l) / tick)})


def range_by_hour(
    bars:pd.DataFrame, # Bars with New York times
) -> pd.Series:        # Mean range of each hour, divided by the mean of the hours
    "How the size of bars follows the clock."
    r = (bars.high - bars.low).groupby(bars.timestamp.dt.hour).mean()
    return r / r.mean()


REAL_FACTS = {
    'NQ 2023-11': {
        'excess kurtosis of returns': 16.0545, 'autocorrelation of returns, lag 1': 0.0193, 'autocorrelation of |returns|, lag 1': 0.3605,
        'autocorrelation of |returns|, lag 5': 0.3319, 'autocorrelation of |returns|, lag 15': 0.2704, 'autocorrelation of |returns|, lag 30': 0.2826,
        'autocorrelation of |returns|, lag 60': 0.2317, 'range / |return|': 1.9456, 'body share of range': 0.4863,
        'upper wick share': 0.2534, 'lower wick share': 0.2604, 'flat bars': 0.0007,
        'close = open': 0.0648, 'opens within a tick of the last close': 0.7871, 'median range in ticks': 10},
    'NQ 2026-05': {
        'excess kurtosis of returns': 10.0316, 'autocorrelation of returns, lag 1': -0.0186, 'autocorrelation of |returns|, lag 1': 0.3259,
        'autocorrelation of |returns|, lag 5': 0.3132, 'autocorrelation of |returns|, lag 15': 0.2826, 'autocorrelation of |returns|, lag 30': 0.247,
        'autocorrelation of |returns|, lag 60': 0.1888, 'range / |return|': 1.906, 'body share of range': 0.484,
        'upper wick share': 0.2539, 'lower wick share': 0.2621, 'flat bars': 0,
        'close = open': 0.0202, 'opens within a tick of the last close': 0.393, 'median range in ticks': 36},
    'ES 2023-03': {
        'excess kurtosis of returns': 10.8815, 'autocorrelation of returns, lag 1': -0.0134, 'autocorrelation of |returns|, lag 1': 0.3616,
        'autocorrelation of |returns|, lag 5': 0.3275, 'autocorrelation of |returns|, lag 15': 0.3085, 'autocorrelation of |returns|, lag 30': 0.302,
        'autocorrelation of |returns|, lag 60': 0.2512, 'range / |return|': 1.9753, 'body share of range': 0.4801,
        'upper wick share': 0.2647, 'lower wick share': 0.2552, 'flat bars': 0.0052,
        'close = open': 0.1325, 'opens within a tick of the last close': 0.9943, 'median range in ticks': 6},
    'ES 2025-04': {
        'excess kurtosis of returns': 25.1507, 'autocorrelation of returns, lag 1': -0.019, 'autocorrelation of |returns|, lag 1': 0.3098,
        'autocorrelation of |returns|, lag 5': 0.2477, 'autocorrelation of |returns|, lag 15': 0.2339, 'autocorrelation of |returns|, lag 30': 0.1942,
        'autocorrelation of |returns|, lag 60': 0.1683, 'range / |return|': 2.0091, 'body share of range': 0.4679,
        'upper wick share': 0.2614, 'lower wick share': 0.2707, 'flat bars': 0.0006,
        'close = open': 0.1003, 'opens within a tick of the last close': 0.9627, 'median range in ticks': 8}}
REAL_HOURS = {
    0: 0.443, 1: 0.498, 2: 0.633, 3: 0.838, 4: 0.851, 5: 0.733, 6: 0.762, 7: 0.859, 8: 1.126, 9: 1.91, 10: 2.173, 11: 1.646,
    12: 1.375, 13: 1.44, 14: 1.457, 15: 1.624, 16: 0.804, 18: 0.845, 19: 0.633, 20: 0.719, 21: 0.647, 22: 0.532, 23: 0.452}  # mean of the four


def main():
    facts, simulated = pd.DataFrame(REAL_FACTS), simulate_bars(45*SESSION, seed=1)
    for name, bars in {"simulated": simulated, **{k: read_bars(f) for k, f in (a.split("=", 1) for a in sys.argv[1:])}}.items():
        facts[name] = stylised_facts(bars)
    print(facts.round(3).to_string())
    print(pd.DataFrame({"real, mean of four": REAL_HOURS, "simulated": range_by_hour(simulated)}).round(3).rename_axis("hour").to_string())


if __name__ == "__main__": main()
