"""The list of instruments from the simulator's wire into the tables: a new listing, a delisting, a split, a warning, a rename."""

from datetime import date
from typing import Any

import pytest
from handmade import DAYS, GONE, NEW_ETF, at
from test_kiwoom_collect import Desk, desk  # noqa: F401 - a fixture

from chartinsight_lib.db.instruments import universe_as_of
from chartinsight_lib.errors import RunFailed
from chartinsight_lib.listing import sync_instruments

SEVENTH, EIGHTH, NINTH, ELEVENTH, FOURTEENTH, FIFTEENTH, SIXTEENTH, SEVENTEENTH, EIGHTEENTH = DAYS


def universe(there: Desk, day: date) -> dict[str, dict[str, Any]]:
    with there.engine.connect() as conn:
        return universe_as_of(conn, "SIM", day).set_index("code").to_dict("index")


def sync(there: Desk) -> dict[str, int]:
    report = there.run(sync_instruments, sync=False)
    report.check()
    return dict(report.items["simulated (handmade)"])


def test_a_new_listing_is_collected_from_its_first_day_without_being_asked_for(desk):  # noqa: F811
    there = desk(at(FOURTEENTH, 21))
    there.daily()
    assert there.ask("SELECT count(*) FROM live.instruments WHERE code = '0000D0'") == [(0,)]
    there.at(at(EIGHTEENTH, 21)).daily()
    assert there.closes("0000D0") == {day: row[3] for day, row in NEW_ETF.items()}
    assert "0000D0" not in universe(there, FOURTEENTH)
    row = universe(there, EIGHTEENTH)["0000D0"]
    assert (row["kind"], row["listed_on"], row["known_from"], row["certain"]) == ("etf", FIFTEENTH, EIGHTEENTH, True)
    assert not universe(there, SIXTEENTH)["0000D0"]["certain"]  # its listing date is known, nothing else


def test_a_delisted_instrument_goes_after_two_trading_days_and_its_bars_stay(desk):  # noqa: F811
    there = desk(at(NINTH, 21))
    there.daily()
    assert sync(there.at(at(ELEVENTH, 8)))["absent"] == 1
    assert sync(there.at(at(date(2026, 9, 13), 8)))["absent"] == 1  # a Sunday
    assert "000400" in universe(there, ELEVENTH)
    assert sync(there.at(at(FOURTEENTH, 8)))["delisted"] == 1
    assert there.ask("SELECT delisted_on FROM api.instruments WHERE code = '000400'") == [(ELEVENTH,)]
    assert ("000400" in universe(there, NINTH), "000400" in universe(there, FOURTEENTH)) == (True, False)
    there.at(at(FIFTEENTH, 21)).daily()
    assert there.closes("000400") == {day: row[3] for day, row in GONE.items()}


def test_what_the_list_tells_of_an_instrument_is_kept_with_the_date_from_which_it_was_told(desk):  # noqa: F811
    there = desk(at(EIGHTH, 8))
    for moment in (at(EIGHTH, 8), at(NINTH, 8), at(FOURTEENTH, 8), at(FIFTEENTH, 8), at(SIXTEENTH, 8)):
        sync(there.at(moment))
    names = "name, kind, board, sector, shares, states, nxt_enabled"
    told = f"SELECT valid_from, {names} FROM api.instrument_history WHERE code = :code ORDER BY valid_from"
    sector = "KOSPI 전기/전자"
    assert there.ask(told, code="000100") == [
        (EIGHTH, "가나전자", "stock", "KOSPI", sector, 100_000, [], True),
        (NINTH, "가나전자", "stock", "KOSPI", sector, 500_000, [], True),  # split
        (FIFTEENTH, "가나반도체", "stock", "KOSPI", sector, 500_000, [], True),  # renamed
    ]
    assert there.ask(told, code="000200") == [
        (EIGHTH, "다라소재", "stock", "KOSDAQ", None, 200_000, [], False),
        (NINTH, "다라소재", "stock", "KOSDAQ", None, 200_000, ["halted", "margin_100"], False),
        (FOURTEENTH, "다라소재", "stock", "KOSDAQ", None, 200_000, ["administrative", "margin_100"], False),
    ]
    assert universe(there, SEVENTH)["000100"]["known_from"] == EIGHTH
    assert universe(there, ELEVENTH)["000100"]["shares"] == 500_000


def test_a_list_whose_board_came_back_empty_is_refused_and_the_next_one_taken(desk):  # noqa: F811
    there = desk(at(NINTH, 8), "rules: [{api_id: ka10099, nth: 3, do: zero_rows}]")
    sync(there)
    before = there.ask("SELECT * FROM live.instruments ORDER BY id")
    with pytest.raises(RunFailed, match="lacks 5 of the 5 instruments of KOSPI"):
        sync(there.at(at(ELEVENTH, 8)))
    assert there.ask("SELECT * FROM live.instruments ORDER BY id") == before
    assert there.ask("SELECT * FROM ops.listing_strikes") == []
    assert sync(there)["absent"] == 1
