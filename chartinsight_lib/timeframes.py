"""Collected bars -> bars of any longer timeframe. Pure: no database, no clock; the market's hours are handed in.

A timeframe is a number and a unit: `m` minutes, `h` hours, `d` days (1 alone), `w` weeks, `mo` months, `y` years. Minutes and hours
are made of shorter bars, counted from the start of the day's phase of trading, so that no bar straddles two phases or two
days; weeks and longer are made of days. An open is the first one, a close the last, high and low the extremes, volume and
value the sums, flags everything said of any of the bars. A period without a bar has none.

Weeks are counted from Monday 1969-12-29 and months from January of the year 0, so that `3mo` are quarters, `12mo` years.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chartinsight_lib.domain import COLLECTED, NUMBERS, Flag
from chartinsight_lib.errors import NotFound, SchemaError

Columns = dict[str, NDArray[Any]]
Times = NDArray[np.datetime64]
"""datetime64[us], UTC."""

_MINUTES = {"m": 1, "h": 60}
_MONTHS = {"mo": 1, "y": 12}
_DAY, _US, _NAT = np.timedelta64(1, "D"), np.timedelta64(1, "us"), np.datetime64("NaT", "us")


@dataclass(frozen=True, slots=True, eq=False)
class Hours:
    """When a market trades from `first` to `last`, dates in its `zone`, both included.

    sessions: index day (midnight, no zone), ascending; columns opens, closes, after_opens, after_closes (datetime64, UTC; NaT
        where a day has no after-market). A date that is missing is a day without trading.
    late_close: how long after `closes` a bar may begin and still belong to the closing auction, which can be extended.
    """

    sessions: pd.DataFrame
    zone: tzinfo
    first: date
    last: date
    late_close: timedelta = timedelta(0)


class Series(NamedTuple):
    """Bars of many instruments: instrument `k` owns the rows `bounds[k] : bounds[k + 1]` of `ts` and of every column."""

    ts: Times
    columns: Columns
    bounds: NDArray[np.int64]


def base_of(timeframe: str) -> str:
    """Return the collected timeframe that a timeframe is made of; a collected one is its own. Raises NotFound."""
    if timeframe in COLLECTED:
        return timeframe
    count, unit = _parsed(timeframe)
    if unit not in _MINUTES:
        return "1d"
    return "5m" if count * _MINUTES[unit] % 5 == 0 else "1m"


def length_of(timeframe: str) -> timedelta | None:
    """Return the length of an intraday timeframe; None for days and longer. Raises NotFound."""
    count, unit = _parsed(timeframe)
    return timedelta(minutes=count * _MINUTES[unit]) if unit in _MINUTES else None


def period_of(timeframe: str, days: Times) -> tuple[Times, Times]:
    """Return the first and the last calendar day (datetime64[D]) of the weeks, months or years in which days lie."""
    count, unit = _parsed(timeframe)
    days = days.astype("datetime64[D]")
    if unit == "w":
        # The first day of all was a Thursday: three days before it is a Monday.
        into = (days.astype(np.int64) + 3) % (7 * count)
        first = days - into.astype("timedelta64[D]")
        return first, first + np.timedelta64(7 * count - 1, "D")
    if unit not in _MONTHS:
        raise NotFound(f"timeframe {timeframe!r}: it is no period of weeks, months or years.")
    months = days.astype("datetime64[M]")
    length = np.timedelta64(count * _MONTHS[unit], "M")
    begins = months - (months.astype(np.int64) + 1970 * 12) % length.astype(np.int64)
    return begins.astype("datetime64[D]"), (begins + length).astype("datetime64[D]") - _DAY


def aggregate(
    bars: pd.DataFrame,
    timeframe: str,
    *,
    base: str | None = None,
    hours: Hours | None = None,
    complete_until: datetime | None = None,
) -> pd.DataFrame:
    """Turn one instrument's bars into longer ones.

    A bar carries `Flag.PROVISIONAL` unless every bar in it is final and its period is known to be complete: a later bar
    exists; or no further trading day (or time) of the period lies after what is known, which is everything up to the newest
    final bar and up to `complete_until`. Without `hours` only a bar of a later period proves that weeks, months or years
    are complete, or a `complete_until` that lies well behind them.

    Args:
        bars: columns `NUMBERS` and `flags` (others are left out), indexed by `ts` in UTC, ascending, unique.
        timeframe: see above; that of the bars returns `bars` itself.
        base: the timeframe of the bars; None: the one that `base_of` names.
        hours: of the market; needed for minutes and hours. They reach from the first bar to the end of the newest period.
        complete_until: bars that end at or before this moment are known, or known not to exist.
    Returns:
        The same columns; `ts` is the start of the period, for days and longer 00:00 UTC of its first calendar day, in the
        time unit of `bars`. A sum is NaN if any of its numbers is NaN: without it the sum would be short, and nobody would know.
    Raises:
        NotFound: no such timeframe, or it cannot be made of these bars.
        SchemaError: a column is missing, `ts` is not as above, or the hours are missing or do not cover the bars.
    """
    base = base or base_of(timeframe)
    if timeframe == base:
        return bars
    if missing := [name for name in [*NUMBERS, "flags"] if name not in bars.columns]:
        raise SchemaError(f"aggregate to {timeframe}: the bars lack {missing}.")
    index = bars.index
    if not isinstance(index, pd.DatetimeIndex) or str(index.tz) != "UTC":
        raise SchemaError(
            f"aggregate to {timeframe}: the index is {index.dtype}, and `ts`, tz-aware in UTC, is expected."
        )
    if not (index.is_monotonic_increasing and index.is_unique):
        raise SchemaError(
            f"aggregate to {timeframe}: `ts` is not ascending and unique. Pass one instrument, sorted by ts."
        )
    series = Series(
        index.tz_localize(None).to_numpy("datetime64[us]"),
        {name: bars[name].to_numpy() for name in [*NUMBERS, "flags"]},
        np.array([0, len(bars)]),
    )
    until = None if complete_until is None else np.array([moment(complete_until)])
    made = aggregate_many(series, timeframe, base=base, hours=hours, complete_until=until)
    ts = pd.DatetimeIndex(made.ts).as_unit(index.unit).tz_localize("UTC")
    return pd.DataFrame(made.columns, index=ts.rename(index.name))


def aggregate_many(
    bars: Series,
    timeframe: str,
    *,
    base: str | None = None,
    hours: Hours | None = None,
    complete_until: Times | None = None,
) -> Series:
    """Turn the bars of many instruments into longer ones, as `aggregate` does for one.

    Args:
        bars: rows ascending and unique in (instrument, ts); columns `NUMBERS` and `flags`. This is not checked.
        complete_until: (instruments,) what is known of each, UTC; NaT: nothing beyond its bars.
    """
    base = base or base_of(timeframe)
    if timeframe == base:
        return bars
    length, shorter = length_of(timeframe), length_of(base)
    if (length is None) != (shorter is None) or (length and shorter and length % shorter):
        raise NotFound(f"timeframe {timeframe!r}: it cannot be made of bars of {base}, but of {base_of(timeframe)}.")
    if not len(bars.ts):
        return Series(bars.ts, {name: bars.columns[name] for name in [*NUMBERS, "flags"]}, bars.bounds)
    starts = bars.bounds[:-1][np.diff(bars.bounds) > 0]  # of the instruments that have bars
    owners = np.flatnonzero(np.diff(bars.bounds) > 0)
    known = np.full(len(owners), _NAT) if complete_until is None else complete_until[owners]
    newest_final = _newest_final(bars, starts)
    if length is None or shorter is None:
        _check_days(bars.ts, timeframe)
        ts, last_days = period_of(timeframe, bars.ts)
        first = _firsts(starts, ts)
        complete = _over(last_days[np.append(starts[1:], len(ts)) - 1], newest_final, known, hours)
        label = ts[first].astype("datetime64[us]")
    else:
        if hours is None:
            raise SchemaError(f"aggregate to {timeframe}: the market's hours are needed, and none were given.")
        buckets = _buckets(bars.ts, length, shorter, hours, timeframe)
        first = _firsts(starts, buckets.segment, buckets.ts)
        newest = np.append(starts[1:], len(bars.ts)) - 1
        told = np.fmax(newest_final + np.timedelta64(shorter), known)
        complete = told >= buckets.ends[newest]
        label = np.where(buckets.clashes[first], bars.ts[first], buckets.ts[first])
    return _reduced(bars, first, label, complete)


def moment(when: datetime) -> np.datetime64:
    """Return a tz-aware moment as numpy counts it: UTC, microseconds."""
    if when.tzinfo is None:
        raise SchemaError(f"{when.isoformat()}: a moment without a time zone. Give it one.")
    return np.datetime64(pd.Timestamp(when).tz_convert("UTC").tz_localize(None), "us")


def _naive(moments: pd.Series) -> Times:
    return pd.DatetimeIndex(pd.to_datetime(moments, utc=True)).tz_localize(None).to_numpy("datetime64[us]")


def _parsed(timeframe: str) -> tuple[int, str]:
    found = re.fullmatch(r"([1-9]\d{0,3})(m|h|d|w|mo|y)", timeframe)
    count, unit = (int(found[1]), found[2]) if found else (0, "")
    if not found or (unit == "d" and count > 1) or count * _MINUTES.get(unit, 0) >= 24 * 60:
        raise NotFound(
            f"timeframe {timeframe!r}: there is none of this name. Collected are {', '.join(COLLECTED)}; any number of m, h "
            "below a day, w, mo or y is made of them, as in 30m, 1h, 1w, 1mo, 3mo, 1y."
        )
    return count, unit


def _check_days(ts: Times, timeframe: str) -> None:
    if (ts != ts.astype("datetime64[D]")).any():
        raise SchemaError(f"aggregate to {timeframe}: `ts` is not 00:00 UTC of the trading date on every bar.")


class _Buckets(NamedTuple):
    """For each bar: which phase of which day it lies in, the start of its bucket, when that is over, and whether that start
    lies before the phase."""

    segment: NDArray[np.int64]
    ts: Times
    ends: Times
    clashes: NDArray[np.bool_]


def _buckets(ts: Times, length: timedelta, shorter: timedelta, hours: Hours, timeframe: str) -> _Buckets:
    """Put each bar into its bucket.

    A day has five segments: before the opening, regular, between, after-market, and after it. In a phase of trading buckets
    are counted from its start, and what begins at its very end (a closing auction) belongs to the last; elsewhere they are
    whole intervals of the clock, or begin with their first bar where the interval began in the segment before.
    """
    step, base = np.timedelta64(length).astype("timedelta64[us]"), np.timedelta64(shorter).astype("timedelta64[us]")
    days = pd.date_range(hours.first, hours.last, name="day")
    local = days.tz_localize(hours.zone, nonexistent="shift_forward", ambiguous=np.ones(len(days), bool))
    midnight = local.tz_convert("UTC").tz_localize(None).to_numpy("datetime64[us]")
    end = (pd.Timestamp(hours.last) + pd.Timedelta(days=1)).tz_localize(hours.zone).tz_convert("UTC")
    if ts.min() < midnight[0] or ts.max() >= end.tz_localize(None).to_datetime64():
        raise SchemaError(
            f"aggregate to {timeframe}: bars from {ts.min()} to {ts.max()} (UTC), and the hours given are those of "
            f"{hours.first} to {hours.last}. Give the hours of every day that has a bar."
        )
    sessions = hours.sessions.reindex(days)
    opens, closes, after_opens, after_closes = (
        _naive(sessions[name]) for name in ("opens", "closes", "after_opens", "after_closes")
    )
    late = np.timedelta64(hours.late_close).astype("timedelta64[us]")
    # Each phase takes the bars that begin at its very end, too; the regular one before the after-market.
    after_from = np.maximum(after_opens, closes + _US)
    regular_until = np.fmin(closes + late + _US, after_from)
    begins = np.stack([midnight, opens, regular_until, after_from, after_closes + _US], axis=1)
    begins = np.fmax.accumulate(begins, axis=1).ravel()  # a segment that a day lacks has no length
    nowhere = np.full(len(days), _NAT)
    anchors = np.stack([nowhere, opens, nowhere, after_opens, nowhere], axis=1).ravel()
    stops = np.stack([nowhere, closes, nowhere, after_closes, nowhere], axis=1).ravel()
    with np.errstate(invalid="ignore"):  # NaT, which stays one
        last = (
            anchors + (-((anchors - stops) // step) - 1) * step
        )  # the newest bucket that begins before the phase ends
    over = np.stack([nowhere, regular_until, nowhere, after_closes + _US, nowhere], axis=1).ravel() - _US + base

    segment = np.searchsorted(begins, ts, side="right") - 1
    anchor, in_phase = anchors[segment], ~np.isnat(anchors[segment])
    anchor = np.where(in_phase, anchor, np.repeat(midnight, 5)[segment])
    bucket = anchor + (ts - anchor) // step * step
    bucket = np.fmin(bucket, last[segment])
    ends = np.where(in_phase & (bucket == last[segment]), over[segment], bucket + step)
    return _Buckets(segment, bucket, ends, bucket < np.where(in_phase, anchor, begins[segment]))


def _firsts(starts: NDArray[np.int64], *keys: NDArray[Any]) -> NDArray[np.int64]:
    """Return the first row of each run of equal keys; `starts` are the first rows of the instruments."""
    begins = np.zeros(len(keys[0]), bool)
    begins[starts] = True
    for key in keys:
        begins[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(begins)


def _newest_final(bars: Series, starts: NDArray[np.int64]) -> Times:
    """Return the time of the newest final bar of each instrument, NaT where it has none."""
    final = (bars.columns["flags"] & Flag.PROVISIONAL.value) == 0
    return np.fmax.reduceat(np.where(final, bars.ts, _NAT), starts)


def _over(last_days: Times, newest_final: Times, known: Times, hours: Hours | None) -> NDArray[np.bool_]:
    """Say of each instrument's newest period, whose last calendar day is given, whether all its days are known."""
    # Wherever the market is: a date is over there when the next one is over in UTC.
    complete: NDArray[np.bool_] = known >= (last_days + 2 * _DAY)
    if hours is None or hours.sessions.empty:
        return complete
    sessions = hours.sessions
    days = pd.DatetimeIndex(sessions.index).to_numpy("datetime64[D]")
    ends = sessions["after_closes"].fillna(sessions["closes"])
    over = _naive(ends)
    # The newest day that is known, by a final bar of it or because it ended before what is known.
    asked = np.searchsorted(over, known, side="right") - 1
    by_asking = np.where((asked >= 0) & ~np.isnat(known), days[asked], _NAT)
    newest = np.fmax(newest_final, by_asking).astype("datetime64[D]")
    following = np.searchsorted(days, newest, side="right")
    none_left = (following == len(days)) | (days[np.minimum(following, len(days) - 1)] > last_days)
    covered = (last_days <= np.datetime64(hours.last, "D")) & (newest >= np.datetime64(hours.first, "D") - _DAY)
    complete |= none_left & covered
    return complete


def _reduced(bars: Series, first: NDArray[np.int64], ts: Times, complete: NDArray[np.bool_]) -> Series:
    """Reduce each run of bars to one; `complete`: whether the last run of each instrument that has bars is complete."""
    last = np.append(first[1:], len(bars.ts)) - 1
    columns = bars.columns
    flags = np.bitwise_or.reduceat(columns["flags"], first)
    bounds = np.searchsorted(first, bars.bounds).astype(np.int64)
    newest = bounds[1:][np.diff(bounds) > 0] - 1
    flags[newest[~complete]] |= Flag.PROVISIONAL.value
    return Series(
        ts,
        {
            "open": columns["open"][first],
            "high": np.maximum.reduceat(columns["high"], first),
            "low": np.minimum.reduceat(columns["low"], first),
            "close": columns["close"][last],
            "volume": np.add.reduceat(columns["volume"], first),
            "value": np.add.reduceat(columns["value"], first),
            "flags": flags,
        },
        bounds,
    )
