"""Statements -> figures by the day they were known, and growth that minds its signs. Pure: no network, database, file or clock.

What is not known is None and stays None: a missing comparable gives no growth, and never one of nought. Figures are compared
on one basis, consolidated or separate, in one currency, per share as shares are counted at the end of the later period.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from chartinsight_lib.normalise_dart import Amount, Statement

QUARTER, ANNUAL = "quarter", "annual"

GROWTH, DECLINE, TURNAROUND, WIDER_LOSS, SMALLER_LOSS, LOSS_FROM_PROFIT, UNKNOWN = (
    "growth", "decline", "turnaround", "wider loss", "smaller loss", "loss from profit", "unknown",
)  # fmt: skip
"""What became of earnings; only growth and decline have a percentage, because only they begin with a profit."""

JUMP = 1.8
"""So many times more or fewer shares than before, known splits undone, are no ordinary change: a split nobody told of, a
merger, or an issue that makes another company of it. Earnings per share are then not compared."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What one period came to, as it was known from `known_from` on, until a later figure of the same period.

    kind: quarter (three months) or annual. revenue, operating_income, owner_income: of the period, in `currency`; with
    `_to_date`: since the fiscal year began. owner_equity, shares: at `period_end`; shares are not split-adjusted.
    eps: owner_income / shares. `minus_rcept_no`: of a fourth quarter, the nine-month report that was subtracted.
    """

    kind: str
    period_end: date
    fs_div: str
    known_from: date
    rcept_no: str
    minus_rcept_no: str = ""
    currency: str = "KRW"
    revenue: float | None = None
    operating_income: float | None = None
    owner_income: float | None = None
    revenue_to_date: float | None = None
    operating_income_to_date: float | None = None
    owner_income_to_date: float | None = None
    owner_equity: float | None = None
    shares: float | None = None
    eps: float | None = None
    notes: str = ""

    @property
    def version(self) -> tuple[date, str, str]:
        """What a later figure of the same period is greater in."""
        return self.known_from, self.rcept_no, self.minus_rcept_no


class ShareFactor(NamedTuple):
    """From `ex_date` on there are `factor` shares where there was one: a split, or the part of an issue that was a gift."""

    ex_date: date
    factor: float


class Growth(NamedTuple):
    """What became of a number since a year before: one of the kinds above, and percent where it began above nought."""

    kind: str
    pct: float | None = None

    def __str__(self) -> str:
        return self.kind if self.pct is None else f"{self.pct:+.1f} %"


Key = tuple[str, int, str]
"""Kind, month (`month_number`) and basis of a figure."""


def growth(now: float | None, before: float | None) -> Growth:
    """Say what became of a number, by the signs at both ends.

    before > 0: growth or decline, 100 * (now / before - 1); to less than nought it is a loss from profit.
    before < 0: turnaround, wider loss, or smaller loss (also one that stayed as it was, or ended at nought).
    before = 0: turnaround or loss from profit; from nought to nought is unknown.
    """
    now, before = _finite(now), _finite(before)
    if now is None or before is None or now == before == 0:
        return Growth(UNKNOWN)
    if before > 0 and now >= 0:
        pct = 100 * (now / before - 1)
        return Growth(GROWTH if now >= before else DECLINE, pct if math.isfinite(pct) else None)
    if before >= 0:
        return Growth(TURNAROUND if now > 0 else LOSS_FROM_PROFIT)
    if now > 0:
        return Growth(TURNAROUND)
    return Growth(WIDER_LOSS if now < before else SMALLER_LOSS)


def cagr(first: float | None, last: float | None, years: int) -> float | None:
    """Return the constant yearly growth, percent, that leads from `first` to `last`; None unless both are above nought."""
    first, last = _finite(first), _finite(last)
    if first is None or last is None or first <= 0 or last <= 0 or years < 1:
        return None
    try:
        return _finite(100 * ((last / first) ** (1 / years) - 1))
    except OverflowError:
        return None


def month_number(day: date) -> int:
    """Return a month as a number that grows by one from month to month."""
    return day.year * 12 + day.month - 1


def figures(statements: Iterable[Statement]) -> list[Figure]:
    """Return what statements tell, and the fourth quarters that follow from them, ordered by kind, period and version.

    A fourth quarter is the year less its first nine months, both on one basis and in one currency, and is known when both
    are; a correction of either makes a new one. Adding a statement never changes a figure known before it.
    """
    found: list[Figure] = []
    years: defaultdict[tuple[str, str, int], list[Statement]] = defaultdict(list)
    for one in statements:
        found.append(_as_told(one))
        if one.quarter in {3, 4}:
            ends = month_number(one.period_end) + (3 if one.quarter == 3 else 0)
            years[one.fs_div, one.currency, ends].append(one)
    for versions in years.values():
        year, nine = None, None
        for one in sorted(versions, key=lambda one: (one.known_from, one.rcept_no)):
            year, nine = (one, nine) if one.quarter == 4 else (year, one)
            if year and nine:
                found.append(_fourth_quarter(year, nine, max(year.known_from, nine.known_from)))
    return sorted(set(found), key=lambda one: (one.kind, one.period_end, one.fs_div, one.version))


def known(all_figures: Iterable[Figure], as_of: date) -> dict[Key, Figure]:
    """Return the newest figure of each kind, period and basis among those received by the end of `as_of`."""
    found: dict[Key, Figure] = {}
    for one in all_figures:
        key = (one.kind, month_number(one.period_end), one.fs_div)
        if one.known_from <= as_of and (key not in found or one.version > found[key].version):
            found[key] = one
    return found


def per_share_growth(now: Figure | None, before: Figure | None, factors: Sequence[ShareFactor]) -> tuple[Growth, str]:
    """Compare earnings per share of two periods, the earlier one's in shares as they are counted at the end of the later.

    Args:
        factors: one per event; those with an ex-date after the end of `before` and not after that of `now` count.
    Returns:
        the growth, and why it is unknown ("" where it is known).
    """
    if now is None or before is None:
        return Growth(
            UNKNOWN
        ), "there is no report of it" if now is None else "there is no comparable report a year before"
    for one in (now, before):
        if _finite(one.eps) is None or not _finite(one.shares):
            return Growth(UNKNOWN), f"{month_text(one)}: no earnings per share{f' ({one.notes})' if one.notes else ''}"
    if now.fs_div != before.fs_div or now.currency != before.currency:
        return Growth(UNKNOWN), f"{month_text(before)} is told on another basis or in another currency"
    factor = share_factor(before, now, factors)
    shares, eps = _finite((before.shares or 0) * factor), _finite((before.eps or 0) / factor) if factor else None
    if eps is None or not shares or shares < 0 or (now.shares or 0) <= 0:
        return Growth(UNKNOWN), f"{month_text(before)}: its number of shares makes no sense"
    ratio = (now.shares or 0) / shares
    if not 1 / JUMP < ratio < JUMP:
        return Growth(UNKNOWN), (
            f"there are {ratio:.2f} times as many shares as in {month_text(before)}, and no known split tells why"
        )
    return growth(now.eps, eps), ""


def share_factor(before: Figure, now: Figure, factors: Sequence[ShareFactor]) -> float:
    """Return how many shares at the end of `now` each one at the end of `before` has become, by events alone."""
    return math.prod(one.factor for one in factors if before.period_end < one.ex_date <= now.period_end)


def month_text(one: Figure) -> str:
    """Write the month in which a figure's period ends."""
    return f"{one.period_end:%Y-%m}"


def _as_told(one: Statement) -> Figure:
    amounts = (one.revenue, one.operating_income, one.owner_income)
    annual = one.quarter == 4
    own = [_finite(amount.to_date if annual else amount.quarter) for amount in amounts]
    to_date = [None if annual else _finite(amount.to_date) for amount in amounts]
    return _figure(one, ANNUAL if annual else QUARTER, one.known_from, "", own, to_date, one.notes)


def _fourth_quarter(year: Statement, nine: Statement, known_from: date) -> Figure:
    pairs: list[tuple[Amount, Amount]] = [
        (year.revenue, nine.revenue),
        (year.operating_income, nine.operating_income),
        (year.owner_income, nine.owner_income),
    ]
    own = [_less(whole.to_date, part.to_date) for whole, part in pairs]
    notes = tuple(dict.fromkeys((*year.notes, *nine.notes)))
    return _figure(year, QUARTER, known_from, nine.rcept_no, own, [_finite(whole.to_date) for whole, _ in pairs], notes)


def _figure(
    one: Statement, kind: str, known_from: date, minus: str, own: Sequence[float | None],
    to_date: Sequence[float | None], notes: Sequence[str],
) -> Figure:  # fmt: skip
    shares = _finite(one.shares)
    shares = shares if shares is not None and shares > 0 else None
    eps = None if own[2] is None or shares is None else _finite(own[2] / shares)
    return Figure(
        kind,
        one.period_end,
        one.fs_div,
        known_from,
        one.rcept_no,
        minus,
        one.currency,
        revenue=own[0],
        operating_income=own[1],
        owner_income=own[2],
        revenue_to_date=to_date[0],
        operating_income_to_date=to_date[1],
        owner_income_to_date=to_date[2],
        owner_equity=_finite(one.owner_equity),
        shares=shares,
        eps=eps,
        notes="; ".join(notes),
    )


def _less(whole: float | None, part: float | None) -> float | None:
    whole, part = _finite(whole), _finite(part)
    return None if whole is None or part is None else _finite(whole - part)


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
