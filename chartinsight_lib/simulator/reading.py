"""What every TR's reading shares: the question as it arrives, the instrument it names, the date it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np

from chartinsight_lib.simulator.model import Listing
from chartinsight_lib.simulator.paging import PAGE_SIZES, Place
from chartinsight_lib.simulator.wire import Refusal, Reply
from chartinsight_lib.simulator.world import Symbol, World


@dataclass(frozen=True)
class Query:
    """One request whose headers and fields are in order."""

    api_id: str
    body: Mapping[str, str]
    now: datetime
    place: Place

    def page_size(self, world: World) -> int:
        """Return how many rows a page has."""
        return world.options.page_sizes.get(self.api_id, PAGE_SIZES.get(self.api_id, 1_000_000))

    def date(self, name: str, *, missing: str = "00000000") -> date:
        """Return the date of a field: none or 00000000 is today, and a later one too. Raises Refusal."""
        text, today = self.body.get(name) or missing, self.now.date()
        if text == "00000000":
            return today
        try:
            # A date as text has no zone, and needs none.
            return min(datetime.strptime(text, "%Y%m%d").date(), today)  # noqa: DTZ007
        except ValueError:
            raise Refusal(1517, f"파라미터={name}") from None


@dataclass(frozen=True)
class Instrument:
    """An instrument that has something to show."""

    symbol: Symbol
    listing: Listing


def split_symbol(text: str) -> Symbol:
    """Return a code and the suffix of its exchange."""
    code, _, suffix = text.partition("_")
    return Symbol(code, suffix)


def instrument(world: World, query: Query, empty: Reply) -> Instrument | Reply:
    """Return the instrument that `stk_cd` names, or the answer that says there is none.

    Raises:
        Refusal: 1902 for a code that is not known (yet, or any more if so told), 1903 for one that is not on its exchange.
    """
    text = query.body["stk_cd"]
    symbol, options = split_symbol(text), world.options
    listing = world.listings.get(symbol.code)
    if listing is None or listing.listed_on > query.now.date():
        raise Refusal(1902, f"종목코드={text}")
    if not listing.listed(query.now.date()):
        if options.gone == "1902":
            raise Refusal(1902, f"종목코드={text}")
        return empty if options.gone == "zero" else empty.blank()
    if symbol.suffix and not options.serves_suffixes:
        if options.mock_suffix == "1903":
            raise Refusal(1903, f"종목코드={text}")
        return empty.blank()
    if symbol.suffix == "NX" and not listing.nxt:
        raise Refusal(1903, f"종목코드={text}")
    # What NXT does not trade has one exchange, and both together are that one.
    return Instrument(symbol if listing.nxt else Symbol(symbol.code), listing)


def shown_until(world: World, until: date, now: datetime) -> date:
    """Return `until`, or an earlier day where the profile lacks the newest ones."""
    if world.options.profile == "real" or not world.options.mock_lag or (newest := world.newest_day(now)) is None:
        return until
    days = world.market.days
    at = int(np.searchsorted(days, np.datetime64(newest))) - world.options.mock_lag
    lagging: date = days[max(at, 0)].astype("datetime64[D]").astype(object)
    return min(until, lagging)
