"""What must be true at the end of a simulated week: of each slot, of each run, and of the tables against one clean load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import numpy as np
from sqlalchemy import Connection, Engine, text
from week_place import INSTRUMENTS, SEED, WATCHED

from chartinsight_lib import ledger
from chartinsight_lib.calendars import calendar
from chartinsight_lib.clients.kiwoom_source import KiwoomSource
from chartinsight_lib.collect import collect_daily, collect_intraday
from chartinsight_lib.domain import Flag
from chartinsight_lib.due import FIRST_LOOK
from chartinsight_lib.jobs import JobList
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.quality.check import check
from chartinsight_lib.radar import scan
from chartinsight_lib.settings import Settings
from chartinsight_lib.simulator.model import KST
from chartinsight_lib.simulator.process import Plan, open_market
from chartinsight_lib.sources import kiwoom_client

MARKET = "SIM"
KNOWN = calendar(MARKET)
Slot = tuple[str, datetime]
OFFICIAL = int(Flag.OFFICIAL_CLOSE)


@dataclass(frozen=True)
class Span:
    """From the moment at which the first scheduler looks to the one until which everything is to be done."""

    first: datetime
    last: datetime

    def days(self) -> list[date]:
        """The trading days that end in it."""
        found: list[date] = KNOWN.days(self.first.date(), self.last.date() - timedelta(days=1)).tolist()
        return found

    def scanned(self) -> list[date]:
        """The days of which there is a scan: those that end in it, and the one before."""
        return [KNOWN.last_ended(self.first), *self.days()]

    def after(self) -> date:
        """The trading day after its last one."""
        day = self.last.date()
        found: list[date] = KNOWN.days(day + timedelta(days=1), day + timedelta(days=9)).tolist()
        return found[0]

    def slots(self, listed: JobList, found: Iterable[Slot]) -> set[Slot]:
        """Every slot that the calendar gives in it, of each job from its newest at the first look on; of a job for which that is
        too late by then, from the first one found."""
        expected: set[Slot] = set()
        for name, job in listed.jobs.items():
            if job.schedule is None:
                continue
            newest = list(job.schedule.slots(KNOWN, self.first - FIRST_LOOK, self.first))[-1:]
            due = [*newest, *job.schedule.slots(KNOWN, self.first, self.last)]
            if job.within_min is not None and (
                not newest or self.first - newest[0] > timedelta(minutes=job.within_min)
            ):
                begun = min((slot for other, slot in found if other == name), default=None)
                due = [slot for slot in due if begun is not None and slot >= begun]
            expected |= {(name, slot) for slot in due}
        return expected


def slots(engine: Engine, last: datetime) -> dict[Slot, Any]:
    """Return the rows of all slots until a moment."""
    with engine.connect() as conn:
        rows = conn.execute(
            text("SELECT * FROM ops.slots WHERE slot <= :last ORDER BY job, slot"), {"last": last}
        ).all()
    return {(row.job, row.slot.astimezone(KST)): row for row in rows}


def is_settled(engine: Engine, listed: JobList, span: Span) -> bool:
    """Whether every slot has a record and none is open."""
    found = slots(engine, span.last)
    if {row.state for row in found.values()} & {"running", "retrying"}:
        return False  # what the calendar gives takes longer to work out
    return span.slots(listed, found) <= found.keys()


def counted(engine: Engine, last: datetime) -> str:
    """Say how many slots of each job ended how, and how many runs."""
    by_job: dict[str, Counter[str]] = {}
    for (job, _), row in slots(engine, last).items():
        by_job.setdefault(job, Counter())[row.state] += 1
    with engine.connect() as conn:
        runs = dict(conn.execute(text("SELECT state, count(*) FROM ops.runs GROUP BY state ORDER BY state")).all())
    total = sum(by_job.values(), Counter[str]())
    lines = [f"  {job:<18} {dict(sorted(states.items()))}" for job, states in by_job.items()]
    return "\n".join([f"slots {dict(sorted(total.items()))}, runs {runs}", *lines])


def check_slots(engine: Engine, listed: JobList, span: Span) -> None:
    """Each slot has one row, in the state it stays in, with one run that succeeded or a reason why there is none."""
    found = slots(engine, span.last)
    assert set(found) == span.slots(listed, found)
    with engine.connect() as conn:
        runs = conn.execute(
            text("SELECT * FROM ops.runs WHERE slot <= :last ORDER BY job, slot, attempt"), vars(span)
        ).all()
    by_id = {run.run_id: run for run in runs}
    of_slot: dict[Slot, list[Any]] = {}
    for run in runs:
        of_slot.setdefault((run.job, run.slot.astimezone(KST)), []).append(run)
    for slot, row in found.items():
        mine = of_slot.get(slot, [])
        assert [run.attempt for run in mine] == list(range(1, len(mine) + 1)), (slot, mine)
        assert all(one.finished_at <= other.started_at for one, other in pairwise(mine)), (
            slot,
            mine,
        )
        succeeded = [run.run_id for run in mine if run.state == "succeeded"]
        assert {run.state for run in mine} <= {"succeeded", "failed", "lost"}, (slot, mine)
        assert row.next_try is None
        if row.state == "succeeded":
            assert succeeded == [row.run_id] == [mine[-1].run_id], (slot, row, mine)
        elif row.state == "covered":
            run = by_id[row.run_id]
            assert (run.job, run.state, succeeded) == (row.job, "succeeded", []), (slot, row, run, mine)
            assert run.slot > row.slot, (slot, row, run)
        else:
            assert (row.state, succeeded) == ("skipped", []), (slot, row, mine)
            late = f"nothing ran within {listed.jobs[row.job].within_min} minutes after it"
            assert row.reason in {late, "it needs CHARTINSIGHT_DART_KEY, which is not set"}, (slot, row)


def days_of(engine: Engine, span: Span, job: str) -> dict[date, list[str]]:
    """Return the states of a job's slots by their day."""
    found: dict[date, list[str]] = {}
    for (name, slot), row in slots(engine, span.last).items():
        if name == job:
            found.setdefault(slot.date(), []).append(row.state)
    return found


@dataclass(frozen=True)
class Tables:
    """What is held of the days that ended, without who stored it and when."""

    days: list[tuple[Any, ...]]
    five_minutes: list[tuple[Any, ...]]
    factors: list[tuple[Any, ...]]
    gaps: list[tuple[Any, ...]]
    snapshots: list[tuple[Any, ...]]

    def differences(self, other: Tables) -> dict[str, list[Any]]:
        """Return what is in one of two alone, a few of each kind."""
        found = {}
        for name in self.__dataclass_fields__:
            ours, theirs = set(getattr(self, name)), set(getattr(other, name))
            if ours != theirs or len(getattr(self, name)) != len(getattr(other, name)):
                found[name] = [
                    len(ours),
                    len(theirs),
                    *sorted(ours - theirs)[:4],
                    "against",
                    *sorted(theirs - ours)[:4],
                ]
        return found


_CANDLES = (
    "SELECT i.code, c.ts, c.open, c.high, c.low, c.close, c.volume, c.value, c.flags, c.source FROM live.candles AS c "
    "JOIN live.instruments AS i ON i.id = c.instrument_id "
    "WHERE c.timeframe = :timeframe AND c.flags & 1 = 0 AND c.ts >= :first AND c.ts < :last ORDER BY 1, 2"
)
_FACTORS = (
    "SELECT code, ex_date, price_factor, volume_factor, kind FROM api.factors WHERE ex_date < :last ORDER BY 1, 2"
)
_GAPS = "SELECT code, day, kind, state FROM api.gaps WHERE timeframe = '1d' AND day < :last ORDER BY 1, 2"
_SNAPSHOTS = (
    "SELECT i.code, s.as_of, to_jsonb(s) - '{run_id,scanned_at,instrument_id}'::text[] AS row FROM radar.snapshot AS s "
    "JOIN live.instruments AS i ON i.id = s.instrument_id ORDER BY 1, 2"
)


def tables(engine: Engine, span: Span) -> Tables:
    """Read everything that is final; of five-minute bars from the first day on, since each load begins a month before it."""
    midnight = span.last.replace(hour=0, minute=0)
    week = {"first": span.first.replace(hour=0, minute=0), "last": midnight}
    ended = {"first": date.min, "last": span.last.date()}
    with engine.connect() as conn:

        def read(statement: str, **told: Any) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in conn.execute(text(statement), told)]

        return Tables(
            days=read(_CANDLES, timeframe="1d", **ended),
            five_minutes=read(_CANDLES, timeframe="5m", **week),
            factors=read(_FACTORS, last=span.last.date()),
            gaps=read(_GAPS, last=span.last.date()),
            snapshots=[(code, day, *sorted(row.items())) for code, day, row in read(_SNAPSHOTS)],
        )


def clean_load(engine: Engine, settings: Settings, span: Span, official: list[tuple[str, datetime]]) -> None:
    """Fill empty tables at once, as of now, with the same history.

    The vendor tells a day's official close on that day alone: where the week has it, it is taken from the market itself.
    """
    clock, name = settings.clock, f"simulated (seed {SEED})"
    since = span.first.date() - timedelta(days=round(365.25 * settings.kiwoom_years))
    years = (clock().astimezone(KST).date() - since).days / 365.25
    with kiwoom_client(settings, engine) as client:
        source = KiwoomSource(client, name=name, market=MARKET, clock=clock, years=years)  # type: ignore[arg-type]
        with ledger.notebook_run(engine, None, job="clean", clock=clock) as run_id:
            for report in (
                sync_instruments(engine, source, run_id=run_id, clock=clock),
                collect_daily(engine, source, run_id=run_id, clock=clock),
                collect_intraday(engine, source, WATCHED, run_id=run_id, clock=clock),
            ):
                report.check()
            with engine.begin() as conn:
                know_closes(conn, official)
            check(engine, MARKET, run_id=run_id, clock=clock)
    for day in span.scanned():
        scan(engine, market=MARKET, as_of=day, clock=clock, run_id=uuid4())


def know_closes(conn: Connection, which: list[tuple[str, datetime]]) -> None:
    """Put official closes in their places, as the market itself has them."""
    market = open_market(Plan(seed=SEED, instruments=INSTRUMENTS))
    for code, ts in which:
        bars = market.daily(code)
        close = float(bars.close[np.searchsorted(bars.day, np.datetime64(ts.date()))])
        conn.execute(
            text("""
                UPDATE live.candles AS c
                SET    close = :close, high = GREATEST(high, :close), low = LEAST(low, :close), flags = (flags & ~2) | :official
                FROM   live.instruments AS i
                WHERE  i.id = c.instrument_id AND i.code = :code AND c.timeframe = '1d' AND c.ts = :ts
            """),
            {"close": close, "official": OFFICIAL, "code": code, "ts": ts},
        )


def official_closes(found: Tables) -> list[tuple[str, datetime]]:
    """Return (code, time) of the days of which the official close is held."""
    return [(row[0], row[1]) for row in found.days if row[8] & OFFICIAL]


def completeness(engine: Engine, settings: Settings, span: Span) -> Mapping[str, list[Any]]:
    """Check what is held; return, by timeframe, (day, expected, present + explained, missing, late) of the days that ended."""
    with ledger.notebook_run(engine, None, job="check", clock=settings.clock) as run_id:
        check(engine, MARKET, run_id=run_id, clock=settings.clock, timeframe="5m")
    with engine.connect() as conn:
        rows = conn.execute(
            text("""
                SELECT timeframe, day, completeness, expected FROM api.completeness
                WHERE  market = :market AND day = ANY(:days) ORDER BY timeframe, day
            """),
            {"market": MARKET, "days": span.days()},
        ).all()
    return {frame: [tuple(row[1:]) for row in rows if row[0] == frame] for frame in ("1d", "5m")}
