"""Raw and adjusted bars -> the factors of Korea's base-price chain, exact to the won. Pure.

On the day an event takes effect the exchange sets a base price (기준가); the vendor multiplies all older prices by

    base price / official close of the day before

rounds them to the won, and divides volumes by the same. So each pair of raw and adjusted numbers bounds the product of the
factors after its day to an interval, the days between two events bound it to the intersection of theirs, and within that a
whole base price is looked for. Whatever is found gives back every adjusted number it was learnt from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chartinsight_lib.domain import FACTOR, PRICES
from chartinsight_lib.errors import SchemaError
from chartinsight_lib.factors import SPLITS, STEPS_AT_MOST
from chartinsight_lib.normalise import EXACT, Floats, read_days, read_numbers, require

NUMBERS = (*PRICES, "volume")
TOLERANCES = ((0.5, 0.5), (1.0, np.inf), (1.5, np.inf))
"""By how many won and shares the vendor's rounding may miss: as it should be, else by a won, volumes then left out."""
TICKS = (1000, 500, 100, 50, 10, 5, 1)
MOST = 1e9
"""All events of an instrument together change its price by less."""
LAX, SHORT = 1.5, 2
"""A span of so few days is no event, if a rounding by so many won explains it."""
NOTHING_KNOWN: Mapping[date, float] = MappingProxyType({})
NEAR = 0.01  # relative distance at which a factor is called a split; the base price lies on a grid of ticks


def learn_chain(pairs: pd.DataFrame, known: Mapping[date, float] = NOTHING_KNOWN) -> pd.DataFrame:
    """Learn the corporate actions of one instrument from raw and adjusted bars of the same days.

    Args:
        pairs: (days) code, date, open, high, low, close, volume, and the same with `adj_`; won and shares, in any order;
            based_on, the day that the adjusted bars are relative to, the same in every row. Where it follows the newest day,
            an event may have taken effect on it, and is learnt too.
        known: {ex-date: factor} learnt before, perhaps from more days; one that fits these days as well is kept.
    Returns:
        the columns `domain.FACTOR`, ascending in ex_date (a `datetime.date`); volume_factor is 1 / price_factor; kind is
        `split` (a usual ratio of shares, either way) or `rights` (rights and bonus issues, mergers and the like).
    Raises:
        SchemaError: a column is missing, or the ratio steps too often for corporate actions.
    """
    require(pairs, ["code", "date", "based_on", *NUMBERS, *(f"adj_{name}" for name in NUMBERS)])
    kinds = {"code": "str", "price_factor": "float64", "volume_factor": "float64", "kind": "str"}
    nothing = pd.DataFrame(columns=FACTOR).astype(kinds)
    if pairs.empty:
        return nothing
    numbers = {name: read_numbers(pairs[name]) for name in pairs.columns if name not in {"code", "date", "based_on"}}
    days = read_days(pairs["date"])
    good = ~np.isnat(days)
    for name in PRICES:
        with np.errstate(invalid="ignore"):
            good &= (numbers[name] > 0) & (numbers[f"adj_{name}"] > 0)
    for values in numbers.values():
        good &= ~(values >= EXACT)  # an overflow; a volume may be missing
    order = np.flatnonzero(good)[np.argsort(days[good], kind="stable")]
    days, numbers = days[order], {name: values[order] for name, values in numbers.items()}
    if not len(days):
        return nothing
    code = str(pairs["code"].iloc[0])
    base = read_days(pairs["based_on"].iloc[:1])[0]
    if np.isnat(base) or base < days[-1]:
        raise SchemaError(f"factors {code}: its adjusted bars are relative to {base}, and the newest is of {days[-1]}.")
    days = np.append(days, base)
    told = {at: known[day] for at, day in enumerate(days.tolist()) if day in known}
    chain = list(_chain(code, _spans(code, numbers), numbers["close"], told))
    rows = [(code, days[at].item(), factor, 1 / factor, kind) for at, factor, kind in reversed(chain)]
    return pd.DataFrame(rows, columns=FACTOR).astype(kinds)


def differing(pairs: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which rows have an adjusted price that is not the raw one; an instrument without any has no event to learn."""
    differs = np.zeros(len(pairs), dtype=bool)
    for name in PRICES:
        differs |= np.asarray(pairs[name].to_numpy() != pairs[f"adj_{name}"].to_numpy(), dtype=bool)
    return differs


@dataclass(slots=True)
class _Span:
    """Days from position `start` on whose product of factors is one number between low and high."""

    start: int
    low: float
    high: float
    days: int = 1


def _spans(code: str, numbers: dict[str, Floats]) -> list[_Span]:
    """Divide the days, ascending, into spans of one product; a day or two whose numbers are off by a won make none."""
    most = 2 + STEPS_AT_MOST * len(numbers["close"])  # two may fall into a short history
    lax = _bounds(numbers, LAX, np.inf)
    for won, shares in TOLERANCES:
        spans, odd_days = _joined(_divide(*_bounds(numbers, won, shares)), *lax)
        if len(spans) - 1 + odd_days <= most:
            return spans
    raise SchemaError(
        f"factors {code}: adjusted and raw prices part {len(spans) - 1} times in {len(numbers['close'])} days, and corporate "
        f"actions do so on {STEPS_AT_MOST:.0%} of days at most. One of the two series is damaged; collect it again."
    )


def _bounds(numbers: dict[str, Floats], won: float, shares: float) -> tuple[Floats, Floats]:
    """Return between which numbers the product of each day lies."""
    low, high = np.zeros(len(numbers["close"])), np.full(len(numbers["close"]), np.inf)
    for name in PRICES:
        raw, adjusted = numbers[name], numbers[f"adj_{name}"]
        low, high = np.maximum(low, (adjusted - won) / raw), np.minimum(high, (adjusted + won) / raw)
    if np.isfinite(shares):
        raw, adjusted = numbers["volume"], numbers["adj_volume"]
        with np.errstate(divide="ignore", invalid="ignore"):
            told = (raw > 0) & (adjusted > shares)
            low = np.where(told, np.maximum(low, raw / (adjusted + shares)), low)
            high = np.where(told, np.minimum(high, raw / (adjusted - shares)), high)
    slack = 1e-12  # of the arithmetic
    return low * (1 - slack), high * (1 + slack)


def _divide(low: Floats, high: Floats) -> list[_Span]:
    spans: list[_Span] = []
    for at, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        here = spans[-1] if spans else None
        if here and max(here.low, least) <= min(here.high, most):
            here.low, here.high, here.days = max(here.low, least), min(here.high, most), here.days + 1
        else:
            spans.append(_Span(at, least, most))
    return spans


def _joined(spans: list[_Span], low: Floats, high: Floats) -> tuple[list[_Span], int]:
    """Leave out spans of a day or two that a rounding of a won or so explains: their days belong to the span beside them.

    `low`, `high`: between which numbers each day's product lies if the vendor rounds laxly. Returns the spans that are left,
    and how many days were explained away.
    """

    def explains(span: _Span, odd: _Span) -> bool:
        days = slice(odd.start, odd.start + odd.days)
        return odd.days <= SHORT and bool(max(span.low, low[days].max()) <= min(span.high, high[days].min()))

    kept: list[_Span] = []
    odd_days = 0
    for span in spans:
        before = kept[-1] if kept else None
        if before and max(before.low, span.low) <= min(before.high, span.high):  # what lay between them is gone
            before.low, before.high = max(before.low, span.low), min(before.high, span.high)
            before.days += span.days
        elif before and explains(before, span):
            before.days += span.days
            odd_days += span.days
        else:
            kept.append(span)
    if len(kept) > 1 and explains(kept[1], kept[0]):
        kept[1].start, odd_days = 0, odd_days + kept[0].days
        del kept[0]
    return kept, odd_days


def _chain(
    code: str, spans: list[_Span], close: Floats, known: Mapping[int, float]
) -> Iterator[tuple[int, float, str]]:
    """Yield (position of the ex-day, factor, kind), newest first; the position after the last day is that of `based_on`."""
    if not spans[-1].low <= 1 <= spans[-1].high:
        spans = [*spans, _Span(len(close), 1.0, 1.0)]
    product = 1.0
    for older, newer in zip(reversed(spans[:-1]), reversed(spans[1:]), strict=True):
        before = float(close[newer.start - 1])
        low, high = older.low / product * before, older.high / product * before
        base = _roundest(low, high)
        factor = ((low + high) / 2 if base is None else base) / before
        if newer.start in known and low <= known[newer.start] * before <= high:
            factor = known[newer.start]
        yield newer.start, factor, _kind(factor)
        product *= factor
        if not 1 / MOST < product < MOST:
            raise SchemaError(
                f"factors {code}: adjusted and raw prices are {product:.3g} to one, and no corporate actions make that. One of "
                "the two series is damaged; collect it again."
            )


def _roundest(low: float, high: float) -> float | None:
    """Return the whole number between low and high that lies on the widest grid of ticks; None: there is none."""
    for tick in TICKS:
        first = max(np.ceil(low / tick - 1e-9), 1.0) * tick  # nothing costs nothing
        if first <= high * (1 + 1e-12):
            last = np.floor(high / tick + 1e-9) * tick
            middle = round((low + high) / 2 / tick) * tick
            return float(min(max(middle, first), last))
    return None


def _kind(factor: float) -> str:
    ratios = (one / other for new, old in SPLITS for one, other in ((new, old), (old, new)))
    return "split" if any(abs(factor * ratio - 1) <= NEAR for ratio in ratios) else "rights"
