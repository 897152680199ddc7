"""The shared nouns: markets, timeframes, the columns and flags of a candle. Imports nothing of the project.

Time: a daily or longer bar is stamped 00:00 UTC of the date that names it (trading date; ISO Monday of a week; first day
of a month); an intraday bar is stamped with its start. Everything is tz-aware UTC; people see the market's zone.
"""

from dataclasses import dataclass
from enum import IntFlag
from zoneinfo import ZoneInfo

PRICES = ["open", "high", "low", "close"]
NUMBERS = [*PRICES, "volume", "value"]
"""The numbers of a candle, in this order: prices in the market's currency, volume in shares, value in the currency."""

CANDLE = ["code", "ts", *NUMBERS, "flags"]
"""Columns of a candle frame that holds several instruments: one market, one timeframe, unique in (code, ts)."""

INSTRUMENT = ["market", "code", "name", "kind", "sector", "listed_on", "delisted_on", "currency"]
"""Columns of an instrument frame; `sector`, `listed_on` and `delisted_on` may be missing values."""

ATTRIBUTES = ["board", "section", "shares", "states", "nxt_enabled"]
"""Columns that an instrument frame may have besides, each with missing values where the source does not know: the board (KOSPI,
KOSDAQ, KONEX), its section, the number of listed shares, the list of states (`states.STATES`; [] is none), trade on NXT."""

KINDS = ("stock", "etf", "etn", "reit", "fund", "other")
"""What an instrument is."""

FACTOR = ["code", "ex_date", "price_factor", "volume_factor", "kind"]
"""Columns of a factor frame: bars before `ex_date` are multiplied by the factors to compare with bars from it on."""

GAP = ["code", "ts", "kind"]
"""Columns of a gap frame: an expected bar that does not exist, and why (`halted`, `no-trade`, `missing`, `late`)."""

COLLECTED = ("1m", "5m", "1d")
"""Timeframes that are stored as they came; any other is made of them on read, see `timeframes`."""


class Flag(IntFlag):
    """What is special about a stored candle; 0 is a plain final bar."""

    PROVISIONAL = 1
    """May still change: the bar is forming, or its source cannot prove that it is finished."""
    AFTER_MARKET = 2
    """The close includes the after-market."""
    WIDENED = 4
    """The source's high or low left out its own open or close by a rounding error; the range was widened to hold them."""
    OFFICIAL_CLOSE = 8
    """The close is the official one of the regular session, although the bar's other numbers include the after-market."""


AS_TRADED = "[raw]"
"""How the names of files end that hold prices as they were traded: whichever file they are in, these are on one basis."""

KST = ZoneInfo("Asia/Seoul")


@dataclass(frozen=True, slots=True)
class Market:
    """A place of trade: `unit` is the smallest step in which its prices are quoted, in `currency`."""

    code: str
    zone: ZoneInfo
    currency: str
    unit: float

    @property
    def korean(self) -> bool:
        """Whether Korea's habits hold: codes of six characters, red for rising."""
        return self.currency == "KRW"


MARKETS = {
    market.code: market
    for market in (
        Market("KRX", KST, "KRW", 1.0),
        # What the simulator invents or replays lies beside the real market and is never mixed with it.
        Market("SIM", KST, "KRW", 1.0),
        Market("US", ZoneInfo("America/New_York"), "USD", 0.01),
    )
}
