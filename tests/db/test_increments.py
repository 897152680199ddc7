"""What an increment makes good: bars that were forming, days that were left out, rows that come again elsewhere."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Connection, Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.clients.base import Batch
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import collect_daily
from chartinsight_lib.db import stage
from chartinsight_lib.db.rows import driver_cursor
from chartinsight_lib.domain import INSTRUMENT
from chartinsight_lib.errors import RunFailed
from chartinsight_lib.listing import sync_instruments

DAYS = [f"2024-07-{day:02}" for day in (22, 23, 24, 25, 26, 29, 30, 31)]


@dataclass
class Windowed:
    """A live source of one instrument that is asked from `since` on, or from two days before the newest bar held."""

    day: str
    """The running day, in the morning of which it is asked."""
    since: date
    raw: bool = True
    bad: frozenset[str] = frozenset()
    """Days whose high is below their low, once they are over."""
    sleepy: str = ""
    """A day on which nothing has been traded by the morning."""
    name: str = "live"
    market: str = "KRX"
    lists_whole_market: bool = False
    asked: list[date] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        return datetime.fromisoformat(f"{self.day}T01:30+00:00")  # 10:30 in Seoul

    def instruments(self) -> pd.DataFrame:
        frame = pd.DataFrame({"code": ["005930"]}).assign(
            market="KRX", name="name", kind="stock", sector=None, listed_on=None, delisted_on=None, currency="KRW"
        )
        return frame[INSTRUMENT]

    def provisional_from(self, today: date) -> date | None:
        return today

    def daily(self, held: Mapping[str, date]) -> Iterator[Batch]:
        first = held["005930"] - timedelta(days=2) if held else self.since
        self.asked.append(first)
        days = [day for day in DAYS if f"{first}" <= day <= self.day]
        closes = [100.0 + DAYS.index(day) + (0.5 if day == self.day else 0.0) for day in days]
        rows = pd.DataFrame(
            {"code": "005930", "date": days, "open": closes, "low": closes, "close": closes, "volume": 9}
        )
        rows["high"] = [1.0 if day in self.bad and day != self.day else 999.0 for day in days]
        if self.sleepy == self.day:
            rows.loc[rows["date"] == self.day, ["open", "high", "low", "close", "volume"]] = (
                100.0,
                100.0,
                100.0,
                100.0,
                0,
            )
        rows["row"] = range(1, len(rows) + 1)
        yield Batch(f"from {first}", rows, asked_at=self.now, asked={"005930": first})


def collect(engine: Engine, source: Windowed) -> None:
    clock = fixed_clock(source.now)
    with ledger.notebook_run(engine, None, job="collect_daily", clock=clock) as run_id:
        sync_instruments(engine, source, run_id=run_id, clock=clock)
        collect_daily(engine, source, run_id=run_id, clock=clock).check()


def held(engine: Engine) -> list[tuple[str, float, bool]]:
    with engine.connect() as conn:
        rows = conn.execute(text("SELECT day::text, close, final FROM api.candles_raw ORDER BY day")).all()
    return [(day[8:], close, final) for day, close, final in rows]


def test_what_was_asked_with_a_hole_in_between_is_asked_again(loader):
    """First a bar that is forming; then from a later day on; then as at first."""
    for day, since in ((DAYS[0], DAYS[0]), (DAYS[6], DAYS[3]), (DAYS[7], DAYS[0])):
        source = Windowed(day, date.fromisoformat(since))
        collect(loader, source)
    assert source.asked == [date(2024, 7, 22)]
    assert held(loader) == [(day[8:], 100.0 + at + (0.5 if at == 7 else 0), at != 7) for at, day in enumerate(DAYS)]


@pytest.mark.parametrize("raw", [True, False], ids=["raw prices", "adjusted prices"])
@pytest.mark.parametrize("first", [0, 3])
def test_a_bar_that_was_forming_goes_when_its_day_turns_out_to_be_nonsense(loader, raw, first):
    """Also when it is the first of the days that are asked for."""
    bad = frozenset({DAYS[3]})
    for at in (3, 5):
        collect(loader, Windowed(DAYS[at], date.fromisoformat(DAYS[first]), raw, bad))
    assert [day for day, _, _ in held(loader)] == [day[8:] for day in DAYS[first:6] if day not in bad]


def test_a_day_that_had_not_traded_by_the_morning_is_no_gap_when_its_row_turns_out_to_be_nonsense(loader):
    """Nobody explains it any more: the check will find it missing, and it is asked for again."""
    for at in (3, 5):
        collect(loader, Windowed(DAYS[at], date.fromisoformat(DAYS[0]), bad=frozenset({DAYS[3]}), sleepy=DAYS[3]))
        with loader.connect() as conn:
            gaps = conn.execute(text("SELECT day::text, kind FROM api.gaps")).all()
        assert [tuple(row) for row in gaps] == ([(DAYS[3], "no-trade")] if at == 3 else [])


@pytest.mark.parametrize("raw", [True, False], ids=["raw prices", "adjusted prices"])
def test_a_bad_row_that_comes_again_in_another_place_is_kept_once(loader, raw):
    for at in (4, 5, 6):
        collect(loader, Windowed(DAYS[at], date.fromisoformat(DAYS[0]), raw, frozenset({DAYS[3]})))
    with loader.connect() as conn:
        kept = conn.execute(text("SELECT ts, rule FROM api.quarantine")).all()
    assert [tuple(row) for row in kept] == [(datetime(2024, 7, 25, tzinfo=UTC), "high_below_low")]


def test_what_the_drivers_own_cursor_is_refused_fails_its_batch_alone(loader, monkeypatch):
    """COPY goes past SQLAlchemy, and so do its errors."""

    def refused(conn: Connection, *_: Any, **__: Any) -> None:
        driver_cursor(conn).execute("SELECT 1 / 0")

    monkeypatch.setattr(stage, "upsert_staged", refused)
    with pytest.raises(RunFailed, match=r"the database refused it \(DivisionByZero\)"):
        collect(loader, Windowed(DAYS[3], date.fromisoformat(DAYS[0])))
