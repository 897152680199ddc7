"""Bars as tables in our own columns, or in those of other programs. Pure.

In: bars with the columns id, ts (UTC), stamp (naive: the trading date, or the bar's start in the market's zone), `NUMBERS`,
flags, change_pct (percent against the bar before); and the instruments (index id; code, name, source).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd

from chartinsight_lib.domain import NUMBERS, PRICES, Flag
from chartinsight_lib.errors import ConfigError

OURS = "chartinsight"
CAPITALS = {name: name.capitalize() for name in [*PRICES, "volume"]}
FILE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]*")


def ours(bars: pd.DataFrame, told: pd.DataFrame, *, intraday: bool) -> pd.DataFrame:
    """Return one table of all: code, name, date (or ts, UTC), `NUMBERS`, final, flags (`domain.Flag`), source."""
    return pd.DataFrame(
        {
            "code": bars["id"].map(told["code"]).astype("str"),
            "name": bars["id"].map(told["name"]).astype("str"),
            **({"ts": bars["ts"]} if intraday else {"date": bars["stamp"]}),
            **{name: bars[name] for name in NUMBERS},
            "final": (bars["flags"] & Flag.PROVISIONAL.value) == 0,
            "flags": bars["flags"].astype("int16"),
            "source": bars["id"].map(told["source"]).astype("str"),
        }
    ).astype({"volume": "int64"})


def _yfinance(one: pd.DataFrame) -> pd.DataFrame:
    table = one.rename(
        columns={"stamp": "Date", "adj_close": "Adj Close", **{name: name.capitalize() for name in [*PRICES, "volume"]}}
    )
    return table[["Date", "Open", "High", "Low", "Close", "Adj Close", "Volume"]]


def _backtesting(one: pd.DataFrame) -> pd.DataFrame:
    table = one.rename(columns=CAPITALS).set_index("stamp")
    return table[["Open", "High", "Low", "Close", "Volume"]].rename_axis(None)


KOREAN = {
    "stamp": "날짜", "open": "시가", "high": "고가", "low": "저가", "close": "종가", "volume": "거래량", "value": "거래대금",
    "change_pct": "등락률",
}  # fmt: skip


def _pykrx(one: pd.DataFrame) -> pd.DataFrame:
    return one.assign(change_pct=one["change_pct"].round(2))[list(KOREAN)].rename(columns=KOREAN)


PER_INSTRUMENT: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "yfinance": _yfinance, "backtesting": _backtesting, "pykrx": _pykrx,
}  # fmt: skip
STYLES = (OURS, *PER_INSTRUMENT)
"""Whose columns a table has: ours, or those that yfinance and pykrx give and backtesting.py takes."""
MARK = {"yfinance": "Source", "backtesting": "Source", "pykrx": "출처"}
"""A column more, where prices are simulated: nobody shall take them for real ones."""


def theirs(bars: pd.DataFrame, told: pd.DataFrame, style: str) -> dict[str, pd.DataFrame]:
    """Return {code: table} in the columns of a style; `bars` has adj_close besides, for yfinance.

    Raises:
        ConfigError: a code cannot be the name of a file.
    """
    tables = {}
    for number, one in bars.astype({"volume": "int64"}).groupby("id", sort=False):
        code, source = str(told["code"].loc[number]), str(told["source"].loc[number])
        if not FILE_NAME.fullmatch(code):
            raise ConfigError(f"export: the code {code!r} cannot be the name of a file. Export it in our own columns.")
        table = PER_INSTRUMENT[style](one.reset_index(drop=True))
        tables[code] = table.assign(**{MARK[style]: source}) if simulated(source) else table
    return tables


def simulated(source: str) -> bool:
    """Whether one of the sources, joined by commas, makes its prices up."""
    return any(one.startswith("simulat") for one in source.split(", "))
