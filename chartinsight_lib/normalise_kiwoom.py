"""Kiwoom's records -> frames that `normalise` reads. Pure: no network, database, clock.

On the wire every number is text: blank, zero-padded or signed. A sign before a price says above or below yesterday and is no
part of it; before a flow it is the value, and two minus signs are one. Numbers that overflowed are missing. Times are KST.
What cannot be read stays as it was, so that `normalise` rejects the row and keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chartinsight_lib.domain import ATTRIBUTES, INSTRUMENT, KST, MARKETS, Flag
from chartinsight_lib.errors import SchemaError
from chartinsight_lib.states import section_of, states_of

Record = Mapping[str, str]
MILLION = 1_000_000
AFTER_MARKET_SINCE = date(2026, 9, 14)
"""From this day on the close of a daily bar is the last price of the after-market (16:00 to 20:00)."""
AFTER_MARKET_OPENS = time(16)
OFFICIAL_FROM = time(16, 40)
"""From then on the close of a quote is believed to be the official one: the latest regular session, of the day of the
university entrance exam, ends at 16:30, and what the field holds before the end nobody has recorded."""

# Kiwoom's field -> ours. Source: the API document, ka10081, ka10080, ka10095.
BAR = {"open_pric": "open", "high_pric": "high", "low_pric": "low", "cur_prc": "close", "trde_qty": "volume"}
VALUE = "trde_prica"  # million won in ka10081 and ka10095, won in weekly and monthly charts
# What a 32-bit number shows when it has overflowed. Source: measured by clients in use.
SATURATED = (4294967295, 2147483647, -2147483648, -2147483)
KINDS = {"0": "stock", "10": "stock", "8": "etf", "60": "etn", "90": "etn", "6": "reit", "2": "fund", "50": "stock"}
"""marketCode -> our kind; any other is `other`."""
BOARDS = {**dict.fromkeys(("0", "8", "60", "90", "6", "2"), "KOSPI"), "10": "KOSDAQ", "50": "KONEX"}
"""marketCode -> the board; funds, notes and trusts are all listed on the exchange's main board."""
ORDER_WARNINGS = {"1": "caution", "2": "liquidation", "3": "overheated", "4": "risk", "5": "warning"}
"""orderWarning -> our state; 0 is none."""
MOST_SHARES = 10**15
"""More than any company has; what claims to have more overflowed."""
FLOWS = {
    "ind_invsr": "individual", "frgnr_invsr": "foreign", "orgn": "institution", "fnnc_invt": "securities",
    "insrnc": "insurance", "invtrt": "trust", "etc_fnnc": "other_finance", "bank": "bank", "penfnd_etc": "pension",
    "samo_fund": "private_fund", "natn": "state", "etc_corp": "other_corporation", "natfor": "resident_foreign",
}  # fmt: skip
HALTED = "거래정지"

_NUMBER = re.compile(r"([+-]*)([0-9]+(?:\.[0-9]+)?)")


def number(written: str) -> float:
    """Return a number of the wire; NaN for a blank, an overflow, or what is none. "--714" is -714."""
    found = _NUMBER.fullmatch(written.strip())
    if not found:
        return float("nan")
    value = float(found[2]) * (-1 if "-" in found[1] else 1)
    return float("nan") if value in SATURATED else value


def daily(rows: Sequence[Record], code: str, *, now: datetime, halted: bool = False) -> pd.DataFrame:
    """Turn raw rows of ka10081, newest first, into daily records.

    Args:
        rows: what the server sent for `code`.
        now: tz-aware; says whether the newest row holds the after-market already.
        halted: trading is halted now, so the rows without trade at the newest end are halted days and not quiet ones.
    Returns:
        code, date (typed; text where one cannot be read), open, high, low, close in won, volume in shares, value in won
        (where sent), flags, halted.
    Raises:
        SchemaError: a field that a bar needs is in no row.
    """
    frame = _bars("ka10081", rows, code, "dt")
    written = frame.pop("dt")
    dates = pd.to_datetime(written, format="%Y%m%d", errors="coerce").astype("datetime64[s]")
    frame["date"] = dates if dates.notna().all() else written
    local = now.astimezone(KST)
    switch = pd.Timestamp(AFTER_MARKET_SINCE)
    after = (dates >= switch) & ((dates < pd.Timestamp(local.date())) | (local.time() >= AFTER_MARKET_OPENS))
    frame["flags"] = np.where(after, int(Flag.AFTER_MARKET), 0).astype(np.int16)
    quiet = (frame["volume"] == 0).to_numpy()
    newest_end = np.logical_and.accumulate(quiet) if len(quiet) else quiet
    return frame.assign(halted=newest_end & halted)


def minutes(rows: Sequence[Record], code: str) -> pd.DataFrame:
    """Turn raw rows of ka10080 into records with `ts`, the start of the bar in UTC; else as `daily`, without value."""
    frame = _bars("ka10080", rows, code, "cntr_tm")
    local = pd.to_datetime(frame.pop("cntr_tm"), format="%Y%m%d%H%M%S", errors="coerce")
    after = (local >= pd.Timestamp(AFTER_MARKET_SINCE)) & (local.dt.hour >= AFTER_MARKET_OPENS.hour)
    frame["flags"] = np.where(after, int(Flag.AFTER_MARKET), 0).astype(np.int16)
    # Where clocks were changed, in 1987 and 1988, an hour is there twice and another is not.
    zoned = local.dt.tz_localize(KST, ambiguous="NaT", nonexistent="NaT")
    return frame.assign(ts=zoned.dt.tz_convert("UTC")).drop(columns="value", errors="ignore")


def quotes(rows: Sequence[Record], *, now: datetime) -> pd.DataFrame:
    """Turn rows of ka10095 into daily records of the running day; an instrument that has not traded today has none.

    Once the regular session is over the quote names its close, and that is the bar's, marked as the official one; the last
    price goes on with the after-market, and a bar with that for its close is marked so.
    """
    local = now.astimezone(KST)
    today = f"{local:%Y%m%d}"
    running = [
        row for row in rows if row.get("trde_qty", "").strip().strip("+-0") and row.get("dt", "").strip() == today
    ]
    if not running:
        return pd.DataFrame(columns=["code", "date", *BAR.values(), "value", "flags"])
    frame = _bars("ka10095", running, "", "stk_cd")
    frame["code"] = frame.pop("stk_cd").str.strip()
    official = _column([row.get("close_pric", "") for row in running], absolute=True)
    has = np.array([isinstance(price, float) and price > 0 for price in official.tolist()])
    has &= local.time() >= OFFICIAL_FROM
    frame["close"] = frame["close"].where(~has, official)
    after = local.date() >= AFTER_MARKET_SINCE and local.time() >= AFTER_MARKET_OPENS
    flags = np.where(has, int(Flag.OFFICIAL_CLOSE), int(Flag.AFTER_MARKET) if after else 0)
    return frame.assign(date=today, flags=flags.astype(np.int16))


def instruments(rows: Sequence[Record], market: str) -> pd.DataFrame:
    """Turn rows of ka10099 into an instrument frame, ascending and unique in code: the columns INSTRUMENT and ATTRIBUTES of
    `domain`. A sector's name has its board before it, because KOSPI and KOSDAQ have sectors of the same name.

    Raises:
        SchemaError: a row has no code, or one code stands for two different instruments.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        code = row.get("code", "").strip()
        if not code:
            raise SchemaError(f"kiwoom ka10099: a row has no code: {dict(row)}.")
        market_code = row.get("marketCode", "").strip()
        board, sector = BOARDS.get(market_code), row.get("upName", "").strip()
        shares = number(row.get("listCount", ""))
        listed: dict[str, Any] = {
            "code": code,
            "name": row.get("name", "").strip() or code,
            "kind": KINDS.get(market_code, "other"),
            "sector": (f"{board} {sector}" if board else sector) if sector else None,
            "listed_on": _day(row.get("regDay", "")),
            "board": board,
            "section": section_of(row.get("companyClassName", "")),
            "shares": int(shares) if 0 < shares < MOST_SHARES else None,
            "states": _states(row),
            "nxt_enabled": row["nxtEnable"].strip() == "Y" if "nxtEnable" in row else None,
        }
        before = found.setdefault(code, listed)
        if (before["name"], before["kind"]) != (listed["name"], listed["kind"]):
            raise SchemaError(f"kiwoom ka10099: {code} stands for {before['name']} and for {listed['name']}.")
    columns = ["code", "name", "kind", "sector", "listed_on", *ATTRIBUTES]
    frame = pd.DataFrame([found[code] for code in sorted(found)], columns=columns, dtype=object)  # missing is None
    frame = frame.astype({"code": "str", "name": "str", "kind": "str", "shares": "Int64"})
    return frame.assign(market=market, delisted_on=None, currency=MARKETS[market].currency)[[*INSTRUMENT, *ATTRIBUTES]]


def flows(rows: Sequence[Record]) -> pd.DataFrame:
    """Turn rows of ka10059 into net buys by kind of investor, in shares: index date (datetime64, KST), ascending; the
    columns of FLOWS, NaN where the server sent none."""
    frame = pd.DataFrame({ours: [number(row.get(theirs, "")) for row in rows] for theirs, ours in FLOWS.items()})
    frame.index = _dates("ka10059", rows)
    return frame.sort_index()


def index_points(rows: Sequence[Record]) -> pd.DataFrame:
    """Turn rows of ka20006, points times 100, into open, high, low, close in points, volume (thousand shares) and value in
    won: index date (datetime64, KST), ascending."""
    names = {**{theirs: ours for theirs, ours in BAR.items()}, VALUE: "value"}  # noqa: C416 - a copy to extend
    frame = pd.DataFrame({ours: [number(row.get(theirs, "")) for row in rows] for theirs, ours in names.items()})
    frame[["open", "high", "low", "close"]] = frame[["open", "high", "low", "close"]].abs() / 100
    frame["value"] *= MILLION
    frame.index = _dates("ka20006", rows)
    return frame.sort_index()


def halted_now(row: Record) -> bool:
    """Whether the list (ka10099) says that trading of an instrument is halted."""
    return HALTED in row.get("state", "") or HALTED in row.get("auditInfo", "")


def _states(row: Record) -> list[str] | None:
    """Return the states that a row of the list tells of; None when it has no field that could."""
    fields = [row[name] for name in ("state", "auditInfo") if name in row]
    warning = row.get("orderWarning", "").strip()
    if not fields and not warning:
        return None
    states = states_of(word for field in fields for word in field.split("|"))
    return sorted({*states, ORDER_WARNINGS[warning]}) if warning in ORDER_WARNINGS else states


def _dates(tr: str, rows: Sequence[Record]) -> pd.DatetimeIndex:
    written = [row.get("dt", "") for row in rows]
    dates = pd.DatetimeIndex(pd.to_datetime(written, format="%Y%m%d", errors="coerce"), name="date")
    if dates.hasnans:
        wrong = written[int(dates.isna().argmax())]
        raise SchemaError(f"kiwoom {tr}: a row's dt is {wrong[:30]!r}, and a date is expected.")
    return dates


def _bars(tr: str, rows: Sequence[Record], code: str, when: str) -> pd.DataFrame:
    if missing := [field for field in (when, *BAR) if rows and not any(field in row for row in rows)]:
        raise SchemaError(f"kiwoom {tr} {code}: the reply lacks {', '.join(missing)}; found {', '.join(rows[0])}.")
    columns: dict[str, object] = {when: pd.Series([row.get(when, "") for row in rows], dtype="str")}
    for theirs, ours in BAR.items():
        columns[ours] = _column([row.get(theirs, "") for row in rows], absolute=True)
    if any(VALUE in row for row in rows):
        columns["value"] = _column([row.get(VALUE, "") for row in rows], absolute=True, unit=MILLION)
    frame = pd.DataFrame(columns)
    frame.insert(0, "code", code)
    return frame


def _column(written: list[str], *, absolute: bool, unit: int = 1) -> pd.Series:
    """Read a column of the wire. What cannot be read stays as text among the numbers, and a blank is missing."""
    values: NDArray[np.float64]
    try:
        values = (
            np.array(written, dtype=np.str_).astype(np.int64).astype(np.float64)
        )  # all plain whole numbers, as a rule
        values[np.isin(values, SATURATED)] = np.nan
    except (ValueError, OverflowError):
        values = np.array([number(text) for text in written], dtype=np.float64)
    values = (np.abs(values) if absolute else values) * unit
    if not np.isnan(values).any():
        return pd.Series(values)
    read: list[object] = [
        (f"{text.strip()} (no number)" if text.strip() else None) if np.isnan(value) else float(value)
        for value, text in zip(values, written, strict=True)
    ]
    return pd.Series(read, dtype=object)


def _day(written: str) -> date | None:
    try:
        return datetime.strptime(written.strip(), "%Y%m%d").date()  # noqa: DTZ007 - a date has no zone
    except ValueError:
        return None
