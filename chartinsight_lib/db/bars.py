"""Bars as people read them: of any timeframe, as known on a day, corporate actions undone; one instrument's or a market's."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection

from chartinsight_lib.calendars import calendar
from chartinsight_lib.db.copy import EPOCH, copy_out
from chartinsight_lib.db.held import Basis, Held, read_market, read_one, select, undo
from chartinsight_lib.db.panel_cache import held_market
from chartinsight_lib.db.query import instrument
from chartinsight_lib.db.rows import driver_cursor
from chartinsight_lib.domain import MARKETS, Flag
from chartinsight_lib.errors import NotFound
from chartinsight_lib.timeframes import Hours, aggregate_many, base_of, length_of, moment, period_of

_LATE_AUCTION = timedelta(minutes=10)
"""How long KRX's closing auction can be extended: the regular close is the last bar that begins at or before 15:40."""
_FOREVER = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Panel:
    """The bars of many instruments in one set of columns, sorted by instrument and time.

    Instrument `ids[k]` owns the rows `bounds[k] : bounds[k + 1]` of every column.
    """

    ids: NDArray[np.int64]
    bounds: NDArray[np.int64]
    ts: pd.DatetimeIndex
    columns: dict[str, NDArray[Any]]

    def rows(self, k: int) -> slice:
        """The rows of instrument number `k`."""
        return slice(int(self.bounds[k]), int(self.bounds[k + 1]))


def candles(
    conn: Connection,
    instrument_id: int,
    timeframe: str = "1d",
    *,
    as_of: date | datetime | None = None,
    known_at: datetime | None = None,
    basis: Basis = "price",
) -> pd.DataFrame:
    """Return one instrument's bars in any timeframe that is stored or can be derived; see `timeframes`.

    Args:
        as_of: the last trading date to know of, bars and corporate actions; or a moment, tz-aware, at which a bar must have
            ended. None: everything held.
        known_at: read bars that were replaced later as they stood at this moment, tz-aware. When a bar came first is not
            recorded, so that bars which were loaded late are among them.
        basis: what is undone: see `Basis`. Bars before an action of which nobody can tell by how much it moved the price are
            left out, except of "raw".
    Returns:
        index `ts` (UTC, ascending, unique); open, high, low, close in the currency; volume in shares; value in the
        currency, NaN where the source gives none; flags (domain.Flag). Empty when nothing is held.
    Raises:
        NotFound: the timeframe or the instrument is unknown (an unknown instrument may also give an empty frame).
        BeyondHorizon: the calendar does not know a day that matters.
        SchemaError: a moment has no time zone.
        ConfigError: no such basis.
    """
    base = base_of(timeframe)
    daily = base == "1d" and timeframe == base and not isinstance(as_of, datetime)
    market = "" if daily else instrument(conn, instrument_id).market
    seen = _seen(market, base, as_of)
    held = read_one(conn, instrument_id, base, until=seen.until, known_at=_aware(known_at))
    held = undo(held, basis, day=seen.day, zone=seen.zone)
    if timeframe != base:
        held = _derived(conn, held, market, timeframe, base, seen)
    ts = pd.DatetimeIndex(held.bars.ts, name="ts").tz_localize("UTC")
    return pd.DataFrame(held.bars.columns, index=ts, copy=False)


def panel(
    conn: Connection,
    market: str,
    *,
    timeframe: str = "1d",
    as_of: date | datetime | None = None,
    since: date | None = None,
    final_only: bool = True,
    known_at: datetime | None = None,
    basis: Basis = "price",
    cache: Path | None = None,
) -> Panel:
    """Return the bars of all instruments of a market that have any; arguments and errors are those of `candles`.

    Args:
        since: the first trading date to read; longer bars begin with the period in which it lies.
        final_only: leave out bars that may still change.
        cache: a directory for copies of whole markets, made and kept by the program; None: read from the database. A copy is
            used only while the database says that nothing has changed since. With `known_at` the database is read.
    """
    base = base_of(timeframe)
    seen = _seen(market, base, as_of)
    if cache is None or known_at is not None:
        held = read_market(conn, market, base, until=seen.until, known_at=_aware(known_at))
    else:
        held = held_market(conn, market, base, cache)
    keep = np.ones(len(held.bars.ts), bool)
    if as_of is not None:
        keep &= held.bars.ts < moment(seen.until)
    if since is not None:
        keep &= held.bars.ts >= _first_moment(since, timeframe, seen)
    if final_only and timeframe == base:
        keep &= (held.bars.columns["flags"] & Flag.PROVISIONAL.value) == 0
    if not keep.all():
        held = select(held, keep)
    held = undo(held, basis, day=seen.day, zone=seen.zone)
    if timeframe != base:
        held = _derived(conn, held, market, timeframe, base, seen)
        if final_only:
            held = select(held, (held.bars.columns["flags"] & Flag.PROVISIONAL.value) == 0)
    has_bars = np.diff(held.bars.bounds) > 0
    bounds = np.append(held.bars.bounds[:-1][has_bars], held.bars.bounds[-1])
    return Panel(held.ids[has_bars], bounds, pd.DatetimeIndex(held.bars.ts).tz_localize("UTC"), held.bars.columns)


class _Seen(NamedTuple):
    """What a read may know: bars that begin before `until`; actions up to `day`; nothing after the moment `end`.

    `zone` is the market's for intraday bars, None for daily ones.
    """

    until: datetime
    day: date | None
    end: datetime
    zone: tzinfo | None


def _seen(market: str, base: str, as_of: date | datetime | None) -> _Seen:
    length = length_of(base)
    zone = _zone(market) if length else None
    if isinstance(as_of, datetime):
        _aware(as_of)
        day = as_of.astimezone(_zone(market)).date()
        if length:
            return _Seen(as_of - length + timedelta(microseconds=1), day, as_of, zone)
        return _Seen(_after(calendar(market).last_ended(as_of), UTC), day, as_of, zone)
    if as_of is None or as_of.year == date.max.year:
        return _Seen(_FOREVER, None, _FOREVER, zone)
    return _Seen(_after(as_of, zone or UTC), as_of, _after(as_of, _zone(market) if market else UTC), zone)


def _after(day: date, zone: tzinfo) -> datetime:
    """The first moment after a date."""
    return datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(days=1)


def _zone(market: str) -> ZoneInfo:
    if market not in MARKETS:
        raise NotFound(f"market {market!r}: there is none of this name. Known are {', '.join(MARKETS)}.")
    return MARKETS[market].zone


def _aware(when: datetime | None) -> datetime | None:
    if when is not None:
        moment(when)  # raises
    return when


def _first_moment(since: date, timeframe: str, seen: _Seen) -> np.datetime64:
    """Return the first moment of the period in which a date lies."""
    if length_of(timeframe) is not None:
        return moment(datetime(since.year, since.month, since.day, tzinfo=seen.zone))
    days = np.array([since], "datetime64[D]")
    return days[0] if timeframe == "1d" else period_of(timeframe, days)[0][0]  # type: ignore[no-any-return]


def _derived(conn: Connection, held: Held, market: str, timeframe: str, base: str, seen: _Seen) -> Held:
    """Make longer bars of what was read, and say of the newest of each instrument whether it is complete."""
    bars = held.bars
    has_bars = np.diff(bars.bounds) > 0
    if not has_bars.any():
        return held
    newest = bars.ts[bars.bounds[1:][has_bars] - 1]
    known = np.full(len(held.ids), np.datetime64("NaT", "us"))
    known[has_bars] = _known_until(conn, held.ids[has_bars], newest, base, seen.end)
    hours = _hours(market, timeframe, bars.ts.min(), newest)
    return held._replace(bars=aggregate_many(bars, timeframe, base=base, hours=hours, complete_until=known))


def _hours(market: str, timeframe: str, first_bar: np.datetime64, newest: NDArray[np.datetime64]) -> Hours | None:
    """Return the hours that matter: of every bar for minutes and hours, else from the newest bars to the end of their period."""
    known = calendar(market)
    late = _LATE_AUCTION if MARKETS[market].korean else timedelta(0)
    if length_of(timeframe) is not None:
        ends = (pd.Timestamp(one).tz_localize("UTC").tz_convert(known.zone).date() for one in (first_bar, newest.max()))
        first, last = ends
    else:
        # Days that no calendar knows are not waited for, nor taken for known: such a bar stays provisional.
        first = max(newest.min().astype("datetime64[D]").item(), known.first)
        last = min(period_of(timeframe, newest)[1].max().item(), known.horizon)
        if first > last:
            return None
    return Hours(known.sessions(first, last), known.zone, first, last, late)


def _known_until(
    conn: Connection, ids: NDArray[np.int64], newest: NDArray[np.datetime64], timeframe: str, end: datetime
) -> NDArray[np.datetime64]:
    """Return up to which moment all bars of each instrument are known, or known not to exist; NaT where nothing tells.

    A source that was asked up to a moment, or a bar that is held, tells of the time before; a hole after the newest bar that
    was read, of which nobody has said why, ends what is known.
    """
    known = copy_out(
        driver_cursor(conn),
        """
        SELECT LEAST(GREATEST(COALESCE(c.asked_until, '-infinity'), b.ts), COALESCE(g.ts, 'infinity'), %(end)s) AS known
        FROM   unnest(%(ids)s::int[], %(newest)s::bigint[]) WITH ORDINALITY AS n (id, us, place)
        LEFT   JOIN LATERAL (SELECT max(asked_until) AS asked_until FROM ops.cursors
                             WHERE instrument_id = n.id AND timeframe = %(timeframe)s) AS c ON true
        LEFT   JOIN LATERAL (SELECT max(ts) AS ts FROM live.candles
                             WHERE instrument_id = n.id AND timeframe = %(timeframe)s) AS b ON true
        LEFT   JOIN LATERAL (SELECT min(ts) AS ts FROM ops.gaps
                             WHERE instrument_id = n.id AND timeframe = %(timeframe)s AND state IN ('open', 'repairing')
                             AND ts > 'epoch'::timestamptz + n.us * interval '1 microsecond') AS g ON true
        ORDER  BY n.place
        """,
        {"ids": ids.tolist(), "newest": newest.astype(np.int64).tolist(), "timeframe": timeframe, "end": end},
        {"known": "timestamptz"},
    )["known"]
    return EPOCH + known.astype("timedelta64[us]")
