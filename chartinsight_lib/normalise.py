"""Raw records of bars -> candles, gaps and quarantine. Pure: no network, file, clock.

In: frames with the columns code, date (or `ts`, for shorter bars), open, high, low, close, volume (`value`, `adj_close`,
`row`, `flags`, `halted` where known), numbers typed or as text. Out: frames of `domain` (CANDLE, GAP), prices in the market's
currency, volume in shares, a daily bar stamped 00:00 UTC of its trading date, a shorter one with its start. No bar is made
up, and no row is lost: each becomes a candle, a gap, an exact repeat that is counted, or an entry of the quarantine with the
rule it broke. What becomes of a row does not depend on the rows that came with it, but for those of its own code and time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chartinsight_lib.domain import CANDLE, GAP, MARKETS, PRICES, Flag
from chartinsight_lib.errors import ConfigError, SchemaError

QUARANTINE = ["code", "ts", "rule", "action", "row", "payload"]
"""Columns of a quarantine frame; `action` is `rejected` or `widened`, `payload` the original row as JSON text."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Days = NDArray[np.datetime64]

REQUIRED = ["code", "date", *PRICES, "volume"]
FIRST_DAY, LAST_DAY = np.datetime64("1900-01-01"), np.datetime64("2200-01-01")  # outside, a date is a misreading
EXACT = 2.0**53  # whole numbers below it are exact as floats
WIDEST = 0.01  # share of the price by which a range may miss its own open or close
OTHER_SCALE = 10.0
"""A high so many times its low lies on another scale. KRX's limits allow 1.86 times within a day, on a day of listing 6.67 times
(60 % to 400 % of the offer price); in liquidation trading, which has none, 3.67 times has been seen."""


@dataclass(frozen=True)
class Bars:
    """What became of a portion of records.

    candles: columns `domain.CANDLE`, ascending and unique in (code, ts); ts datetime64[us, UTC]; prices and value
        float64, value NaN when the source has none; volume int64; flags int16 (`domain.Flag`).
    gaps: columns `domain.GAP`, ascending in (code, ts): bars of which the source says that nothing was traded.
    quarantine: columns QUARANTINE, ascending in `row`; ts is NaT where the date is bad.
    duplicates: rows that repeat another one exactly.
    rows: rows of the source = candles + gaps + rejected + duplicates.
    """

    candles: pd.DataFrame
    gaps: pd.DataFrame
    quarantine: pd.DataFrame
    duplicates: int
    rows: int


class _Rule(NamedTuple):
    """A name, what it does with the row (`rejected`, `gap`, `widened`), and the rows it holds for."""

    name: str
    action: str
    holds: Mask


class _Columns(NamedTuple):
    """Records as arrays, one entry per row; what cannot be read is NaN, NaT or code -1."""

    code: pd.Categorical
    at: Days
    """When: datetime64[D] of a day, datetime64[us] (UTC) of the start of a shorter bar."""
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    value: Floats
    bad_value: Mask
    halted: Mask
    flags: NDArray[np.int16]


def _rules(row: _Columns, unit: float, now: np.datetime64) -> list[_Rule]:
    """Return the rules in order: the first that holds decides over a row; a row of no rule is a candle."""
    prices = (row.open, row.high, row.low, row.close)
    zero = (row.open == 0) & (row.high == 0) & (row.low == 0)
    priced = np.logical_and.reduce([np.isfinite(price) & (price > 0) for price in prices])
    counted = (row.volume >= 0) & (row.volume < EXACT) & (np.abs(row.volume - np.round(row.volume)) < 1e-6)
    still = (row.open == row.high) & (row.high == row.low)
    flat = still & (row.low == row.close)
    top, bottom = np.maximum(row.open, row.close), np.minimum(row.open, row.close)
    # Sources that adjust prices truncate them: high can end a little below close, low a little above. That it traded at
    # open and close is certain, so the range is widened to hold them; by more than this it is no rounding.
    slack = 1 + 1e-9  # for cents as floats
    over, over_most = top - row.high, np.maximum(unit, WIDEST * top) * slack
    under, under_most = row.low - bottom, np.maximum(unit, WIDEST * bottom) * slack
    return [
        _Rule("bad_code", "rejected", row.code.codes < 0),
        _Rule("bad_date", "rejected", np.isnat(row.at)),
        _Rule("future_date", "rejected", row.at > now),
        _Rule("zero_price_with_volume", "rejected", zero & (row.volume > 0)),
        # KRX and those who copy it write a halted day as zeros, volume 0 and the last close carried.
        _Rule("halted", "gap", zero & (row.volume == 0) & np.isfinite(row.close) & (row.close > 0)),
        # Others repeat the last close, and say elsewhere that trading was halted.
        _Rule("halted", "gap", row.halted & flat & (row.volume == 0) & priced),
        _Rule("bad_price", "rejected", ~priced),
        _Rule("bad_volume", "rejected", ~counted),
        _Rule("bad_value", "rejected", row.bad_value),
        # All prices the last close and nothing traded: the bar is the source's invention, also where the close was rounded
        # another way than the others.
        _Rule("no-trade", "gap", still & (over <= over_most) & (under <= under_most) & (row.volume == 0)),
        _Rule("high_below_low", "rejected", row.high < row.low),
        _Rule("high_below_close", "rejected", over > over_most),
        _Rule("low_above_close", "rejected", under > under_most),
        # Whether a whole bar is on another scale its neighbours tell, and those may come another time: see `quality.rules`.
        _Rule("scale_break", "rejected", row.high >= OTHER_SCALE * row.low),
        _Rule("high_below_close", "widened", over > 0),
        _Rule("low_above_close", "widened", under > 0),
    ]


def _keys(row: _Columns, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return numbers that order rows by code and time."""
    minutes = row.at[rows].astype("datetime64[us]").astype(np.int64) // 60_000_000  # since 1970: less than 10^9 in size
    return np.asarray(row.code.codes[rows].astype(np.int64) * 1_000_000_000 + minutes)


CONTRADICTION = "contradiction"
"""The rule of rows that say different things about the same code and day: which is right cannot be known."""


def daily(records: pd.DataFrame, *, market: str, today: date, provisional_from: date | None) -> Bars:
    """Turn raw daily records, in any order, into candles, gaps and quarantine; none gives empty frames.

    Args:
        records: (rows) the columns code, date, open, high, low, close, volume; where there are any: value in currency;
            `row`, the source's own number of the row (else counted from 1); `flags`, what the source knows of the bar
            (`domain.Flag`); `halted`, whether trading was halted. Dates typed, or text or integers like 2024-08-05 and
            20240805; numbers typed, or text such as "2,650,000".
        market: code of the market, a key of `domain.MARKETS`.
        today: the date in the market's zone; a later one is rejected.
        provisional_from: candles of this trading date and later are flagged provisional; None: none is.
    Raises:
        ConfigError: there is no such market.
        SchemaError: a column is missing, or the books do not balance (a fault of this module).
    """
    require(records, REQUIRED)
    since = None if provisional_from is None else np.datetime64(provisional_from)
    return _bars(records, read_days(records["date"]), market, np.datetime64(today), since)


def intraday(records: pd.DataFrame, *, market: str, now: datetime, provisional_from: datetime) -> Bars:
    """Turn raw records of bars shorter than a day into candles, gaps and quarantine; as `daily`.

    Args:
        records: as for `daily`, with `ts`, the start of each bar (tz-aware), in place of `date`; a missing one is rejected.
        now: tz-aware; a bar that starts later is rejected.
        provisional_from: bars that start then (tz-aware) or later are flagged provisional.
    """
    require(records, ["ts", *(name for name in REQUIRED if name != "date")])
    if getattr(records["ts"].dtype, "tz", None) is None:
        raise SchemaError(f"normalise: ts is {records['ts'].dtype}, and times with a zone are expected.")
    starts = records["ts"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]")
    known = (starts >= FIRST_DAY) & (starts < LAST_DAY)
    starts = np.where(known, starts, np.datetime64("NaT", "us"))
    return _bars(records, starts, market, _moment(now), _moment(provisional_from))


def _bars(
    records: pd.DataFrame, at: Days, market: str, now: np.datetime64, provisional_from: np.datetime64 | None
) -> Bars:
    if market not in MARKETS:
        raise ConfigError(f"normalise: there is no market {market!r}. Choose one of {', '.join(MARKETS)}.")
    row = _columns(records, at, market)
    numbers = _whole(records["row"]) if "row" in records else np.arange(1, len(records) + 1)

    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is caught by a rule
        rules = _rules(row, MARKETS[market].unit, now)
    verdict = np.select([rule.holds for rule in rules], range(len(rules)), default=-1).astype(np.int8)
    action = np.array([rule.action for rule in rules] + ["kept"])[verdict]  # -1 is the last
    order, repeats, contradicting = _kept(row, action != "rejected")
    action[contradicting] = "rejected"
    name = np.array([rule.name for rule in rules] + [""], dtype=object)[verdict]
    name[contradicting] = CONTRADICTION

    bars, holes = order[np.isin(action[order], ("kept", "widened"))], order[action[order] == "gap"]
    shown = np.flatnonzero(action == "rejected")
    shown = np.union1d(shown, bars[action[bars] == "widened"])
    shown = shown[np.argsort(numbers[shown], kind="stable")]
    ledger = {
        "code": _texts(row.code, shown),
        "ts": _stamps(row.at[shown]),
        "rule": pd.Series(name[shown], dtype="str"),
        "action": pd.Series(action[shown], dtype="str"),
        "row": numbers[shown].astype(np.int64),
        "payload": pd.Series(_payloads(records, shown), dtype="str"),
    }
    gaps = {"code": _texts(row.code, holes), "ts": _stamps(row.at[holes]), "kind": pd.Series(name[holes], dtype="str")}
    result = Bars(
        _candles(row, bars, action == "widened", provisional_from),
        pd.DataFrame(gaps)[GAP],
        pd.DataFrame(ledger)[QUARANTINE],
        repeats,
        len(records),
    )
    _balance(result)
    return result


def _columns(records: pd.DataFrame, at: Days, market: str) -> _Columns:
    numbers = {name: read_numbers(records[name]) for name in (*PRICES, "volume")}
    value, bad_value = _values(records)
    nothing = np.zeros(len(records), dtype=np.int16)
    return _Columns(
        code=read_codes(records["code"], market),
        at=at,
        **numbers,
        value=value,
        bad_value=bad_value,
        halted=records["halted"].to_numpy(dtype=bool) if "halted" in records else nothing.astype(bool),
        flags=records["flags"].to_numpy(dtype=np.int16) if "flags" in records else nothing,
    )


def require(records: pd.DataFrame, columns: list[str]) -> None:
    if missing := [name for name in columns if name not in records]:
        raise SchemaError(
            f"normalise: the records lack {', '.join(missing)}; found are {', '.join(map(str, records.columns))}. "
            "The source has to name its columns as we do."
        )


def _balance(result: Bars) -> None:
    rejected = int((result.quarantine["action"] == "rejected").sum())
    found = len(result.candles) + len(result.gaps) + rejected + result.duplicates
    if found != result.rows:
        raise SchemaError(
            f"normalise: {result.rows} rows came in and {found} are accounted for ({len(result.candles)} candles, "
            f"{len(result.gaps)} gaps, {rejected} rejected, {result.duplicates} duplicates). Nothing of this portion "
            "may be stored; report it as a fault of the program."
        )


def _kept(row: _Columns, alive: Mask) -> tuple[NDArray[np.intp], int, NDArray[np.intp]]:
    """Return one row per (code, day) of those alive, in that order; how many repeat one exactly; which contradict."""
    rows = np.flatnonzero(alive)
    key = _keys(row, rows)
    if not np.all(key[1:] > key[:-1]):
        by_key = np.argsort(key, kind="stable")
        rows, key = rows[by_key], key[by_key]
    first = np.append(True, key[1:] != key[:-1])[: len(key)]
    if first.all():
        return rows, 0, rows[:0]
    group = np.cumsum(first) - 1
    leader = rows[first][group]
    differs = np.zeros(len(rows), dtype=bool)
    for number in (row.open, row.high, row.low, row.close, row.volume, row.value):
        mine, its = number[rows], number[leader]
        differs |= (mine != its) & ~(np.isnan(mine) & np.isnan(its))
    torn = (np.bincount(group, weights=differs) > 0)[group]
    return rows[first & ~torn], int((~first & ~torn).sum()), rows[torn]


def _candles(
    row: _Columns, bars: NDArray[np.intp], widened: Mask, provisional_from: np.datetime64 | None
) -> pd.DataFrame:
    opened, close = row.open[bars], row.close[bars]
    flags = row.flags[bars] | np.where(widened[bars], int(Flag.WIDENED), 0).astype(np.int16)
    if provisional_from is not None:
        flags[row.at[bars] >= provisional_from] |= int(Flag.PROVISIONAL)
    frame = {
        "code": _texts(row.code, bars),
        "ts": _stamps(row.at[bars]),
        "open": opened,
        # For a bar that is not widened these change nothing.
        "high": np.maximum(row.high[bars], np.maximum(opened, close)),
        "low": np.minimum(row.low[bars], np.minimum(opened, close)),
        "close": close,
        "volume": np.round(row.volume[bars]).astype(np.int64),
        "value": row.value[bars],
        "flags": flags,
    }
    return pd.DataFrame(frame, copy=False)[CANDLE]


def read_codes(column: pd.Series, market: str) -> pd.Categorical:
    """Return codes as categorical text, ascending; what is no code is missing. A number is none: its zeros are lost."""
    coded = pd.Categorical(column)
    words = pd.Series([word.strip() if isinstance(word, str) else "" for word in coded.categories], dtype="str")
    good = words.str.fullmatch(r"\S{1,20}")
    if market in MARKETS and MARKETS[market].korean:
        good &= ~words.str.fullmatch(r"\d{1,5}")
    places, codes = pd.factorize(words.where(good), sort=True)
    return pd.Categorical.from_codes(np.append(places, -1)[coded.codes], pd.Index(codes, dtype="str"))


def read_days(column: pd.Series) -> Days:
    """Return trading dates as datetime64[D]; NaT for what is none. A stamp with a zone names the day in its zone."""
    if not pd.api.types.is_datetime64_any_dtype(column):
        places, found = pd.factorize(column)
        words = pd.Series([str(word).strip() for word in found], dtype="str")
        parts = words.str.extract(
            r"^(\d{4})([-/.]?)(\d\d)\2(\d\d)(?:[ T]00:00(?::00(?:\.0+)?)?(?:Z|[+-]\d\d:?\d\d)?)?$"
        )
        column = pd.to_datetime(parts[0] + parts[2] + parts[3], format="%Y%m%d", errors="coerce")
        column = pd.concat([column, pd.Series([pd.NaT])], ignore_index=True).astype("datetime64[s]")
        stamps = column.to_numpy()[places]  # a missing date has place -1
    else:
        stamps = column.dt.tz_localize(None).to_numpy()
    days = stamps.astype("datetime64[D]")
    known = (days == stamps) & (days >= FIRST_DAY) & (days < LAST_DAY)
    return np.where(known, days, np.datetime64("NaT", "D"))


def read_numbers(column: pd.Series) -> Floats:
    """Return numbers as float64; NaN for what is none. A comma is one only between groups of three digits."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    text = column.astype(object).map(lambda word: str(word).strip()).astype("str")
    grouped = text.str.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", na=False)
    text = text.where(~grouped, text.str.replace(",", ""))
    return np.asarray(pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))


def _values(records: pd.DataFrame) -> tuple[Floats, Mask]:
    """Return traded values, NaN where the source has none, and the rows whose value is there and is no value."""
    if "value" not in records:
        return np.full(len(records), np.nan), np.zeros(len(records), dtype=bool)
    column = records["value"]
    values = read_numbers(column)
    absent = column.isna().to_numpy() | column.astype("str").isin(["", "-", "nan"]).to_numpy()
    return values, ~absent & ~(np.isfinite(values) & (values >= 0))


def _whole(column: pd.Series) -> NDArray[np.int64]:
    return np.asarray(column.to_numpy(dtype=np.int64))


def _texts(codes: pd.Categorical, rows: NDArray[np.intp]) -> pd.Series:
    return pd.Series(codes[rows]).astype("str")


def _moment(time: datetime) -> np.datetime64:
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "us")


def _stamps(at: Days) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(at.astype("datetime64[us]")).tz_localize("UTC")


def _payloads(records: pd.DataFrame, rows: NDArray[np.intp]) -> list[str]:
    """Return the original rows as JSON text, missing values as null, whole numbers without a point: a column has one type, and
    which it is depends on the other rows."""
    original = records.iloc[rows].drop(columns="row", errors="ignore")
    original = original.astype(object).where(original.notna(), None)
    return [
        json.dumps({name: _whole_number(value) for name, value in record.items()}, ensure_ascii=False, default=_plain)
        for record in original.to_dict("records")
    ]


def _whole_number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and abs(value) < EXACT and value.is_integer() else value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return value.isoformat()[:10] if isinstance(value, date) else str(value)
