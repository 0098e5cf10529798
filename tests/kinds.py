"""Files as people have them, kind by kind: how 400 bars are written, what read_bars is given, and what it must read or say. tests/test_read.py tries each.

A kind's text holds the bars of the fixture `bars`, which start on 4 March 2024 at 18:00, a minute apart, unless it says otherwise.
"""
from typing import NamedTuple

import pandas as pd

O, H, L, C = "open high low close".split()
HEAD = "timestamp,open,high,low,close"


class Kind(NamedTuple):
    name: str
    write: callable            # bars: text or bytes
    options: dict = {}         # What read_bars is given
    says: str = ""             # In reading_words, as a pattern
    refused: str = ""          # In the error, as a pattern; '' where it must be read
    start: str = ""            # First time, where it isn't the fixture's
    step: str = "min"
    zone: str = ""             # Of the times that are read
    file: str = "x.csv"


def rows(bars, form):
    "A line a bar, from `form`: t is the time, o, h, l, c are numbers, e is the time in seconds since 1970, i counts."
    return [form.format(t=t, o=o, h=h, l=l, c=c, e=int(t.timestamp()), i=i) for i, (t, o, h, l, c) in enumerate(bars[["timestamp", O, H, L, C]].itertuples(index=False))]


def text(form, header=HEAD, change=lambda lines: lines):
    "A writer of `header` and a line a bar, changed by `change`."
    return lambda bars: "\n".join(change([header, *rows(bars, form)])) + "\n"


def when(form, **more): return dict(write=text("{t:" + form + "},{o},{h},{l},{c}"), **more)


def clock(form, **more): return dict(write=text(form + ",{o},{h},{l},{c}", "Date,Time,Open,High,Low,Close"), **more)


def numbers(f): return lambda bars: "\n".join([HEAD.replace(",", ";"), *(";".join([f"{t}", *map(f, p)]) for t, *p in bars[["timestamp", O, H, L, C]].itertuples(index=False))]) + "\n"


def at_midnight(t):
    "The clock that says 2400 at midnight, and its date."
    return f"{t - pd.Timedelta('1D'):%Y%m%d},2400" if t.hour == t.minute == 0 else f"{t:%Y%m%d},{int(f'{t:%H%M}')}"


def with_2400(bars): return "\n".join(["Date,Time,Open,High,Low,Close", *(f"{at_midnight(t)},{o},{h},{lo},{c}" for t, o, h, lo, c in bars[["timestamp", O, H, L, C]].itertuples(index=False))]) + "\n"


def changed(row, **prices):
    "A writer of bars with some prices of one row changed: factors."
    def write(bars):
        out = bars.copy()
        for c, f in prices.items(): out.loc[row, c] *= f
        return out.to_csv(index=False)
    return write


PLAIN = "{t},{o},{h},{l},{c}"
TIMES = [
    Kind("day first, dashes", **when("%d-%m-%Y %H:%M", start="2024-01-28 09:00", step="15min", says="day first")),
    Kind("month first, first days of a month", **when("%m/%d/%Y %H:%M", start="2024-04-01 09:00", step="15min", says="month first")),
    Kind("month first, one day", **when("%m/%d/%Y %H:%M", start="2024-03-04 09:00", refused="time_format='DMY' or time_format='MDY'")),
    Kind("year, day, month", **when("%Y-%d-%m %H:%M", start="2024-01-10", step="h")),
    Kind("year, day, month, first days", **when("%Y-%d-%m %H:%M", start="2024-04-01", step="15min", refused="time_format='YMD' or time_format='YDM'")),
    Kind("month first with dots", **when("%m.%d.%Y %H:%M", start="2024-04-01", step="15min", refused="time_format='DMY' or time_format='MDY'")),
    Kind("no leading zeros", text("{t.day}/{t.month}/{t.year} {t.hour}:{t:%M},{o},{h},{l},{c}"), start="2024-01-28", step="15min"),
    Kind("weekday and zone", **when("%a %d %b %Y %H:%M:%S GMT", zone="UTC")),
    Kind("ISO without dashes", **when("%Y%m%dT%H%M%SZ", zone="UTC")),
    Kind("an offset and its region", **when("%Y-%m-%dT%H:%M:%S-05:00[America/New_York]", zone="UTC-05:00")),
    Kind("a quarter between bars", **when("%Y-%m-%d", start="1950-01-01", step="QS")),
    Kind("weekly, day first", **when("%d/%m/%Y", start="2016-01-04", step="W-MON")),
    Kind("monthly, day first", **when("%d/%m/%Y", start="1990-01-01", step="MS")),
    Kind("months alone", **when("%Y-%m", start="1990-01-01", step="MS", options=dict(time_format="%Y-%m"))),
    Kind("microseconds", text("{e}000000,{o},{h},{l},{c}"), says="microseconds", zone="UTC"),
    Kind("seconds as floats", text("{e}.0,{o},{h},{l},{c}"), says="in seconds", zone="UTC"),
    Kind("seconds, then milliseconds", text("{e},{o},{h},{l},{c}", change=lambda x: x[:200] + [r.replace(",", "000,", 1) for r in x[200:]]), refused="changes its unit"),
    Kind("a day first without separators", **when("%d%m%Y%H%M", start="2024-01-28", step="15min", says="day first")),
    Kind("ticks since the year 1", text("{e}0000000,{o},{h},{l},{c}", change=lambda x: x[:1] + [str(int(r[:17]) + 621355968000000000) + r[17:] for r in x[1:]]),
         refused="nanoseconds .*--time-format"),
    Kind("days since 1970", text("{i},{o},{h},{l},{c}", change=lambda x: x[:1] + [f"{19000 + i},{r.split(',', 1)[1]}" for i, r in enumerate(x[1:])]), refused="not times"),
    Kind("2400 at midnight, no leading zeros", with_2400),
    Kind("hours and minutes from midnight", **clock("{t:%Y%m%d},{t.hour:d}{t:%M}", start="2024-03-05 00:00")),
    Kind("clock with milliseconds", **clock("{t:%Y%m%d},{t:%H%M%S}000")),
    Kind("day, month, two digits of the year", **clock("{t:%m%d%y},{t:%H%M}", start="2024-01-28", step="15min")),
    Kind("a.m. and p.m.", **clock("{t:%d.%m.%Y},{t:%I:%M %p}")),
    Kind("hours as fractions", **clock("{t:%Y-%m-%d},{t.hour}.5", refused="dates without a clock")),
    Kind("a clock alone", text("{t:%H:%M},{o},{h},{l},{c}", HEAD.replace("timestamp", "Time")), refused="no date"),
    Kind("dates alone", text("{t:%Y-%m-%d},{o},{h},{l},{c}"), refused="dates without a clock"),
    Kind("still to come", **when("%Y-%m-%d %H:%M", start="2090-01-01", says="still to come"))]

NUMBERS = [
    Kind("dots between thousands", numbers(lambda p: f"{int(p * 4):,}".replace(",", ".")), dict(decimal=",")),
    Kind("a blank between thousands", numbers(lambda p: f"{p:,.2f}".replace(",", "\u202f").replace(".", ","))),
    Kind("Swiss thousands", numbers(lambda p: f"{p:,.2f}".replace(",", "’"))),
    Kind("millions with dots", numbers(lambda p: f"{int(p * 400):,}".replace(",", "."))),
    Kind("a currency", numbers(lambda p: f"${p}")),
    Kind("a currency behind", numbers(lambda p: f"{p} USD"), refused="not a number in 400 rows, the first row 0"),
    Kind("an exponent", numbers(lambda p: f"{p:.6E}")),
    Kind("a dash for a price", text(PLAIN, change=lambda x: [*x[:9], x[9].rsplit(",", 1)[0] + ",-", *x[10:]]), refused="not a number in 1 row, the first row 8: '-'"),
    Kind("a price is missing", text(PLAIN, change=lambda x: [*x[:9], x[9].rsplit(",", 1)[0] + ",", *x[10:]]), refused="row 8 .*drop such rows"),
    Kind("a bar ten times too high", changed(200, open=10, high=10, low=10, close=10), says="leap away and come back: 1 time, the first in row 200"),
    Kind("a low ten times too low", changed(200, low=.1), says="more than 30 times as tall"),
    Kind("a high on the low", changed(200, high=.5), refused="row 200 .*mend or drop"),
    Kind("thousands without quotes", text("{t},{o:,.2f},{h:,.2f},{l:,.2f},{c:,.2f}"), refused="decimal comma"),
    Kind("one row has more fields", text(PLAIN, change=lambda x: [*x[:99], x[99] + ",1,2", *x[100:]]), refused="line 100 has 7 fields instead of 5")]

TABLES = [
    Kind("a title with numbers", text(PLAIN, "Symbol,ES,From,2024-03-04,To,2024-03-05\nTick,0.25,50,1,2,3\n" + HEAD)),
    Kind("three lines at the end", text(PLAIN, change=lambda x: [*x, "", "# end", "Source: a vendor, Inc.", "Copyright, all rights, and so on"]), says="last 3 lines are no bars"),
    Kind("cut off in the last line", text(PLAIN, change=lambda x: [*x, "2024-03-0"]), says="last line is no bar"),
    Kind("a line that names the separator", text(PLAIN, change=lambda x: ["sep=;", *(r.replace(",", ";") for r in x)])),
    Kind("circumflexes", text(PLAIN, change=lambda x: [r.replace(",", "^") for r in x])),
    Kind("old line ends", lambda bars: text(PLAIN)(bars).replace("\n", "\r")),
    Kind("UTF-16 without a mark", lambda bars: text(PLAIN)(bars).encode("utf-16-le")),
    Kind("UTF-32", lambda bars: text(PLAIN)(bars).encode("utf-32")),
    Kind("a letter of Windows far down", lambda bars: text(PLAIN + "," + "x" * 500, HEAD + ",note")(bars).encode() + b"2024-03-05 00:40,1,2,0,1,caf\xe9\n", says="latin-1"),
    Kind("names in Japanese", text(PLAIN, "日時,始値,高値,安値,終値")),
    Kind("names in Russian", text(PLAIN, "Дата,Откр.,Макс.,Мин.,Цена")),
    Kind("parquet that is called text", lambda bars: b"PAR1" + bytes(99), refused="name it .parquet"),
    Kind("a zip archive that is called text", lambda bars: b"PK\3\4" + bytes(99), refused="name it .zip"),
    Kind("an exchange's order without a header", text("{e},{l},{h},{o},{c}", "", lambda x: x[1:]), refused="no header"),
    Kind("eleven columns without a header", text("{e}000,{o},{h},{l},{c},3,{e}999,1,2,3,4", "", lambda x: x[1:]), zone="UTC"),
    Kind("two symbols, a name nobody knows", text("{t},A,{o},{h},{l},{c}", "date,tic,open,high,low,close", lambda x: x + [r.replace(",A,", ",B,") + "1" for r in x[1:]]),
         refused="column tic tells them apart: choose one with symbol='A' and columns="),
    Kind("one of two symbols", text("{t},A,{o},{h},{l},{c}", "date,tic,open,high,low,close", lambda x: x + [r.replace(",A,", ",B,") + "1" for r in x[1:]]),
         dict(symbol="A", columns={"symbol": "tic"})),
    Kind("a symbol and no column of symbols", text(PLAIN), dict(symbol="ES"), refused="no column of symbols"),
    Kind("in no order", text(PLAIN, change=lambda x: x[:1] + x[1::3] + x[2::3] + x[3::3]), says="put in order"),
    Kind("backwards and forwards", text(PLAIN, change=lambda x: x[:1] + [r for pair in zip(x[201:], x[1:201]) for r in pair]), refused="sort the rows by time")]

KINDS = TIMES + NUMBERS + TABLES
