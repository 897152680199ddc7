"""Raw prices that come to bars of others: an event that both know is undone once, and no seam is made twice."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import pandas as pd
from rows_source import Rows
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.clients.base import NOTHING_HELD, Batch
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import collect_daily
from chartinsight_lib.db.bars import candles
from chartinsight_lib.listing import sync_instruments

DAYS = [day.date() for day in pd.bdate_range("2024-07-01", periods=20)]


class Adjusted(Rows):
    """Adjusted prices, all of them each time."""

    raw = False


class Raw(Rows):
    """Prices as traded, with pairs; it is asked for the newest days again, or for everything from its first row on."""

    adjusted: pd.DataFrame | None = None

    def daily(self, held: Mapping[str, date] = NOTHING_HELD):
        first = held.get("005930", self.rows["date"].min()) - timedelta(days=4)
        mine = self.rows[self.rows["date"] >= first].reset_index(drop=True)
        pairs = None
        if self.adjusted is not None:
            told = mine[mine["date"] < self.asked_at.date()].merge(
                self.adjusted.drop(columns="row").rename(columns={name: f"adj_{name}" for name in NUMBERS}),
                on=["code", "date"],
            )
            pairs = told.assign(based_on=pd.Timestamp(self.asked_at.date()))
        yield Batch("raw", mine, pairs, asked_at=self.asked_at, asked={"005930": first})


NUMBERS = ["open", "high", "low", "close", "volume"]


def rows(closes: Mapping[int, float], still: Mapping[int, float] | None = None) -> pd.DataFrame:
    """Bars {number of the day: close}; `still`: days on which nothing was traded."""
    prices = {**closes, **(still or {})}
    frame = pd.DataFrame({"code": "005930", "date": [DAYS[at] for at in sorted(prices)]})
    for name in ("open", "high", "low", "close"):
        frame[name] = [prices[at] for at in sorted(prices)]
    frame["high"] += [0.0 if at in (still or {}) else 1.0 for at in sorted(prices)]
    frame["volume"] = [0.0 if at in (still or {}) else 100.0 for at in sorted(prices)]
    return frame.assign(row=range(1, len(frame) + 1))


def load(engine: Engine, source: Rows) -> None:
    clock = fixed_clock(source.asked_at)
    with ledger.notebook_run(engine, None, job="collect_daily", clock=clock) as run_id:
        sync_instruments(engine, source, run_id=run_id, clock=clock)
        collect_daily(engine, source, run_id=run_id, clock=clock).check()


def noon(at: int) -> datetime:
    return datetime(DAYS[at].year, DAYS[at].month, DAYS[at].day, 3, tzinfo=UTC)


def factors(engine: Engine) -> list[tuple[int, str, float]]:
    with engine.connect() as conn:
        found = conn.execute(text("SELECT ex_date, kind, price_factor FROM api.factors ORDER BY ex_date")).all()
    return [(DAYS.index(day), kind, factor) for day, kind, factor in found]


def read(engine: Engine) -> dict[int, float]:
    """Adjusted closes by number of the day."""
    with engine.connect() as conn:
        number = conn.execute(text("SELECT id FROM live.instruments")).scalar_one()
        frame = candles(conn, number)
    return {DAYS.index(ts.date()): close for ts, close in frame["close"].items()}


def test_an_event_that_raw_prices_date_into_a_halt_is_not_undone_beside_the_seam_behind_it(loader):
    """5:1, effective on day 4 of a halt that lasts to day 5. Who adjusts shows it between the days 3 and 6; every price that is
    held is the raw one, so that no close tells the two apart."""
    before, after = dict.fromkeys(range(4), 1000.0), dict.fromkeys(range(6, 9), 200.0)
    load(loader, Adjusted(rows(before), noon(4), name="adjusted"))
    load(loader, Adjusted(rows({**dict.fromkeys(range(4), 200.0), **after}), noon(9), name="adjusted"))
    assert factors(loader) == [(6, "restatement", 0.2)]
    raw = Raw(rows({**before, **after}, {4: 200.0, 5: 200.0}), noon(10), name="raw")
    raw.adjusted = rows({**dict.fromkeys(range(4), 200.0), **after}, {4: 200.0, 5: 200.0})
    for _ in range(2):
        load(loader, raw)
        assert factors(loader) == [(4, "split", 0.2)]
        assert read(loader) == dict.fromkeys([0, 1, 2, 3, 6, 7, 8], 200.0)


def test_raw_prices_far_from_those_of_others_are_set_apart_once_and_go_on_from_their_own(loader):
    """What nobody can lead over hides what lies before it, and no increment moves that day on."""
    load(loader, Adjusted(rows(dict.fromkeys(range(2), 1000.0)), noon(2), name="adjusted"))
    for newest in (13, 16, 19):
        load(loader, Raw(rows(dict.fromkeys(range(11, newest), 500.0)), noon(newest), name="raw"))
        assert factors(loader) == [(11, "unknown", 1.0)]
        assert read(loader) == dict.fromkeys(range(11, newest), 500.0)


def test_a_seam_between_two_tellings_goes_when_raw_prices_have_taken_the_place_of_both(loader):
    """Increments of raw prices meet a seam that was found while others' bars stood there."""
    halves = {**dict.fromkeys(range(4), 1000.0), **dict.fromkeys(range(4, 8), 1010.0)}
    load(loader, Adjusted(rows({at: halves[at] for at in range(4)}), noon(4), name="one"))
    load(loader, Adjusted(rows({at: halves[at] for at in range(4, 8)}), noon(8), name="other"))
    assert factors(loader) == [(4, "assumed", 1.0)]
    raw = {at: price + 5 for at, price in halves.items()}
    for newest in (8, 10):
        source = Raw(rows({**raw, **dict.fromkeys(range(8, newest), 1015.0)}), noon(newest), name="raw")
        load(loader, source)
        assert factors(loader) == []
    with loader.begin() as conn:  # as it stood where raw prices had come before this was seen to
        conn.execute(
            text("""
                INSERT INTO live.factors (instrument_id, ex_date, source, price_factor, volume_factor, kind, detected_at, run_id)
                SELECT id, :day, 'other', 1, 1, 'assumed', :now, run_id FROM live.instruments
            """),
            {"day": DAYS[8], "now": noon(9)},
        )
    load(loader, Raw(rows({**raw, **dict.fromkeys(range(8, 12), 1015.0)}), noon(12), name="raw"))
    assert factors(loader) == []
