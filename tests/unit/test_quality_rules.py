"""States of expected bars, rules over stored ones, two tellings compared: every answer worked by hand or from real histories."""

from datetime import date
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from chartinsight_lib import normalise
from chartinsight_lib.calendars import calendar
from chartinsight_lib.quality import intraday
from chartinsight_lib.quality.comparison import compare, summary
from chartinsight_lib.quality.rules import Bars, findings
from chartinsight_lib.quality.states import Held, State, begins, classify, counts, first_true, last_true

LETTERS = {
    "#": "final",
    "~": "provisional",
    "n": "no_trade",
    "h": "halted",
    ".": "nothing",
}


def held(*rows: str) -> Held:
    """Draw what is held: # a final bar, ~ a provisional one, n no trade, h halted, . nothing."""
    drawn = np.array([list(row) for row in rows])
    return Held(*(np.asarray(drawn == letter) for letter in "#~nh"))


def states(
    row: str, *, first: int = 0, last: int | None = None, asked: int | None = None, fresh: int | None = None
) -> str:
    """The states of one instrument as letters: # present, n, h, l late, m missing, blank unexpected."""
    width = len(row)
    found = classify(
        held(row),
        np.array([first]),
        np.array([width - 1 if last is None else last]),
        asked=np.array([width - 1 if asked is None else asked]),
        fresh=width if fresh is None else fresh,
    )
    return "".join(" #nhlm"[state] for state in found[0])


@pytest.mark.parametrize(
    ("row", "options", "expected"),
    [
        ("####", {}, "####"),
        ("#.##", {}, "#m##"),
        ("#nh#", {}, "#nh#"),
        ("###.", {"fresh": 3}, "###l"),  # it ended today: it may still come
        ("##..", {"fresh": 3}, "##ml"),
        ("###~", {"fresh": 3}, "###l"),
        ("#~##", {}, "#l##"),  # what is held of it is not final yet, however long ago
        ("##..", {"asked": 1}, "##ll"),  # nobody was asked since
        ("#..#", {"asked": 1}, "#ml#"),
        ("....", {"first": 1, "last": 2}, " mm "),
        ("....", {"first": 4}, "    "),
        ("####", {"first": 2, "last": 1}, "    "),
    ],
)
def test_every_expected_bar_is_in_the_one_state_that_can_be_known(row, options, expected):
    assert states(row, **options) == expected


@given(
    masks=st.lists(arrays.arrays(bool, (3, 6)), min_size=4, max_size=4),
    first=arrays.arrays(np.int64, 3, elements=st.integers(-1, 7)),
    last=arrays.arrays(np.int64, 3, elements=st.integers(-1, 7)),
    asked=arrays.arrays(np.int64, 3, elements=st.integers(-1, 6)),
    fresh=st.integers(0, 6),
)
def test_the_counts_of_the_states_add_up_along_both_axes(masks, first, last, asked, fresh):
    found = classify(Held(*masks), first, last, asked=asked, fresh=fresh)
    for axis in (0, 1):
        counted = counts(found, axis)
        parts = counted["present"] + counted["explained"] + counted["missing"] + counted["late"]
        assert (counted["expected"] == parts).all()
    for row in range(3):
        days = set(range(6)) & set(range(max(first[row], 0), last[row] + 1))
        assert (found[row] != State.UNEXPECTED).sum() == len(days)


def test_the_first_and_last_true_of_rows_are_found_and_their_absence_too():
    drawn = np.array([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)
    assert first_true(drawn).tolist() == [1, 5, 0]
    assert last_true(drawn).tolist() == [3, -1, 4]


@pytest.mark.parametrize(
    ("row", "asked_from", "listed", "begin"),
    [
        ("..##", -1, -1, 2),  # nothing is known: with what is held
        (".h##", -1, -1, 1),  # a halt that a source tells of is held, too
        ("..##", 1, -1, 2),  # asked before, and not known when it was listed
        ("..##", 1, 0, 1),  # listed before it was asked for
        ("..##", 0, 1, 1),  # asked for before it was listed
        ("..##", -1, 1, 1),  # listed while the market is held
        ("#.##", 2, 2, 0),  # its own bars are older than what is said of it
        ("....", -1, 1, 4),  # nobody asked, and there is nothing: not collected
        ("....", 1, 0, 1),  # asked for, and nothing came
    ],
)
def test_a_history_begins_with_the_listing_or_with_what_was_asked(row, asked_from, listed, begin):
    found = begins(held(row), asked_from=np.array([asked_from]), listed=np.array([listed]), market_first=1)
    assert found.tolist() == [begin]


# Five-minute bars.

SEOUL = ZoneInfo("Asia/Seoul")
DAY = np.datetime64("2024-08-05")


def slots(
    *rows: str, volume: int = 10, daily: list[list[int]] | None = None, asked: int = 1, fresh: int = 2, boards=None
):
    """Draw two days of slots per instrument ("#" a bar of `volume`), say the daily volumes, and look for holes."""
    width = rows[0].index("|")
    opens = pd.Series(pd.to_datetime(["2024-08-05T00:00Z", "2024-08-06T00:00Z"]))
    closes = opens + pd.Timedelta(minutes=5 * width + 10)  # and an auction
    nothing = opens.where(opens.isna())
    sessions = pd.DataFrame({"opens": opens, "closes": closes, "after_opens": nothing, "after_closes": nothing})
    drawn = np.array([list(row.replace("|", "")) for row in rows]) == "#"
    number, at = np.nonzero(drawn)
    ts = (DAY + at // width).astype("datetime64[us]") + at % width * np.timedelta64(5, "m")
    bars = {"instrument_id": number + 1, "ts": ts, "volume": np.full(len(ts), volume)}
    totals = np.array(daily if daily else [[volume * int(part.count("#")) for part in row.split("|")] for row in rows])
    ids = np.arange(1, len(rows) + 1)
    whole = {
        "instrument_id": np.repeat(ids, 2),
        "ts": np.tile(np.array([DAY, DAY + 1]).astype("datetime64[us]"), len(rows)),
        "volume": totals.ravel(),
    }
    state, holes = intraday.find(
        bars, whole, ids, np.array([DAY, DAY + 1]), sessions,
        boards=np.array(boards or [0] * len(rows)), asked=np.full(len(rows), asked), fresh=fresh, zone=SEOUL,
    )  # fmt: skip
    found = [(int(row.instrument_id), f"{row.ts:%d %H:%M}", row.kind) for row in holes.itertuples()]
    return ["".join(" #nhlm"[one] for one in row) for row in state], sorted(found)


def test_a_hole_in_a_day_whose_volume_is_complete_is_no_trade_and_no_entry():
    assert slots("#.####|######") == (["##"], [])


def test_the_holes_of_a_day_whose_volume_falls_short_are_missing():
    state, holes = slots("#..###|######", daily=[[60, 60]])
    assert (state, holes) == (["m#"], [(1, "05 00:05", "missing"), (1, "05 00:10", "missing")])


def test_a_tenth_of_the_volume_may_be_traded_outside_of_the_bars():
    assert slots("#.####|######", daily=[[55, 60]])[1] == []  # 50 of 55
    assert slots("#.####|######", daily=[[56, 60]])[1] == [(1, "05 00:05", "missing")]


def test_a_day_without_any_bar_is_one_entry_at_its_opening_if_its_daily_bar_traded():
    rows = ("######|......", "######|######")
    state, holes = slots(*rows, daily=[[60, 60], [60, 60]])
    # The instrument is looked at up to its last day with such bars, which here is the first.
    assert (state, holes) == (["# ", "##"], [])
    rows = ("......|######", "######|######")
    assert slots(*rows, daily=[[60, 60], [60, 60]])[1] == []


FULL = "#" * 20
HOLE = "####" + "..." + "#" * 13


def test_a_hole_of_a_whole_board_between_bars_is_a_halt_of_that_board():
    rows = [f"{HOLE}|{FULL}", f"{HOLE}|{FULL}", f"{FULL}|{FULL}"]
    state, holes = slots(*rows, daily=[[200, 200]] * 3, boards=[0, 0, 1])
    assert state == ["##", "##", "##"]
    assert holes == [(number, f"05 00:{at}", "halted") for number in (1, 2) for at in (20, 25, 30)]


@pytest.mark.parametrize(
    "rows",
    [
        [HOLE],  # one instrument says nothing about its board
        [HOLE, FULL, FULL],  # the others traded
        ["#" * 17 + "..."] * 2,  # nothing came after it: a history that ends
        ["####..##############"] * 2,  # ten minutes are no circuit breaker
        ["#..." * 5] * 2,  # they hardly trade at all
    ],
)
def test_what_is_no_halt_is_missing_where_the_volume_falls_short_and_no_entry_else(rows):
    drawn = [f"{row}|{FULL}" for row in rows]
    assert slots(*drawn)[1] == []
    found = slots(*drawn, daily=[[500, 200]] * len(rows))[1]
    assert {kind for _, _, kind in found} == {"missing"}


def test_what_may_still_come_is_late():
    assert slots("######|#..###", daily=[[60, 60]], fresh=1) == (
        ["#l"], [(1, "06 00:05", "late"), (1, "06 00:10", "late")]
    )  # fmt: skip


@pytest.mark.shared
def test_the_circuit_breakers_of_march_2020_are_halts_of_the_whole_market(shared_data):
    """KOSPI stopped on 2020-03-13 from 10:43, KOSDAQ from 09:04; both on 2020-03-19 from 12:05; twenty minutes each, and the
    first price after it is found in an auction of ten minutes."""
    real = pd.read_parquet(shared_data / "krx_minute_5m.parquet")
    ts = pd.to_datetime(real["ts_kst"]).dt.tz_localize(SEOUL).dt.tz_convert("UTC").dt.tz_localize(None)
    codes = np.sort(real["code"].astype(str).unique())
    day = pd.to_datetime(real["ts_kst"]).dt.normalize()
    bars = {
        "instrument_id": np.searchsorted(codes, real["code"].astype(str)) + 1,
        "ts": ts.to_numpy("datetime64[us]"),
        "volume": real["volume"].to_numpy("int64"),
    }
    summed = real.assign(day=day).groupby(["code", "day"], observed=True)["volume"].sum().reset_index()
    whole = {
        "instrument_id": np.searchsorted(codes, summed["code"].astype(str)) + 1,
        "ts": summed["day"].to_numpy("datetime64[us]"),
        "volume": summed["volume"].to_numpy("int64"),
    }
    known = calendar("KRX")
    days = known.days(date(2020, 2, 18), date(2020, 4, 16))
    sessions = known.sessions(date(2020, 2, 18), date(2020, 4, 16))
    width = np.full(len(codes), len(days))
    kosdaq = np.isin(codes, ["035900", "053800"])
    _, holes = intraday.find(
        bars, whole, np.arange(1, len(codes) + 1), days, sessions,
        boards=kosdaq.astype("int64"), asked=width, fresh=len(days), zone=SEOUL,
    )  # fmt: skip
    holes = holes[holes["kind"] == "halted"]
    times = holes["ts"].dt.tz_convert(SEOUL).dt.strftime("%m-%d %H:%M")
    on_kosdaq = kosdaq[holes["instrument_id"] - 1]
    common = [f"03-19 12:{at}" for at in (10, 15, 20, 25, 30)]
    assert sorted(times[~on_kosdaq].unique()) == [
        "03-13 10:45",
        "03-13 10:50",
        "03-13 10:55",
        "03-13 11:00",
        "03-13 11:05",
        *common,
    ]
    kosdaq_halt = [f"03-13 09:{at}" for at in ("05", 10, 15, 20, 25)]
    assert sorted(times[on_kosdaq].unique()) == [*kosdaq_halt, *common]


# Rules over stored bars.

NO_EVENTS = pd.DataFrame({"instrument_id": pd.Series(dtype="int64"), "ex_date": pd.Series(dtype="datetime64[s]")})
WEEK = np.arange("2024-08-05", "2024-08-10", dtype="datetime64[D]")


def found_in(
    *closes: float, days: np.ndarray | None = None, high: dict[int, float] | None = None, events: pd.DataFrame = NO_EVENTS,
    volume: int = 10, limited: bool = True, trading: np.ndarray | None = None,
) -> list[tuple[str, str, str]]:  # fmt: skip
    close = np.array(closes, dtype=float)
    top = np.array([(high or {}).get(at, one) for at, one in enumerate(closes)], dtype=float)
    day = WEEK[: len(close)] if days is None else days
    bars = Bars(np.ones(len(close), np.int64), day, close, top, close, close, np.full(len(close), float(volume)))
    everyday = np.arange("1998-01-01", "2030-01-01", dtype="datetime64[D]")
    result = findings(bars, everyday if trading is None else trading, events, limited=limited, unit=1.0)
    return [(f"{row.ts:%m-%d}", row.rule, row.state) for row in result.itertuples()]


@pytest.mark.parametrize(
    ("closes", "expected"),
    [
        ((10_000, 13_000), []),  # the limit itself
        ((10_000, 13_020), [("08-06", "beyond_limit", "open")]),
        ((10_000, 13_010), [("08-06", "beyond_limit", "explained")]),  # a thousandth: rounding by whoever adjusted it
        ((10_000, 7_000), []),
        ((10_000, 6_900), [("08-06", "beyond_limit", "open")]),
        ((10, 14), [("08-06", "beyond_limit", "explained")]),  # one won too many: both prices were rounded
        ((10_000, 100_000), [("08-06", "scale_break", "open")]),
        ((10_000, 1_000, 10_000), [("08-06", "scale_break", "open"), ("08-07", "scale_break", "open")]),
        # Wound up: after a fall by more than half there is no limit for a while.
        ((1_000, 400, 250), [("08-06", "beyond_limit", "open"), ("08-07", "beyond_limit", "explained")]),
    ],
)
def test_a_close_beyond_the_limit_is_found_and_told_from_what_allows_it(closes, expected):
    assert found_in(*closes) == expected


def test_before_june_2015_the_limit_was_fifteen_percent():
    for day, found in (("2015-06-11", ["open"]), ("2015-06-14", [])):  # the second of the two days
        days = np.array([day, np.datetime64(day) + 1], dtype="datetime64[D]")
        assert [state for _, _, state in found_in(10_000, 11_600, days=days)] == found


def test_a_move_after_days_without_trade_and_one_on_an_ex_day_are_explained():
    days = np.array(["2024-08-05", "2024-08-07"], dtype="datetime64[D]")
    assert found_in(10_000, 20_000, days=days) == [("08-07", "beyond_limit", "explained")]
    event = pd.DataFrame({"instrument_id": [1], "ex_date": pd.to_datetime(["2024-08-06"])})
    assert found_in(10_000, 20_000, events=event) == [("08-06", "beyond_limit", "explained")]


def test_a_high_beyond_the_limit_is_found_and_its_bar_is_not_rejected():
    assert found_in(10_000, 10_100, high={1: 14_000}) == [("08-06", "range_beyond_limit", "open")]
    assert found_in(10_000, 10_100, high={1: 13_050}) == []


def test_a_market_without_limits_has_other_scales_all_the_same():
    assert found_in(10, 14, 140, limited=False) == [("08-07", "scale_break", "open")]


@pytest.mark.parametrize(
    ("closes", "days"),
    [
        ((700, 710, 71_000, 720, 730), [7]),  # a hundred times, for a day
        ((70_000, 71_000, 710, 72_000, 73_000), [7]),
        ((700, 71_000, 720, 730), [6]),  # company on one side is enough
        ((700, 710, 14_400, 720, 730), [7]),  # 14,400 / 720 = 20
        ((700, 710, 14_390, 720, 730), []),
        ((700, 71_000, 700), []),  # three bars: which is the odd one?
        ((700, 710, 71_000, 72_000, 73_000), []),  # it stays there: an event, a re-listing or another file's basis
        ((700, 71_000, 700, 71_000, 700, 71_000), []),  # scales alternate: nothing tells which is right
        ((700, 710, 720, 71_000), []),  # the newest bar: what follows is not known
        ((71_000, 700, 710, 720), []),
        ((700, 710, 71_000, 2_000, 2_100), []),  # its neighbours do not agree
        ((1_000, 1_300, 1_690, 2_197, 2_856), []),  # four days at the limit
        ((1_530, 63, 52, 40, 48), []),  # liquidation trading, as of 226440 in June 2025
    ],
)
def test_a_bar_alone_at_twenty_times_its_neighbours_is_found_and_they_are_not(closes, days):
    found = found_in(*closes, days=np.arange("2024-08-05", "2024-08-12", dtype="datetime64[D]")[: len(closes)])
    assert [int(day[-2:]) for day, rule, _ in found if rule == "lone_scale"] == days
    if days:
        assert len(found) == 1, "the bar after it is on the right scale, and nothing is excused as liquidation trading"


def test_a_lone_bar_of_one_instrument_is_not_judged_by_anothers():
    close = np.array([700, 710, 71_000, 72_000, 730, 740], dtype=float)
    bars = Bars(np.array([1, 1, 1, 2, 2, 2]), np.tile(WEEK[:3], 2), close, close, close, close, np.ones(6))
    assert "lone_scale" not in set(findings(bars, WEEK, NO_EVENTS, limited=True, unit=1.0)["rule"])


def test_a_move_beyond_the_limit_after_a_lone_bar_is_no_liquidation_trading():
    days = np.arange("2024-08-05", "2024-08-11", dtype="datetime64[D]")
    assert found_in(700, 710, 71_000, 720, 730, 1_100, days=days) == [
        ("08-07", "lone_scale", "open"),
        ("08-10", "beyond_limit", "open"),
    ]


@pytest.mark.parametrize(("close", "rules"), [(1_839, []), (1_890, ["beyond_limit"])])
def test_after_an_after_market_the_limit_is_counted_from_somewhere_in_the_day_before(close, rules):
    """Official close 1,415, within 1,355 to 1,453; last price at 20:00 1,402. 1,839 is the limit, 31 % above the last price; no
    close of that day allows more than 1.3 x 1,453 = 1,888.9."""
    day = np.array(["2026-09-23", "2026-09-28"], dtype="datetime64[D]")
    ends, low = np.array([1_402.0, close]), np.array([1_355.0, 1_449.0])
    top = np.array([1_453.0, close])
    bars = Bars(np.ones(2, np.int64), day, ends, top, low, ends, np.ones(2), np.ones(2, dtype=bool))
    assert findings(bars, day, NO_EVENTS, limited=True, unit=1.0)["rule"].tolist() == rules


def test_prices_that_moved_without_volume_are_found():
    assert found_in(100, 100, high={1: 110}, volume=0) == [("08-06", "volume_lost", "open")]


def test_a_bar_of_a_closed_day_is_found_and_one_before_the_calendar_is_not():
    trading = np.array(["2024-08-06", "2024-08-08"], dtype="datetime64[D]")
    assert found_in(100, 100, 100, 100, trading=trading) == [("08-07", "closed_day", "open")]


def test_the_first_bar_of_an_instrument_is_compared_with_nobodys():
    bars = Bars(np.array([1, 2]), WEEK[:2], *(np.array([10.0, 1_000.0]) for _ in range(4)), np.ones(2))
    assert findings(bars, WEEK, NO_EVENTS, limited=True, unit=1.0).empty


@pytest.mark.shared
def test_every_move_beyond_30_percent_that_is_a_bar_is_found(shared_data):
    """61 rows of real histories: 4 are halted days, of which no bar is stored; each of the other 57 is found."""
    rows = pd.read_csv(shared_data / "nasties" / "moves_beyond_30pct.csv", dtype={"code": "str"})
    known = calendar("KRX")
    bars = normalise.daily(rows, market="KRX", today=date(2030, 1, 1), provisional_from=None)
    # Some are in two sources alike.
    assert (len(bars.candles), len(bars.gaps), bars.duplicates) == (56, 3, 2)
    traded = rows[rows["open"] > 0]
    assert len(traded) == 57
    for row in traded.itertuples():
        day = np.datetime64(row.date)
        eve = known.days(date(2015, 1, 1), day.item())[-2]
        bars_ = Bars(
            np.array([1, 1]), np.array([eve, day]), *(np.array([row.prev, one], float) for one in
            (row.open, row.high, row.low, row.close)), np.array([1.0, row.volume]),
        )  # fmt: skip
        found = findings(bars_, known.days(known.first, known.horizon), NO_EVENTS, limited=True, unit=1.0)
        assert set(found["rule"]) & {"beyond_limit", "scale_break"}, row


@pytest.mark.shared
def test_false_alarms_on_a_real_market_of_six_years_are_none(shared_data):
    """KOSPI from 2020 to 2026: what is open is in the list of real moves beyond the limit, and nothing else is."""
    listed = pd.read_csv(shared_data / "nasties" / "moves_beyond_30pct.csv", dtype={"code": "str"})
    rows = pd.read_parquet(shared_data / "krx_daily_kospi_2020_2026.parquet")
    candles = normalise.daily(rows, market="KRX", today=date(2030, 1, 1), provisional_from=None).candles
    codes = np.sort(candles["code"].unique())
    bars = Bars(
        np.searchsorted(codes, candles["code"]),
        candles["ts"].dt.tz_localize(None).to_numpy("datetime64[D]"),
        *(candles[name].to_numpy(float) for name in ("open", "high", "low", "close", "volume")),
    )
    known = calendar("KRX")
    found = findings(bars, known.days(known.first, known.horizon), NO_EVENTS, limited=True, unit=1.0)
    shown = found.groupby(["rule", "state"]).size()
    print(f"\n{len(candles):,} bars: {shown.to_dict()}")  # noqa: T201 - for `pytest -s`
    named = {(codes[row.instrument_id], f"{row.ts:%Y-%m-%d}"): row.state for row in found.itertuples()}
    told = set(zip(listed["code"], listed["date"], strict=True))
    assert {key for key, state in named.items() if state == "open"} <= told
    # Two of the six are halted days, which are no bars.
    ours = listed[(listed["source"] == "kospi_2026") & (listed["open"] > 0)]
    assert set(zip(ours["code"], ours["date"], strict=True)) <= named.keys()
    assert len(ours) == 4


# Two tellings.


def telling(*closes: float, code: str = "005930", volume: int = 10, start: str = "2024-01-01") -> pd.DataFrame:
    days = pd.date_range(start, periods=len(closes), unit="s")
    frame = pd.DataFrame({"code": pd.Series([code] * len(closes), dtype="str"), "day": days, "close": closes})
    return frame.assign(volume=float(volume)).dropna()


TEN = [1000.0 + 7 * at for at in range(10)]


@pytest.mark.parametrize(
    ("theirs", "verdict", "ratio", "pieces"),
    [
        (TEN, "equal", 1, 1),
        ([one + 1 for one in TEN], "equal", 1, 1),  # a won apart is rounding
        ([one / 50 for one in TEN], "basis", 0.02, 1),
        ([one / 5 for one in TEN[:5]] + TEN[5:], "events", 1, 2),
        ([*TEN[:4], 2000.0, *TEN[5:]], "errors", 1, 1),
        ([1000.0, 2000.0, 500.0, 1700.0, 900.0, 3000.0, 100.0, 1400.0, 2800.0, 700.0], "unrelated", None, 0),
    ],
)
def test_what_two_tellings_have_to_do_with_one_another_is_named(theirs, verdict, ratio, pieces):
    (row,) = compare(telling(*TEN), telling(*theirs), unit=1.0).itertuples()
    assert (row.verdict, row.pieces, row.days) == (verdict, pieces, 10)
    assert row.ratio == pytest.approx(ratio, rel=1e-3) if ratio else np.isnan(row.ratio)


def test_days_and_volumes_that_one_lacks_are_counted_within_the_time_that_both_have():
    ours = telling(*TEN, np.nan, 1070.0)
    theirs = telling(*TEN[1:4], np.nan, *TEN[5:], 1070.0, 1070.0, 9.0, volume=11, start="2024-01-02")
    (row,) = compare(ours, theirs, unit=1.0).itertuples()
    # Of days 2 to 12, which both have, theirs lacks the 5th and ours the 11th.
    assert (row.only_ours, row.only_theirs, row.days, row.volume_differs) == (1, 1, 9, 9)


def test_a_summary_says_how_many_are_of_which_verdict_and_nothing_of_what_is_not_common():
    both = compare(
        pd.concat([telling(*TEN), telling(*TEN, code="000660")]),
        pd.concat([telling(*TEN), telling(*[one / 2 for one in TEN], code="000660"), telling(*TEN, code="035720")]),
        unit=1.0,
    )
    said = summary(both)
    assert "2 instruments, 20 common days, closes equal on 10 (50.00%)" in said
    assert "basis" in said
    assert "000660 ×0.5" in said
    assert summary(compare(telling(*TEN), telling(*TEN, code="000660"), unit=1.0)).startswith("the two have no")


@pytest.mark.shared
def test_samsung_is_told_alike_and_apart_as_the_table_of_the_sources_says(shared_data):
    """The data's own README: fdr and creon agree on 949 days from the split on and on 4,600 before it, one of which creon has
    twice, and there their volumes do not; naver's raw history before the split is 50 times the adjusted one, on 3,299 days."""
    real = pd.read_parquet(shared_data / "krx_daily_vendor_compare.parquet")
    real = real[(real["code"].astype(str) == "005930") & (real["volume"] > 0)]
    real = real.assign(code=real["code"].astype("str"), day=pd.to_datetime(real["date"]))
    sources = {name: frame[["code", "day", "close", "volume"]] for name, frame in real.groupby("source", observed=True)}
    fdr, creon = sources["fdr_naver_2022"], sources["creon_2022"].drop_duplicates(["code", "day"])
    (row,) = compare(fdr, creon, unit=1e-6).itertuples()
    assert (row.days, row.equal, row.verdict, row.volume_differs) == (949 + 4599, 949 + 4599, "equal", 4599)
    naver = sources["naver_frgn_page_2020"]
    (row,) = compare(fdr, naver, unit=1.0).itertuples()
    assert (row.verdict, row.pieces, f"{row.ratio:.6g}") == ("events", 2, "1")
    before = fdr["day"] < "2018-05-04"
    (row,) = compare(fdr[before], naver, unit=1.0).itertuples()
    assert (row.days, row.equal, row.verdict, f"{row.ratio:.6g}") == (3299, 0, "basis", "50")


@pytest.mark.shared
def test_restated_histories_are_told_from_others_without_an_error(shared_data):
    """Two fetches of one vendor, four years apart: of their 200 common symbols 39 are in the list of restated histories, which
    was made from the same two; those 39 are apart, and the other 161 are equal."""
    fetched = []
    for name in ("krx_daily_fdr_2022", "krx_daily_kospi_2020_2026"):
        real = pd.read_parquet(shared_data / f"{name}.parquet")
        real = real[(real["open"] > 0) & (real["volume"] > 0)]
        frame = real[["code", "close", "volume"]].astype({"code": "str", "close": "float64", "volume": "float64"})
        fetched.append(frame.assign(day=pd.to_datetime(real["date"]).astype("datetime64[s]")))
    found = compare(*fetched, unit=1.0)
    listed = set(pd.read_csv(shared_data / "nasties" / "restated_history.csv", dtype={"code": "str"})["code"])
    apart = set(found.loc[found["verdict"] != "equal", "code"])
    assert (len(found), len(apart)) == (200, 39)
    assert apart == listed & set(found["code"])
