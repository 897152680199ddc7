"""The grade of a company's earnings by CAN SLIM's C and A, with its reasons. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise

from chartinsight_lib.analysis.financials import (
    ANNUAL,
    GROWTH,
    QUARTER,
    UNKNOWN,
    Figure,
    Growth,
    Key,
    ShareFactor,
    cagr,
    known,
    month_text,
    per_share_growth,
    share_factor,
)

C_PCT, A_PCT, ROE_PCT = 25.0, 25.0, 17.0
"""Percent: quarterly growth, growth of each of three years, return on equity. Source: W. J. O'Neil, How to Make Money in
Stocks, chapters on C and A."""
YEARS = 3
LETTERS = ("D", "C", "B", "A")
"""By how many of the three are met."""
QUARTER_STALE, YEAR_STALE = timedelta(days=200), timedelta(days=490)
"""A quarter is due 45 days after its end, the last of a year and the year itself 90 days: older ones are not the newest."""


@dataclass(frozen=True, slots=True)
class Grade:
    """A grade as it was on a day.

    letter: A, B, C, D for three, two, one, none of C, A and ROE met; `unknown` where one of them is not known.
    c: earnings per share of the newest quarter against those a year before. a: of the last three years, oldest first.
    cagr: over the three years, percent. roe: percent. `reasons`: one sentence for each of the three, at least.
    known_from: the day on which the newest filing used was received; None where none was.
    """

    letter: str
    c: Growth
    a: tuple[Growth, ...]
    cagr: float | None
    roe: float | None
    reasons: list[str]
    known_from: date | None
    period_end: date | None = None


def grade(figures: Iterable[Figure], as_of: date, factors: Sequence[ShareFactor] = ()) -> Grade:
    """Grade a company's earnings by what was received by the end of `as_of`.

    C: earnings per share of the newest quarter are 25 % or more above those of the same quarter a year before.
    A: those of each of the last three years are 25 % or more above the year before.
    ROE: owners' income of the last twelve months / mean of owners' equity at their end and a year before, 17 % or more.

    Consolidated figures are used where the newest period has them, else separate ones, and never both. A turnaround meets
    nothing: it has no percentage. What is not known is not met and not missed; the grade is then unknown.

    Args:
        figures: of one company; see `financials.figures`.
        factors: events that changed the number of its shares.
    """
    held = known(figures, as_of)
    work = _Work([one for one in factors if one.ex_date <= as_of])
    if not held:
        return Grade(UNKNOWN, Growth(UNKNOWN), (), None, None, ["no report is known"], None)
    newest = max(month for _, month, _ in held)
    basis = "CFS" if any(month == newest and fs_div == "CFS" for _, month, fs_div in held) else "OFS"
    c = work.quarter(held, newest, basis, as_of)
    a, rate = work.years(held, basis, as_of)
    roe = work.roe(held, newest, basis)
    unknown = None in work.met
    letter = UNKNOWN if unknown else LETTERS[sum(bool(met) for met in work.met)]
    known_from = max(one.known_from for one in work.used) if work.used else None
    period_end = max(one.period_end for (_, month, _), one in held.items() if month == newest)
    return Grade(letter, c, a, rate, roe, work.reasons, known_from, period_end)


@dataclass(slots=True)
class _Work:
    """A grade while it is worked out: for each of the three whether it is met (None: not known), and why."""

    factors: Sequence[ShareFactor]
    met: list[bool | None] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    used: list[Figure] = field(default_factory=list)

    def quarter(self, held: dict[Key, Figure], newest: int, basis: str, as_of: date) -> Growth:
        now, before = (self._figure(held, (QUARTER, month, basis)) for month in (newest, newest - 12))
        month = f"{newest // 12}-{newest % 12 + 1:02}"
        change, why = per_share_growth(now, before, self.factors)
        if now is None and (ANNUAL, newest, basis) in held:
            why = "there is no nine-month report to subtract from the year"
        if now and as_of - now.period_end > QUARTER_STALE:
            change, why = Growth(UNKNOWN), "it is too old to be the newest"
        if change.kind == UNKNOWN:
            self._say(None, f"C unknown: quarter to {month}: {why or 'earnings were nought then and now'}")
            return change
        self._say(
            _at_least(change, C_PCT),
            f"earnings per share of the quarter to {month}: {change} against a year before",
            "C",
        )
        return change

    def years(self, held: dict[Key, Figure], basis: str, as_of: date) -> tuple[tuple[Growth, ...], float | None]:
        months = [month for kind, month, fs_div in held if (kind, fs_div) == (ANNUAL, basis)]
        if not months:
            self._say(None, "A unknown: there is no annual report on this basis")
            return (), None
        newest = max(months)
        told = [self._figure(held, (ANNUAL, newest - 12 * ago, basis)) for ago in range(YEARS, -1, -1)]
        found = [per_share_growth(now, before, self.factors) for before, now in pairwise(told)]
        changes = tuple(change for change, _ in found)
        last = told[-1]
        if last is None or as_of - last.period_end > YEAR_STALE:
            self._say(None, f"A unknown: the year to {newest // 12}-{newest % 12 + 1:02} is too old to be the newest")
            return changes, None
        wrong = [
            f"the year to {(newest - 12 * ago) // 12}-{newest % 12 + 1:02}: {why or 'earnings were nought then and before'}"
            for ago, (change, why) in zip(range(YEARS - 1, -1, -1), found, strict=True)
            if change.kind == UNKNOWN
        ]
        if wrong:
            self._say(None, f"A unknown: {wrong[0]}")
            return changes, None
        rate = self._rate(told)
        mean = "" if rate is None else f", {rate:+.1f} % a year"
        self._say(
            all(_at_least(change, A_PCT) for change in changes),
            f"earnings per share of the years to {month_text(last)}: {', '.join(map(str, changes))}{mean}",
            "A",
        )
        return changes, rate

    def roe(self, held: dict[Key, Figure], newest: int, basis: str) -> float | None:
        year = self._figure(held, (ANNUAL, newest, basis))
        quarters = [year] if year else [self._figure(held, (QUARTER, newest - 3 * ago, basis)) for ago in range(4)]
        then = self._figure(held, (ANNUAL, newest - 12, basis)) or self._figure(held, (QUARTER, newest - 12, basis))
        incomes = [one.owner_income for one in quarters if one and one.owner_income is not None]
        equities = [one.owner_equity for one in (quarters[0], then) if one and one.owner_equity is not None]
        currencies = {one.currency for one in (*quarters, then) if one}
        if len(incomes) < len(quarters):
            self._say(None, f"ROE unknown: owners' income is known of {len(incomes)} of the last four quarters")
            return None
        if len(equities) < 2 or len(currencies) > 1:
            self._say(None, "ROE unknown: owners' equity now and a year before is not known in one currency")
            return None
        mean = sum(equities) / 2
        if mean <= 0:
            self._say(False, "owners' equity is nought or less", "ROE")
            return None
        roe = 100 * sum(incomes) / mean
        self._say(roe >= ROE_PCT, f"return on equity over twelve months: {roe:.1f} %", "ROE")
        return roe

    def _rate(self, told: Sequence[Figure | None]) -> float | None:
        first, last = told[0], told[-1]
        if first is None or last is None or first.eps is None:
            return None
        factor = share_factor(first, last, self.factors)
        return cagr(first.eps / factor if factor else None, last.eps, YEARS)

    def _figure(self, held: dict[Key, Figure], key: Key) -> Figure | None:
        found = held.get(key)
        if found:
            self.used.append(found)
        return found

    def _say(self, met: bool | None, reason: str, what: str = "") -> None:
        self.met.append(met)
        self.reasons.append(f"{what} {'met' if met else 'not met'}: {reason}" if what else reason)


def _at_least(change: Growth, pct: float) -> bool:
    return change.kind == GROWTH and (change.pct is None or change.pct >= pct)  # None: more than a number can say
