"""Which days a market trades and when: against received bars, other people's lists, and the simulator's own table."""

import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartinsight_lib import calendars
from chartinsight_lib.calendars import Calendar, calendar, disagreements, horizon_warning, published, tables
from chartinsight_lib.errors import BeyondHorizon, NotFound, SchemaError
from chartinsight_lib.simulator import sessions as simulated

KST, NEW_YORK = ZoneInfo("Asia/Seoul"), ZoneInfo("America/New_York")
KRX, US, NXT = calendar("KRX"), calendar("US"), calendar("KRX", "NXT")


def day(written: str) -> date:
    return date.fromisoformat(written)


def seoul(written: str) -> datetime:
    return datetime.fromisoformat(written).replace(tzinfo=KST)


def hours(known: Calendar, written: str) -> list[str]:
    """Opening and close of each phase of a day, in order, as in 09:00-15:30."""
    found = known.session(day(written))
    pairs = [
        (found.before_opens, found.before_closes),
        (found.opens, found.closes),
        (found.after_opens, found.after_closes),
    ]
    return [f"{opens:%H:%M}-{closes:%H:%M}" for opens, closes in pairs if opens and closes]


def shown(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return [(f"{at:%Y-%m-%d}", kind) for at, kind in zip(frame["day"], frame["kind"], strict=True)]


# What the sources say.


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("2024-10-01", "Armed Forces Day, called late"),
        ("2025-01-27", "temporary, before Seollal"),
        ("2025-06-03", "presidential election"),
        ("2026-06-03", "local elections"),
        ("2026-07-17", "Constitution Day is a holiday again"),
        ("2026-10-05", "for National Foundation Day, a Saturday"),
        ("2026-12-31", "the last weekday of a year"),
        ("2027-05-03", "for Labour Day, a Saturday"),
        ("2028-04-12", "general election"),
        ("1998-06-04", "local elections"),
        ("1998-12-12", "no Saturday any more"),
    ],
)
def test_krx_is_closed(written, why):
    assert not KRX.is_trading_day(day(written)), why


def test_krx_traded_on_saturday_mornings_until_december_1998():
    assert hours(KRX, "1998-12-05") == ["09:30-11:30"]
    assert KRX.days(day("1998-11-30"), day("1998-12-12")).astype(str).tolist() == [
        *(f"1998-11-{at}" for at in (30,)), *(f"1998-12-{at:02}" for at in (1, 2, 3, 4, 5, 7, 8, 9, 10, 11)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1995-03-02", ["09:30-15:00"]),
        ("1998-12-04", ["09:30-15:00"]),
        ("1998-12-07", ["09:00-15:00"]),
        ("2016-07-29", ["09:00-15:00"]),
        ("2016-08-01", ["09:00-15:30"]),
        ("2026-01-02", ["10:00-15:30"]),  # the first of a year
        ("2026-01-05", ["09:00-15:30"]),
        ("2017-11-16", ["10:00-16:30"]),  # the exam was put off by an earthquake when this had been announced
        ("2017-11-23", ["10:00-16:30"]),
        *(
            (f"{exam}", ["10:00-16:30"])
            for exam in ("2021-11-18", "2022-11-17", "2023-11-16", "2024-11-14", "2025-11-13")
        ),
        ("2026-09-11", ["09:00-15:30"]),
        ("2026-09-14", ["09:00-15:30", "16:00-20:00"]),
        ("2026-11-19", ["10:00-16:30", "17:00-20:00"]),
        ("2027-01-04", ["10:00-15:30", "16:00-20:00"]),
        ("2027-11-18", ["10:00-16:30", "17:00-20:00"]),
    ],
)
def test_krx_keeps_these_hours(written, expected):
    assert hours(KRX, written) == expected
    assert hours(calendar("SIM"), written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2025-03-04", ["08:00-08:50", "09:00-15:20", "15:30-20:00"]),
        ("2025-11-13", ["10:00-16:20", "16:30-20:00"]),
        ("2026-01-02", ["10:00-15:20", "15:30-20:00"]),
    ],
)
def test_nextrade_keeps_these_hours(written, expected):
    """As newspapers had them: edaily at its start, ajunews of 2025-10-30, asiae of 2025-12-18."""
    assert hours(NXT, written) == expected


def test_nextrade_trades_on_the_days_of_krx_since_it_began():
    assert NXT.first == day("2025-03-04")
    assert (NXT.days(NXT.first, NXT.horizon) == KRX.days(NXT.first, KRX.horizon)).all()


def test_new_york_is_closed_as_it_has_announced():
    """Source: NYSE Group, 2025-12-23, "2026, 2027 and 2028 holiday and early closings calendar"."""
    closed = {
        2026: "0101 0119 0216 0403 0525 0619 0703 0907 1126 1225",
        2027: "0101 0118 0215 0326 0531 0618 0705 0906 1125 1224",
        2028: "0117 0221 0414 0529 0619 0704 0904 1123 1225",
    }
    for year, written in closed.items():
        weekdays = np.arange(f"{year}-01-01", f"{year + 1}-01-01", dtype="datetime64[D]")
        weekdays = weekdays[np.is_busday(weekdays)]
        missing = np.setdiff1d(weekdays, US.days(date(year, 1, 1), date(year, 12, 31)))
        assert [f"{at:%m%d}" for at in missing.tolist()] == written.split()
    early = ["2026-11-27", "2026-12-24", "2027-11-26", "2028-07-03", "2028-11-24"]
    held = US.sessions(day("2026-01-01"), day("2028-12-31"))["closes"].dt.tz_convert(NEW_YORK)
    assert [f"{at:%Y-%m-%d}" for at in held[held.dt.time == time(13)]] == early
    assert set(held.dt.time) == {time(13), time(16)}


def test_hours_of_new_york_follow_its_summer_time():
    assert US.session(day("2024-03-08")).opens.astimezone(UTC).time() == time(14, 30)
    assert US.session(day("2024-03-11")).opens.astimezone(UTC).time() == time(13, 30)


# What was received.


def weekday_list(shared_data: Path, name: str) -> np.ndarray:
    return pd.to_datetime(pd.read_csv(shared_data / name)["date"]).to_numpy("datetime64[D]")


@pytest.mark.shared
def test_weekdays_are_those_of_the_recorded_lists(shared_data):
    """`krx_holidays.csv` knows of four days more than `krx_sessions.csv`; neither knows the Saturdays."""
    held, closed = (weekday_list(shared_data, name) for name in ("krx_sessions.csv", "krx_holidays.csv"))
    ours = KRX.days(day("1996-01-01"), day("2026-12-31"))
    assert np.intersect1d(ours, closed).size == 0
    assert np.setdiff1d(held, ours).astype(str).tolist() == ["1996-04-11", "1998-06-04", "2026-06-03", "2026-07-17"]
    saturdays = np.setdiff1d(ours, held)
    assert np.is_busday(saturdays, weekmask="0000010").all() and saturdays[-1] == np.datetime64("1998-12-05")


@pytest.mark.shared
def test_hours_are_those_of_the_recorded_list_but_for_those_that_it_has_wrong(shared_data):
    held = pd.read_csv(shared_data / "krx_sessions.csv").set_index("date")
    ours = KRX.sessions(day("1996-01-01"), day("2026-12-31"))[["opens", "closes"]]
    ours = ours.apply(lambda moments: moments.dt.tz_convert(KST).dt.strftime("%H:%M"))
    ours.index = ours.index.strftime("%Y-%m-%d")
    both = held.join(ours, how="inner")
    wrong = both[(both["open_kst"] != both["opens"]) | (both["close_kst"] != both["closes"])]
    assert wrong.index.tolist() == [
        "1998-11-18",  # 30 minutes late, not an hour
        "2021-11-18", "2022-11-17", "2023-11-16", "2024-11-14", "2025-11-13", "2026-11-19",  # exams it does not know
        "2026-12-30",  # the last day that the package was asked for opens late there
    ]  # fmt: skip


@pytest.mark.shared
def test_index_bars_exist_on_exactly_the_trading_days(shared_data):
    """24,572 bars of 1990 to 2026-03: not one disagreement, but for two days that KS200 lacks and two stocks have."""
    held = pd.read_parquet(shared_data / "krx_index_daily.parquet")
    for code, bars in held.groupby("code"):
        lacks = [("1995-02-02", calendars.NO_BAR), ("1995-02-03", calendars.NO_BAR)] if code == "KS200" else []
        assert shown(disagreements(KRX, pd.to_datetime(bars["date"]))) == lacks
    stocks = pd.read_parquet(shared_data / "krx_daily_vendor_compare.parquet").query(
        "source == 'kiwoom_2023' and volume > 0"
    )
    assert pd.to_datetime(stocks["date"]).isin(pd.to_datetime(["1995-02-02", "1995-02-03"])).any()


YAHOO_LACKS = ["2000-05-09", "2000-05-30", "2000-10-16", "2000-10-27", "2001-03-14", "2001-09-24", "2001-09-28", "2001-11-09",
               "2002-01-03", "2002-01-31", "2002-08-23", "2002-12-02", "2007-03-02"]  # fmt: skip
REASONS = {
    "yahoo_2017": {
        "2006-05-31": "Yahoo repeats bars on the day of local elections", **dict.fromkeys(YAHOO_LACKS, "holes of Yahoo's")
    },
    "yahoo_2019": {
        "2006-05-31": "as in yahoo_2017", **dict.fromkeys(YAHOO_LACKS, "as in yahoo_2017"),
        **dict.fromkeys(["2017-09-22", "2017-09-26", "2017-12-20"], "holes of Yahoo's"),
    },
    "naver_frgn_page_2020": dict.fromkeys(["2018-04-30", "2018-05-02", "2018-05-03"], "005930 was halted for its split"),
}  # fmt: skip
"""Where a file that holds a market, or one stock, disagrees with the calendar, and why the file is wrong or has no bar."""


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    ["krx_daily_fdr_2022", "krx_daily_all_2023_2025", "krx_daily_kospi_2020_2026", "krx_daily_vendor_compare"],
)
def test_stocks_traded_on_exactly_the_trading_days(shared_data, name):
    held = pd.read_parquet(shared_data / f"{name}.parquet").query("volume > 0")
    held = held.assign(date=pd.to_datetime(held["date"]))
    for source, bars in held.groupby("source") if "source" in held else [(name, held)]:
        found = disagreements(KRX, bars["date"])
        if source == "kiwoom_2023":
            # Two stocks in its first years, and in each January, May and September until 1999 it lacks the first half.
            found = found[(found["kind"] == calendars.TRADED) | (found["day"] >= "1998-12-05")]
        assert set(found["day"].dt.strftime("%Y-%m-%d")) == set(REASONS.get(source, {})), source


@pytest.mark.shared
def test_american_stocks_traded_on_exactly_the_trading_days(shared_data):
    held = pd.to_datetime(pd.read_parquet(shared_data / "us_daily.parquet")["date"])
    assert disagreements(US, held).empty
    assert len(US.days(day("2000-01-03"), day("2024-03-08"))) == held.nunique()


# A second table, written by somebody else.


def test_the_simulators_own_table_has_the_same_days():
    first, last = day("2010-01-01"), day("2028-12-31")
    assert (KRX.days(first, last) == simulated.trading_days(first, last)).all()


def test_the_simulators_own_table_has_the_same_hours():
    """One difference: on an exam day its after-market begins at 16:30, with the close. KRX's trading after hours has always
    begun an hour later on that day (heraldcorp.com 10615007: only its end stays), so ours begins at 17:00."""
    differ = []
    for at in KRX.days(day("2010-01-01"), day("2028-12-31")).tolist():
        ours, theirs = KRX.session(at), simulated.session(at)
        assert (ours.opens, ours.closes, ours.after_closes) == (theirs.opens, theirs.closes, theirs.after_closes)
        if ours.after_opens != theirs.after_opens:
            differ.append(f"{at}")
    assert differ == ["2026-11-19", "2027-11-18", "2028-11-16"]


# The tables.


@pytest.mark.parametrize("exchange", ["XKRX", "XNYS"])
def test_what_is_published_is_what_the_installed_package_says(exchange):
    """When this fails the package is another version: write `published.csv` anew (see `published.py`), and read what changed."""
    assert list(published.lines(exchange)) == list(tables.published(exchange))


def test_no_correction_is_superfluous_and_each_says_what_would_hold_without_it():
    written = pd.read_csv(Path(tables.__file__).with_name("xkrx.csv"), comment="#", dtype=str)
    assert written["day"].is_monotonic_increasing and written["day"].is_unique
    assert written["source"].str.len().min() > 10
    rules = tables.RULES["XKRX"]
    lines = {line.day: line for line in tables.published("XKRX")}
    corrected = {line.day: line for line in tables.corrections("XKRX")}
    for at, instead_of in zip(corrected, written["instead_of"], strict=True):
        without = {**lines, **{other: line for other, line in corrected.items() if other != at}}
        days, opens, closes, _, _ = tables.regular_session(rules, without)
        row = np.flatnonzero(days == np.datetime64(at))
        walls = [pd.Timestamp(0) + wall[row[0]] for wall in (opens, closes) if len(row)]
        found = "-".join(f"{wall:%H:%M}" for wall in walls) or "closed"
        assert found == instead_of, at
        assert found != "closed" or corrected[at].change != "closed"


@pytest.mark.parametrize(
    "row", [{"day": "2024-13-01"}, {"change": "shut"}, {"change": "hours"}, {"opens": "09:00"}, {"opens": "nine"}]
)
def test_a_line_that_makes_no_sense_is_refused(row):
    line = {"day": "2024-08-15", "change": "closed", "opens": "", "closes": "", **row}
    with pytest.raises(SchemaError, match="xkrx.csv"):
        tables._line(line, "xkrx.csv")


def test_an_answer_costs_no_import_of_the_package():
    """It would take more than a second of each command and each page."""
    program = "import sys; from chartinsight_lib.calendars import calendar; calendar('KRX'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pandas" in done.stdout.split() and "exchange_calendars" not in done.stdout.split()


# The answers.


def test_beyond_what_is_known_everything_is_an_alarm_that_says_what_to_do():
    for late in (day("2029-01-01"), day("1989-12-31")):
        now = datetime.combine(late, time(12), KST)
        for asked in (
            lambda late=late: KRX.is_trading_day(late),
            lambda late=late: KRX.days(late, late),
            lambda late=late: KRX.session(late),
            lambda late=late: KRX.sessions(day("2024-01-02"), late),
            lambda late=late: KRX.days_between(late, seoul("2024-01-02 12:00")),
            lambda now=now: KRX.last_ended(now),
            lambda now=now: KRX.days_between(day("2024-01-02"), now),
            lambda now=now: KRX.days_begun(day("2024-01-02"), now),
            lambda now=now: KRX.is_open(now),
        ):
            with pytest.raises(BeyondHorizon, match=f"KRX: {late} is not known, only 1990-01-01 to 2028-12-31.*update"):
                asked()
    with pytest.raises(BeyondHorizon, match="no day that is known had ended"):
        KRX.last_ended(seoul("1990-01-01 12:00"))


def test_the_horizon_is_announced_half_a_year_before():
    assert horizon_warning("KRX", seoul("2028-07-04 12:00")) is None
    assert "known from 1990-01-01 to 2028-12-31; it is 2028-07-05" in horizon_warning("KRX", seoul("2028-07-05 12:00"))
    assert "it is 2030-01-01" in horizon_warning("SIM", seoul("2030-01-01 12:00"))
    assert horizon_warning("US", datetime(2026, 1, 1, tzinfo=UTC)) is None


def test_an_unknown_market_and_a_closed_day_are_named():
    with pytest.raises(NotFound, match="'LSE'.*KRX, SIM, US, KRX at NXT"):
        calendar("LSE")
    with pytest.raises(NotFound, match="'US at NXT'"):
        calendar("US", "NXT")
    with pytest.raises(NotFound, match="KRX 2024-08-15: .*2024-08-14 and 2024-08-16"):
        KRX.session(day("2024-08-15"))


def test_a_day_ends_with_its_last_phase():
    thursday = day("2026-09-10")
    assert KRX.last_ended(seoul("2026-09-11 15:29")) == thursday
    assert KRX.last_ended(seoul("2026-09-11 15:30")) == day("2026-09-11")
    assert KRX.last_ended(seoul("2026-09-14 19:59")) == day("2026-09-11")
    assert KRX.last_ended(seoul("2026-09-14 20:00")) == day("2026-09-14")
    assert KRX.last_ended(seoul("2026-09-27 03:00")) == day("2026-09-23")  # Chuseok


@pytest.mark.parametrize(
    ("now", "ended", "begun"),
    [
        ("2026-09-22 20:00", 0, 0),
        ("2026-09-23 08:59", 0, 0),
        ("2026-09-23 09:00", 0, 1),
        ("2026-09-23 20:00", 1, 1),
        ("2026-09-28 08:59", 1, 1),  # after Chuseok and a weekend
        ("2026-09-28 21:00", 2, 2),
        ("2026-09-01 12:00", 0, 0),  # before the day
    ],
)
def test_age_is_counted_in_trading_days(now, ended, begun):
    of = day("2026-09-22")
    assert (KRX.days_between(of, seoul(now)), KRX.days_begun(of, seoul(now))) == (ended, begun)


@pytest.mark.parametrize(
    ("written", "market", "venue"),
    [
        ("08:30", False, True), ("08:55", False, False), ("09:00", True, True), ("15:25", True, False), ("15:30", False, True),
        ("15:59", False, True), ("16:00", True, True), ("19:59", True, True), ("20:00", False, False),
    ],
)  # fmt: skip
def test_a_market_is_open_in_its_phases_and_not_between_them(written, market, venue):
    now = seoul(f"2026-10-12 {written}")
    assert (KRX.is_open(now), NXT.is_open(now)) == (market, venue)
    assert not KRX.is_open(now - timedelta(days=1)) and not NXT.is_open(now - timedelta(days=3))


def test_a_frame_of_sessions_is_in_utc():
    found = KRX.sessions(day("2026-09-11"), day("2026-09-14"))
    assert found.index.name == "day" and found.index.tolist() == [
        pd.Timestamp("2026-09-11"),
        pd.Timestamp("2026-09-14"),
    ]
    assert {str(kind) for kind in found.dtypes} == {"datetime64[us, UTC]"}
    assert found["opens"].tolist() == [pd.Timestamp("2026-09-11T00:00Z"), pd.Timestamp("2026-09-14T00:00Z")]
    assert found["after_closes"].isna().tolist() == [True, False]
    assert KRX.sessions(day("2026-09-12"), day("2026-09-13")).empty


def test_disagreements_are_told_apart():
    received = ["2024-08-13", "2024-08-15", "2024-08-16", "2024-08-13"]
    assert shown(disagreements(KRX, received)) == [
        ("2024-08-14", "no bar on an open day"),
        ("2024-08-15", "traded on a closed day"),
    ]
    none = disagreements(KRX, np.array([], "datetime64[D]"))
    assert none.empty and list(none.columns) == ["day", "kind"]
    assert disagreements(KRX, ["1980-01-04", "2031-01-02"]).empty  # nothing is known of these


# What always holds.

DAYS = st.dates(KRX.first, KRX.horizon)
MOMENTS = st.datetimes(datetime(1990, 2, 1), datetime(2028, 12, 31, 12), timezones=st.just(UTC))  # noqa: DTZ001
CALENDARS = st.sampled_from([KRX, calendar("SIM")])


@given(known=CALENDARS, first=DAYS, length=st.integers(0, 40))
def test_days_are_those_that_are_trading_days_and_have_hours(known, first, length):
    last = min(first + timedelta(days=length), known.horizon)
    found = known.days(first, last).tolist()
    every = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    assert found == [at for at in every if known.is_trading_day(at)]
    frame = known.sessions(first, last)
    assert [at.date() for at in frame.index] == found
    for at in every:
        if at not in found:
            with pytest.raises(NotFound):
                known.session(at)
            continue
        hours = known.session(at)
        assert hours.day == hours.opens.date() == hours.ends.date() == at
        assert hours.opens < hours.closes <= (hours.after_opens or hours.closes) <= hours.ends
        assert frame.loc[pd.Timestamp(at), ["opens", "closes"]].tolist() == [hours.opens, hours.closes]


@given(known=CALENDARS, one=MOMENTS, other=MOMENTS)
def test_the_last_day_that_ended_never_goes_back(known, one, other):
    earlier, later = sorted((one, other))
    assert known.last_ended(earlier) <= known.last_ended(later)
    assert known.session(known.last_ended(later)).ends <= later


@given(known=CALENDARS, now=MOMENTS, first=DAYS, second=DAYS)
def test_ages_add_up(known, now, first, second):
    first, second = sorted((first, second))
    second = min(second, known.last_ended(now))
    if first > second:
        assert known.days_between(first, now) == 0
        return
    assert known.days_between(first, now) == len(known.days(first, second)) - known.is_trading_day(
        first
    ) + known.days_between(second, now)
    assert 0 <= known.days_begun(first, now) - known.days_between(first, now) <= 1


@given(now=MOMENTS)
def test_an_open_market_has_begun_a_day_that_has_not_ended(now):
    if KRX.is_open(now):
        ended = KRX.last_ended(now)
        assert (KRX.days_between(ended, now), KRX.days_begun(ended, now)) == (0, 1)
