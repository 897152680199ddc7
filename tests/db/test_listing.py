"""Lists of a whole market, complete or not: nobody is delisted by mistake, and the past stays as it was known."""

from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any
from uuid import UUID

import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import Report
from chartinsight_lib.db.instruments import universe_as_of
from chartinsight_lib.domain import INSTRUMENT, KST
from chartinsight_lib.errors import BeyondHorizon, Fenced, IncompleteListing, RunFailed
from chartinsight_lib.listing import FEW, check_listing, sync_instruments

FRIDAY, SATURDAY, MONDAY, TUESDAY, WEDNESDAY = (date(2026, 9, day) for day in (4, 5, 7, 8, 9))
CODES = [f"{number:05}0" for number in range(1, 301)]  # the first 100 are KOSDAQ's


@dataclass
class Listed:
    """A source that lists the codes it is told to."""

    codes: list[str]
    columns: dict[str, Any] = field(default_factory=dict)
    name: str = "list"
    market: str = "KRX"
    raw: bool = True
    lists_whole_market: bool = True

    def instruments(self) -> pd.DataFrame:
        frame = pd.DataFrame({"code": self.codes}, dtype="str").assign(
            market=self.market, name="name", kind="stock", sector=None, listed_on=date(2020, 1, 2), delisted_on=None,
            currency="KRW",
        )  # fmt: skip
        return frame.assign(board=["KOSDAQ" if code <= "001000" else "KOSPI" for code in self.codes], **self.columns)

    def provisional_from(self, today: date) -> date | None:
        return today

    def daily(self, held: Any) -> Any:
        raise AssertionError("nobody asks for bars here")


@dataclass
class Keeper:
    """Keeps the list at eight in the morning of any day."""

    engine: Engine

    def sync(
        self, codes: list[str], day: date, *, check: bool = True, accept_vanished: bool = False, **more: Any
    ) -> Report:
        clock = fixed_clock(datetime.combine(day, time(8), KST))
        source = Listed(codes, **more)
        with ledger.notebook_run(self.engine, None, job="sync_instruments", clock=clock) as run_id:
            report = sync_instruments(self.engine, source, run_id=run_id, clock=clock, accept_vanished=accept_vanished)
        if check:
            report.check()
        return report

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(statement))]

    def delisted(self) -> dict[str, date]:
        return dict(
            self.ask("SELECT code, delisted_on FROM live.instruments WHERE delisted_on IS NOT NULL ORDER BY code")
        )

    def everything(self) -> list[list[tuple[Any, ...]]]:
        return [
            self.ask(f"SELECT * FROM {table} ORDER BY 1, 2")
            for table in ("live.instruments", "live.instrument_history", "ops.listing_strikes")
        ]

    def universe(self, day: date) -> list[str]:
        with self.engine.connect() as conn:
            return universe_as_of(conn, "KRX", day)["code"].tolist()


@pytest.fixture
def keeper(loader):
    return Keeper(loader)


# Two strikes.


def test_an_instrument_is_delisted_at_the_second_trading_day_without_it_on_the_first(keeper):
    keeper.sync(CODES, FRIDAY)
    assert keeper.sync(CODES[1:], MONDAY).items == {
        "list": {"read": 299, "inserted": 0, "updated": 0, "unchanged": 299, "absent": 1, "delisted": 0}
    }
    assert keeper.delisted() == {}
    assert keeper.sync(CODES[1:], TUESDAY).items["list"]["delisted"] == 1
    assert keeper.delisted() == {CODES[0]: MONDAY}
    assert keeper.sync(CODES[1:], WEDNESDAY).items["list"] == {
        "read": 299, "inserted": 0, "updated": 0, "unchanged": 299, "absent": 0, "delisted": 0
    }  # fmt: skip


def test_lists_of_one_day_or_of_a_weekend_are_no_second_strike(keeper):
    keeper.sync(CODES, FRIDAY)
    for day in (FRIDAY, FRIDAY, SATURDAY, SATURDAY):
        keeper.sync(CODES[1:], day)
    assert keeper.delisted() == {}
    keeper.sync(CODES[1:], MONDAY)
    assert keeper.delisted() == {CODES[0]: FRIDAY}


def test_who_comes_back_has_no_strike_any_more(keeper):
    keeper.sync(CODES, FRIDAY)
    for codes, day in ((CODES[1:], MONDAY), (CODES, MONDAY), (CODES[1:], TUESDAY)):
        keeper.sync(codes, day)
    assert keeper.delisted() == {}
    assert keeper.ask("SELECT code, absent_since FROM api.instruments WHERE absent_since IS NOT NULL") == [
        (CODES[0], TUESDAY)
    ]


def test_who_is_listed_again_is_not_delisted_any_more_and_history_tells_both(keeper):
    for codes, day in ((CODES, FRIDAY), (CODES[1:], MONDAY), (CODES[1:], TUESDAY), (CODES, WEDNESDAY)):
        keeper.sync(codes, day)
    assert keeper.delisted() == {}
    found = keeper.ask(
        f"SELECT valid_from, delisted_on FROM api.instrument_history WHERE code = '{CODES[0]}' ORDER BY valid_from"
    )
    assert found == [(FRIDAY, None), (TUESDAY, MONDAY), (WEDNESDAY, None)]
    assert [CODES[0] in keeper.universe(day) for day in (FRIDAY, MONDAY, TUESDAY, WEDNESDAY)] == [
        True,
        True,
        False,
        True,
    ]


def test_the_delisted_and_their_candles_are_kept(keeper):
    keeper.sync(CODES, FRIDAY)
    with keeper.engine.begin() as conn:
        conn.execute(
            text("""
                INSERT INTO live.candles SELECT id, '1d', '2026-09-03T00:00Z', 10, 11, 9, 10, 5, NULL, 0, 'list', run_id
                FROM   live.instruments WHERE code = :code
            """),
            {"code": CODES[0]},
        )
    for day in (MONDAY, TUESDAY, WEDNESDAY):
        keeper.sync(CODES[1:], day)
    assert keeper.ask(f"SELECT close FROM api.candles_raw WHERE code = '{CODES[0]}'") == [(10.0,)]
    assert len(keeper.ask("SELECT 1 FROM live.instruments")) == 300


def test_telling_the_same_list_again_writes_nothing(keeper):
    for codes, day in ((CODES, FRIDAY), (CODES[1:], MONDAY)):
        keeper.sync(codes, day)
    before = keeper.everything()
    keeper.sync(CODES[1:], MONDAY)
    assert keeper.everything() == before


# Lists that are not believed.


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ([], "the list of instruments is empty"),
        (CODES[100:], "lacks 100 of the 100 instruments of KOSDAQ"),  # one board came back empty
        (CODES[:100], "lacks 200 of the 200 instruments of KOSPI"),
        (CODES[60:], "lacks 60 of the 100 instruments of KOSDAQ"),
        (CODES[4:], f"lacks 4 of the 100 instruments of KOSDAQ.*up to {FEW} are believed"),
        (CODES[:295], "lacks 5 of the 200 instruments of KOSPI.*up to 4 are believed"),
    ],
)
def test_a_list_that_lacks_too_many_changes_nothing_and_fails_its_item(keeper, codes, reason):
    keeper.sync(CODES, FRIDAY)
    before = keeper.everything()
    more = [*codes, "900000"] if codes else []  # nothing of it is taken, new listings neither
    report = keeper.sync(more, MONDAY, check=False)
    with pytest.raises(RunFailed, match=reason):
        report.check()
    assert keeper.everything() == before
    ((state, error),) = keeper.ask("SELECT state, error FROM ops.run_items ORDER BY finished_at DESC LIMIT 1")
    assert (state, error) == ("failed", report.errors["list"])


def test_up_to_a_fiftieth_of_a_board_may_go(keeper):
    keeper.sync(CODES, FRIDAY)
    for day in (MONDAY, TUESDAY):
        keeper.sync(CODES[FEW:296], day)
    assert list(keeper.delisted()) == [*CODES[:FEW], *CODES[296:]]


def test_a_person_who_knows_better_may_accept_what_is_gone(keeper):
    keeper.sync(CODES, FRIDAY)
    for day in (MONDAY, TUESDAY):
        keeper.sync(CODES[50:], day, accept_vanished=True)
    assert list(keeper.delisted()) == CODES[:50]
    with pytest.raises(RunFailed, match="empty"):
        keeper.sync([], WEDNESDAY, accept_vanished=True)


def test_who_moves_to_the_other_board_is_not_gone():
    active = pd.DataFrame({"board": ["KOSDAQ"] * 4 + ["KOSPI"] * 4}, index=list("abcdefgh"))
    check_listing(active, pd.DataFrame({"code": list("abcdefgh"), "board": "KOSPI"}), source="list")
    with pytest.raises(IncompleteListing, match="lacks 3 of the 4 instruments of KOSDAQ"):
        check_listing(active, pd.DataFrame({"code": list("defgh"), "board": "KOSPI"}), source="list")


def test_the_only_instrument_of_a_board_may_not_go_unseen():
    active = pd.DataFrame({"board": ["KOSDAQ", None]}, index=["a", "b"])
    with pytest.raises(IncompleteListing, match="lacks 1 of the 1 instruments of no board"):
        check_listing(active, pd.DataFrame({"code": ["a"]}), source="list")


# Other sources.


def test_a_source_that_does_not_list_the_market_delists_nothing(keeper):
    keeper.sync(CODES, FRIDAY)
    for day in (MONDAY, TUESDAY, WEDNESDAY):
        keeper.sync(CODES[:1], day, name="file", lists_whole_market=False)
        keeper.sync(CODES[:10], day, name="another list")
    assert keeper.delisted() == {}
    assert keeper.ask("SELECT * FROM ops.listing_strikes") == []


def test_what_only_a_file_knew_is_not_missed_by_a_list(keeper):
    keeper.sync(["900000"], FRIDAY, name="file", lists_whole_market=False)
    for day in (MONDAY, TUESDAY, WEDNESDAY):
        keeper.sync(CODES, day)
    assert keeper.delisted() == {}


# Errors of other kinds.


def test_beyond_the_calendar_nobody_is_struck_and_nothing_is_stored(keeper):
    keeper.sync(CODES, FRIDAY)
    before = keeper.everything()
    with pytest.raises(BeyondHorizon):
        keeper.sync(CODES[1:], date(2100, 1, 4))
    assert keeper.everything() == before


def test_a_run_that_was_ended_stores_no_list(keeper):
    clock = fixed_clock(datetime.combine(FRIDAY, time(8), KST))
    with ledger.notebook_run(keeper.engine, None, job="sync_instruments", clock=clock) as run_id:
        pass
    for ended in (run_id, UUID(int=7)):
        with pytest.raises(Fenced):
            sync_instruments(keeper.engine, Listed(CODES), run_id=ended, clock=clock)
    assert keeper.ask("SELECT * FROM live.instruments") == []


# Any sequence of lists.

DAYS = [date(2026, 9, day) for day in range(1, 20)]
TRADING = {day for day in DAYS if day.weekday() < 5}
POOL = CODES[:6] + CODES[100:106]
# Whole ones, with one or two gone; cut ones, that are refused and that are not; another instrument.
whole = st.sampled_from([POOL, POOL[1:], POOL[2:], POOL[:-1], POOL[1:-1]])
cut = st.sampled_from([[], POOL[:6], POOL[4:], POOL[3:], POOL[:9], [*POOL[1:], "900000"]])
a_list = st.tuples(
    st.integers(0, 2),  # days since the list before
    st.one_of(whole, whole, cut, st.lists(st.sampled_from(POOL), unique=True)),
    st.sampled_from([1, 1, 2]),  # shares, for a history
)


@given(lists=st.lists(a_list, max_size=14))
@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_lists_delists_after_two_whole_ones_and_leaves_the_past_alone(keeper, lists):
    with keeper.engine.begin() as conn:
        for table in ("live.instruments", "live.instrument_history", "ops.listing_strikes"):
            conn.execute(text(f"DELETE FROM {table}"))
    lacking: dict[str, set[date]] = {}  # trading days whose believed lists lacked it, since a believed list had it
    seen: dict[date, Any] = {}
    known: set[str] = set()
    day = FRIDAY
    for step, codes, shares in lists:
        day = min(date.fromordinal(day.toordinal() + step), DAYS[-1])
        before = keeper.everything()
        report = keeper.sync(codes, day, check=False, columns={"shares": shares})
        if report.errors:
            assert keeper.everything() == before
            continue
        known |= {*codes}
        for code in known:
            if code in codes:
                lacking[code] = set()
            elif day in TRADING:
                lacking[code].add(day)
        # Nobody by fewer than two days, and everybody by two, on the first of them.
        expected = {code: min(days) for code, days in lacking.items() if len(days) >= 2}
        assert keeper.delisted() == expected
        # What is certain of the days before stands as it did on them.
        with keeper.engine.connect() as conn:
            seen[day] = universe_as_of(conn, "KRX", day)
            for past, then in seen.items():
                now = universe_as_of(conn, "KRX", past)
                pd.testing.assert_frame_equal(now[now["certain"]], then[then["certain"]])
                assert then["certain"].all() and not now.loc[~now.index.isin(then.index), "certain"].any()


def test_the_columns_of_the_lists_here_are_those_of_a_source():
    assert set(INSTRUMENT) <= set(Listed(CODES).instruments().columns)
