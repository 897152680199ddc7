"""What can happen in a made market, and the one who lets it happen: collections, and what goes wrong in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from made_market import (
    CODES,
    DAYS,
    EVENING,
    MOMENTS,
    AdjustingVendor,
    Files,
    RawVendor,
    Tables,
    Vendor,
    empty,
    stock,
    tables,
)
from sqlalchemy import Engine, event, text
from steps import at

from chartinsight_lib import ledger
from chartinsight_lib.clients.base import Batch
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import Report, collect_daily, collect_quotes
from chartinsight_lib.errors import Fenced, Unavailable

AT_A_BATCH = ("malformed", "source", "one code", "garbled", "ghost")
AT_A_STEP = ("refused", "cut off", "crash", "killed")


class Abort(BaseException):
    """The process is no more."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a collection: at call number `nth` of a step, or at batch number `nth`."""

    kind: str
    nth: int = 1
    step: str = "stage"
    when: str = "before"


@dataclass(frozen=True)
class Action:
    """One collection: `later` moments after the one before, by a clock that is `skew` minutes off."""

    who: str
    later: int = 0
    skew: int = 0
    again: bool = False
    codes: tuple[str, ...] = CODES
    first: int = 0
    """The source is asked from this day on (files: its first day)."""
    pieces: int = 1
    fault: Fault | None = None
    inside: str = ""
    """Who collects, too, after the first batch of this collection."""


@dataclass(frozen=True)
class Story:
    """A market, what is done in it, and at which moment it is collected once more."""

    seed: int
    actions: tuple[Action, ...]
    end: int


def settled(found: Tables, story: Story) -> Tables:
    """Leave out the running day of an instrument of which the source says nonsense that evening: what it said in the morning may
    stand until the day is over."""
    end = MOMENTS[story.end].date()
    odd = {code for code in CODES if DAYS.index(end) in stock(story.seed, code).bad}
    candles = [row for row in found.candles if row[0] not in odd or row[1].date() != end]
    read = {key: row for key, row in found.read.items() if key[0] not in odd or key[1] != end}
    gaps = [row for row in found.gaps if row[0] not in odd or row[1] != end]
    return replace(found, candles=candles, gaps=gaps, read=read)


# The sources, disturbed.


class Disturbed:
    """A source to which something happens at a batch."""

    def __init__(self, source: Vendor, fault: Fault | None, between: Callable[[], None]) -> None:
        self._source, self._fault, self._between = source, fault, between

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    @property
    def since(self) -> date:
        return self._source.since

    def quotes(self) -> Iterator[Batch]:
        return self._source.quotes()

    def intraday(self, codes: Any, held: Any) -> Iterator[Batch]:
        return iter(())

    def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
        kind, nth = (self._fault.kind, self._fault.nth) if self._fault else ("", 0)
        for number, batch in enumerate(self._source.daily(held), start=1):
            if number == 2:
                self._between()
            if number == nth and kind == "source":
                raise Unavailable("the source is closed.")
            yield self._changed(batch, kind) if number == nth else batch
        if kind == "source":
            raise Unavailable("the source is closed.")

    def _changed(self, batch: Batch, kind: str) -> Batch:
        records, code = batch.records, batch.records["code"].iloc[0] if len(batch.records) else CODES[0]
        if kind == "malformed":
            return replace(batch, records=records.drop(columns="volume"))
        if kind == "one code":
            left = records[records["code"] != code]
            pairs = None if batch.pairs is None else batch.pairs[batch.pairs["code"] != code]
            return replace(
                batch, records=left, pairs=pairs, errors={code: "no answer."},
                asked={one: day for one, day in batch.asked.items() if one != code},
            )  # fmt: skip
        if kind == "garbled" and len(records):
            garbled = records.copy()
            garbled.loc[garbled.index[-1], "high"] = 1.0
            return replace(batch, records=garbled)
        return batch


class World:
    """One engine, and what has been done with it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clean: dict[tuple[str, int, int], Tables] = {}
        self.met: Counter[str] = Counter()
        self.stories: Counter[str] = Counter()
        self.undisturbed = False
        self.begun: Any = None
        """The connection of the newest transaction."""
        event.listen(engine, "begin", lambda conn: setattr(self, "begun", conn))

    def source(self, seed: int, action: Action, moment: datetime) -> Vendor:
        clock = fixed_clock(moment + timedelta(minutes=action.skew))
        since, together = DAYS[action.first], 2 if action.pieces == 2 else 3
        if action.who in {"raw", "quotes"}:
            return RawVendor(seed, moment, clock, action.codes, since, together)
        if action.who == "adjusting":
            return AdjustingVendor(seed, moment, clock, action.codes, since, together)
        last = max(
            (n for n, day in enumerate(DAYS) if datetime.combine(day, EVENING, moment.tzinfo) <= moment), default=0
        )
        first = min(action.first, last)
        return Files(seed, moment, clock, action.codes, first=first, last=last, pieces=action.pieces)

    def act(self, seed: int, action: Action, moment: datetime) -> Report | None:
        """Do it; what is allowed to go wrong does, and nothing else. Returns the report of what ended by itself."""
        source, fault = self.source(seed, action, moment), action.fault
        run_id, clock = uuid4(), source.clock
        holder = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        ledger.begin(holder, run_id=run_id, job="collect", parameters={}, clock=clock)

        def between() -> None:
            if action.inside:
                before, self.undisturbed = self.undisturbed, True
                self.act(seed, replace(action, who=action.inside, fault=None, inside="", skew=0), moment)
                self.undisturbed = before
            if fault and fault.kind == "ghost":
                self.lose(holder, run_id, clock)

        disturbed = Disturbed(source, fault, between)
        report = None
        self.met[fault.kind if fault else "nothing"] += 1
        try:
            with ExitStack() as stack:
                if fault and fault.kind in AT_A_STEP:
                    stack.enter_context(at(self.engine, fault.step, fault.when, fault.nth, self._happening(fault)))
                if action.who == "quotes":
                    report = collect_quotes(self.engine, disturbed, run_id=run_id, clock=clock)
                else:
                    report = collect_daily(self.engine, disturbed, run_id=run_id, clock=clock, again=action.again)
        except Abort:
            assert fault and fault.kind in {"crash", "killed"}
            if fault.kind == "killed":
                self.lose(holder, run_id, clock)
        except Fenced:
            assert fault and fault.kind == "ghost"
        except Unavailable:
            assert fault and fault.kind == "source"
        finally:
            if not holder.closed:
                ledger.finish(holder, run_id, state="succeeded" if report else "failed", clock=clock)
                holder.close()
        return report

    def lose(self, holder: Any, run_id: UUID, clock: Any) -> None:
        """The process that holds a run is gone, and somebody notices."""
        pid = holder.connection.dbapi_connection.info.backend_pid
        holder.invalidate()
        holder.close()
        with self.engine.begin() as conn:
            conn.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})  # waits until it is gone
            assert run_id in ledger.reap(conn, clock)

    def _happening(self, fault: Fault) -> Callable[[], None]:
        def happen() -> None:
            if self.undisturbed:
                return
            if fault.kind in {"crash", "killed"}:
                raise Abort
            if fault.kind == "refused":
                run = self.begun.exec_driver_sql if fault.when == "before" else self.begun.connection.cursor().execute
                run("SELECT 1 / 0")
            pid = self.begun.connection.dbapi_connection.info.backend_pid
            with self.engine.connect() as other:
                assert other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid}).scalar_one()

        return happen

    def collected(self, who: str, seed: int, end: int) -> Tables:
        """Return the tables of one clean collection, nothing before it."""
        key = who, seed, end
        if key not in self.clean:
            empty(self.engine)
            report = self.act(seed, Action(who), MOMENTS[end])
            assert report and not report.errors
            self.clean[key] = tables(self.engine)
        return self.clean[key]

    def told(self, story: Story, who: str) -> Tables:
        """Do everything that happens in a story; return the tables of a clean collection at its end."""
        clean = self.collected(who, story.seed, story.end)
        empty(self.engine)
        moment = 0
        for action in story.actions:
            moment += action.later
            if moment >= story.end:
                break
            self.act(story.seed, action, MOMENTS[moment])
        self.stories[who] += 1
        return settled(clean, story)

    def finished(self, story: Story, last: Action) -> Tables:
        """Collect once more, undisturbed; return the tables."""
        report = self.act(story.seed, last, MOMENTS[story.end])
        assert report
        assert report.errors == {}
        with self.engine.connect() as conn:
            self.met.update(
                dict(conn.exec_driver_sql("SELECT verdict, count(*) FROM ops.restatements GROUP BY 1").all())
            )
            self.met.update(dict(conn.exec_driver_sql("SELECT state, count(*) FROM ops.runs GROUP BY 1").all()))
        return settled(tables(self.engine), story)
