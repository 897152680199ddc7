"""Recorded candles -> bars, minutes, events. What a row says is kept to the won, or refused with its code and day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from chartinsight_lib.domain import PRICES
from chartinsight_lib.errors import ConfigError, DatabaseError, SchemaError
from chartinsight_lib.simulator.model import DailyBars, Days, Event, Ints, MinuteBars
from chartinsight_lib.simulator.prices import Floats, frozen

_WHOLE = [*PRICES, "volume"]
_SELDOM = ["name", "board", "kind", "shares"]
_BOARDS = {"KOSPI", "KOSDAQ"}


class Factor(NamedTuple):
    """A corporate action: prices before `ex_day` times `ratio` compare with those from it on."""

    code: str
    ex_day: date
    ratio: float


class Recording(NamedTuple):
    """What is known of an instrument."""

    bars: DailyBars
    board: str
    kind: str
    names: tuple[tuple[date, str], ...]
    shares: tuple[tuple[date, int], ...]
    events: tuple[Event, ...] = ()


def sound_records(records: pd.DataFrame, *, widen_won: int = 0) -> tuple[pd.DataFrame, int]:
    """Return the rows that `read_records` takes, and how many it would refuse: those that are unreadable or contradictory."""
    frame = _columns(records, ["code", "date", *_WHOLE], ["value", *_SELDOM])
    numbers = frame[_WHOLE].apply(pd.to_numeric, errors="coerce")
    halted = (numbers[PRICES[:3]] == 0).all(axis=1) & (numbers["volume"] == 0) & (numbers["close"] > 0)
    sound = (numbers == numbers.round()).all(axis=1) & (numbers["volume"] >= 0)
    ends = numbers[["open", "close"]]
    sound &= (numbers[PRICES] > 0).all(axis=1) & (numbers["high"] >= ends.max(axis=1) - widen_won)
    sound &= (numbers["low"] <= ends.min(axis=1) + widen_won) & (numbers["high"] >= numbers["low"])
    sound &= pd.to_datetime(frame["date"].astype("str"), errors="coerce").notna()
    kept, key = records[sound | halted], ["code", "date"]
    different = kept[frame.columns].drop_duplicates()
    torn = pd.MultiIndex.from_frame(different.loc[different.duplicated(key), key])
    kept = kept[~pd.MultiIndex.from_frame(kept[key]).isin(torn)]
    return kept, len(records) - len(kept)


def read_records(records: pd.DataFrame, *, widen_won: int = 0) -> dict[str, Recording]:
    """Return the recordings of all codes; arguments and errors as in `ReplayMarket.from_records`."""
    frame = _columns(records, ["code", "date", *_WHOLE], ["value", *_SELDOM])
    frame["code"] = frame["code"].astype("str")
    frame["date"] = _days(frame)
    frame = frame.sort_values(["code", "date"], kind="stable", ignore_index=True)
    for name in _WHOLE:
        frame[name] = _whole(frame, name)
    # A source writes a halted day as zeros with the close carried on.
    zeros = (frame[PRICES[:3]] == 0).all(axis=1) & (frame["volume"] == 0)
    for name in PRICES[:3]:
        frame[name] = frame[name].mask(zeros, frame["close"])
    _refuse(
        frame, (frame[PRICES] <= 0).any(axis=1) | (frame["volume"] < 0), "has a price of 0 or less or a volume below 0"
    )
    ends = frame[["open", "close"]]
    for name, end, beyond in (("low", ends.min(axis=1), 1), ("high", ends.max(axis=1), -1)):
        missed = (frame[name] - end) * beyond
        frame[name] = frame[name].mask((missed > 0) & (missed <= widen_won), end)
    wrong = (frame["low"] > frame[PRICES].min(axis=1)) | (frame["high"] < frame[PRICES].max(axis=1))
    _refuse(frame, wrong, "has a price above its high or below its low")
    frame["value"] = _value(frame)
    frame = frame.drop_duplicates()
    _refuse(frame, frame.duplicated(["code", "date"], keep=False), "is there twice, with different numbers")
    codes = frame["code"].to_numpy(object)
    first = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1]))) if len(codes) else np.empty(0, np.int64)
    whole = [frozen(frame[name].to_numpy(np.int64)) for name in (*_WHOLE, "value")]
    days: Days = frozen(frame["date"].to_numpy("datetime64[D]"))
    said, found = _said(frame), {}
    for since, until in pairwise([*first.tolist(), len(codes)]):
        code, rows = str(codes[since]), slice(since, until)
        found[code] = _recording(code, days[rows], tuple(column[rows] for column in whole), said.get(code, {}))
    return found


def _recording(
    code: str, days: Days, numbers: tuple[Ints, ...], said: Mapping[str, list[tuple[date, str]]]
) -> Recording:
    o, h, low, close, volume, value = numbers
    nothing = frozen(np.zeros(len(days), np.int64))
    halted = frozen((volume == 0) & (h == low))
    bars = DailyBars(days, o, h, low, close, volume, value, halted, close, h, low, nothing, nothing)
    since = days[0].item()
    boards = [board for _, board in said.get("board", []) if board in _BOARDS]
    kinds = [kind for _, kind in said.get("kind", [])]
    # Without a column: about what makes the usual day turn over half a percent.
    shares = [(day, int(float(count))) for day, count in said.get("shares", [])]
    shares = shares or [(since, max(200 * int(np.median(volume)), 1_000_000))]
    names = said.get("name") or [(since, code)]
    return Recording(bars, (boards or ["KOSPI"])[-1], (kinds or ["stock"])[-1], tuple(names), tuple(shares))


def _said(frame: pd.DataFrame) -> dict[str, dict[str, list[tuple[date, str]]]]:
    """Return {code: {column that seldom changes: [(since when, what)]}}, of those columns that the records have."""
    found: dict[str, dict[str, list[tuple[date, str]]]] = {}
    for name in _SELDOM:
        if name not in frame:
            continue
        held = frame.loc[frame[name].notna(), ["code", "date", name]]
        held = held[(held["code"] != held["code"].shift()) | (held[name] != held[name].shift())]
        days = held["date"].to_numpy("datetime64[D]").tolist()
        for code, day, what in zip(held["code"].tolist(), days, held[name].tolist(), strict=True):
            found.setdefault(code, {}).setdefault(name, []).append((day, str(what)))
    return found


def read_minutes(records: pd.DataFrame) -> dict[tuple[str, date], MinuteBars]:
    """Return recorded intraday bars by code and day; columns and errors as in `ReplayMarket.from_records`."""
    frame = _columns(records, ["code", *_WHOLE], ["ts_kst", "ts", "value"])
    frame["code"] = frame["code"].astype("str")
    if "ts_kst" in frame:
        start = pd.to_datetime(frame["ts_kst"])
    elif "ts" in frame:
        start = pd.to_datetime(frame["ts"], utc=True).dt.tz_convert("Asia/Seoul").dt.tz_localize(None)
    else:
        raise SchemaError(
            "simulator: minutes have neither ts_kst nor ts. Expected the start of each bar in one of them."
        )
    frame["start"], frame["date"] = start, start.dt.normalize()
    _refuse(frame, start.isna() | (start != start.dt.floor("min")), "has a bar that does not start at a full minute")
    frame = frame.sort_values(["code", "start"], kind="stable", ignore_index=True)
    for name in _WHOLE:
        frame[name] = _whole(frame, name)
    frame["value"] = _value(frame)
    _refuse(frame, frame.duplicated(["code", "start"], keep=False), "has two bars of one minute")
    found = {}
    for key, rows in frame.groupby(["code", "date"], sort=False):
        code, day = cast("tuple[str, pd.Timestamp]", key)
        columns = (frozen(rows[name].to_numpy(np.int64)) for name in (*_WHOLE, "value"))
        found[code, day.date()] = MinuteBars(frozen(rows["start"].to_numpy("datetime64[m]")), *columns)
    return found


def to_events(factors: Iterable[Factor], recordings: Mapping[str, Recording]) -> dict[str, tuple[Event, ...]]:
    """Return the events of the codes that have some. The base price is not put on a grid: it is to give the factor back."""
    found: dict[str, list[Event]] = {}
    for code, ex_day, ratio in sorted(factors):
        if code not in recordings:
            continue
        bars = recordings[code].bars
        at = int(np.searchsorted(bars.day, np.datetime64(ex_day, "D")))
        if 0 < at < len(bars.day):
            before = int(bars.close[at - 1])
            kind = "split" if ratio < 1 else "reverse"
            found.setdefault(code, []).append(Event(ex_day, max(round(before * ratio), 1), before, kind))
    return {code: tuple(events) for code, events in found.items()}


def read_database(url: str, market: str) -> tuple[pd.DataFrame, list[Factor]]:
    """Return the raw daily records of a market and its splits. Errors as in `ReplayMarket.from_database`."""
    from sqlalchemy import create_engine, make_url, text
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    except (ArgumentError, ValueError):  # the cause would print the address, and a password in it; ValueError: the port
        raise ConfigError(
            "simulator: the database's address is none. Expected postgresql://user:password@host:5432/tradesmart."
        ) from None
    try:
        with engine.connect() as conn:
            rows = conn.execute(
                text("""
                    SELECT i.code, (c.ts AT TIME ZONE 'UTC')::date AS date, c.open, c.high, c.low, c.close, c.volume, c.value,
                           i.name, i.kind, i.board
                    FROM   live.candles AS c JOIN live.instruments AS i ON i.id = c.instrument_id
                    WHERE  i.market = :market AND c.timeframe = '1d'
                    ORDER  BY i.code, c.ts
                """),
                {"market": market},
            )
            records = pd.DataFrame(rows.all(), columns=list(rows.keys()))
            halts = conn.execute(
                text("""
                    SELECT DISTINCT i.code, (g.ts AT TIME ZONE 'UTC')::date AS date, i.name, i.kind,
                           i.board
                    FROM   ops.gaps AS g JOIN live.instruments AS i ON i.id = g.instrument_id
                    WHERE  i.market = :market AND g.timeframe = '1d' AND g.kind = 'halted'
                    ORDER  BY i.code, date
                """),
                {"market": market},
            )
            halted = pd.DataFrame(halts.all(), columns=list(halts.keys()))
            factors = conn.execute(
                text("""
                    SELECT code, ex_date, price_factor FROM api.factors
                    WHERE  market = :market AND kind <> 'dividend' ORDER BY code, ex_date
                """),
                {"market": market},
            ).all()
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", error)).strip().splitlines()[0]
        raise DatabaseError(f"simulator: the database to replay cannot be read: {cause}.") from None
    finally:
        engine.dispose()
    return _with_halts(records, halted), [Factor(*row) for row in factors]


def _with_halts(records: pd.DataFrame, halted: pd.DataFrame) -> pd.DataFrame:
    """Return the records with a row for each halted day, written as sources do: zeros, and the close carried on."""
    if records.empty or halted.empty:
        return records
    rows = pd.concat([records, halted.assign(**dict.fromkeys([*PRICES[:3], "volume", "value"], 0))], ignore_index=True)
    rows = rows.drop_duplicates(["code", "date"]).sort_values(["code", "date"], ignore_index=True)
    rows["close"] = rows.groupby("code")["close"].ffill()
    return rows[rows["close"].notna()]  # nothing to carry on to a halt before the first bar


def average_index(members: list[Recording], days: Days) -> DailyBars:
    """Return the index whose return is the members' average: points times 100, thousand shares, won; 1,000 points at first.

    A step that no trade makes (beyond 30 %: an action that the records do not undo) counts as no move.
    """
    sums = {name: np.zeros(len(days)) for name in (*PRICES, "count", "volume", "value")}
    for one in members:
        bars, rows = one.bars, np.searchsorted(days, one.bars.day)
        before = np.concatenate((bars.open[:1], bars.close[:-1])).astype(np.float64)
        for event in one.events:
            before[np.searchsorted(bars.day, np.datetime64(event.ex_day, "D"))] = event.base_price
        usual = np.abs(bars.close / before - 1) <= 0.31
        for name in PRICES:
            sums[name][rows] += np.where(usual, getattr(bars, name) / before, 1.0)
        sums["count"][rows] += 1
        sums["volume"][rows] += bars.volume / 1_000
        sums["value"][rows] += bars.value
    count = np.maximum(sums["count"], 1)
    moves = {name: np.where(sums["count"] > 0, sums[name] / count, 1.0) for name in PRICES}
    close = np.asarray(np.rint(100_000 * np.cumprod(moves["close"])), np.int64)
    before = np.concatenate(([100_000], close[:-1]))

    def points(move: Floats) -> Ints:
        return np.asarray(np.rint(before * move), np.int64)

    o = points(moves["open"])
    h = np.maximum(points(moves["high"]), np.maximum(o, close))
    low = np.minimum(points(moves["low"]), np.minimum(o, close))
    volume, value = (np.asarray(np.rint(sums[name]), np.int64) for name in ("volume", "value"))
    for column in (o, h, low, close, volume, value):
        frozen(column)
    nothing = frozen(np.zeros(len(days), np.int64))
    halted = frozen(np.zeros(len(days), bool))
    return DailyBars(days, o, h, low, close, volume, value, halted, close, h, low, nothing, nothing)


def _columns(records: pd.DataFrame, needed: list[str], more: list[str]) -> pd.DataFrame:
    if missing := [name for name in needed if name not in records]:
        raise SchemaError(f"simulator: the records lack {missing}. Expected the columns {', '.join(needed)}.")
    return records[[*needed, *(name for name in more if name in records)]].copy()


def _days(frame: pd.DataFrame) -> pd.Series:
    text = frame["date"].astype("str")
    found = pd.to_datetime(text.where(~text.str.fullmatch(r"\d{8}"), text.str[:4] + "-" + text.str[4:6] + "-" + text.str[6:]),
                           errors="coerce")  # fmt: skip
    if (wrong := found.isna()).any():
        row = frame[wrong].iloc[0]
        raise SchemaError(f"simulator {row['code']}: {row['date']!r} is no date. Correct or remove the row.")
    return found.dt.normalize()


def _whole(frame: pd.DataFrame, name: str) -> pd.Series:
    numbers = pd.to_numeric(frame[name], errors="coerce")
    _refuse(frame, numbers.isna() | (numbers != numbers.round()), f"has a {name} that is no whole number")
    return numbers.astype("int64")


def _value(frame: pd.DataFrame) -> pd.Series:
    """Return the recorded value; where there is none, the close times the volume."""
    usual = frame["close"] * frame["volume"]
    if "value" not in frame:
        return usual
    given = pd.to_numeric(frame["value"], errors="coerce")
    return given.round().where(given.notna(), usual).astype("int64")


def _refuse(frame: pd.DataFrame, wrong: pd.Series, what: str) -> None:
    if not wrong.any():
        return
    row = frame[wrong].iloc[0]
    numbers = ", ".join(f"{name} {row[name]}" for name in _WHOLE)
    raise SchemaError(
        f"simulator {row['code']}: {str(row['date'])[:10]} {what} ({numbers}). Correct or remove the row; {int(wrong.sum())} "
        "rows are so."
    )
