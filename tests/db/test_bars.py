"""Bars of any timeframe as known on a day or at a moment, corporate actions undone; the same through the views and for all."""

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from holding import RUN, hold, know, number, said, split
from sqlalchemy import Connection, text

from chartinsight_lib.db import bars
from chartinsight_lib.db.instruments import instrument_ids
from chartinsight_lib.domain import KST, NUMBERS, Flag
from chartinsight_lib.errors import ConfigError, NotFound, SchemaError

# Thursday 1 August 2024 to Tuesday 6 August; Wednesday 31 July before it. Split 2:1 with ex-date Monday 5 August.
RAW = {
    "2024-07-31": (98, 101, 97, 100, 1000, 99_000.0, 0),
    "2024-08-01": (100, 110, 96, 108, 2000, 210_000.0, int(Flag.WIDENED)),
    "2024-08-02": (108, 108, 99, 100, 1500, 150_000.0, 0),
    "2024-08-05": (50, 52, 49, 51, 3001, 153_000.0, 0),
    "2024-08-06": (51, 55, 50, 54, 4000, 212_000.0, 0),
}
ADJUSTED = {
    "2024-07-31": (49, 50.5, 48.5, 50, 2000, 99_000.0, 0),
    "2024-08-01": (50, 55, 48, 54, 4000, 210_000.0, int(Flag.WIDENED)),
    "2024-08-02": (54, 54, 49.5, 50, 3000, 150_000.0, 0),
    "2024-08-05": RAW["2024-08-05"],
    "2024-08-06": RAW["2024-08-06"],
}


@pytest.fixture
def held(conn: Connection) -> Connection:
    know(conn, "AAPL", "OTHER")
    hold(conn, "AAPL", RAW)
    split(conn, "AAPL", ("2024-08-05", 0.5, 2.0, "split"))
    return conn


# One instrument.


def test_a_split_is_undone_in_price_and_volume_and_not_in_value(held):
    assert said(bars.candles(held, number(held, "AAPL"))) == ADJUSTED


def test_a_dividend_is_not_undone(held):
    split(held, "AAPL", ("2024-08-06", 0.99, 1.0, "dividend"))
    assert said(bars.candles(held, number(held, "AAPL"))) == ADJUSTED


def test_weeks_are_made_of_undone_days(held):
    assert said(bars.candles(held, number(held, "AAPL"), "1w")) == {
        "2024-07-29": (49, 55, 48, 50, 9000, 459_000.0, Flag.WIDENED),
        "2024-08-05": (50, 55, 49, 54, 7001, 365_000.0, Flag.PROVISIONAL),
    }


def test_months_are_made_of_undone_days(held):
    assert said(bars.candles(held, number(held, "AAPL"), "1mo")) == {
        "2024-07-01": (49, 50.5, 48.5, 50, 2000, 99_000.0, 0),
        "2024-08-01": (50, 55, 48, 54, 14_001, 725_000.0, Flag.WIDENED | Flag.PROVISIONAL),
    }


def test_a_day_in_the_past_knows_no_later_bar_and_no_later_split(held):
    days = list(RAW)
    found = bars.candles(held, number(held, "AAPL"), as_of=date(2024, 8, 2))
    assert said(found) == {day: RAW[day] for day in days[:3]}


def test_the_day_of_a_split_knows_it(held):
    found = bars.candles(held, number(held, "AAPL"), as_of=date(2024, 8, 5))
    assert said(found) == {day: ADJUSTED[day] for day in list(RAW)[:4]}


def test_a_week_as_of_a_day_in_it_ends_there_and_is_unfinished(held):
    found = said(bars.candles(held, number(held, "AAPL"), "1w", as_of=date(2024, 8, 1)))
    assert found == {"2024-07-29": (98, 110, 96, 108, 3000, 309_000.0, Flag.WIDENED | Flag.PROVISIONAL)}


def test_two_splits_multiply_and_volume_is_rounded_once(conn):
    know(conn, "AAPL")
    hold(conn, "AAPL", {"2024-08-01": (90, 90, 90, 90, 101, math.nan, 0), "2024-08-02": (60, 60, 60, 60, 10, math.nan, 0),
                        "2024-08-05": (48, 48, 48, 48, 10, math.nan, 0)})  # fmt: skip
    split(conn, "AAPL", ("2024-08-02", 2 / 3, 1.5, "split"), ("2024-08-05", 0.8, 1.25, "split"))
    found = bars.candles(conn, number(conn, "AAPL"))
    assert found["close"].tolist() == pytest.approx([48, 48, 48], rel=1e-12)
    assert found["volume"].tolist() == [
        189,
        13,
        10,
    ]  # 101 * 1.875 = 189.375, 10 * 1.25 = 12.5, a half goes up as at Kiwoom


def test_an_instrument_without_bars_gives_an_empty_frame_in_every_timeframe(held):
    for timeframe in ("1d", "1w", "1mo"):
        assert said(bars.candles(held, number(held, "OTHER"), timeframe)) == {}


def test_an_unknown_timeframe_is_an_error(held):
    with pytest.raises(NotFound, match="'7d'"):
        bars.candles(held, number(held, "AAPL"), "7d")


# The views, and all instruments at once.


@pytest.fixture
def many(conn: Connection) -> Connection:
    """Ten instruments of up to 60 days made by chance, with up to three splits and some unfinished ends."""
    chance = np.random.default_rng(20240805)
    codes = [f"{k:06}" for k in range(10)]
    know(conn, *codes)
    know(conn, "US1", market="US")
    for k, code in enumerate(codes[:9]):  # the tenth has no bar
        days = pd.bdate_range("2024-05-01", periods=60)[chance.random(60) < 0.9]
        bars = {}
        for n, day in enumerate(days):
            low, opened, close, high = np.sort(chance.integers(900, 1100, 4)).tolist()
            flags = int(Flag.PROVISIONAL) if k % 3 == 0 and n == len(days) - 1 else 0
            value = math.nan if k % 2 else float(close * 1000)
            bars[f"{day:%Y-%m-%d}"] = (opened, high, low, close, int(chance.integers(0, 10**9)), value, flags)
        hold(conn, code, bars)
        events = [(2 / 3, 1.5), (0.2, 5.0), (10.0, 0.1)][: k % 4]
        split(conn, code, *((f"{days[10 * (n + 1)]:%Y-%m-%d}", *event, "split") for n, event in enumerate(events)))
        split(conn, code, (f"{days[5]:%Y-%m-%d}", 0.97, 1.0, "dividend"))
    hold(conn, "US1", {"2024-06-03": (1, 1, 1, 1, 1, math.nan, 0)}, market="US")
    return conn


def view(conn: Connection, name: str) -> pd.DataFrame:
    columns = f"code, ts, {', '.join(NUMBERS)}, flags, final"
    rows = conn.execute(text(f"SELECT {columns} FROM api.{name} WHERE market = 'KRX' ORDER BY code, ts"))
    return pd.DataFrame(rows.all(), columns=list(rows.keys())).astype({"value": "float64"})


def test_the_view_of_candles_equals_what_the_program_reads_row_by_row(many):
    found = view(many, "candles")
    ids = instrument_ids(many, "KRX").sort_index()
    own = pd.concat([bars.candles(many, int(k)).assign(code=code) for code, k in ids.items()])
    assert len(found) == len(own) > 400
    assert found["code"].tolist() == own["code"].tolist()
    assert found["ts"].tolist() == own.index.tolist()
    for name in ("volume", "flags"):
        assert found[name].tolist() == own[name].tolist()
    for name in ("open", "high", "low", "close"):
        np.testing.assert_allclose(found[name], own[name], rtol=1e-14)
    np.testing.assert_array_equal(found["value"], own["value"])
    assert found["final"].tolist() == [not flags & Flag.PROVISIONAL for flags in own["flags"]]


def test_the_raw_view_is_what_was_stored(held):
    found = view(held, "candles_raw")
    assert [tuple(row) for row in found[[*NUMBERS, "flags"]].itertuples(index=False)] == list(RAW.values())
    assert not found.empty and found["final"].all()


@pytest.mark.parametrize("as_of", [None, date(2024, 5, 1), date(2024, 5, 31), date(2024, 6, 9), date(2024, 7, 23)])
@pytest.mark.parametrize("final_only", [True, False])
def test_the_panel_equals_the_candles_of_each_instrument(many, as_of, final_only):
    panel = bars.panel(many, "KRX", as_of=as_of, final_only=final_only)
    ids = sorted(int(k) for k in instrument_ids(many, "KRX"))
    expected = {k: bars.candles(many, k, as_of=as_of) for k in ids}
    if final_only:
        expected = {k: one[(one["flags"] & int(Flag.PROVISIONAL)) == 0] for k, one in expected.items()}
    expected = {k: one for k, one in expected.items() if not one.empty}
    assert panel.ids.tolist() == list(expected)
    assert panel.bounds.tolist() == np.cumsum([0, *map(len, expected.values())]).tolist()
    for place, one in enumerate(expected.values()):
        rows = panel.rows(place)
        assert panel.ts[rows].tolist() == one.index.tolist()
        for name in NUMBERS:
            np.testing.assert_array_equal(panel.columns[name][rows], one[name])
    if as_of is None:
        dropped = len(bars.panel(many, "KRX", final_only=False).ts) - len(bars.panel(many, "KRX").ts)
        assert dropped == 3  # the unfinished ends of the instruments 0, 3 and 6


def test_the_panel_of_an_empty_market_is_empty(many):
    panel = bars.panel(many, "NONE")
    assert (len(panel.ids), panel.bounds.tolist(), len(panel.ts)) == (0, [0], 0)


# When a week is final. Friday 2 August 2024 is the last day of its week.

FLAT = (100, 100, 100, 100, 10, math.nan, 0)
THURSDAY, FRIDAY = "2024-08-01", "2024-08-02"


def asked(conn: Connection, code: str, until: datetime, timeframe: str = "1d") -> None:
    """A source was asked about an instrument up to a moment, and had nothing more."""
    conn.execute(
        text("INSERT INTO ops.cursors VALUES (:id, :timeframe, 'test', '2024-01-01', :until, :run)"),
        {"id": number(conn, code), "timeframe": timeframe, "until": until, "run": RUN},
    )


def weeks(conn: Connection, code: str, **known) -> list[bool]:
    """Whether each week of an instrument is final, as `candles` reads it; `panel` must say the same."""
    one = bars.candles(conn, number(conn, code), "1w", **known)
    final = [Flag.PROVISIONAL not in Flag(flags) for flags in one["flags"]]
    panel = bars.panel(conn, "KRX", timeframe="1w", final_only=False, **known)
    rows = panel.rows(panel.ids.tolist().index(number(conn, code)))
    assert panel.columns["flags"][rows].tolist() == one["flags"].tolist()
    only = bars.panel(conn, "KRX", timeframe="1w", **known)
    kept = only.rows(only.ids.tolist().index(number(conn, code))) if number(conn, code) in only.ids else slice(0, 0)
    assert only.ts[kept].tolist() == [ts for ts, is_final in zip(one.index, final, strict=True) if is_final]
    return final


@pytest.fixture
def two(conn: Connection) -> Connection:
    """A stock that traded to Friday, and one that was halted on it."""
    know(conn, "TRADED", "HALTED")
    hold(conn, "TRADED", {THURSDAY: FLAT, FRIDAY: FLAT})
    hold(conn, "HALTED", {THURSDAY: FLAT})
    return conn


def test_a_week_is_final_when_its_last_trading_day_is(two):
    assert weeks(two, "TRADED") == [True]
    assert weeks(two, "TRADED", as_of=date(2024, 8, 1)) == [False]


def test_a_halted_instruments_week_is_final_when_a_source_was_asked_after_its_last_day(two):
    assert weeks(two, "HALTED") == [False]
    asked(two, "HALTED", datetime(2024, 8, 2, 15, tzinfo=KST))
    assert weeks(two, "HALTED") == [False]
    two.execute(text("UPDATE ops.cursors SET asked_until = '2024-08-02 15:30+09'"))
    assert weeks(two, "HALTED") == [True]
    assert weeks(two, "HALTED", as_of=date(2024, 8, 1)) == [False]
    assert weeks(two, "HALTED", as_of=date(2024, 8, 2)) == [True]


def test_a_hole_that_nobody_explains_keeps_a_week_from_being_final(two):
    asked(two, "HALTED", datetime(2024, 8, 9, 18, tzinfo=KST))
    two.execute(
        text("""INSERT INTO ops.gaps (instrument_id, timeframe, ts, kind, state, source, run_id)
                VALUES (:id, '1d', '2024-08-02', 'late', 'open', 'test', :run)"""),
        {"id": number(two, "HALTED"), "run": RUN},
    )
    assert weeks(two, "HALTED") == [False]
    two.execute(text("UPDATE ops.gaps SET kind = 'halted', state = 'explained'"))
    assert weeks(two, "HALTED") == [True]


def test_a_bar_of_a_later_week_proves_the_past_also_for_who_reads_the_past(two):
    hold(two, "HALTED", {"2024-08-09": FLAT})
    assert weeks(two, "HALTED", as_of=date(2024, 8, 2)) == [True]
    assert weeks(two, "HALTED", as_of=date(2024, 8, 1)) == [False]
    assert weeks(two, "HALTED") == [True, True]


def test_a_week_with_an_unfinished_day_in_it_is_not_final_for_lack_of_that_day(two):
    hold(two, "TRADED", {FRIDAY: (*FLAT[:-1], int(Flag.PROVISIONAL))}, source="later")
    know(two, "FORMING")
    hold(two, "FORMING", {THURSDAY: FLAT, FRIDAY: (*FLAT[:-1], int(Flag.PROVISIONAL))})
    asked(two, "FORMING", datetime(2024, 8, 9, 18, tzinfo=KST))
    assert weeks(two, "TRADED") == [True]  # a final bar is never replaced by an unfinished one
    assert weeks(two, "FORMING") == [False]


# Hours, and moments. Wednesday 16 September 2026 is the third day with an after-market.


@pytest.fixture
def day(conn: Connection) -> Connection:
    know(conn, "A")
    starts = ["08:55", "09:00", "10:00", "15:15", "15:30", "16:00", "19:55"]
    hold(
        conn, "A",
        {f"2026-09-16 {at}+09:00": (n, n + 1, n, n, 10**n, math.nan, 0) for n, at in enumerate(starts, start=1)},
        timeframe="5m",
    )  # fmt: skip
    hold(conn, "A", {"2026-09-15": FLAT, "2026-09-16": FLAT})
    return conn


def hourly(conn: Connection, **known) -> dict[str, tuple[float, float, int]]:
    found = bars.candles(conn, number(conn, "A"), "1h", **known)
    starts = found.index.tz_convert(KST).strftime("%H:%M")
    return {at: (row.close, row.volume, row.flags) for at, row in zip(starts, found.itertuples(), strict=True)}


def test_hours_are_made_of_five_minutes_by_the_calendar(day):
    assert hourly(day) == {
        "08:00": (1, 10, 0),
        "09:00": (2, 100, 0),
        "10:00": (3, 1000, 0),
        "15:00": (5, 110_000, 0),
        "16:00": (6, 10**6, 0),
        "19:00": (7, 10**7, Flag.PROVISIONAL),
    }
    asked(day, "A", datetime(2026, 9, 16, 20, 5, tzinfo=KST), "5m")
    assert hourly(day)["19:00"] == (7, 10**7, 0)


def test_a_bar_is_visible_from_the_moment_it_has_ended(day):
    def seen(clock: str) -> dict[str, tuple[float, float, int]]:
        return hourly(day, as_of=datetime.fromisoformat(f"2026-09-16 {clock}+09:00"))

    assert seen("08:59") == {}
    assert list(seen("09:04:59")) == ["08:00"]
    assert seen("09:05") == {"08:00": (1, 10, 0), "09:00": (2, 100, Flag.PROVISIONAL)}
    assert seen("09:59")["09:00"] == (2, 100, Flag.PROVISIONAL)
    assert seen("10:00")["09:00"] == (2, 100, 0)  # a later bar is held: there was nothing up to ten
    assert seen("15:34")["15:00"] == (4, 10**4, Flag.PROVISIONAL)
    assert seen("15:35")["15:00"] == (5, 110_000, Flag.PROVISIONAL)
    assert seen("15:45")["15:00"] == (5, 110_000, 0)


def test_a_daily_bar_is_visible_when_the_after_market_has_ended(day):
    def seen(moment: str) -> list[str]:
        found = bars.candles(day, number(day, "A"), as_of=datetime.fromisoformat(moment))
        panel = bars.panel(day, "KRX", as_of=datetime.fromisoformat(moment))
        assert panel.ts.tolist() == found.index.tolist()
        return found.index.strftime("%m-%d").tolist()

    assert seen("2026-09-16T19:59:59+09:00") == ["09-15"]
    assert seen("2026-09-16T20:00+09:00") == ["09-15", "09-16"]
    assert seen("2026-09-16T11:00+00:00") == ["09-15", "09-16"]


def test_a_date_ends_at_its_markets_midnight(day):
    hold(day, "A", {"2026-09-17 00:00+09:00": FLAT}, timeframe="5m")
    found = bars.candles(day, number(day, "A"), "5m", as_of=date(2026, 9, 16))
    assert len(found) == 7
    assert len(bars.panel(day, "KRX", timeframe="5m", as_of=date(2026, 9, 16)).ts) == 7
    assert len(bars.panel(day, "KRX", timeframe="5m", since=date(2026, 9, 17)).ts) == 1


def test_a_split_of_intraday_bars_is_at_midnight_of_the_market(conn):
    know(conn, "A")
    hold(conn, "A", {"2024-08-05 08:59+09:00": FLAT, "2024-08-04 23:55+09:00": FLAT}, timeframe="5m")
    split(conn, "A", ("2024-08-05", 0.5, 2.0, "split"))
    assert bars.candles(conn, number(conn, "A"), "5m")["close"].tolist() == [50, 100]


@pytest.mark.parametrize("name", ["as_of", "known_at"])
def test_a_moment_without_a_zone_is_refused(held, name):
    with pytest.raises(SchemaError, match="without a time zone"):
        bars.candles(held, number(held, "AAPL"), **{name: datetime(2024, 8, 5, 12)})  # noqa: DTZ001


def test_a_market_that_nobody_knows_has_no_days(held):
    with pytest.raises(NotFound, match="'NONE'.*KRX, SIM, US"):
        bars.panel(held, "NONE", as_of=date(2024, 8, 5))


# Bases.


def test_raw_prices_are_as_they_were_traded(held):
    split(held, "AAPL", ("2024-08-06", 1.0, 1.0, "unknown"))
    assert said(bars.candles(held, number(held, "AAPL"), basis="raw")) == RAW


def test_dividends_are_undone_when_asked_for_and_move_no_volume(held):
    split(held, "AAPL", ("2024-08-06", 0.5, 1.0, "dividend"), ("2024-08-05", 0.5, 1.0, "dividend"))
    split(held, "AAPL", ("2024-08-05", 0.5, 2.0, "split"))  # the same day, beside it
    found = said(bars.candles(held, number(held, "AAPL"), basis="price+dividend"))
    assert found["2024-08-02"] == (13.5, 13.5, 12.375, 12.5, 3000, 150_000.0, 0)
    assert found["2024-08-05"] == (25, 26, 24.5, 25.5, 3001, 153_000.0, 0)
    assert found["2024-08-06"] == RAW["2024-08-06"]
    panel = bars.panel(held, "KRX", basis="price+dividend")
    assert panel.columns["close"].tolist() == [close for _, _, _, close, *_ in found.values()]


def test_bars_before_an_action_of_unknown_size_are_left_out_once_it_is_known_of(held):
    split(held, "AAPL", ("2024-08-02", 1.0, 1.0, "unknown"))
    days = list(RAW)
    assert said(bars.candles(held, number(held, "AAPL"))) == {day: ADJUSTED[day] for day in days[2:]}
    assert len(bars.panel(held, "KRX").ts) == 3
    before = bars.candles(held, number(held, "AAPL"), as_of=date(2024, 8, 1))
    assert said(before) == {day: RAW[day] for day in days[:2]}


def test_an_unknown_basis_is_refused(held):
    with pytest.raises(ConfigError, match="'adjusted'.*raw, price, price\\+dividend"):
        bars.candles(held, number(held, "AAPL"), basis="adjusted")


# What was known at a moment.


def test_a_bar_that_was_replaced_is_read_as_it_stood(held):
    first, second, third = (datetime(2024, 8, day, tzinfo=UTC) for day in (10, 12, 14))
    hold(held, "AAPL", {"2024-08-06": (51, 55, 50, 53, 4000, 1.0, 0)}, now=second)
    hold(held, "AAPL", {"2024-08-06": (51, 55, 50, 52, 4000, 1.0, 0)}, now=third)

    def close(known_at: datetime | None) -> float:
        found = bars.candles(held, number(held, "AAPL"), known_at=known_at)
        panel = bars.panel(held, "KRX", known_at=known_at)
        assert panel.columns["close"].tolist() == found["close"].tolist()
        assert found["close"].tolist()[:-1] == [bar[3] for bar in list(ADJUSTED.values())[:-1]]
        return float(found["close"].iloc[-1])

    assert close(first) == 54
    assert close(second) == 53  # what replaced it at that moment was known at that moment
    assert close(second + timedelta(hours=1)) == 53
    assert close(third) == 52
    assert close(None) == 52
    week = bars.candles(held, number(held, "AAPL"), "1w", known_at=first)
    assert week["close"].tolist() == [50, 54]


# A market at once, in longer bars.


@pytest.mark.parametrize("timeframe", ["1w", "2w", "1mo", "3mo"])
@pytest.mark.parametrize("as_of", [None, date(2024, 6, 9), datetime(2024, 7, 23, 12, tzinfo=UTC)])
def test_the_panel_of_longer_bars_equals_the_candles_of_each_instrument(many, timeframe, as_of):
    panel = bars.panel(many, "KRX", timeframe=timeframe, as_of=as_of, final_only=False)
    for place, k in enumerate(panel.ids.tolist()):
        one, rows = bars.candles(many, k, timeframe, as_of=as_of), panel.rows(place)
        assert panel.ts[rows].tolist() == one.index.tolist()
        for name in [*NUMBERS, "flags"]:
            np.testing.assert_array_equal(panel.columns[name][rows], one[name])


def test_what_is_read_since_a_date_begins_with_its_whole_period(many):
    whole = bars.panel(many, "KRX", timeframe="1mo", final_only=False)
    found = bars.panel(many, "KRX", timeframe="1mo", final_only=False, since=date(2024, 6, 19))
    late = whole.ts >= pd.Timestamp("2024-06-01", tz="UTC")
    assert 0 < len(found.ts) < len(whole.ts)
    np.testing.assert_array_equal(found.columns["volume"], whole.columns["volume"][late])
    days = bars.panel(many, "KRX", since=date(2024, 6, 19))
    assert days.ts.min() >= pd.Timestamp("2024-06-19", tz="UTC")
