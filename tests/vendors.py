"""Layouts in which vendors and platforms write bars: `VENDORS` is what tests/test_read.py reads back and the table of the page "Bring your own bars".

    python tests/vendors.py    # prints the table
"""
from typing import NamedTuple

import pandas as pd

O, H, L, C = "open high low close".split()


class Vendor(NamedTuple):
    name: str         # Who writes it
    layout: str       # The first line, or what a row looks like
    options: dict     # What read_bars is given
    write: callable   # bars, path: the file
    clock: str = ""   # Zone of the times that are read; '' for the file's own clock


def lines(form, header="", name="bars.csv", sort=1, end=""):
    "A writer of text: one line a bar, from `form`, in which t is the time and o, h, l, c, v are numbers."
    def write(bars, folder):
        rows = [form.format(t=t, o=o, h=h, l=l, c=c, v=v, e=int(t.timestamp())) for t, o, h, l, c, v in bars[["timestamp", O, H, L, C, "volume"]].itertuples(index=False)]
        path = folder / name
        path.write_text("\n".join(([header] if header else []) + rows[::sort] + ([end] if end else [])) + "\n", encoding="utf-8")
        return path
    return write


def comma(form): return form.replace("{o}", "{o:.2f}").replace("{h}", "{h:.2f}").replace("{l}", "{l:.2f}").replace("{c}", "{c:.2f}")


def decimal_comma(bars, folder):
    rows = [f"{t:%d.%m.%Y;%H:%M};" + ";".join(f"{p:,.2f}".translate(str.maketrans(",.", ".,")) for p in prices)
            for t, *prices in bars[["timestamp", O, H, L, C]].itertuples(index=False)]
    (folder / "bars.csv").write_text("Datum;Zeit;Eröffnung;Hoch;Tief;Schluss\n" + "\n".join(rows) + "\n", encoding="cp1252")
    return folder / "bars.csv"


def two_levels(bars, folder):
    table = bars.set_index(bars.timestamp.rename("Datetime"))[[C, H, L, O, "volume"]].rename(columns=str.title)
    table.columns = pd.MultiIndex.from_product([table.columns, ["ES=F"]], names=["Price", "Ticker"])
    table.to_csv(folder / "bars.csv")
    return folder / "bars.csv"


def zipped(bars, folder):
    path = lines("{e}000,{o},{h},{l},{c},{v},{e}999,1,2,3,4,0")(bars, folder)
    import zipfile
    with zipfile.ZipFile(folder / "bars.zip", "w") as z: z.write(path, "BTCUSDT-1m.csv")
    return folder / "bars.zip"


def parquet(rename, index=None, **more):
    def write(bars, folder):
        table = bars.rename(columns=rename).assign(**more)
        (table.set_index(index) if index else table).to_parquet(folder / "bars.parquet")
        return folder / "bars.parquet"
    return write


def utf16(write):
    def again(bars, folder):
        path = write(bars, folder)
        path.write_text(path.read_text(), encoding="utf-16")
        return path
    return again


OHLCV = "{o},{h},{l},{c},{v}"
VENDORS = [
    Vendor("MetaTrader 4", "`2024.03.04,18:00,…`, no header", {}, lines("{t:%Y.%m.%d},{t:%H:%M}," + OHLCV)),
    Vendor("MetaTrader 5", "`<DATE>` `<TIME>` `<OPEN>` …, tabs", {}, lines(
        "{t:%Y.%m.%d}\t{t:%H:%M:%S}\t{o}\t{h}\t{l}\t{c}\t{v}\t0\t1", "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>")),
    Vendor("MetaTrader 5, UTF-16", "the same, as its export writes it", {}, utf16(lines(
        "{t:%Y.%m.%d}\t{t:%H:%M:%S}\t{o}\t{h}\t{l}\t{c}\t{v}", "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>"))),
    Vendor("NinjaTrader", "`20240304 180000;…`, no header", {}, lines("{t:%Y%m%d %H%M%S};{o};{h};{l};{c};{v}", name="bars.txt")),
    Vendor("TradingView", "`time,open,high,low,close`, seconds", {}, lines("{e}," + OHLCV, "time,open,high,low,close,Volume"), "UTC"),
    Vendor("TradingView, ISO", "`2024-03-04T18:00:00Z`", {}, lines("{t:%Y-%m-%dT%H:%M:%S}Z," + OHLCV, "time,open,high,low,close,Volume"), "UTC"),
    Vendor("Sierra Chart", "`Date, Time, Open, High, Low, Last`", {}, lines(
        "{t.year}/{t.month}/{t.day}, {t:%H:%M:%S}, {o}, {h}, {l}, {c}, {v}", "Date, Time, Open, High, Low, Last, Volume", name="bars.txt")),
    Vendor("Sierra Chart with a study", "the same, and a study called Close", {"columns": {"close": "Last"}}, lines(
        "{t:%Y/%m/%d}, {t:%H:%M:%S}, {o}, {h}, {l}, {c}, {v}, 1.5", "Date, Time, Open, High, Low, Last, Volume, Close", name="bars.txt")),
    Vendor("Interactive Brokers", "`20240304 18:00:00 US/Eastern`", {}, lines("{t:%Y%m%d %H:%M:%S} US/Eastern," + OHLCV, "date,open,high,low,close,volume"), "US/Eastern"),
    Vendor("Binance", "twelve columns, milliseconds, no header, zipped", {}, zipped, "UTC"),
    Vendor("Databento", "`ts_event,…,symbol`, nanoseconds", {}, lines(
        "{e}000000000,33,1,5602," + OHLCV + ",NQH4", "ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol"), "UTC"),
    Vendor("Dukascopy", "`04.03.2024 18:00:00.000`", {}, lines("{t:%d.%m.%Y %H:%M:%S}.000," + OHLCV, "Gmt time,Open,High,Low,Close,Volume")),
    Vendor("Dukascopy, local time", "`04.03.2024 18:00:00.000 GMT+0100`", {}, lines("{t:%d.%m.%Y %H:%M:%S}.000 GMT+0100," + OHLCV, "Local time,Open,High,Low,Close,Volume"), "UTC+01:00"),
    Vendor("JForex", "`Time (EET)`", {}, lines("{t:%Y.%m.%d %H:%M:%S}," + OHLCV, "Time (EET),Open,High,Low,Close,Volume")),
    Vendor("Yahoo, yfinance", "two lines of names", {}, two_levels),
    Vendor("Alpha Vantage", "`1. open`, newest first", {}, lines("{t:%Y-%m-%d %H:%M:%S}," + OHLCV, "date,1. open,2. high,3. low,4. close,5. volume", sort=-1)),
    Vendor("Barchart", "`Last`, newest first, a line of text at the end", {"time_format": "MDY"}, lines(
        "{t:%m/%d/%Y %H:%M},{o},{h},{l},{c},0.1,{v}", "Time,Open,High,Low,Last,Change,Volume", sort=-1, end='"Downloaded from Barchart.com as of 03-05-2024"')),
    Vendor("Stooq", "`<TICKER>,<PER>,<DATE>,<TIME>,…`", {}, lines(
        "ES.F,1,{t:%Y%m%d},{t:%H%M%S}," + OHLCV + ",0", "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>", name="bars.txt")),
    Vendor("Finam", "the same, semicolons, day first", {"time_format": "DMY"}, lines(
        "SPFB;1;{t:%d/%m/%y};{t:%H:%M};{o};{h};{l};{c};{v}", "<TICKER>;<PER>;<DATE>;<TIME>;<OPEN>;<HIGH>;<LOW>;<CLOSE>;<VOL>")),
    Vendor("ccxt", "a frame of `timestamp,…`, milliseconds", {}, lines("{e}000," + OHLCV, "timestamp,open,high,low,close,volume"), "UTC"),
    Vendor("Alpaca", "an index of symbol and time", {}, lambda bars, folder: parquet({}, ["symbol", "timestamp"], symbol="SPY", trade_count=1, vwap=1.)(bars, folder)),
    Vendor("polygon", "`v,vw,o,c,h,l,t,n`", {}, lines("{v},1.5,{o},{c},{h},{l},{e}000,3", "v,vw,o,c,h,l,t,n"), "UTC"),
    Vendor("CryptoDataDownload", "an address, then the header, newest first", {}, lines(
        "{e}000,{t:%Y-%m-%d %H:%M:%S},BTC/USDT," + OHLCV, "https://www.CryptoDataDownload.com\nunix,date,symbol,open,high,low,close,Volume BTC", sort=-1)),
    Vendor("HistData", "`20240304 180000;…`, no header", {}, lines("{t:%Y%m%d %H%M%S};" + OHLCV.replace(",", ";"))),
    Vendor("FirstRate Data", "`2024-03-04 18:00:00,…`, no header", {}, lines("{t:%Y-%m-%d %H:%M:%S}," + OHLCV, name="bars.txt")),
    Vendor("Kibot", "`03/04/2024,18:00,…`, no header", {"time_format": "MDY"}, lines("{t:%m/%d/%Y},{t:%H:%M}," + OHLCV, name="bars.txt")),
    Vendor("Kraken", "`1709575200,…`, no header", {}, lines("{e}," + OHLCV + ",7"), "UTC"),
    Vendor("TradeStation", "`\"Date\",\"Time\",\"Open\",…`", {"time_format": "MDY"}, lines(
        "{t:%m/%d/%Y},{t:%H:%M},{o},{h},{l},{c},3,4", '"Date","Time","Open","High","Low","Close","Up","Down"', name="bars.txt")),
    Vendor("Forex Tester", "`<DTYYYYMMDD>,<TIME>`", {}, lines(
        "EURUSD,{t:%Y%m%d},{t:%H%M%S}," + OHLCV, "<TICKER>,<DTYYYYMMDD>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>", name="bars.txt")),
    Vendor("tushare", "`ts_code,trade_time,…`, newest first", {}, lines(
        "600000.SH,{t:%Y-%m-%d %H:%M:%S},{o},{c},{h},{l},{v}", "ts_code,trade_time,open,close,high,low,vol", sort=-1)),
    Vendor("MOEX", "`begin`, `end`", {}, lines("{o},{c},{h},{l},1,{v},{t:%Y-%m-%d %H:%M:%S},{t:%Y-%m-%d %H:%M}:59", "open,close,high,low,value,volume,begin,end")),
    Vendor("OKX", "`ts,o,h,l,c,vol`", {}, lines("{e}000," + OHLCV, "ts,o,h,l,c,vol", sort=-1), "UTC"),
    Vendor("Investing.com", "`\"03/04/2024\",\"5,141.25\"`, Price, 1.10K", {"time_format": "MDY"}, lines(
        '"{t:%m/%d/%Y %H:%M}","{c:,.2f}","{o:,.2f}","{h:,.2f}","{l:,.2f}","1.10K","0.1%"', '"Date","Price","Open","High","Low","Vol.","Change %"', sort=-1)),
    Vendor("a German bank", "`04.03.2024;18:00;15.991,75`", {}, decimal_comma),
    Vendor("pandas", "parquet or feather, times as index", {}, parquet({}, "timestamp")),
]


def table() -> str:
    "The rows of the page."
    def given(v): return "`" + ", ".join(f"{k}={o!r}" for k, o in v.options.items()) + "`" if v.options else "nothing"
    rows = [f"| {v.name} | {v.layout} | {given(v)} | {v.clock or 'as in the file'} |" for v in VENDORS]
    return "\n".join(["| who writes it | layout | pass | times |", "|---|---|---|---|", *rows])


if __name__ == "__main__": print(table())
