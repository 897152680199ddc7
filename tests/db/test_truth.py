"""What holds of every read: it knows nothing of later days, it says again what it said then, it is refused when it is stale, and
what is simulated says so."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from holding import NOW, RUN, hold, know, number, split
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from chartinsight_lib.charts import chart_parts
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.db.bars import candles, panel
from chartinsight_lib.domain import KST
from chartinsight_lib.errors import NotEnoughHistory
from chartinsight_lib.radar import Radar, scan
from chartinsight_lib.widgets.status_strip import status_html

# KRX's days without trading from June to October 2024, besides weekends, as the exchange announced them.
HOLIDAYS = [
    "2024-06-06",
    "2024-08-15",
    "2024-09-16",
    "2024-09-17",
    "2024-09-18",
    "2024-10-01",
    "2024-10-03",
    "2024-10-09",
]
WEEKDAYS = np.busday_offset("2024-06-03", np.arange(100), holidays=HOLIDAYS)
KINDS = {"split": 0.5, "rights": 0.9, "dividend": 0.97, "restatement": 1.25, "unknown": 1.0}

many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
closes = st.lists(st.integers(100, 900), min_size=2, max_size=12)


def bars(prices: list[int], first: int = 0, flags: int = 0) -> dict[str, tuple]:
    """Bars of trading days in succession, with a range of a won to each side."""
    days = WEEKDAYS[first : first + len(prices)]
    rows = [(price, price + 1, price - 1, price, 10 * price, 1000.0 * price, flags) for price in prices]
    return dict(zip(days.astype(str).tolist(), rows, strict=True))


@pytest.fixture
def cleared(conn):
    """Empties bars and factors between two examples."""
    know(conn, "A", "B")

    def clear() -> None:
        for table in ("candles", "factors", "revisions"):
            conn.execute(text(f"DELETE FROM live.{table}"))

    return clear


@many
@given(
    prices=closes,
    events=st.lists(st.tuples(st.integers(0, 12), st.sampled_from(sorted(KINDS))), max_size=4, unique=True),
    cut=st.integers(0, 11),
    basis=st.sampled_from(["raw", "price", "price+dividend"]),
    timeframe=st.sampled_from(["1d", "1w", "1mo"]),
)
def test_a_read_as_of_a_day_is_the_read_of_a_store_that_ends_with_that_day(
    conn, cleared, prices, events, cut, basis, timeframe
):
    """Bars and corporate actions that came later are as if they had never come; of one instrument, and of a market."""
    day = WEEKDAYS[min(cut, len(prices) - 1)].item()
    told = {
        (str(WEEKDAYS[at]), kind == "dividend"): (str(WEEKDAYS[at]), KINDS[kind], 1 / KINDS[kind], kind)
        for at, kind in events
    }

    def filled(last: date) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        cleared()
        for code in ("A", "B"):
            hold(conn, code, {at: row for at, row in bars(prices).items() if at <= f"{last}"})
        split(conn, "A", *(event for event in told.values() if event[0] <= f"{last}"))
        one = candles(conn, number(conn, "A"), timeframe, as_of=day, basis=basis)
        market = panel(conn, "KRX", timeframe=timeframe, as_of=day, basis=basis, final_only=False)
        return one, {**market.columns, "ts": market.ts.to_numpy(), "bounds": market.bounds}

    after, market_after = filled(date(2024, 12, 31))
    then, market_then = filled(day)
    pd.testing.assert_frame_equal(after, then)
    assert market_after.keys() == market_then.keys()
    for name, values in market_after.items():
        np.testing.assert_array_equal(values, market_then[name])


@many
@given(tellings=st.lists(st.lists(st.integers(100, 900), min_size=5, max_size=5), min_size=1, max_size=5))
def test_what_was_read_at_a_moment_is_read_again_for_that_moment_whatever_was_revised_since(conn, cleared, tellings):
    cleared()
    said = []
    for at, prices in enumerate(tellings):
        hold(conn, "A", bars(prices), now=NOW + timedelta(hours=2 * at))
        said.append(candles(conn, number(conn, "A")))
    for at, frame in enumerate(said):
        again = candles(conn, number(conn, "A"), known_at=NOW + timedelta(hours=2 * at + 1))
        pd.testing.assert_frame_equal(again, frame)
    pd.testing.assert_frame_equal(candles(conn, number(conn, "A"), known_at=NOW + timedelta(days=9)), said[-1])


@many
@given(newest=st.integers(30, 80), minutes=st.integers(0, 20 * 24 * 60))
def test_a_scan_is_refused_and_a_page_warns_exactly_when_more_than_one_trading_day_has_begun_since(
    loader, newest, minutes
):
    """Counted by hand: trading days open at nine in Seoul."""
    with loader.begin() as conn:
        know(conn, "A")
        for table in ("live.candles", "radar.snapshot"):
            conn.execute(text(f"DELETE FROM {table}"))
        hold(conn, "A", bars([100] * 30, newest - 29))
    evening = datetime.combine(WEEKDAYS[newest].item(), datetime.min.time(), KST) + timedelta(hours=18)
    now = evening + timedelta(minutes=minutes)
    opened = [datetime.combine(day, datetime.min.time(), KST) + timedelta(hours=9) for day in WEEKDAYS.tolist()]
    begun = sum(evening < opening <= now for opening in opened)
    clock = fixed_clock(now)
    if begun > 1:
        with pytest.raises(NotEnoughHistory, match=f"{begun} trading days old"):
            scan(loader, market="KRX", as_of=None, clock=clock, run_id=RUN)
    named = scan(loader, market="KRX", as_of=WEEKDAYS[newest].item() if begun > 1 else None, clock=clock, run_id=RUN)
    assert named.as_of == WEEKDAYS[newest].item()
    status = Radar(loader, clock).status()
    assert (status.stale is not None) == (begun > 1)
    assert ("trading days old" in status_html(status)) == (begun > 1)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_simulated_prices_say_so_in_the_store_on_the_page_and_on_the_chart(loader, seed):
    name = f"simulated (seed {seed})"
    with loader.begin() as conn:
        know(conn, "A", market="SIM")
        for table in ("live.candles", "radar.snapshot"):
            conn.execute(text(f"DELETE FROM {table}"))
        hold(conn, "A", bars([100] * 30), market="SIM", source=name)
        assert conn.execute(text("SELECT DISTINCT market, source FROM api.candles")).one() == ("SIM", name)
        instrument_id = number(conn, "A", "SIM")
    clock = fixed_clock(datetime(2024, 7, 20, tzinfo=UTC))
    scan(loader, market="SIM", as_of=WEEKDAYS[29].item(), clock=clock, run_id=RUN)
    radar = Radar(loader, clock)
    status = radar.status()
    assert (status.simulated, status.source, status.market) == (True, name, "SIM")
    assert "Simulated data: no price on this page is real." in status_html(status)
    assert name in chart_parts(radar.chart(instrument_id, "1d"))[1]["title"]["text"]
    with loader.connect() as conn:
        assert conn.execute(text("SELECT DISTINCT market, source FROM api.radar")).one() == ("SIM", name)
