"""Yahoo through the real yfinance, over real HTTP: bars as traded with their events, and every fault by its name."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from chartinsight_lib import normalise
from chartinsight_lib.clients.base import Batch
from chartinsight_lib.clients.yahoo import YahooSource
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.errors import (
    AuthFailed,
    RateLimited,
    RequestRefused,
    SchemaError,
    TruncatedReply,
    Unavailable,
    UnknownCode,
)
from chartinsight_lib.normalise_yahoo import as_traded
from chartinsight_lib.pace import LocalSlots, Pacer
from tests.http.public_services import Served, Services, public_services, redirecting_session

REPLIES = Path(__file__).parents[1] / "data" / "replies"
CHART = "query2.finance.yahoo.com/v8/finance/chart/"
MIDDAY = datetime(2024, 6, 12, 18, tzinfo=UTC)  # 14:00 in New York: the day of the newest row is under way
UNKNOWN = '{"chart":{"result":null,"error":{"code":"Not Found","description":"No data found, symbol may be delisted"}}}'


@pytest.fixture
def services() -> Iterator[Services]:
    with public_services() as running:
        yield running


@pytest.fixture
def yahoo(services, tmp_path):
    """Open tickers at a moment, with a time-zone memory of the test's own."""

    def yahoo(*tickers: str, now: datetime = MIDDAY) -> YahooSource:
        return YahooSource(
            tickers,
            clock=fixed_clock(now),
            cache=tmp_path / "yahoo",
            session=redirecting_session(services),
            pacer=Pacer(LocalSlots(), 10_000),
        )

    return yahoo


def reply(name: str) -> str:
    return (REPLIES / f"yahoo_chart_{name}.json").read_text(encoding="utf-8")


def bars(batch: Batch) -> dict[str, tuple[float, ...]]:
    """{date: (open, high, low, close, volume)} of the records."""
    return {
        f"{row.date:%Y-%m-%d}": (row.open, row.high, row.low, row.close, row.volume)
        for row in batch.records.itertuples()
    }


def test_prices_are_as_they_were_traded_before_and_after_a_split(services, yahoo):
    services.serve(CHART, reply("ABCD"))
    (batch,) = yahoo("ABCD").daily()
    found = bars(batch)
    # 100.00, 102.00, 99.01 and 101.03 are quarters; four million shares of today were one million then.
    assert found["2024-06-03"] == (400.00, 408.00, 396.04, 404.12, 1_000_000)
    assert found["2024-06-04"] == (404.20, 410.40, 402.60, 409.96, 2_000_100)
    assert found["2024-06-06"] == (102.50, 103.90, 102.01, 103.10, 5_000_001)


def test_splits_and_dividends_come_as_factors(services, yahoo):
    services.serve(CHART, reply("ABCD"))
    (batch,) = yahoo("ABCD").daily()
    assert batch.factors.to_dict("records") == [
        {"code": "ABCD", "ex_date": date(2024, 6, 6), "price_factor": 0.25, "volume_factor": 4.0, "kind": "split"},
        {
            "code": "ABCD",
            "ex_date": date(2024, 6, 11),
            "price_factor": pytest.approx(104.75 / 105),  # 0.25 paid; 105.00 was the close before
            "volume_factor": 1.0,
            "kind": "dividend",
        },
    ]


def test_the_running_day_comes_once_with_its_newest_volume_and_is_unfinished(services, yahoo):
    services.serve(CHART, reply("ABCD"))
    source = yahoo("ABCD")
    (batch,) = source.daily()
    assert bars(batch)["2024-06-12"] == (104.75, 106.20, 104.70, 106.11, 2_000_107)
    assert source.provisional_from(date(2024, 6, 12)) == date(2024, 6, 12)


@pytest.mark.parametrize(
    ("hour", "first"),
    [(20, date(2024, 6, 12)), (21, None)],  # New York closes at 20:00 UTC in summer
)
def test_a_day_is_finished_an_hour_after_its_close(yahoo, hour, first):
    source = yahoo("ABCD", now=datetime(2024, 6, 12, hour, 1, tzinfo=UTC))
    assert source.provisional_from(date(2024, 6, 12)) == first


def test_a_row_of_nulls_is_rejected_and_kept_as_it_came(services, yahoo):
    services.serve(CHART, reply("ABCD"))
    (batch,) = yahoo("ABCD").daily()
    read = normalise.daily(batch.records, market="US", today=date(2024, 6, 12), provisional_from=None)
    assert f"{pd.Timestamp('2024-06-05'):%Y-%m-%d}" not in {f"{ts:%Y-%m-%d}" for ts in read.candles["ts"]}
    assert ("bad_price", "2024-06-05") in [(row.rule, f"{row.ts:%Y-%m-%d}") for row in read.quarantine.itertuples()]


def test_a_volume_that_is_missing_is_not_zero(services, yahoo):
    services.serve(CHART, reply("ABCD"))
    (batch,) = yahoo("ABCD").daily()
    read = normalise.daily(batch.records, market="US", today=date(2024, 6, 12), provisional_from=None)
    assert ("bad_volume", "2024-06-11") in [(row.rule, f"{row.ts:%Y-%m-%d}") for row in read.quarantine.itertuples()]


def test_korean_tickers_are_codes_of_krx_in_whole_won(services, yahoo):
    services.serve(CHART, reply("000120.KS"))
    source = yahoo("000120.KS", now=datetime(2018, 5, 18, 3, tzinfo=UTC))
    (batch,) = source.daily()
    assert (source.market, batch.name) == ("KRX", "000120")
    assert bars(batch)["2018-04-27"] == (1_512_000, 1_558_000, 1_512_000, 1_550_000, 50_001)
    read = normalise.daily(batch.records, market="KRX", today=date(2018, 5, 18), provisional_from=None)
    assert [(row.rule, f"{row.ts:%Y-%m-%d}") for row in read.quarantine.itertuples()] == [("bad_price", "2018-05-16")]


def test_what_is_held_is_asked_for_again_with_an_overlap(services, yahoo):
    services.serve(CHART, reply("ABCD"))
    list(yahoo("ABCD").daily({"ABCD": date(2024, 6, 11)}))
    since = int(services.asked_of(CHART)[-1]["period1"][0])
    assert datetime.fromtimestamp(since, UTC) == datetime(
        2024, 5, 12, 4, tzinfo=UTC
    )  # midnight in New York, 30 days back


def test_an_instrument_has_the_name_and_kind_that_yahoo_gives_it(services, yahoo):
    services.serve(CHART, reply("ABCD"))
    (row,) = yahoo("ABCD").instruments().to_dict("records")
    assert (row["market"], row["code"], row["name"], row["kind"], row["currency"]) == (
        "US", "ABCD", "Abcd Corporation", "stock", "USD",
    )  # fmt: skip


def read_one(source: YahooSource, ticker: str) -> None:
    """Read one ticker as `daily` does, which turns an error into the text of its batch."""
    table = source._ask(ticker, period="max").table
    as_traded(ticker, table, unit=0.01, today=MIDDAY.date())


def broken(change) -> str:
    """The reply, changed."""
    told = json.loads(reply("ABCD"))
    change(told["chart"]["result"][0])
    return json.dumps(told)


def refusal(words: str) -> str:
    return json.dumps({"chart": {"result": None, "error": {"code": "Bad Request", "description": words}}})


def undivided(it) -> None:
    """The prices of the two days before the split, as they were traded."""
    for name in ("open", "high", "low", "close"):
        column = it["indicators"]["quote"][0][name]
        column[:2] = [4 * price for price in column[:2]]


ITEM_FAULTS = {
    "delisted": (Served(UNKNOWN, 404), UnknownCode, "knows no such ticker"),
    "no bars": (broken(lambda it: (it.pop("timestamp"), it["indicators"].update(quote=[{}]))), UnknownCode, "no daily bar"),
    "cut JSON": (reply("ABCD")[:900], TruncatedReply, "in the midst of its data"),
    "no such days": (
        Served(refusal("Data doesn't exist for startDate = 1"), 400),
        TruncatedReply,
        "no bar came",
    ),
    "another refusal": (
        Served(refusal("Invalid input"), 400),
        RequestRefused,
        "Invalid input",
    ),
    "a column is gone": (broken(lambda it: it["indicators"]["quote"][0].pop("open")), SchemaError, "lack ['open']"),
    "a column is short": (broken(lambda it: it["indicators"]["quote"][0]["low"].pop()), SchemaError, "'low'"),
    "no currency": (broken(lambda it: it["meta"].pop("currency")), SchemaError, "'currency'"),
    "another currency": (broken(lambda it: it["meta"].update(currency="GBp")), SchemaError, "GBp"),
    "another zone": (
        broken(lambda it: it["meta"].update(exchangeTimezoneName="Europe/London")), SchemaError, "Europe/London",
    ),
    "nothing at all": ('{"chart": null}', SchemaError, "neither data nor an error"),
    "a page": (Served("<html>Will be right back</html>", kind="text/html"), Unavailable, "a page came"),
    "out of order": (Served("oops", 502), Unavailable, "HTTP 502"),
    "a split that the prices do not know of": (broken(undivided), SchemaError, "not divided"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "kind", "words"), ITEM_FAULTS.values(), ids=ITEM_FAULTS.keys())
def test_what_goes_wrong_with_one_ticker_is_named_and_the_next_one_goes_on(services, yahoo, answer, kind, words):
    services.serve(CHART + "BAD", answer)
    services.serve(CHART + "ABCD", reply("ABCD"))
    bad, good = yahoo("BAD", "ABCD").daily()
    assert bad.records.empty
    assert list(bad.errors) == ["BAD"]
    assert words in bad.errors["BAD"]
    assert len(good.records) == 8
    with pytest.raises(kind):
        read_one(yahoo("BAD"), "BAD")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Served("Too Many Requests", 429, "text/plain"), RateLimited),
        (Served("Edge: Too Many Requests", 200, "text/plain"), RateLimited),
        (Served('{"finance":{"error":{"code":"Unauthorized","description":"Invalid Crumb"}}}', 401), AuthFailed),
    ],
)
def test_what_every_ticker_would_meet_ends_the_walk(services, yahoo, answer, kind):
    services.serve(CHART + "ABCD", reply("ABCD"))
    services.serve(CHART, answer)
    walk = yahoo("ABCD", "BAD", "NEXT").daily()
    assert next(walk).name == "ABCD"
    with pytest.raises(kind):
        next(walk)
    assert not services.asked_of(CHART + "NEXT")


def test_five_tickers_in_a_row_that_cannot_be_had_end_the_walk(services, yahoo):
    services.serve(CHART, Served("oops", 503))
    walk = yahoo("AA", "BB", "CC", "DD", "EE", "FF").daily()
    batches = [next(walk) for _ in range(4)]
    assert [list(batch.errors) for batch in batches] == [["AA"], ["BB"], ["CC"], ["DD"]]
    with pytest.raises(Unavailable):
        next(walk)
    assert not services.asked_of(CHART + "FF")


def test_a_service_that_is_not_there_is_unavailable(services, tmp_path):
    services.port = 9  # nobody listens
    source = YahooSource(
        ["ABCD"],
        clock=fixed_clock(MIDDAY),
        cache=tmp_path,
        session=redirecting_session(services),
        pacer=Pacer(LocalSlots(), 1e4),
    )
    (batch,) = source.daily()
    assert "no answer came" in batch.errors["ABCD"]


def test_a_refusal_is_not_remembered(services, yahoo):
    services.serve(CHART + "ABCD", Served(UNKNOWN, 404))
    source = yahoo("ABCD")
    assert next(source.daily()).errors
    services.serve(CHART + "ABCD", reply("ABCD"))
    assert not next(source.daily()).errors
