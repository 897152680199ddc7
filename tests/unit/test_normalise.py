"""Daily records into candles, gaps and quarantine: every rule on a row worked by hand, the books on any rows."""

import json
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartinsight_lib import normalise
from chartinsight_lib.clients import open_source
from chartinsight_lib.domain import CANDLE, GAP, Flag
from chartinsight_lib.errors import ConfigError, SchemaError

COLUMNS = ["code", "date", "open", "high", "low", "close", "volume"]

TODAY = date(2030, 1, 1)
"""No date of these tests is later."""


def records(*rows: tuple, columns: list[str] = COLUMNS, dtype: type | None = None) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=columns, dtype=dtype)


def bar(*numbers: object, code: object = "005930", day: object = "2024-08-05") -> tuple:
    return (code, day, *numbers)


def daily(*rows: tuple, market: str = "KRX", since: date | None = None) -> normalise.Bars:
    return normalise.daily(records(*rows), market=market, today=TODAY, provisional_from=since)


def test_a_plain_bar_is_stored_as_it_is_at_midnight_utc_of_its_day():
    held = daily(bar(76700, 77000, 70200, 71400, 54747512)).candles
    assert list(held.columns) == CANDLE
    (row,) = held.itertuples(index=False)
    assert row[:2] == ("005930", pd.Timestamp("2024-08-05", tz="UTC"))
    assert row[2:7] == (76700.0, 77000.0, 70200.0, 71400.0, 54747512)
    assert np.isnan(row.value)
    assert row.flags == 0


@pytest.mark.parametrize("rows", [(), (bar(2, 3, 1, 2, 9),), (bar(0, 0, 0, 5, 0),), (bar(2, 3, 1, 2, -9),)])
def test_the_types_of_all_frames_do_not_depend_on_what_came_in(rows):
    result = daily(*rows)
    assert {name: str(kind) for name, kind in result.candles.dtypes.items()} == {
        "code": "str", "ts": "datetime64[us, UTC]", "open": "float64", "high": "float64", "low": "float64",
        "close": "float64", "volume": "int64", "value": "float64", "flags": "int16",
    }  # fmt: skip
    assert {name: str(kind) for name, kind in result.gaps.dtypes.items()} == {
        "code": "str", "ts": "datetime64[us, UTC]", "kind": "str",
    }  # fmt: skip
    assert list(result.gaps.columns) == GAP
    assert {name: str(kind) for name, kind in result.quarantine.dtypes.items()} == {
        "code": "str", "ts": "datetime64[us, UTC]", "rule": "str", "action": "str", "row": "int64", "payload": "str",
    }  # fmt: skip


def test_nothing_in_is_nothing_out():
    result = daily()
    assert (len(result.candles), len(result.gaps), len(result.quarantine)) == (0, 0, 0)
    assert (result.duplicates, result.rows) == (0, 0)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (bar(0, 0, 0, 71400, 0), "halted"),
        (bar(71400, 71400, 71400, 71400, 0), "no-trade"),
        (bar(34286, 34286, 34286, 34287, 0), "no-trade"),  # the close alone was rounded up
    ],
)
def test_a_day_without_trade_is_a_gap_and_no_candle(row, kind):
    result = daily(row)
    assert result.candles.empty
    assert result.quarantine.empty
    assert result.gaps.values.tolist() == [["005930", pd.Timestamp("2024-08-05", tz="UTC"), kind]]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (bar(0, 0, 0, 71400, 7), "zero_price_with_volume"),
        (bar(0, 0, 0, 0, 0), "bad_price"),  # no close is carried: that is no halt
        (bar(0, 3, 1, 2, 9), "bad_price"),
        (bar(2, 3, -1, 2, 9), "bad_price"),
        (bar(2, 3, 1, None, 9), "bad_price"),
        (bar("2,5", "3", "1", "2", "9"), "bad_price"),
        (bar(2, float("inf"), 1, 2, 9), "bad_price"),
        (bar(2, 3, 1, 2, None), "bad_volume"),
        (bar(2, 3, 1, 2, -9), "bad_volume"),
        (bar(2, 3, 1, 2, 9.5), "bad_volume"),
        (bar(2, 3, 1, 2, 2.0**53), "bad_volume"),  # no longer exact
        (bar(2, 3, 1, 2, 9, day="합계"), "bad_date"),
        (bar(2, 3, 1, 2, 9, day=None), "bad_date"),
        (bar(2, 3, 1, 2, 9, day="2024-02-30"), "bad_date"),
        (bar(2, 3, 1, 2, 9, day="0024-02-20"), "bad_date"),
        (bar(2, 3, 1, 2, 9, day="2024-08-05 09:05"), "bad_date"),
        (bar(2, 3, 1, 2, 9, code=""), "bad_code"),
        (bar(2, 3, 1, 2, 9, code=None), "bad_code"),
        (bar(2, 3, 1, 2, 9, code="5930"), "bad_code"),  # its zeros are lost
        (bar(2, 3, 1, 2, 9, code=5930), "bad_code"),
        (bar(200, 201, 202, 200, 9), "high_below_low"),
        (bar(200, 250, 100, 253, 9), "high_below_close"),  # 3 over, 2.53 is 1 %
        (bar(203, 250, 206, 240, 9), "low_above_close"),  # 3 under, 2.03 is 1 %
    ],
)
def test_a_row_that_breaks_a_rule_is_rejected_under_its_name(row, rule):
    result = daily(row)
    assert result.candles.empty
    assert result.gaps.empty
    assert result.quarantine[["rule", "action", "row"]].values.tolist() == [[rule, "rejected", 1]]


@pytest.mark.parametrize(
    ("market", "numbers", "high", "low", "rule"),
    [
        ("KRX", (28222, 28222, 28222, 28223, 5), 28223, 28222, "high_below_close"),  # one won of truncation
        ("KRX", (18154, 19154, 18719, 18718, 5), None, None, None),  # 565 under: no rounding
        ("KRX", (19154, 19154, 18719, 18718, 5), 19154, 18718, "low_above_close"),
        ("KRX", (3, 3, 2, 4, 5), 4, 2, "high_below_close"),  # one won is a third: still one unit
        ("KRX", (100000, 100000, 99000, 101010, 5), 101010, 99000, "high_below_close"),  # 1 % of 101 010 is 1 010.1
        ("US", (10.00, 10.01, 9.90, 10.02, 5), 10.02, 9.90, "high_below_close"),  # a cent, though not as a float
    ],
)
def test_a_range_that_misses_its_close_by_a_rounding_is_widened_and_reported(market, numbers, high, low, rule):
    result = daily(bar(*numbers), market=market)
    if rule is None:
        assert result.quarantine["action"].tolist() == ["rejected"]
        return
    (row,) = result.candles.itertuples()
    assert (row.high, row.low, row.flags) == (high, low, Flag.WIDENED)
    assert (row.open, row.close) == (numbers[0], numbers[3])
    assert result.quarantine[["rule", "action"]].values.tolist() == [[rule, "widened"]]
    assert json.loads(result.quarantine["payload"][0])["high"] == numbers[1]


def test_volume_lost_by_the_source_leaves_the_price_as_it_is():
    held = daily(bar(1595, 1643, 1478, 1600, 0)).candles
    assert held[["open", "high", "low", "close", "volume", "flags"]].values.tolist() == [[1595, 1643, 1478, 1600, 0, 0]]


def test_exact_repeats_are_one_candle_and_are_counted():
    result = daily(bar(2, 3, 1, 2, 9), bar(2, 3, 1, 2, 9), bar(5, 5, 5, 5, 9, day="2024-08-06"), bar(2, 3, 1, 2, 9))
    assert len(result.candles) == 2
    assert result.duplicates == 2
    assert result.quarantine.empty


def test_rows_that_contradict_each_other_are_all_set_aside():
    result = daily(bar(2, 3, 1, 2, 9), bar(2, 3, 1, 2, 9), bar(2, 3, 1, 2, 8), bar(2, 3, 1, 2, 7, day="2024-08-06"))
    assert result.candles["volume"].tolist() == [7]
    assert result.duplicates == 0
    assert result.quarantine[["rule", "action", "row"]].values.tolist() == [
        ["contradiction", "rejected", 1],
        ["contradiction", "rejected", 2],
        ["contradiction", "rejected", 3],
    ]


def test_a_halt_and_a_trade_on_one_day_contradict_each_other():
    result = daily(bar(0, 0, 0, 2, 0), bar(2, 3, 1, 2, 8))
    assert (len(result.candles), len(result.gaps)) == (0, 0)
    assert result.quarantine["rule"].tolist() == ["contradiction", "contradiction"]


def test_a_rejected_row_does_not_take_a_good_one_with_it():
    result = daily(bar(2, 3, 1, 2, 9), bar(-2, 3, 1, 2, 8))
    assert result.candles["volume"].tolist() == [9]
    assert result.quarantine["rule"].tolist() == ["bad_price"]


def test_bars_of_the_provisional_day_and_later_are_flagged():
    rows = [bar(2, 3, 1, 2, 9, day=f"2024-08-0{day}") for day in (5, 6, 7)]
    assert daily(*rows, since=date(2024, 8, 6)).candles["flags"].tolist() == [0, Flag.PROVISIONAL, Flag.PROVISIONAL]


def test_a_widened_bar_of_the_last_day_has_both_flags():
    held = daily(bar(28222, 28222, 28222, 28223, 5), since=date(2024, 8, 5)).candles
    assert held["flags"].tolist() == [Flag.PROVISIONAL | Flag.WIDENED]


def test_candles_come_out_by_code_and_day_whatever_the_order():
    keys = [("000660", "2024-08-06"), ("005930", "2024-08-05"), ("000660", "1962-06-04"), ("00088K", "2024-08-05")]
    held = daily(*(bar(2, 3, 1, 2, 9, code=code, day=day) for code, day in keys)).candles
    assert [(row.code, f"{row.ts:%Y-%m-%d}") for row in held.itertuples()] == [
        ("000660", "1962-06-04"), ("000660", "2024-08-06"), ("00088K", "2024-08-05"), ("005930", "2024-08-05"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "day",
    ["2024-08-05", "20240805", 20240805, "2024/08/05", date(2024, 8, 5), pd.Timestamp("2024-08-05"),
     pd.Timestamp("2024-08-05", tz="Asia/Seoul"), "2024-08-05 00:00:00", np.datetime64("2024-08-05")],
)  # fmt: skip
def test_a_day_may_be_written_in_many_ways(day):
    assert daily(bar(2, 3, 1, 2, 9, day=day)).candles["ts"].tolist() == [pd.Timestamp("2024-08-05", tz="UTC")]


def test_numbers_may_be_text_with_thousands_separators():
    held = daily(bar("2,650,000", "2,700,000", "2600000", " 2650000.0 ", "1,234")).candles
    assert held[["open", "low", "close", "volume"]].values.tolist() == [[2650000, 2600000, 2650000, 1234]]


def test_the_value_is_kept_where_it_is_known_and_refused_where_it_is_no_value():
    frame = records(
        (*bar(2, 3, 1, 2, 9), "1,800"),
        (*bar(2, 3, 1, 2, 9, day="2024-08-06"), None),
        (*bar(2, 3, 1, 2, 9, day="2024-08-07"), "-"),
        (*bar(2, 3, 1, 2, 9, day="2024-08-08"), "much"),
        columns=[*COLUMNS, "value"],
    )
    result = normalise.daily(frame, market="KRX", today=TODAY, provisional_from=None)
    np.testing.assert_array_equal(result.candles["value"], [1800.0, np.nan, np.nan])
    assert result.quarantine[["rule", "row"]].values.tolist() == [["bad_value", 4]]


def test_the_quarantine_holds_the_original_row_under_its_own_number():
    frame = records((*bar(0, "3", 1, np.nan, np.int64(9)), 17), columns=[*COLUMNS, "row"])
    (entry,) = normalise.daily(frame, market="KRX", today=TODAY, provisional_from=None).quarantine.itertuples()
    assert entry.row == 17
    assert json.loads(entry.payload) == {
        "code": "005930", "date": "2024-08-05", "open": 0, "high": "3", "low": 1, "close": None, "volume": 9,
    }  # fmt: skip


def test_a_missing_column_and_an_unknown_market_are_named():
    frame = records(bar(2, 3, 1, 2, 9))
    with pytest.raises(SchemaError, match="lack volume; found are code, date"):
        normalise.daily(frame.drop(columns="volume"), market="KRX", today=TODAY, provisional_from=None)
    with pytest.raises(ConfigError, match="no market 'LSE'"):
        normalise.daily(frame, market="LSE", today=TODAY, provisional_from=None)


def test_books_that_do_not_balance_are_an_error():
    result = daily(bar(2, 3, 1, 2, 9))
    with pytest.raises(SchemaError, match="2 rows came in and 1 are accounted for"):
        normalise._balance(normalise.Bars(result.candles, result.gaps, result.quarantine, 0, 2))


PRICES = st.sampled_from([0, 1, 99, 100, 101, 102, 150, -100, 100.5, None, "100", "1,000", "x", float("inf"), True])
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["005930", "000660", "0007C0", "AAPL", "", None, 5930, "5930"]),
        st.sampled_from(["2024-08-05", "20240806", 20240805, date(2024, 8, 7), pd.Timestamp("2024-08-05"), None, "x", 1.5]),
        PRICES, PRICES, PRICES, PRICES,
        st.sampled_from([0, 0, 5, 5, 6, -1, 0.5, None, "7", 2.0**60]),
    ),
    max_size=30,
)  # fmt: skip


@settings(deadline=None)  # other work on the machine must not fail it
@given(ROWS, st.sampled_from(["KRX", "US"]), st.sampled_from([None, date(2024, 8, 6)]))
def test_every_row_is_accounted_for_and_every_candle_holds_its_open_and_close(rows, market, since):
    result = daily(*rows, market=market, since=since)
    held, rejected = result.candles, (result.quarantine["action"] == "rejected").sum()
    assert len(rows) == len(held) + len(result.gaps) + rejected + result.duplicates
    assert (held["low"] <= held[["open", "close"]].min(axis=1)).all()
    assert (held["high"] >= held[["open", "close"]].max(axis=1)).all()
    assert (held[["open", "high", "low", "close"]] > 0).all(axis=None)
    keys = pd.concat([held[["code", "ts"]], result.gaps[["code", "ts"]]])
    assert not keys.duplicated().any()
    assert held.equals(held.sort_values(["code", "ts"], ignore_index=True))
    assert set(result.quarantine.loc[result.quarantine["action"] == "widened", "ts"]) <= set(held["ts"])


@settings(deadline=None, max_examples=50)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing_and_rows_given_twice_are_only_repeats(rows, random):
    once = daily(*rows)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert daily(*shuffled).candles.equals(once.candles)
    twice = daily(*rows, *rows)
    assert twice.candles.equals(once.candles)
    assert twice.gaps.equals(once.gaps)


@pytest.mark.shared
def test_every_row_of_the_whole_market_is_accounted_for(shared_data):
    source = open_source(f"files:{shared_data / 'krx_daily_all_2023_2025.parquet'}")
    since = source.provisional_from(TODAY)
    (batch,) = source.daily()
    result = normalise.daily(batch.records, market=source.market, today=TODAY, provisional_from=since)
    assert since == date(2025, 6, 17)
    assert len(source.instruments()) == 1_893
    assert result.rows == 675_346
    assert result.gaps["kind"].value_counts().to_dict() == {"halted": 20_063, "no-trade": 310}
    assert result.quarantine["action"].value_counts().to_dict() == {"widened": 63}
    assert result.duplicates == 0
    assert len(result.candles) == 675_346 - 20_063 - 310
    halted_last = int(((result.gaps["ts"] == pd.Timestamp(since, tz="UTC")) & (result.gaps["kind"] == "halted")).sum())
    provisional = result.candles["flags"] & int(Flag.PROVISIONAL) != 0
    assert int(provisional.sum()) == 1_893 - halted_last
    assert set(result.candles.loc[provisional, "ts"]) == {pd.Timestamp(since, tz="UTC")}


@pytest.mark.shared
def test_the_long_history_is_accounted_for_rule_by_rule(shared_data):
    source = open_source(f"files:{shared_data / 'krx_daily_fdr_2022.parquet'}", last_day="final")
    (batch,) = source.daily()
    result = normalise.daily(
        batch.records, market=source.market, today=TODAY, provisional_from=source.provisional_from(TODAY)
    )
    # The source's documentation counts 34,432 days of zeros, 45,397 highs and 6,669 lows that miss open or close.
    zeros = (result.gaps["kind"] == "halted").sum() + (result.quarantine["rule"] == "zero_price_with_volume").sum()
    assert zeros == 34_432
    # Of these some have one price but for the rounding of the close, and no volume: nothing was traded.
    raw = batch.records[(batch.records["volume"] == 0) & (batch.records["open"] > 0)]
    raw = raw[(raw["open"] == raw["high"]) & (raw["high"] == raw["low"])]
    off = raw["close"] - raw["open"]
    rounded = off.abs() <= np.maximum(1, 0.01 * raw["close"])
    assert (result.gaps["kind"] == "no-trade").sum() == rounded.sum()
    assert (result.quarantine["rule"] == "high_below_close").sum() == 45_397 - (rounded & (off > 0)).sum()
    assert (result.quarantine["rule"] == "low_above_close").sum() == 6_669 - (rounded & (off < 0)).sum()
    assert not (result.candles["flags"] & int(Flag.PROVISIONAL)).any()


# Another scale.


@pytest.mark.parametrize(
    ("numbers", "rejected"),
    [
        ((700, 70_500, 690, 705, 9), True),  # a high that lacks its decimal point
        ((700, 710, 7, 705, 9), True),
        ((100, 1_000, 100, 900, 9), True),
        ((101, 1_009, 101, 900, 9), False),
        ((60, 400, 60, 400, 9), False),  # a day of listing, from one end of its limits to the other
    ],
)
def test_a_high_ten_times_its_low_is_on_another_scale(numbers, rejected):
    result = daily(bar(*numbers))
    assert result.quarantine["rule"].tolist() == ["scale_break"] * rejected
    assert len(result.candles) == (not rejected)


def test_a_whole_bar_on_another_scale_is_stored_because_its_neighbours_may_come_another_time():
    rows = [bar(*[close] * 4, 9, day=f"2024-08-{5 + at:02}") for at, close in enumerate((700, 710, 71_000, 720, 730))]
    assert len(daily(*rows).candles) == 5


@settings(deadline=None, max_examples=50)
@given(ROWS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_what_becomes_of_a_row_does_not_depend_on_what_it_came_with(rows, parts, random):
    """Days of one instrument stay together: rows of one key may contradict one another, and rows of two may not."""
    shares: dict[tuple[str, str], int] = {}

    def part_of(row: tuple) -> int:
        day = normalise.read_days(pd.Series([row[1]], dtype=object))[0]
        return shares.setdefault((str(row[0]), str(day)), random.randrange(parts))

    def told(
        chosen: list[tuple],
    ) -> normalise.Bars:  # a column of one type might spoil what stands beside a missing value
        return normalise.daily(records(*chosen, dtype=object), market="KRX", today=TODAY, provisional_from=None)

    given_to = [part_of(row) for row in rows]
    split = [told([row for row, one in zip(rows, given_to, strict=True) if one == part]) for part in range(parts)]
    whole = told(rows)
    for name in ("candles", "gaps"):
        pieces = pd.concat([getattr(one, name) for one in split]).sort_values(["code", "ts"], ignore_index=True)
        assert pieces.equals(getattr(whole, name))
    ledger = ["code", "ts", "rule", "action"]
    pieces = pd.concat([one.quarantine for one in split]).sort_values(ledger, ignore_index=True)
    assert pieces[ledger].equals(whole.quarantine.sort_values(ledger, ignore_index=True)[ledger])


@pytest.mark.shared
def test_no_bar_of_the_real_histories_is_rejected_for_its_scale(shared_data):
    """Three and a third million rows of three sources, with every real crash, re-listing and liquidation in them."""
    for name in ("krx_daily_fdr_2022", "krx_daily_all_2023_2025", "krx_daily_kospi_2020_2026"):
        rows = pd.read_parquet(shared_data / f"{name}.parquet")
        found = normalise.daily(rows, market="KRX", today=TODAY, provisional_from=None).quarantine
        assert "scale_break" not in set(found["rule"])


@pytest.mark.shared
def test_bars_without_volume_that_moved_are_kept_as_they_are(shared_data):
    """Sources that adjust volumes round them to nothing: a price that moved was traded."""
    rows = pd.read_csv(shared_data / "nasties" / "zero_volume_with_range.csv", dtype={"code": "str"})
    result = daily(*rows[COLUMNS].itertuples(index=False, name=None))
    assert len(result.candles) + len(result.quarantine[result.quarantine["action"] == "rejected"]) == len(rows)
    assert set(result.quarantine["rule"]) <= {"high_below_close", "low_above_close"}
    assert (result.candles["volume"] == 0).all()


@pytest.mark.shared
def test_zero_closes_of_a_corrupt_segment_are_rejected_each_with_its_row(shared_data):
    rows = pd.read_csv(shared_data / "nasties" / "yahoo_corrupt_segments.csv", dtype={"code": "str"})
    result = daily(*rows[COLUMNS].itertuples(index=False, name=None))
    zero = rows.index[rows["close"] == 0] + 1
    rejected = result.quarantine[result.quarantine["action"] == "rejected"]
    assert set(zero) <= set(rejected["row"])
    assert json.loads(rejected.iloc[0]["payload"])["close"] == 0
