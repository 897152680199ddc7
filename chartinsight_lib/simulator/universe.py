"""Who lives in an invented market, from when to when, and what happens to whom: everything but the prices.

Lives and happenings lie on one calendar, 2010 to 2028, whatever part of it is asked for: the same seed and number of instruments
give the same companies. Happenings are spread evenly, and come more often from mid-2026 on, where people watch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache

import numpy as np

from chartinsight_lib.simulator.model import Days, Listing
from chartinsight_lib.simulator.names import SECTOR_CODES, Namer
from chartinsight_lib.simulator.prices import generator
from chartinsight_lib.simulator.sessions import FIRST_YEAR, LAST_YEAR, trading_days

_WATCHED_SINCE = date(2026, 7, 1)

# What the instruments are, one after the other: first one of each kind, then rounds of 25. -L and -K: codes with letters;
# -P and -K: preferred shares of the KOSPI company before.
_FIRST = (
    "KOSPI", "KOSDAQ", "KOSPI", "KOSDAQ", "ETF", "ETN", "REIT", "FUND", "KOSPI-P", "KOSDAQ-L", "KOSPI-K", "ETF-L"
)  # fmt: skip
_ROUNDS = [
    ("KOSPI KOSDAQ KOSDAQ ETF KOSPI KOSDAQ KOSPI KOSDAQ-L ETN KOSPI KOSDAQ KOSDAQ KOSPI ETF KOSDAQ KOSPI KOSDAQ "
     f"KOSPI {rare} KOSDAQ KOSPI ETF-L KOSDAQ KOSPI KOSDAQ").split()
    for rare in ("REIT", "KOSPI-P", "REIT", "KOSPI-K")
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Nature:
    """How a class of instruments behaves."""

    worth: tuple[float, float]
    """Market value, won: median and deviation of the logarithm."""
    level: tuple[float, float]
    """Price, won: likewise."""
    deviation: float
    """Daily standard deviation of what market and sector do not explain."""
    turnover: float
    """Median share of the listed shares that is traded in a day."""
    beta: tuple[float, float]
    """Mean and standard deviation."""


_NATURES = {
    "대형주": Nature((8e12, 1.0), (80_000, 0.8), 0.015, 0.0018, (1.0, 0.2)),
    "중형주": Nature((7e11, 0.5), (25_000, 0.7), 0.020, 0.0030, (1.0, 0.25)),
    "소형주": Nature((1.2e11, 0.5), (8_000, 0.8), 0.023, 0.0035, (0.9, 0.3)),
    "KOSDAQ": Nature((1.5e11, 0.8), (9_000, 0.7), 0.028, 0.0045, (1.0, 0.3)),
    "preferred": Nature((4e10, 1.0), (15_000, 0.7), 0.022, 0.0012, (0.8, 0.2)),
    "etf": Nature((2e11, 1.3), (12_000, 0.5), 0.002, 0.0200, (0.0, 0.0)),
    "etn": Nature((3e10, 0.8), (12_000, 0.4), 0.004, 0.0080, (0.0, 0.0)),
    "reit": Nature((2.5e11, 0.6), (5_000, 0.15), 0.009, 0.0015, (0.3, 0.1)),
    "fund": Nature((5e12, 0.1), (12_500, 0.05), 0.007, 0.0012, (0.25, 0.0)),
}


@dataclass(frozen=True, slots=True)
class Action:
    """A corporate action on the calendar's day number `day`."""

    day: int
    kind: str
    ratio: float
    """Of the price."""
    growth: float
    """Of the listed shares."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An instrument's fate: days are numbers of the calendar, ends are exclusive."""

    listing: Listing
    first: int
    last: int
    born: bool
    """Listed within the calendar: its first day has an offering price."""
    beta: float
    deviation: float
    level: float
    """Won; about which its price moves before its first action."""
    turnover: float
    actions: tuple[Action, ...]
    halts: tuple[tuple[int, int], ...]


@dataclass
class _Draft:
    code: str
    name: str
    board: str
    kind: str
    sector: str
    size: str
    nature: Nature
    beta: float
    level: float
    first: int
    last: int
    listed_on: date
    common: bool = False
    born: bool = False
    delisted: bool = False
    actions: list[Action] = field(default_factory=list)
    halts: list[tuple[int, int]] = field(default_factory=list)
    names: list[tuple[int, str]] = field(default_factory=list)
    warnings: list[tuple[int, int | None, str]] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)


@cache
def calendar() -> Days:
    """Return all trading days that the table of sessions knows."""
    return trading_days(date(FIRST_YEAR, 1, 1), date(LAST_YEAR, 12, 31))


def universe(seed: int, instruments: int) -> tuple[Plan, ...]:
    """Return the fates of all instruments, ascending in code."""
    rng = generator(seed, "universe")
    namer = Namer(rng)
    drafts: list[_Draft] = []
    for number in range(instruments):
        drafts.append(_born(rng, namer, _role(number), drafts))
    _lives(rng, drafts)
    _happenings(rng, drafts, namer)
    return tuple(_plan(rng, draft) for draft in sorted(drafts, key=lambda draft: draft.code))


def _role(number: int) -> str:
    if number < len(_FIRST):
        return _FIRST[number]
    turn, place = divmod(number - len(_FIRST), 25)
    return _ROUNDS[turn % len(_ROUNDS)][place]


def _born(rng: np.random.Generator, namer: Namer, role: str, drafts: list[_Draft]) -> _Draft:
    role, _, mark = role.partition("-")
    board, kind, sector, size, beta = "KOSPI", "stock", "", "", None
    listed_on = date(1975, 1, 1) + timedelta(days=int(rng.integers(12_500)))
    code = namer.lettered() if mark == "L" else "" if mark else namer.note() if role == "ETN" else namer.common()
    if mark in {"P", "K"}:
        parent = next(draft for draft in reversed(drafts) if draft.common and draft.board == "KOSPI")
        code = namer.preferred(parent.code, lettered=mark == "K")
        name, sector, listed_on = parent.name + ("우" if mark == "P" else "2우B"), parent.sector, parent.listed_on
        nature = _NATURES["preferred"]
    elif role in {"KOSPI", "KOSDAQ"}:
        board = role
        sector = SECTOR_CODES[board][int(rng.integers(len(SECTOR_CODES[board])))]
        if board == "KOSPI":
            size = str(rng.choice(["대형주", "중형주", "소형주"], p=[0.2, 0.3, 0.5]))
        name, nature = namer.company(sector), _NATURES[size or board]
    elif role in {"ETF", "ETN"}:
        kind = role.lower()
        name, beta = namer.fund(note=kind == "etn")
        listed_on, nature = max(listed_on, date(2002, 10, 14)), _NATURES[kind]
    else:
        kind, nature = role.lower(), _NATURES[role.lower()]
        name = namer.ended("리츠" if kind == "reit" else "인프라")
    level = nature.level[0] * float(np.exp(nature.level[1] * np.clip(rng.standard_normal(), -2, 2)))
    beta = float(rng.normal(*nature.beta)) if beta is None else beta
    common = kind == "stock" and mark not in {"P", "K"}
    return _Draft(
        code, name, board, kind, sector, size, nature, beta, level, 0, len(calendar()), listed_on, common=common
    )


def _slots(
    rng: np.random.Generator, since: date, until: date, sparse: float, dense: float, instruments: int
) -> Iterator[int]:
    """Yield days, `sparse` trading days apart on the average and later `dense`, as for 300 instruments."""
    watched, end = (int(np.searchsorted(calendar(), np.datetime64(day))) for day in (_WATCHED_SINCE, until))
    at = float(np.searchsorted(calendar(), np.datetime64(since)))
    while True:
        step = (sparse if at < watched else dense) * 300 / instruments
        at += step
        if at >= end:
            return
        yield int(at - step * rng.random() * 0.8)


def _lives(rng: np.random.Generator, drafts: list[_Draft]) -> None:
    """Give some a later beginning, and some an end."""
    count = len(drafts)
    free = [draft for draft in drafts if draft.kind != "fund" and (draft.common or draft.kind != "stock")]
    order = [free[k] for k in rng.permutation(len(free))]
    for day in _slots(rng, date(2012, 1, 1), date(2027, 12, 1), 75, 25, count):
        if not order:
            break
        draft = order.pop()
        draft.first, draft.born, draft.listed_on = day, True, calendar()[day].item()
        for other in drafts:  # the preferred share of a young company is as young
            if not other.common and other.kind == "stock" and other.code[:5] == draft.code[:5]:
                other.first, other.born, other.listed_on = day, True, draft.listed_on
    old = [draft for draft in order if draft.kind in {"stock", "etf", "etn"}]
    for day in _slots(rng, date(2016, 3, 1), date(2028, 12, 1), 90, 30, count):
        if not old:
            break
        draft = old.pop()
        draft.last, draft.delisted = day, True
        if draft.kind == "stock":
            draft.warnings.append((day - int(rng.integers(60, 200)), day, "관리종목"))
            draft.halts.append((day - int(rng.integers(3, 11)), day))


def _happenings(rng: np.random.Generator, drafts: list[_Draft], namer: Namer) -> None:
    start, end = date(FIRST_YEAR, 3, 1), date(LAST_YEAR, 12, 1)
    for kind, sparse, dense in (
        ("split", 80, 20), ("reverse", 120, 25), ("rights", 25, 12), ("bonus", 30, 15),
        ("halt", 8, 4), ("rename", 60, 20), ("warning", 30, 15),
    ):  # fmt: skip
        for day in _slots(rng, start, end, sparse, dense, len(drafts)):
            if (draft := _pick(rng, drafts, day, kind)) is not None:
                _happen(rng, draft, day, kind, namer)


def _pick(rng: np.random.Generator, drafts: list[_Draft], day: int, kind: str) -> _Draft | None:
    """Return a company to which something may happen on a day: listed for a while, and nothing else near."""
    for _ in range(60):
        draft = drafts[int(rng.integers(len(drafts)))]
        # For 220 days before an end there is enough to tell of it.
        if not draft.common or not draft.first + 60 <= day < draft.last - (220 if draft.delisted else 0):
            continue
        if any(abs(day - other) < 45 for other in draft.busy):
            continue
        if kind in {"split", "reverse"} and any(action.kind in {"split", "reverse"} for action in draft.actions):
            continue
        return draft
    return None


def _happen(rng: np.random.Generator, draft: _Draft, day: int, kind: str, namer: Namer) -> None:
    draft.busy.append(day)
    if kind == "halt":
        draft.halts.append((day, min(day + int(rng.integers(1, 11)), draft.last)))
    elif kind == "rename":
        draft.names.append((day, namer.company(draft.sector)))
    elif kind == "warning":
        states = ["관리종목", "투자경고", "투자주의환기종목" if draft.board == "KOSDAQ" else "투자위험"]
        state = states[int(rng.choice(3, p=[0.5, 0.3, 0.2]))]
        draft.warnings.append(
            (day, day + int(rng.integers(60, 250) if state == "관리종목" else rng.integers(5, 30)), state)
        )
    elif kind in {"split", "reverse"}:
        times = float(rng.choice([2, 5, 10, 50], p=[0.35, 0.4, 0.2, 0.05]) if kind == "split" else rng.choice([5, 10]))
        if kind == "split":
            draft.level = min(draft.level, 8e5 / times)  # nobody's share costs ten million won before it is split
            draft.actions.append(Action(day, kind, 1 / times, times))
        else:
            draft.level = max(draft.level, 700.0 * times)
            draft.actions.append(Action(day, kind, times, 1 / times))
        if rng.random() < 0.85:
            draft.halts.append((day - int(rng.choice([1, 3, 3, 3, 7, 10])), day))
    elif kind == "rights":
        more, price = float(rng.uniform(0.05, 0.6)), float(rng.uniform(0.7, 0.85))
        draft.actions.append(Action(day, kind, (1 + price * more) / (1 + more), 1 + more))
    else:
        more = float(rng.choice([0.1, 0.2, 0.5, 1.0, 2.0, rng.uniform(0.03, 1.2)]))
        draft.actions.append(Action(day, kind, 1 / (1 + more), 1 + more))


def _plan(rng: np.random.Generator, draft: _Draft) -> Plan:
    actions = tuple(sorted(draft.actions, key=lambda action: action.day))
    # The level that was drawn is that after a split. No segment is to fall among the lowest prices.
    steps = np.cumprod([1.0, *(action.ratio for action in actions)])
    scaled = next((k + 1 for k, action in enumerate(actions) if action.kind in {"split", "reverse"}), 0)
    level = max(draft.level / float(steps[scaled]), 700.0 / float(steps.min()))
    median, spread = draft.nature.worth
    worth = median * float(np.exp(spread * np.clip(rng.standard_normal(), -2, 2)))
    shares = [max(int(worth / level), 100_000)]
    for action in actions:
        shares.append(max(round(shares[-1] * action.growth), 10_000))
    listing = Listing(
        code=draft.code,
        board=draft.board,
        kind=draft.kind,
        names=((draft.listed_on, draft.name), *((_day(day), name) for day, name in sorted(draft.names))),
        sector=draft.sector,
        size=draft.size,
        listed_on=draft.listed_on,
        delisted_on=_day(draft.last) if draft.delisted else None,
        shares=tuple(zip((draft.listed_on, *(_day(action.day) for action in actions)), shares, strict=True)),
        nxt=draft.kind == "stock" and (draft.size == "대형주" or bool(rng.random() < 0.3)),
        warnings=tuple(
            (_day(since), None if until is None else _day(until), state)
            for since, until, state in sorted(draft.warnings)
        ),
    )
    return Plan(
        listing, draft.first, draft.last, draft.born, draft.beta, draft.nature.deviation * float(rng.uniform(0.75, 1.35)),
        level, draft.nature.turnover * float(np.exp(0.5 * rng.standard_normal())), actions, tuple(sorted(draft.halts)),
    )  # fmt: skip


def _day(number: int) -> date:
    days = calendar()
    found: date = days[min(number, len(days) - 1)].item()
    return found
