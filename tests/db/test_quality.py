"""Ledger, completeness, repair, findings and comparison on a real PostgreSQL, from the source's rows on."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from pydantic import SecretStr
from rows_source import Rows
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.cli import main
from chartinsight_lib.clients import open_source
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import collect_daily, collect_intraday
from chartinsight_lib.db import gaps
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import BeyondHorizon, Fenced, NotFound, Unavailable
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.quality.check import Checked, check
from chartinsight_lib.quality.compare import compare_with
from chartinsight_lib.quality.repair import Repaired, opener, repair
from chartinsight_lib.quality.verify import Verified, verify
from chartinsight_lib.settings import Settings
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.generated import GeneratedMarket
from chartinsight_lib.simulator.model import KST
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.server import SimulatorServer
from chartinsight_lib.sources import open_source as open_any

DAYS = [date(2024, 7, day) for day in (22, 23, 24, 25, 26, 29, 30, 31)] + [date(2024, 8, day) for day in (1, 2, 5)]
"""Eleven trading days: three weeks, the last of them begun."""
NOW = datetime(2024, 8, 6, 1, 0, tzinfo=UTC)  # a Tuesday, 10:00 in Seoul: Monday has ended
HOUR = timedelta(hours=1)


def rows(*codes: str, without: Mapping[str, list[date]] | None = None, days: list[date] = DAYS) -> pd.DataFrame:
    """A bar for each code and day, except some."""
    found = [
        (code, day, 1000 + at, 1010 + at, 990 + at, 1000 + at, 500)
        for code in codes
        for at, day in enumerate(days)
        if day not in (without or {}).get(code, [])
    ]
    return pd.DataFrame(found, columns=["code", "date", "open", "high", "low", "close", "volume"])


def load(engine: Engine, source: Rows, now: datetime = NOW) -> None:
    with ledger.notebook_run(engine, None, job="collect_daily", clock=fixed_clock(now)) as run_id:
        sync_instruments(engine, source, run_id=run_id, clock=fixed_clock(now))
        collect_daily(engine, source, run_id=run_id, clock=fixed_clock(now))


def checked(engine: Engine, market: str = "KRX", now: datetime = NOW, timeframe: str = "1d") -> Checked:
    with ledger.notebook_run(engine, None, job="check", clock=fixed_clock(now)) as run_id:
        return check(engine, market, run_id=run_id, clock=fixed_clock(now), timeframe=timeframe)


def repaired(engine: Engine, source: Rows, now: datetime = NOW, **options: object) -> Repaired:
    with ledger.notebook_run(engine, None, job="repair_gaps", clock=fixed_clock(now)) as run_id:
        return repair(engine, lambda _: source, run_id=run_id, clock=fixed_clock(now), **options)


def ask(engine: Engine, statement: str) -> list[tuple]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(statement))]


def holes(engine: Engine) -> list[tuple]:
    return ask(engine, "SELECT code, day, kind, state, tries FROM api.gaps ORDER BY code, ts, kind")


def test_a_simulated_market_has_had_no_time_since_it_was_asked_last(loader):
    source = Rows(rows("000010"), NOW)
    source.market = "SIM"
    load(loader, source)
    later = checked(loader, "SIM", now=NOW + timedelta(days=30))
    assert (later.counts["late"], later.counts["missing"]) == (0, 0)


def test_a_second_check_finds_the_same_and_changes_nothing_but_the_time_of_it(loader):
    load(loader, Rows(rows("000010", "000020", without={"000020": [DAYS[3], DAYS[4]]}), NOW))
    first, before = checked(loader), holes(loader)
    assert first.changes == {"new": 2, "known": 0, "resolved": 0, "dropped": 0}
    second = checked(loader, now=NOW + HOUR)
    assert second.changes == {"new": 0, "known": 2, "resolved": 0, "dropped": 0}
    assert holes(loader) == before == [("000020", DAYS[at], "missing", "open", 0) for at in (3, 4)]
    assert ask(loader, "SELECT DISTINCT first_seen, last_checked FROM api.gaps") == [(NOW, NOW + HOUR)]


def test_what_a_day_lacks_is_late_until_the_next_one_has_ended_and_missing_then(loader):
    source = Rows(rows("000010", without={"000010": [DAYS[-1]]}), NOW)
    load(loader, source)
    checked(loader)
    assert holes(loader) == [("000010", DAYS[-1], "late", "open", 0)]
    wednesday = NOW + timedelta(days=1)
    source.rows = rows("000010", days=[*DAYS, date(2024, 8, 6)], without={"000010": [DAYS[-1]]})
    source.asked_at = wednesday
    load(loader, source, wednesday)
    checked(loader, now=wednesday)
    assert holes(loader) == [("000010", DAYS[-1], "missing", "open", 0)]
    assert ask(loader, "SELECT first_seen FROM api.gaps") == [(NOW,)]


def test_nobody_asked_since_so_all_that_came_after_is_late_however_long_ago(loader):
    load(loader, Rows(rows("000010"), NOW))
    checked(loader, now=NOW + timedelta(days=3))  # Friday, 9 August: the 6th to the 8th have ended
    assert [(day.day, kind) for _, day, kind, *_ in holes(loader)] == [(6, "late"), (7, "late"), (8, "late")]


def test_a_file_is_expected_to_hold_no_more_than_the_newest_final_day_of_its_market(loader):
    source = Rows(rows("000010", "000020", days=DAYS[:6], without={"000020": DAYS[4:]}), NOW, name="files:old.csv")
    load(loader, source, NOW)
    long_after = NOW + timedelta(days=500)
    assert checked(loader, now=long_after).counts["expected"] == 12
    assert holes(loader) == [("000020", DAYS[at], "missing", "open", 0) for at in (4, 5)]


def test_nothing_is_expected_before_a_listing_and_from_a_delisting_on(loader):
    listed = {"000020": (DAYS[2], DAYS[6]), "000030": (DAYS[5], None)}
    without = {"000020": [*DAYS[:2], *DAYS[6:]], "000030": DAYS[:7]}
    load(loader, Rows(rows("000010", "000020", "000030", without=without), NOW, listed=listed))
    found = checked(loader)
    assert found.counts["expected"] == 11 + 4 + 6
    # 000030 was listed on the sixth day, and its first bar is of the eighth.
    assert holes(loader) == [("000030", DAYS[at], "missing", "open", 0) for at in (5, 6)]


def test_what_was_asked_and_never_came_is_missing_from_its_listing_on_and_what_was_not_asked_is_not_expected(loader):
    source = Rows(rows("000010"), NOW, listed={"000020": (DAYS[8], None), "000030": (DAYS[8], None)})
    source.errors = {"000030": "out of order"}
    load(loader, source)
    found = checked(loader)
    assert found.uncollected == 1
    # The newest day may still come.
    assert [(code, day, kind) for code, day, kind, *_ in holes(loader)] == [
        ("000020", DAYS[8], "missing"), ("000020", DAYS[9], "missing"), ("000020", DAYS[10], "late")
    ]  # fmt: skip


def test_completeness_is_a_number_per_instrument_per_day_and_per_market(loader):
    told = rows("000010", "000020", "000030", without={"000020": [DAYS[3]]})
    halted = (told["code"] == "000030") & (told["date"] == DAYS[4])
    told.loc[halted, ["open", "high", "low", "volume"]] = 0
    load(loader, Rows(told, NOW))
    found = checked(loader)
    assert found.counts == {"expected": 33, "present": 31, "explained": 1, "missing": 1, "late": 0}
    assert found.completeness == pytest.approx(32 / 33)
    assert ask(loader, "SELECT code, first, last, expected, present, explained, missing, completeness FROM api.coverage "
                       "ORDER BY code") == [
        ("000010", DAYS[0], DAYS[-1], 11, 11, 0, 0, 1.0),
        ("000020", DAYS[0], DAYS[-1], 11, 10, 0, 1, pytest.approx(10 / 11)),
        ("000030", DAYS[0], DAYS[-1], 11, 10, 1, 0, 1.0),
    ]  # fmt: skip
    whole = "SELECT day, expected, completeness FROM api.completeness WHERE market = 'KRX' ORDER BY day"
    assert ask(loader, whole) == [
        (day, 3, pytest.approx(2 / 3) if day == DAYS[3] else 1.0) for day in DAYS
    ]  # fmt: skip
    assert ask(loader, "SELECT market, timeframe, instruments, uncollected, expected, missing, late, given_up, findings, "
                       "oldest_open, completeness FROM api.quality") == [
        ("KRX", "1d", 3, 0, 33, 1, 0, 0, 0, DAYS[3], pytest.approx(32 / 33))
    ]  # fmt: skip


def test_a_provisional_bar_is_late_and_stays_where_it_is(loader):
    load(loader, Rows(rows("000010", days=DAYS[:-1]), NOW, rows("000010", days=[DAYS[-1]])))
    load_again = "SELECT count(*) FROM live.candles WHERE flags & 1 <> 0"
    checked(loader)
    assert ask(loader, load_again) == [(1,)]
    assert holes(loader) == [("000010", DAYS[-1], "late", "open", 0)]


# Repair.


def test_a_repair_asks_from_before_the_first_hole_on_and_resolves_what_comes(loader):
    source = Rows(rows("000010", "000020", "000030", without={"000020": [DAYS[3], DAYS[6]]}), NOW)
    load(loader, source)
    checked(loader)
    source.rows, source.held = rows("000010", "000020", "000030"), []
    done = repaired(loader, source)
    assert source.held == [{"000020": DAYS[2]}]  # 000010 and 000030 are not asked for
    assert (done.asked, done.ended) == (["000020"], {"tried": 0, "given_up": 0})
    assert (done.before.counts["missing"], done.after.counts["missing"]) == (2, 0)
    assert holes(loader) == []
    resolved = "SELECT code, day, kind, tries FROM api.gaps_resolved ORDER BY day"
    assert ask(loader, resolved) == [("000020", DAYS[3], "missing", 1), ("000020", DAYS[6], "missing", 1)]
    assert repaired(loader, source, NOW + timedelta(days=9)).asked == []


def test_a_hole_is_tried_four_times_at_growing_distances_and_then_given_up_with_the_reason(loader):
    listed = {"000010": (None, date(2024, 8, 6))}  # delisted, so that nothing is expected of it later on
    source = Rows(rows("000010", without={"000010": [DAYS[3]]}), NOW, listed=listed)
    load(loader, source)
    tries, at = [], NOW
    for _ in range(24 * 40):  # every hour of forty days
        source.asked_at = at
        done = repaired(loader, source, at)
        if done.asked:
            tries.append((at - NOW, [row[3:] for row in holes(loader) if row[1] == DAYS[3]]))
        at += HOUR
        if len(tries) == 4:
            break
    # Each wait begins with the try before it: an hour, a day, a week.
    assert [since for since, _ in tries] == [HOUR * 0, HOUR, HOUR * 25, HOUR * (25 + 24 * 7)]
    assert [state for _, state in tries] == [[("open", 1)], [("open", 2)], [("open", 3)], [("given_up", 4)]]
    reasons = ask(loader, "SELECT reason, next_try FROM api.gaps WHERE state = 'given_up'")
    assert reasons == [("tried 4 times: handmade has no bar of it", None)]
    # Only who says so asks again.
    month_later = NOW + timedelta(days=40)
    source.rows = rows("000010")
    assert repaired(loader, source, month_later).asked == []
    assert repaired(loader, source, month_later, again=True).asked == ["000010"]
    assert holes(loader) == []


def test_who_dies_in_the_midst_of_a_try_has_tried_and_is_followed_when_its_time_comes(loader):
    source = Rows(rows("000010", without={"000010": [DAYS[3]]}), NOW)
    load(loader, source)
    checked(loader)
    with loader.begin() as conn:  # as `repair` does before it asks
        number = gaps.due(conn, "KRX", "1d", now=NOW, most=9)["instrument_id"].tolist()
        gaps.begin_tries(conn, number, "1d", now=NOW)
    assert holes(loader) == [("000010", DAYS[3], "missing", "repairing", 1)]
    source.rows = rows("000010")
    assert repaired(loader, source, NOW + HOUR / 2).asked == []
    assert repaired(loader, source, NOW + HOUR).asked == ["000010"]
    assert holes(loader) == []


def test_a_source_that_says_why_there_was_no_bar_explains_the_hole(loader):
    source = Rows(rows("000010", without={"000010": [DAYS[3]]}), NOW)
    load(loader, source)
    checked(loader)
    told = rows("000010")
    told.loc[told["date"] == DAYS[3], ["open", "high", "low", "volume"]] = 0
    source.rows = told
    repaired(loader, source)
    assert holes(loader) == [("000010", DAYS[3], "halted", "explained", 1)]
    assert ask(loader, "SELECT next_try, reason FROM api.gaps") == [(None, None)]


def test_an_instrument_that_cannot_be_asked_for_has_its_error_as_the_reason(loader):
    source = Rows(rows("000010", "000020", without={"000010": [DAYS[3]], "000020": [DAYS[3]]}), NOW)
    load(loader, source)
    source.errors = {"000020": "the server knows it no more"}
    done = repaired(loader, source)
    assert done.report.errors == source.errors
    assert ask(loader, "SELECT code, reason FROM api.gaps ORDER BY code") == [
        ("000010", "tried 1 times: handmade has no bar of it"),
        ("000020", "tried 1 times: the server knows it no more"),
    ]


def test_a_source_that_is_out_of_reach_leaves_the_holes_open_with_that_reason(loader):
    class Dead(Rows):
        def daily(self, held: Mapping[str, date] = ()) -> object:
            raise Unavailable("the server is closed")

    source = Rows(rows("000010", without={"000010": [DAYS[3]]}), NOW)
    load(loader, source)
    with pytest.raises(Unavailable):
        repaired(loader, Dead(source.rows, NOW))
    assert ask(loader, "SELECT state, tries, reason FROM api.gaps") == [
        ("open", 1, "tried 1 times: the server is closed")
    ]  # fmt: skip


def test_the_oldest_holes_come_first_and_no_more_than_allowed(loader):
    without = {"000010": [DAYS[6]], "000020": [DAYS[2]], "000030": [DAYS[4]]}
    source = Rows(rows(*without, without=without), NOW)
    load(loader, source)
    assert [repaired(loader, source, most=2).asked for _ in range(2)] == [["000020", "000030"], ["000010"]]


def test_a_run_that_was_given_up_writes_nothing(loader):
    load(loader, Rows(rows("000010", without={"000010": [DAYS[3]]}), NOW))
    clock = fixed_clock(NOW)
    with (
        pytest.raises(Fenced, match="it counts as ended already"),  # nor does it end a second time
        ledger.notebook_run(loader, None, job="check", clock=clock) as run_id,
    ):
        with loader.begin() as conn:
            conn.execute(text("UPDATE ops.runs SET state = 'lost' WHERE run_id = :run_id"), {"run_id": run_id})
        for job in (check, verify):
            with pytest.raises(Fenced):
                job(loader, "KRX", run_id=run_id, clock=clock)
    assert holes(loader) == []


def test_a_calendar_that_has_ended_is_said_and_not_passed_over(loader):
    load(loader, Rows(rows("000010"), NOW))
    with pytest.raises(BeyondHorizon, match="calendar of KRX"):
        checked(loader, now=datetime(2099, 1, 4, tzinfo=UTC))
    with pytest.raises(NotFound, match="1w"):
        checked(loader, timeframe="1w")


# From the simulated broker.


def test_holes_of_a_simulated_market_are_mended_from_it_daily_and_intraday(loader, tmp_path):
    """Bars that are taken out of the middle come back, and the table is what it was."""
    clock = SimulatedClock(datetime(2026, 10, 13, 20, 30, tzinfo=KST), speed=0, published=tmp_path / "clock")
    with SimulatorServer(GeneratedMarket(3, instruments=12), clock, Options(quota=10_000)) as server:
        settings = Settings(
            now=f"@{tmp_path / 'clock'}", kiwoom_url=server.url, kiwoom_rate=10_000.0, kiwoom_years=1,
            kiwoom_appkey=SecretStr("simulated-appkey"), kiwoom_secretkey=SecretStr("simulated-secretkey"), _env_file=None,
        )  # fmt: skip
        now = settings.clock
        with ledger.notebook_run(loader, None, job="collect_daily", clock=now) as run_id:
            source = open_any("simulated", settings, loader)
            sync_instruments(loader, source, run_id=run_id, clock=now)
            collect_daily(loader, source, run_id=run_id, clock=now).check()
            collect_intraday(loader, source, [], run_id=run_id, clock=now, most_traded=4).check()
        before = {
            timeframe: ask(loader, "SELECT instrument_id, ts, close, volume, flags FROM live.candles "
                                   f"WHERE timeframe = '{timeframe}' ORDER BY 1, 2")
            for timeframe in ("1d", "5m")
        }  # fmt: skip
        for timeframe in ("1d", "5m"):
            with ledger.notebook_run(loader, None, job="check", clock=now) as run_id:
                clean = check(loader, "SIM", run_id=run_id, clock=now, timeframe=timeframe)
            assert clean.counts["missing"] == 0, clean
        with loader.begin() as conn:
            taken = conn.execute(text("""
                WITH victims AS (
                    SELECT instrument_id, timeframe, ts, row_number() OVER (PARTITION BY instrument_id, timeframe ORDER BY ts) AS n
                    FROM   live.candles AS c JOIN live.instruments AS i ON i.id = c.instrument_id
                    WHERE  i.market = 'SIM')
                DELETE FROM live.candles AS c USING victims AS v
                WHERE  c.instrument_id = v.instrument_id AND c.timeframe = v.timeframe AND c.ts = v.ts
                AND    (v.timeframe = '1d' AND v.n IN (100, 101, 150)  -- a morning, an evening and a whole day
                        OR v.timeframe = '5m' AND (v.ts < '2026-09-28T02:00Z' AND v.ts > '2026-09-28'
                                                   OR v.ts BETWEEN '2026-09-30T05:00Z' AND '2026-09-30T12:00Z'
                                                   OR v.ts BETWEEN '2026-10-06' AND '2026-10-07'))
                RETURNING c.timeframe
            """)).scalars().all()  # fmt: skip
        assert {"1d", "5m"} == set(taken)
        for timeframe in ("1d", "5m"):
            with ledger.notebook_run(loader, None, job="repair_gaps", clock=now) as run_id:
                done = repair(
                    loader, opener("simulated", settings, loader), run_id=run_id, clock=now, timeframe=timeframe
                )
            assert done.before.counts["missing"] > 0
            assert done.after.counts["missing"] == 0
            after = ask(loader, "SELECT instrument_id, ts, close, volume, flags FROM live.candles "
                                f"WHERE timeframe = '{timeframe}' ORDER BY 1, 2")  # fmt: skip
            assert after == before[timeframe]


# Findings.


def verified(engine: Engine, now: datetime = NOW) -> Verified:
    with ledger.notebook_run(engine, None, job="verify", clock=fixed_clock(now)) as run_id:
        return verify(engine, "KRX", run_id=run_id, clock=fixed_clock(now))


def test_findings_are_kept_once_forgotten_when_mended_and_left_alone_when_dismissed(loader):
    told = rows("000010", "000020")
    told.loc[(told["date"] == DAYS[4]), ["open", "high", "low", "close"]] = 2000
    source = Rows(told, NOW)
    load(loader, source)
    found = verified(loader)
    assert found.bars == 22
    kept = "SELECT code, day, rule, state FROM api.findings ORDER BY code, day"
    # Up by 99 % on one day; the way back is a fall by half, to 1,005 of 2,000.
    assert ask(loader, kept) == [
        (code, DAYS[at], "beyond_limit", "open") for code in ("000010", "000020") for at in (4, 5)
    ]  # fmt: skip
    assert found.changes == {"new": 4, "changed": 0, "known": 0, "forgotten": 0}
    assert verified(loader, NOW + HOUR).changes == {"new": 0, "changed": 0, "known": 4, "forgotten": 0}
    with loader.begin() as conn:
        conn.execute(text("UPDATE ops.findings SET state = 'dismissed' WHERE instrument_id = "
                          "(SELECT id FROM live.instruments WHERE code = '000020')"))  # fmt: skip
    source.rows = rows("000010", "000020")
    with ledger.notebook_run(loader, None, job="collect_daily", clock=fixed_clock(NOW)) as run_id:
        collect_daily(loader, source, run_id=run_id, clock=fixed_clock(NOW), again=True).check()
    assert verified(loader).changes["forgotten"] == 2
    assert {row[3] for row in ask(loader, kept)} == {"dismissed"}


def test_a_bar_of_a_closed_day_and_an_open_day_without_any_bar_are_told(loader):
    sunday = date(2024, 8, 4)
    load(loader, Rows(rows("000010", "000020", days=[*DAYS[:9], sunday, DAYS[10]]), NOW))
    found = verified(loader)
    assert ask(loader, "SELECT code, day, rule FROM api.findings ORDER BY code") == [
        (code, sunday, "closed_day") for code in ("000010", "000020")
    ]
    assert [(str(row.day.date()), row.kind) for row in found.calendar_days.itertuples()] == [
        ("2024-08-02", "no bar on an open day"), ("2024-08-04", "traded on a closed day")
    ]  # fmt: skip


# Comparison.


def test_another_file_is_compared_with_what_is_held_and_nothing_is_stored(loader, tmp_path):
    load(loader, Rows(rows("000010", "000020", "000030"), NOW))
    other = rows("000010", "000020", "000030")
    half = other["code"] == "000020"
    other.loc[half, ["open", "high", "low", "close"]] *= 2
    other = other[(other["code"] != "000030") | (other["date"] != DAYS[3])]
    other.to_csv(tmp_path / "other.csv", index=False)
    counted = "SELECT count(*) FROM live.candles"
    before = ask(loader, counted)
    source = open_source(f"files:{tmp_path / 'other.csv'}", last_day="final")
    found = compare_with(loader, source, clock=fixed_clock(NOW))
    assert [(row.code, row.verdict, row.ratio, row.only_ours) for row in found.itertuples()] == [
        ("000010", "equal", 1, 0), ("000020", "basis", 2, 0), ("000030", "equal", 1, 1)
    ]  # fmt: skip
    assert compare_with(loader, source, clock=fixed_clock(NOW), codes=["000020"])["code"].tolist() == ["000020"]
    assert ask(loader, counted) == before
    with pytest.raises(NotFound, match="999990"):
        compare_with(loader, source, clock=fixed_clock(NOW), codes=["999990"])


def test_a_source_is_compared_on_the_basis_that_it_tells_raw_or_with_events_undone(loader, tmp_path):
    told = rows("000010").assign(
        adj_close=lambda frame: frame["close"].where(frame["date"] >= DAYS[5], frame["close"] / 5)
    )
    told.to_csv(tmp_path / "split.csv", index=False)
    source = open_source(f"files:{tmp_path / 'split.csv'}", last_day="final")
    load(loader, source)
    adjusted = told.assign(
        close=told["adj_close"], open=told["adj_close"], high=told["adj_close"], low=told["adj_close"]
    )
    adjusted.drop(columns="adj_close").to_csv(tmp_path / "adjusted.csv", index=False)
    for name, basis in (("split", "raw"), ("adjusted", "price")):
        other = open_source(f"files:{tmp_path / name}.csv", last_day="final", columns={"code": "code"})
        (row,) = compare_with(loader, other, clock=fixed_clock(NOW)).itertuples()
        assert (row.basis, row.verdict, row.equal) == (basis, "equal", 11)


@pytest.mark.shared
def test_restated_histories_are_found_by_comparing_two_fetches(loader, shared_data: Path, tmp_path):
    """Three symbols of `nasties/restated_history.csv`, each with its ratio of the later to the earlier closes, and Samsung,
    which was not restated."""
    listed = pd.read_csv(shared_data / "nasties" / "restated_history.csv", dtype={"code": "str"}).set_index("code")
    wanted = ["000100", "001460", "003120", "005930"]
    files = {}
    for name in ("krx_daily_fdr_2022", "krx_daily_kospi_2020_2026"):
        whole = pd.read_parquet(shared_data / f"{name}.parquet")
        files[name] = tmp_path / f"{name}.parquet"
        whole[whole["code"].isin(wanted)].to_parquet(files[name])
    source = open_source(f"files:{files['krx_daily_fdr_2022']}", last_day="final")
    load(loader, source)
    later = open_source(f"files:{files['krx_daily_kospi_2020_2026']}", last_day="final")
    found = compare_with(loader, later, clock=fixed_clock(NOW + timedelta(days=700))).set_index("code")
    for code in wanted[:3]:
        assert found.loc[code, "ratio"] == pytest.approx(1 / listed.loc[code, "ratio_median"], rel=2e-3)
        assert found.loc[code, "verdict"] in {"basis", "errors"}
    assert found.loc["005930", "verdict"] == "equal"


# The commands.


@pytest.fixture
def chartinsight(loader, database, settings, monkeypatch) -> Callable[..., tuple[int, str]]:
    """Run `chartinsight data …` on the test's database at NOW; return exit code and output."""
    monkeypatch.setenv("DATABASE_URL", database.url(Role.LOADER))
    monkeypatch.setenv("CHARTINSIGHT_HOME", str(settings.home))
    monkeypatch.setenv("CHARTINSIGHT_NOW", NOW.isoformat())

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["data", *arguments])
        return done.exit_code, done.output

    return run


def test_the_commands_say_what_is_missing_ask_for_it_and_say_what_came(chartinsight, loader, tmp_path):
    code, said = chartinsight("gaps")
    assert (code, "nothing is held of it" in said) == (2, True)
    whole, holed = tmp_path / "all.csv", rows("000010", "000020", without={"000020": [DAYS[3], DAYS[4]]})
    rows("000010", "000020").to_csv(whole, index=False)
    load(loader, Rows(holed, NOW))
    code, said = chartinsight("gaps")
    assert code == 0
    assert "000020" in said.splitlines()[-1]
    assert "2024-07-25 2024-07-26      2" in said  # two days in one row
    assert "000010" not in said.partition("holes")[2]
    code, said = chartinsight("repair", "--source", f"files:{whole}", "--last-day", "final")
    assert code == 0, said
    assert holes(loader) == []
    code, said = chartinsight("verify")
    assert (code, "22 bars of KRX; findings: 0 new" in said) == (0, True)
    code, said = chartinsight("universe", "--as-of", "2024-08-05")
    assert (code, "2 instruments of KRX on 2024-08-05" in said) == (0, True), said
    code, said = chartinsight(
        "compare", "--with", f"files:{whole}", "--last-day", "final", "--to", str(tmp_path / "out.csv")
    )
    assert code == 0
    assert "2 instruments, 22 common days, closes equal on 22 (100.00%)" in said
    assert pd.read_csv(tmp_path / "out.csv")["verdict"].tolist() == ["equal", "equal"]


def test_a_repair_that_could_not_ask_ends_with_one_and_says_why(chartinsight, loader, tmp_path):
    load(loader, Rows(rows("000010", without={"000010": [DAYS[3]]}), NOW))
    code, said = chartinsight("repair", "--source", f"files:{tmp_path / 'none.csv'}")
    assert (code, "there is no such file" in said) == (2, True)
