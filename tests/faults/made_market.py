"""A market of a fortnight, made from a seed, and what two vendors say of it at any moment: one of prices as traded, with its
events, and one that adjusts, and restates its past at each event; and files that somebody saved from the second.

Both tell the truth as far as they know it: a running day is partly told in the morning, and whole from the evening on. Three
instruments; among their days are a halt, a day that begins late, one of which the row is bad, splits and rights issues.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Engine, text

from chartinsight_lib.clients.base import Batch
from chartinsight_lib.clock import Clock
from chartinsight_lib.db import bars
from chartinsight_lib.domain import INSTRUMENT, KST

CODES = ("000010", "000020", "0000A0")
HOLIDAY = date(2024, 6, 6)  # Memorial Day
DAYS = tuple(
    day for n in range(19) if (day := date(2024, 6, 3) + timedelta(n)).weekday() < 5 and day != HOLIDAY
)  # 14 trading days, from Monday on
MIDNIGHT, MORNING, EVENING, NIGHT = time(0, 2), time(10, 30), time(17), time(23, 58)
MOMENTS = tuple(
    datetime.combine(day, at, KST) for day in sorted({*DAYS, HOLIDAY}) for at in (MIDNIGHT, MORNING, EVENING, NIGHT)
)[1:]
OVERLAP = timedelta(days=4)
"""An increment goes so far back: over a weekend, and over a holiday's eve."""
RATIOS = (0.2, 0.5, 0.1, 5.0, 0.8, 0.92, 0.88, 0.6)
"""What an event makes of the price: splits, joined shares, rights issues."""
NUMBERS = ["open", "high", "low", "close", "volume"]
TABLES = (
    "live.candles", "live.factors", "live.revisions", "ops.gaps", "ops.quarantine", "ops.cursors", "ops.restatements",
    "ops.run_items", "ops.runs",
)  # fmt: skip


@dataclass(frozen=True)
class Stock:
    """One instrument as it was traded: a row (open, high, low, close, volume) for each day from `first` on."""

    code: str
    first: int
    whole: np.ndarray
    partial: np.ndarray
    """The same at half past ten of that day."""
    factors: dict[int, float]
    """{position of the ex-day: base price over the close before}"""
    halted: frozenset[int]
    sleepy: frozenset[int]
    """Days on which nothing had been traded by half past ten."""
    bad: frozenset[int]
    """Days whose whole row has its high below its low."""


@cache
def stock(seed: int, code: str) -> Stock:
    """Make one, always the same of a seed."""
    chance = np.random.default_rng([seed, int(code, 36)])
    count = len(DAYS)
    first = int(chance.integers(1, 6)) if code.startswith("0000A") and chance.random() < 0.5 else 0
    odd = {
        name: frozenset(np.flatnonzero(chance.random(count) < 0.08).tolist()) for name in ("halted", "sleepy", "bad")
    }
    events = set(chance.choice(np.arange(2, count), size=int(chance.choice([0, 1, 1, 2])), replace=False).tolist())
    for event in events:  # as in Korea, where trading often stops for an event
        if chance.random() < 0.4:
            odd["halted"] |= set(range(event - int(chance.integers(0, 2)), event + int(chance.integers(0, 3))))
    odd["bad"] -= odd["halted"]
    factors: dict[int, float] = {}
    whole, partial = np.zeros((count, 5)), np.zeros((count, 5))
    close = float(chance.integers(100, 900) * 100)
    for at in range(count):
        base = close
        if at in events and at > first:
            base = max(round(close * float(chance.choice(RATIOS)) / 100), 10) * 100.0
            factors[at] = base / close
        moves = np.round(base * np.exp(chance.normal(0, 0.02, 4).clip(-0.06, 0.06)) / 5) * 5
        volume = float(chance.integers(1, 900) * 100)
        half = moves[:2]
        partial[at] = moves[0], half.max(), half.min(), moves[1], volume // 2
        whole[at] = moves[0], moves.max(), moves.min(), moves[3], volume
        if at in odd["halted"]:
            whole[at] = partial[at] = close, close, close, close, 0
            if at in factors:  # trading stops, and the base price holds for the day on which it goes on
                whole[at] = partial[at] = base, base, base, base, 0
            close = base
        else:
            close = float(moves[3])
    return Stock(code, first, whole, partial, factors, odd["halted"], odd["sleepy"], odd["bad"])


def known(moment: datetime) -> tuple[int, bool]:
    """Return the position of the newest day that had begun to trade, and whether it was under way."""
    here = moment.astimezone(KST)
    begun = [at for at, day in enumerate(DAYS) if datetime.combine(day, time(9), KST) <= here]
    newest = begun[-1]
    return newest, DAYS[newest] == here.date() and here.time() < time(15, 30)


def told(
    seed: int, windows: Mapping[str, tuple[date, date]], moment: datetime, *, adjusted: bool, style: str = "krx"
) -> pd.DataFrame:
    """Return the rows of some instruments, each from a first to a last day, as a vendor says them at `moment`.

    adjusted: relative to the newest day. style: a day without trade is written as zeros with the close carried ("krx"), or
    as four times the close and `halted` ("flat").
    """
    newest, running = known(moment)
    codes, days, tables, stops = [], [], [], []
    for code, (first, last) in windows.items():
        one = stock(seed, code)
        wanted = [at for at in range(one.first, newest + 1) if first <= DAYS[at] <= last]
        tables.append(_numbers(one, wanted, newest, running=running, adjusted=adjusted))
        codes += [code] * len(wanted)
        days += [DAYS[at] for at in wanted]
        stops += [at in one.halted for at in wanted]
    table = np.concatenate(tables) if tables else np.empty((0, 5))
    if style == "krx":
        table[table[:, 4] == 0, :3] = 0
    rows = {"code": pd.array(codes, dtype="str"), "date": np.array(days, dtype=object)}
    rows |= {name: table[:, at] for at, name in enumerate(NUMBERS)}
    return pd.DataFrame(rows | ({"halted": np.array(stops, dtype=bool)} if style == "flat" else {}))


def _numbers(one: Stock, wanted: Sequence[int], newest: int, *, running: bool, adjusted: bool) -> np.ndarray:
    table = one.whole[list(wanted)].copy()
    for row, at in enumerate(wanted):
        if running and at == newest:
            table[row] = one.partial[at]
            if at in one.sleepy and at > one.first and at not in one.halted:
                base = one.whole[at - 1, 3] * one.factors.get(at, 1.0)
                table[row] = base, base, base, base, 0
        elif at in one.bad:
            table[row, 1] = table[row, 2] - 2000
    if adjusted:
        factor = np.array([np.prod([f for ex, f in one.factors.items() if at < ex <= newest]) for at in wanted])
        table[:, :4] = np.floor(table[:, :4] * factor[:, None] + 0.5)
        table[:, 4] = np.floor(table[:, 4] / factor + 0.5)
    return table


@dataclass
class Vendor:
    """What all sources here have in common; `seed` is the market's, `moment` the true time, `clock` the collector's."""

    seed: int
    moment: datetime
    clock: Clock
    codes: Sequence[str] = CODES
    since: date = DAYS[0]
    together: int = 2
    market: str = "KRX"
    lists_whole_market: bool = False

    def instruments(self) -> pd.DataFrame:
        """Return the list: those that are traded by now."""
        here = known(self.moment)[0]
        codes = [code for code in self.codes if stock(self.seed, code).first <= here]
        frame = pd.DataFrame({"code": codes}, dtype="str").assign(
            market="KRX", name="name", kind="stock", sector=None, listed_on=None, delisted_on=None, currency="KRW"
        )
        return frame[INSTRUMENT]

    def asked(self, held: Mapping[str, date]) -> Iterator[dict[str, date]]:
        """Yield, for each batch, from which date on each of its instruments is asked for."""
        for at in range(0, len(self.codes), self.together):
            codes = self.codes[at : at + self.together]
            yield {code: held[code] - OVERLAP if code in held else self.since for code in codes}


@dataclass
class RawVendor(Vendor):
    """Prices as traded, with pairs from which factors are learnt, and the running day; as Kiwoom."""

    name: str = "raw"
    raw: bool = True

    def provisional_from(self, today: date) -> date | None:
        """Return today: only the next day proves that it has ended."""
        return today

    def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
        """Yield some instruments a batch."""
        asked_at = self.clock()
        today = asked_at.astimezone(KST).date()
        for asked in self.asked(held):
            windows = {code: (since, today) for code, since in asked.items()}
            ended = {code: (since, today - timedelta(days=1)) for code, since in asked.items()}
            raw, adjusted = (
                told(self.seed, ended, self.moment, adjusted=kind, style="flat").drop(columns="halted")
                for kind in (False, True)
            )
            pairs = raw.assign(**{f"adj_{name}": adjusted[name] for name in NUMBERS}, based_on=pd.Timestamp(today))
            rows = told(self.seed, windows, self.moment, adjusted=False, style="flat")
            rows = rows.assign(value=rows["volume"] * rows["close"], row=range(1, len(rows) + 1))
            yield Batch("…".join(asked), rows, pairs=pairs, asked_at=asked_at, asked=asked)

    def quotes(self) -> Iterator[Batch]:
        """Yield the running bars; what is asked on a holiday comes with the date of the asking."""
        asked_at = self.clock()
        today = asked_at.astimezone(KST).date()
        newest = DAYS[known(self.moment)[0]]
        rows = told(self.seed, dict.fromkeys(self.codes, (newest, newest)), self.moment, adjusted=False)
        rows = rows[(rows["volume"] > 0) & (rows["high"] >= rows["low"])]
        rows = rows.assign(date=today, value=rows["volume"] * rows["close"], row=range(1, len(rows) + 1))
        yield Batch("quotes", rows, asked_at=asked_at)

    def intraday(self, codes: Sequence[str], held: Mapping[str, datetime]) -> Iterator[Batch]:
        """Yield nothing: there are no shorter bars here."""
        return iter(())


@dataclass
class AdjustingVendor(Vendor):
    """Adjusted prices only, as of the day on which it is asked; as Naver."""

    name: str = "adjusting"
    raw: bool = False

    def provisional_from(self, today: date) -> date | None:
        """Return the first date that is not over for an hour."""
        newest, running = known(self.moment)
        first = DAYS[newest] if running else DAYS[newest] + timedelta(days=1)
        return first if first <= today else None

    def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
        """Yield some instruments a batch."""
        asked_at = self.clock()
        for asked in self.asked(held):
            windows = {code: (since, DAYS[-1]) for code, since in asked.items()}
            rows = told(self.seed, windows, self.moment, adjusted=True)
            yield Batch("…".join(asked), rows.assign(row=range(1, len(rows) + 1)), asked_at=asked_at, asked=asked)


@dataclass
class Files(Vendor):
    """Files that somebody saved from the adjusting vendor on an evening, each of some days."""

    name: str = "files"
    raw: bool = False
    first: int = 0
    last: int = len(DAYS) - 1
    pieces: int = 2

    def provisional_from(self, today: date) -> date | None:
        """Return None: somebody saw to it that the days were over."""
        return None

    def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
        """Yield a batch per file, whatever is held."""
        saved = datetime.combine(DAYS[self.last], EVENING, KST)
        for number, part in enumerate(np.array_split(np.arange(self.first, self.last + 1), self.pieces)):
            if len(part):
                windows = dict.fromkeys(self.codes, (DAYS[part[0]], DAYS[part[-1]]))
                rows = told(self.seed, windows, saved, adjusted=True)
                yield Batch(f"{number}.csv", rows.assign(row=range(1, len(rows) + 1)))


# What is held afterwards.


@dataclass(frozen=True)
class Tables:
    """What the tables say, without who stored it and when; `read`: {(code, day): adjusted numbers}."""

    candles: list[tuple[Any, ...]]
    factors: list[tuple[Any, ...]]
    gaps: list[tuple[Any, ...]]
    quarantine: list[tuple[Any, ...]]
    read: dict[tuple[str, date], tuple[float, ...]] = field(repr=False)


_HELD = {
    "candles": "SELECT i.code, c.ts, c.open, c.high, c.low, c.close, c.volume, c.value, c.flags FROM live.candles AS c "
    "JOIN live.instruments AS i ON i.id = c.instrument_id ORDER BY 1, 2",
    "factors": "SELECT code, ex_date, price_factor, volume_factor, kind FROM api.factors ORDER BY 1, 2",
    "gaps": "SELECT code, day, kind, state FROM api.gaps ORDER BY 1, 2",
    "quarantine": "SELECT source, code, ts, rule, action, payload::text FROM ops.quarantine ORDER BY 1, 2, 3, 4, 5, 6",
}


def tables(engine: Engine) -> Tables:
    """Read everything."""
    with engine.connect() as conn:
        held = {name: [tuple(row) for row in conn.exec_driver_sql(statement)] for name, statement in _HELD.items()}
        codes = dict(conn.exec_driver_sql("SELECT id, code FROM live.instruments").all())
        panel = bars.panel(conn, "KRX", final_only=False)
    read = {}
    for number, code in enumerate(codes[int(one)] for one in panel.ids):
        rows = panel.rows(number)
        numbers = np.column_stack([panel.columns[name][rows] for name in NUMBERS]).tolist()
        read |= {(code, ts.date()): tuple(row) for ts, row in zip(panel.ts[rows], numbers, strict=True)}
    return Tables(**held, read=read)


def empty(engine: Engine) -> None:
    """Delete everything but the instruments."""
    with engine.begin() as conn:
        for table in TABLES:
            conn.execute(text(f"DELETE FROM {table}"))


def midnight(day: date) -> datetime:
    """Return the stamp of a daily bar."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
