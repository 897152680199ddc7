"""Trading days and hours of a market: which days it trades, from when until when, and how many days old something is.

What the package exchange_calendars publishes lies here as a table (`published.csv`, see `published.py`: computing it takes a
second and more in each process), and over it our own corrections (`xkrx.csv`), each with its source. A day is a date of the
market's zone. A calendar answers from `first` to `horizon`, both fixed by what is known and not by today's date; any other
day is a BeyondHorizon.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from chartinsight_lib.calendars.tables import RULES, Phases, phases
from chartinsight_lib.domain import MARKETS
from chartinsight_lib.errors import BeyondHorizon, NotFound

__all__ = ["Calendar", "Session", "calendar", "disagreements", "horizon_warning"]

TRADED, NO_BAR = "traded on a closed day", "no bar on an open day"

_OF_MARKET = {"KRX": "XKRX", "SIM": "XKRX", "US": "XNYS"}
_OF_VENUE = {("KRX", "NXT"): "NXT", ("SIM", "NXT"): "NXT"}
_NOTICE = timedelta(days=180)


@dataclass(frozen=True, slots=True)
class Session:
    """The hours of one trading day; all datetimes tz-aware in the market's zone.

    `opens` and `closes` are those of the regular session, closing auction included; a lunch break, which KRX had until
    2000-05-19, is not told of. A phase that a venue does not have is None.
    """

    day: date
    opens: datetime
    closes: datetime
    before_opens: datetime | None = None
    before_closes: datetime | None = None
    after_opens: datetime | None = None
    after_closes: datetime | None = None

    @property
    def begins(self) -> datetime:
        """The first moment at which this day can have a bar."""
        return self.before_opens or self.opens

    @property
    def ends(self) -> datetime:
        """The last moment at which a price of this day can change."""
        return self.after_closes or self.closes


class Calendar:
    """The trading days of a market from `first` to `horizon`. Every method raises BeyondHorizon outside them."""

    def __init__(self, market: str, zone: ZoneInfo, first: date, horizon: date, table: Phases) -> None:
        self.market, self.zone, self.first, self.horizon = market, zone, first, horizon
        self._days, self._phases = table.days, table
        self._begins = np.where(np.isnat(table.before_opens), table.opens, table.before_opens)
        self._ends = np.where(np.isnat(table.after_closes), table.closes, table.after_closes)

    def is_trading_day(self, day: date) -> bool:
        """Whether there is trading on a day."""
        at = int(np.searchsorted(self._days, self._known(day)))
        return at < len(self._days) and bool(self._days[at] == np.datetime64(day, "D"))

    def days(self, first: date, last: date) -> NDArray[np.datetime64]:
        """Return the trading days from `first` to `last`, both included, ascending: datetime64[D]."""
        return self._days[self._between(first, last)]

    def session(self, day: date) -> Session:
        """Return the hours of a trading day.

        Raises:
            NotFound: there is no trading on that day.
        """
        at = int(np.searchsorted(self._days, self._known(day)))
        if at == len(self._days) or self._days[at] != np.datetime64(day, "D"):
            near = " and ".join(str(found) for found in self._days[max(at - 1, 0) : at + 1])
            raise NotFound(f"{self.market} {day}: there is no trading on that day. The trading days about it: {near}.")
        _, *moments = (pd.Timestamp(column[at]) for column in self._phases)
        opens, closes, *others = (moment.tz_localize("UTC").tz_convert(self.zone) for moment in moments)
        shown = (None if pd.isna(moment) else moment.to_pydatetime() for moment in others)
        return Session(day, opens.to_pydatetime(), closes.to_pydatetime(), *shown)

    def sessions(self, first: date, last: date) -> pd.DataFrame:
        """Return the hours of the trading days from `first` to `last`, both included.

        Returns: index `day` (datetime64[s], naive); columns opens, closes, after_opens, after_closes: datetime64[us, UTC],
            NaT where there is no such phase.
        """
        rows = self._between(first, last)
        index = pd.DatetimeIndex(self._days[rows].astype("datetime64[s]"), name="day")
        columns = ("opens", "closes", "after_opens", "after_closes")
        hours = {name: pd.DatetimeIndex(getattr(self._phases, name)[rows]).tz_localize("UTC") for name in columns}
        return pd.DataFrame(hours, index=index)

    def last_ended(self, now: datetime) -> date:
        """Return the newest trading day that has ended by `now`, which is tz-aware."""
        ended = self._count(self._ends, now)
        if ended == 0:
            raise BeyondHorizon(f"calendar of {self.market}: no day that is known had ended by {now.isoformat()}.")
        found: date = self._days[ended - 1].item()
        return found

    def days_between(self, day: date, now: datetime) -> int:
        """Count the trading days after `day` that have *ended* by `now`; 0: nothing newer can be complete."""
        return max(self._count(self._ends, now) - self._after(day), 0)

    def days_begun(self, day: date, now: datetime) -> int:
        """Count the trading days after `day` that have *begun* by `now`: so many trading days old is what ends with `day`."""
        return max(self._count(self._begins, now) - self._after(day), 0)

    def is_open(self, now: datetime) -> bool:
        """Whether some phase of trading is under way: from an opening, which is included, to its close, which is not."""
        moment, table = self._moment(now), self._phases
        at = int(np.searchsorted(self._days, np.datetime64(now.astimezone(self.zone).date(), "D")))
        phases = (
            (table.before_opens, table.before_closes),
            (table.opens, table.closes),
            (table.after_opens, table.after_closes),
        )
        return at < len(self._days) and any(bool(opens[at] <= moment < closes[at]) for opens, closes in phases)

    def _known(self, day: date) -> np.datetime64:
        if not self.first <= day <= self.horizon:
            raise BeyondHorizon(
                f"calendar of {self.market}: {day} is not known, only {self.first} to {self.horizon}. Ask for a day in that "
                "range; if time has gone past it, update ChartInsight Studio, or add the days to chartinsight_lib/calendars."
            )
        return np.datetime64(day, "D")

    def _between(self, first: date, last: date) -> slice:
        low, high = self._known(first), self._known(last)
        return slice(int(np.searchsorted(self._days, low)), int(np.searchsorted(self._days, high, side="right")))

    def _after(self, day: date) -> int:
        return int(np.searchsorted(self._days, self._known(day), side="right"))

    def _moment(self, now: datetime) -> np.datetime64:
        self._known(now.astimezone(self.zone).date())
        return pd.Timestamp(now).tz_convert("UTC").tz_localize(None).to_datetime64()

    def _count(self, moments: NDArray[np.datetime64], now: datetime) -> int:
        return int(np.searchsorted(moments, self._moment(now), side="right"))


@cache
def calendar(market: str, venue: str = "") -> Calendar:
    """Return the calendar of a market, or of another venue at which its instruments trade; built once.

    Args:
        market: "KRX"; "SIM", which keeps the hours of KRX; or "US", the New York Stock Exchange.
        venue: "" for the exchange itself; "NXT" (KRX and SIM only) for Nextrade, which trades on KRX's days.
    Raises:
        NotFound: no calendar is known for it.
    """
    name = _OF_VENUE.get((market, venue)) if venue else _OF_MARKET.get(market)
    if name is None:
        known = ", ".join([*_OF_MARKET, *(" at ".join(pair) for pair in _OF_VENUE)])
        asked = f"{market} at {venue}" if venue else market
        raise NotFound(f"calendar: none is known of {asked!r}. Known are {known}.")
    rules = RULES[name]
    zone = MARKETS[market].zone
    return Calendar(market, zone, rules.first, rules.horizon, phases(name, zone))


def disagreements(known: Calendar, received: ArrayLike) -> pd.DataFrame:
    """Compare a calendar with the days of which bars were received, from the first to the last of them.

    Args:
        received: days on which the *market* has bars with trades (datetime64 or dates, in any order); days that the calendar
            does not know are left out.
    Returns: day (datetime64[s]), kind: TRADED ("traded on a closed day") or NO_BAR ("no bar on an open day"); by day.
    """
    days = np.unique(np.asarray(received, dtype="datetime64[D]"))
    days = days[(days >= np.datetime64(known.first)) & (days <= np.datetime64(known.horizon))]
    expected = known.days(days[0].item(), days[-1].item()) if len(days) else days
    traded, missing = np.setdiff1d(days, expected), np.setdiff1d(expected, days)
    found = pd.DataFrame(
        {
            "day": np.concatenate([traded, missing]).astype("datetime64[s]"),
            "kind": pd.Series([TRADED] * len(traded) + [NO_BAR] * len(missing), dtype="str"),
        }
    )
    return found.sort_values("day", ignore_index=True)


def horizon_warning(market: str, now: datetime) -> str | None:
    """Say that a calendar is about to end or has ended; None while it reaches half a year on and more."""
    known = calendar(market)
    today = now.astimezone(known.zone).date()
    if known.first <= today <= known.horizon - _NOTICE:
        return None
    return (
        f"The calendar of {market} is known from {known.first} to {known.horizon}; it is {today}. "
        "Update ChartInsight Studio: without it nothing can be said of later days."
    )
