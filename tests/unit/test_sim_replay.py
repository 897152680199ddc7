"""Recorded days are served to the won, or refused by name."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chartinsight_lib.errors import ConfigError, SchemaError
from chartinsight_lib.simulator.model import Event
from chartinsight_lib.simulator.recorded import Factor
from chartinsight_lib.simulator.replay import ReplayMarket

NUMBERS = ["open", "high", "low", "close", "volume"]

# Samsung Electronics around its split of 50:1, raw, as KRX published it; trading was halted for three days.
SPLIT = [
    ("2018-04-26", 2_524_000, 2_613_000, 2_521_000, 2_607_000, 390_669),
    ("2018-04-27", 2_669_000, 2_682_000, 2_622_000, 2_650_000, 606_216),
    ("2018-04-30", 0, 0, 0, 2_650_000, 0),
    ("2018-05-02", 0, 0, 0, 2_650_000, 0),
    ("2018-05-03", 0, 0, 0, 2_650_000, 0),
    ("2018-05-04", 53_000, 53_900, 51_800, 51_900, 39_565_391),
]


def records(rows=SPLIT, code: str = "005930") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["date", *NUMBERS]).assign(code=code)


def played(market: ReplayMarket, code: str) -> list[tuple]:
    bars = market.daily(code)
    return list(zip(bars.day.astype(str).tolist(), *(getattr(bars, name).tolist() for name in NUMBERS), strict=True))


def test_rows_are_played_as_they_were_recorded():
    market = ReplayMarket.from_records(records(), "split")
    traded = [row for row in played(market, "005930") if row[-1]]
    assert traded == [row for row in SPLIT if row[-1]]
    assert market.days.astype(str).tolist() == [row[0] for row in SPLIT]


def test_a_day_of_zeros_is_a_halt_at_the_close_before():
    market = ReplayMarket.from_records(records(), "split")
    bars = market.daily("005930")
    assert bars.halted.tolist() == [False, False, True, True, True, False]
    assert played(market, "005930")[3] == ("2018-05-02", *[2_650_000] * 4, 0)
    assert not len(market.minutes("005930", date(2018, 5, 2)).start)


def test_a_factor_becomes_an_event_that_gives_the_factor_back():
    market = ReplayMarket.from_records(records(), "split", factors=[Factor("005930", date(2018, 5, 4), 0.02)])
    assert market.events("005930") == (Event(date(2018, 5, 4), 53_000, 2_650_000, "split"),)


def test_an_event_is_no_move_of_the_index():
    factors = [Factor("005930", date(2018, 5, 4), 0.02)]
    index = ReplayMarket.from_records(records(), "split", factors=factors).index("001")
    # 2,607,000 / 2,524,000 on the first day, then 2,650,000 / 2,607,000, and 51,900 / 53,000 after the split.
    assert index.close[0] == round(100_000 * 2_607 / 2_524)
    assert index.close[-1] == pytest.approx(100_000 * 2_650 / 2_524 * 519 / 530, abs=2)


def test_without_a_value_it_is_the_close_times_the_volume():
    assert ReplayMarket.from_records(records(), "x").daily("005930").value[1] == 2_650_000 * 606_216
    given = records().assign(value=[7, 8, 0, 0, 0, None])
    assert ReplayMarket.from_records(given, "x").daily("005930").value.tolist() == [7, 8, 0, 0, 0, 51_900 * 39_565_391]


def test_minutes_are_bridged_and_add_up():
    market = ReplayMarket.from_records(records(), "split")
    bars = market.minutes("005930", date(2018, 5, 4))
    assert (bars.open[0], bars.high.max(), bars.low.min(), bars.close[-1]) == SPLIT[-1][1:5]
    assert bars.volume.sum() == SPLIT[-1][5]
    assert bars.value.sum() == market.daily("005930").value[-1]


def test_recorded_minutes_are_played_as_they_are():
    given = pd.DataFrame(
        {
            "code": "005930",
            "ts_kst": ["2018-05-04 09:05", "2018-05-04 09:00"],
            "open": [53_100, 53_000], "high": [53_200, 53_900], "low": [53_000, 52_900], "close": [53_000, 53_100],
            "volume": [10, 0],
        }
    )  # fmt: skip
    market = ReplayMarket.from_records(records(), "split", minutes=given)
    bars = market.minutes("005930", date(2018, 5, 4))
    assert bars.start.astype(str).tolist() == ["2018-05-04T09:00", "2018-05-04T09:05"]
    assert bars.close.tolist() == [53_100, 53_000]
    assert len(market.minutes("005930", date(2018, 4, 27)).start) > 300  # not recorded: bridged
    utc = given.assign(ts=pd.to_datetime(given.pop("ts_kst")).dt.tz_localize("Asia/Seoul").dt.tz_convert("UTC"))
    again = ReplayMarket.from_records(records(), "split", minutes=utc).minutes("005930", date(2018, 5, 4))
    assert np.array_equal(again.start, bars.start)


def test_listings_live_as_long_as_their_rows():
    both = pd.concat([records(), records(SPLIT[:2], "000100").assign(name="유한양행")], ignore_index=True)
    market = ReplayMarket.from_records(both, "two")
    first, second = market.listings
    assert (first.code, first.name_on(date(2018, 4, 26)), first.delisted_on) == (
        "000100",
        "유한양행",
        date(2018, 4, 30),
    )
    assert (second.code, second.name_on(date(2018, 4, 26)), second.delisted_on) == ("005930", "005930", None)
    assert second.shares_on(date(2018, 5, 4)) > 0


def test_a_day_on_which_nothing_was_recorded_has_no_session():
    market = ReplayMarket.from_records(records(), "split")
    assert market.session(date(2018, 5, 1)) is None
    assert f"{market.session(date(2018, 5, 4)).closes:%H:%M}" == "15:30"


def test_the_same_row_twice_is_one_and_a_contradiction_is_refused():
    assert played(ReplayMarket.from_records(pd.concat([records(), records()]), "x"), "005930") == played(
        ReplayMarket.from_records(records(), "x"), "005930"
    )
    with pytest.raises(SchemaError, match=r"005930.*2018-04-26.*twice"):
        ReplayMarket.from_records(pd.concat([records(), records(SPLIT[:1]).assign(volume=1)]), "x")


@pytest.mark.parametrize(
    ("column", "number", "what"),
    [("close", None, "close"), ("close", 2_607_000.5, "whole"), ("high", 2_600_000, "above its high"),
     ("low", 2_530_000, "below its low"), ("open", 0, "0 or less"), ("volume", -1, "below 0"), ("open", "n/a", "open")],
)  # fmt: skip
def test_a_bad_row_is_refused_by_code_and_day(column, number, what):
    bad = records().astype({column: "object"})
    bad.loc[0, column] = number
    with pytest.raises(SchemaError, match=rf"005930: 2018-04-26.*{what}"):
        ReplayMarket.from_records(bad, "x")


def test_a_high_a_won_below_the_close_can_be_widened():
    bad = records()
    bad.loc[0, "high"] = 2_606_999
    with pytest.raises(SchemaError):
        ReplayMarket.from_records(bad, "x")
    assert ReplayMarket.from_records(bad, "x", widen_won=1).daily("005930").high[0] == 2_607_000


def test_a_missing_column_and_no_rows_are_told():
    with pytest.raises(SchemaError, match="volume"):
        ReplayMarket.from_records(records().drop(columns="volume"), "x")
    with pytest.raises(ConfigError, match="no daily bars"):
        ReplayMarket.from_records(records([]), "x")


def test_unknown_codes_are_told():
    market = ReplayMarket.from_records(records(), "x")
    for ask in (market.daily, market.events, market.flows, market.index):
        with pytest.raises(KeyError):
            ask("999999")


def test_flows_sum_to_zero():
    columns = ReplayMarket.from_records(records(), "x").flows("005930").columns
    assert not sum(columns[name] for name in ("ind_invsr", "frgnr_invsr", "orgn", "etc_corp", "natfor")).any()


def test_a_file_is_played_by_its_path(tmp_path: Path):
    records().to_csv(tmp_path / "krx.csv", index=False)
    market = ReplayMarket.from_path(tmp_path / "krx.csv")
    assert market.label == "replay of krx.csv"
    assert played(market, "005930") == played(ReplayMarket.from_records(records(), "x"), "005930")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["naver_kr_header_005930.csv", "creon_A005930.csv"])
def test_a_real_file_is_played_to_the_won(shared_data, name):
    file = shared_data / "raw_files" / name
    raw = pd.read_csv(file, encoding="utf-8-sig").drop_duplicates()
    raw.columns = [
        {
            "날짜": "date",
            "일자": "date",
            "시가": "open",
            "고가": "high",
            "저가": "low",
            "종가": "close",
            "거래량": "volume",
        }.get(name, name)
        for name in raw.columns
    ]
    raw = raw.sort_values("date")
    raw = raw[raw["volume"] > 0]
    market = ReplayMarket.from_path(file)
    bars = market.daily("005930")
    traded = bars.volume > 0
    for column in NUMBERS:
        assert getattr(bars, column)[traded].tolist() == raw[column].astype("int64").tolist()


@pytest.mark.shared
def test_a_source_of_many_instruments_is_played(shared_data):
    compared = pd.read_parquet(shared_data / "krx_daily_vendor_compare.parquet")
    one = compared[compared["source"] == "kiwoom_2023"]
    market = ReplayMarket.from_records(one, "kiwoom_2023")
    assert len(market.listings) == one["code"].nunique()
    assert sum(len(market.daily(listing.code).day) for listing in market.listings) == len(one)
    raw = one[(one["code"] == market.listings[3].code)].sort_values("date")
    assert market.daily(market.listings[3].code).close.tolist() == raw["close"].astype("int64").tolist()


@pytest.mark.shared
def test_real_minutes_are_played_as_recorded(shared_data):
    minutes = pd.read_parquet(shared_data / "krx_minute_5m.parquet")
    daily = pd.read_parquet(
        shared_data / "krx_daily_kospi_2020_2026.parquet", filters=[("code", "in", ["000660", "005930"])]
    )
    codes = sorted(set(daily["code"]) & set(minutes["code"]))
    if not codes:
        codes = sorted(set(minutes["code"]))[:1]
        daily = pd.read_parquet(shared_data / "krx_daily_fdr_2022.parquet", filters=[("code", "in", codes)])
    market = ReplayMarket.from_records(daily, "x", minutes=minutes, widen_won=20)
    rows = minutes[(minutes["code"] == codes[0]) & (minutes["ts_kst"].dt.date == date(2020, 3, 13))]
    bars = market.minutes(codes[0], date(2020, 3, 13))
    assert bars.close.tolist() == rows["close"].tolist()
    assert len(bars.start) < 72  # trading was broken off for twenty minutes


def test_damaged_rows_of_a_file_are_left_out_and_counted_and_the_others_are_played(tmp_path):
    lines = [
        "date,open,high,low,close,volume",
        "2024-07-22,100,110,90,105,10",
        "2024-07-23,100,104,90,105,10",  # a won too low: adjusted prices are rounded
        "2024-07-24,0,0,0,105,0",  # halted
        "2024-07-25,0,0,0,105,7",  # traded at nothing
        "2024-07-26,100,60,90,105,10",  # high below low
        "2024-07-29,100,110,90,x,10",
        "2024-07-30,100,110,90,105,10",  # twice, with different numbers
        "2024-07-30,100,110,90,106,10",
        "2024-07-31,100,110,90,105,10",  # twice, the same
        "2024-07-31,100,110,90,105,10",
    ]
    (tmp_path / "123450.csv").write_text("\n".join(lines))
    market = ReplayMarket.from_path(tmp_path / "123450.csv")
    assert market.label == "replay of 123450.csv, 5 damaged rows left out"
    held = market.daily("123450")
    assert held.day.astype(str).tolist() == ["2024-07-22", "2024-07-23", "2024-07-24", "2024-07-31"]
    assert held.high.tolist() == [110, 105, 105, 110]
    assert held.halted.tolist() == [False, False, True, False]
