"""The client over real HTTP against the simulator: pages, refusals, tokens, deadlines. Expected rows are the handmade market's."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from handmade import DAYS, SPLIT_STOCK, HandmadeMarket

from chartinsight_lib.clients.kiwoom import KiwoomClient
from chartinsight_lib.clients.kiwoom_auth import Credentials, MemoryTokens
from chartinsight_lib.domain import KST
from chartinsight_lib.errors import (
    AuthFailed,
    RateLimited,
    TruncatedReply,
    Unavailable,
    UnknownCode,
)
from chartinsight_lib.pace import LocalSlots, Pacer
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.faults import read_faults
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.server import SimulatorServer

EVENING = datetime(2026, 9, 18, 20, 30, tzinfo=KST)
KEYS = Credentials("simulated-appkey", "simulated-secretkey")
SINCE, UNTIL = DAYS[0], DAYS[-1]
NEWEST_FIRST = [(f"{day:%Y%m%d}", str(SPLIT_STOCK[day][0])) for day in reversed(DAYS)]


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[SimulatorServer, KiwoomClient]]]:
    """Starts a simulator, with faults as YAML, and a client of it that waits for nothing."""
    with ExitStack() as stack:

        def start(
            faults: str = "", *, client: dict[str, Any] | None = None, keys: Credentials = KEYS, **options: Any
        ) -> tuple[SimulatorServer, KiwoomClient]:
            told = {"quota": 10_000, "page_sizes": {"ka10081": 2, "ka10080": 3, "ka10059": 4, "ka20006": 4}} | options
            if faults:
                told["faults"] = read_faults(faults)
            server = stack.enter_context(
                SimulatorServer(HandmadeMarket(), SimulatedClock(EVENING, speed=0), Options(**told))
            )
            usual: dict[str, Any] = {
                "base_url": server.url, "pacer": Pacer(LocalSlots(), 10_000), "clock": server.clock.now,
                "back_off_s": 0.001, "between_issues_s": 0.0, "timeout_s": 2.0, "deadline_s": 10.0,
                "dice": random.Random(1),  # noqa: S311
            }  # fmt: skip
            return server, stack.enter_context(KiwoomClient(keys, **(usual | (client or {}))))

        yield start


def opens(client: KiwoomClient, *, since: date = SINCE) -> list[tuple[str, str]]:
    return [(row["dt"], row["open_pric"]) for row in client.daily_candles("000100", since=since, until=UNTIL)]


# Pages.


def test_a_history_is_walked_page_by_page_newest_first_to_its_end(serve):
    server, client = serve()
    assert opens(client) == NEWEST_FIRST
    assert server.requests.count(api_id="ka10081") == 5  # nine days, two a page
    assert {(one.cont_yn, one.page) for one in server.requests if one.api_id == "ka10081"} == {
        ("", 1), ("Y", 2), ("Y", 3), ("Y", 4), ("Y", 5)
    }  # fmt: skip


@pytest.mark.parametrize(("since", "calls"), [(DAYS[-1], 1), (DAYS[-2], 1), (DAYS[-3], 2), (date(2026, 9, 10), 4)])
def test_a_walk_ends_with_the_page_that_reaches_the_day_asked_for(serve, since, calls):
    server, client = serve()
    assert opens(client, since=since) == [row for row in NEWEST_FIRST if row[0] >= f"{since:%Y%m%d}"]
    assert server.requests.count(api_id="ka10081") == calls


def test_a_page_hands_on_what_it_holds_of_earlier_days(serve):
    _, client = serve()
    pages = list(client.daily_pages("000100", since=DAYS[-1], until=UNTIL))
    assert [[row["dt"] for row in page] for page in pages] == [["20260918", "20260917"]]


def test_adjusted_prices_are_relative_to_the_last_day_of_the_walk(serve):
    _, client = serve()
    rows = list(client.daily_candles("000100", since=SINCE, until=DAYS[1], adjusted=True))
    assert [row["cur_prc"] for row in rows] == ["50000", "50500"]
    rows = list(client.daily_candles("000100", since=SINCE, until=UNTIL, adjusted=True))
    assert [row["cur_prc"] for row in rows][-2:] == ["10000", "10100"]  # 50,000 and 50,500 by five


@pytest.mark.parametrize("page", [1, 3])
@pytest.mark.parametrize("what", ["empty_page", "loop_key", "repeat_key"])
def test_a_page_that_makes_no_sense_once_is_asked_for_again(serve, what, page):
    _, client = serve(f"rules: [{{api_id: ka10081, nth: {page}, do: {what}}}]")
    assert opens(client) == NEWEST_FIRST


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("empty_page", "page 1 has no rows, and yet more are promised; so it was 4 times"),
        ("repeat_key", "names itself as the next page"),
        ("loop_key", "page 3 goes back to 20260917, and the page before it went back to 20260915 already"),
    ],
)
def test_a_page_that_never_makes_sense_is_an_error_and_no_short_history(serve, what, says):
    when = "from: 2, " if what != "empty_page" else ""
    server, client = serve(f"rules: [{{api_id: ka10081, {when}do: {what}}}]")
    with pytest.raises(TruncatedReply, match="kiwoom ka10081 000100: ") as cut:
        opens(client)
    assert says in str(cut.value)
    assert server.requests.count(api_id="ka10081") < 16


def test_a_server_that_always_has_more_is_stopped_by_an_error(serve, monkeypatch):
    monkeypatch.setattr("chartinsight_lib.clients.kiwoom.MAX_PAGES", 3)
    _, client = serve()
    with pytest.raises(
        TruncatedReply, match="stopped after 3 pages, and the server has more. Ask for a nearer `since`"
    ):
        opens(client)


def test_what_is_not_listed_or_gone_or_not_known_has_no_history(serve):
    for gone, told in (("blank", []), ("zero", []), ("1902", UnknownCode)):
        _, client = serve(gone=gone)
        if told is UnknownCode:
            with pytest.raises(UnknownCode, match=r"1902.*Asked for 000400"):
                list(client.daily_candles("000400", since=SINCE, until=UNTIL))
        else:
            assert list(client.daily_candles("000400", since=SINCE, until=UNTIL)) == told


# What else can be asked.


def test_minutes_are_walked_back_to_a_moment(serve):
    server, client = serve()
    since = datetime(2026, 9, 17, 15, 30, tzinfo=KST)
    rows = list(client.minute_candles("000100", since=since, minutes=5))
    assert [row["cntr_tm"] for row in rows] == [
        "20260918153000", "20260918151500", "20260918090000", "20260917153000"
    ]  # fmt: skip
    assert server.requests.count(api_id="ka10080") == 2


def test_quotes_are_asked_a_hundred_at_a_time_and_an_unknown_code_has_none(serve):
    server, client = serve()
    codes = ["000100", *(f"9{number:05}" for number in range(248)), "000200"]
    assert [row["stk_cd"] for row in client.quotes(codes)] == ["000100", "000200"]
    assert server.requests.count(api_id="ka10095") == 3


def test_lists_sectors_index_flows_and_basics_are_read(serve):
    _, client = serve()
    assert {row["code"] for row in client.instruments("KOSPI")} >= {"000100", "0000D0", "000500", "000600", "000700"}
    assert [row["code"] for row in client.instruments("KOSDAQ")] == ["000200"]
    assert client.instrument("000100")["name"] == "가나반도체"
    assert {row["code"] for row in client.sectors("KOSPI")} >= {"001", "013"}
    index = list(client.index_candles("001", since=SINCE, until=UNTIL))
    assert [row["cur_prc"] for row in index] == [str(250_050 + 100 * n) for n in range(8, -1, -1)]
    assert len(list(client.investor_flows("000100", since=SINCE, until=UNTIL))) == len(DAYS)
    assert client.basics("000100")["stk_cd"] == "000100"


# Refusals and failures.

PASSING = ["rate_limit", "{status: 429, retry_after: 0.01}", "{status: 500}", "{status: 503}", "reset", "html", "waf",
           "truncated", "{code: 1999}", "{code: 1700}", "kill_token", "{timeout: 0.6}"]  # fmt: skip


@pytest.mark.parametrize("what", PASSING)
def test_a_failure_that_passes_is_got_over(serve, what):
    _, client = serve(f"rules: [{{api_id: ka10081, nth: [2, 4], do: {what}}}]", client={"timeout_s": 0.3})
    assert opens(client) == NEWEST_FIRST


@pytest.mark.parametrize(
    ("what", "kind", "says"),
    [
        ("{status: 500}", Unavailable, "HTTP 500"),
        ("reset", Unavailable, "no answer from 127.0.0.1"),
        ("html", Unavailable, "a page of HTML where JSON was expected (maintenance?)"),
        ("waf", Unavailable, "HTTP 400 with a page of HTML"),
        ("truncated", Unavailable, "are no JSON"),
        ("{code: 1999}", Unavailable, "1999"),
        ("rate_limit", RateLimited, "유량="),
    ],
)
def test_a_failure_that_lasts_is_an_error_after_ten_tries(serve, what, kind, says):
    server, client = serve(f"rules: [{{api_id: ka10081, do: {what}}}]")
    with pytest.raises(kind) as failure:
        opens(client)
    assert says in str(failure.value)
    assert "Gave up after 10 tries" in str(failure.value)
    assert server.requests.count(api_id="ka10081") == 10


def test_no_request_outlives_its_deadline(serve):
    _, client = serve("rules: [{api_id: ka10081, do: {timeout: 30}}]", client={"timeout_s": 20.0, "deadline_s": 0.4})
    began = time.monotonic()
    with pytest.raises(Unavailable, match="ReadTimeout"):
        opens(client)
    assert time.monotonic() - began < 5


def test_a_wait_longer_than_the_deadline_is_not_begun(serve):
    server, client = serve("rules: [{api_id: ka10081, do: {status: 429, retry_after: 60}}]")
    began = time.monotonic()
    with pytest.raises(RateLimited, match="Gave up after 1 tries"):
        opens(client)
    assert time.monotonic() - began < 5
    assert server.requests.count(api_id="ka10081") == 1


# Tokens.


def test_one_token_serves_many_requests_and_a_killed_one_is_replaced_once(serve):
    server, client = serve("rules: [{api_id: ka10081, nth: 3, do: kill_token}]", reissue="new")
    assert opens(client) == NEWEST_FIRST
    assert server.requests.count(api_id="au10001") == 2
    assert [one.bracket_code for one in server.requests].count(8005) == 1


def test_a_token_that_is_refused_again_at_once_is_given_up(serve):
    server, client = serve("rules: [{api_id: ka10081, do: kill_token}]", reissue="new")
    with pytest.raises(AuthFailed, match=r"8005.*A new token was refused too"):
        opens(client)
    assert server.requests.count(api_id="ka10081") == 2


@pytest.mark.parametrize("http_401", [False, True])
def test_programs_that_kill_each_others_tokens_get_along_when_they_share_a_store(serve, http_401):
    store = MemoryTokens()
    server, one = serve(reissue="kill_old", http_401=http_401, client={"tokens": store})
    with KiwoomClient(
        KEYS, base_url=server.url, pacer=Pacer(LocalSlots(), 10_000), clock=server.clock.now, tokens=store
    ) as other:
        assert opens(one) == opens(other) == NEWEST_FIRST
    assert server.requests.count(api_id="au10001") == 1


def test_a_token_is_renewed_before_it_ends(serve):
    server, client = serve(token_life=timedelta(hours=18))
    opens(client)
    server.clock.move_to(EVENING + timedelta(hours=17, minutes=51))
    list(client.daily_candles("000100", since=SINCE, until=UNTIL))
    assert server.requests.count(api_id="au10001") == 2
    assert 8005 not in {one.bracket_code for one in server.requests}


def test_a_token_is_given_back(serve):
    server, client = serve()
    assert client.check() == EVENING + timedelta(hours=24)
    client.revoke()
    assert server.requests.count(api_id="au10002", status=200) == 1


@pytest.mark.parametrize(
    ("keys", "options", "code", "says"),
    [
        (Credentials("simulated-appkey", "wrong-canary"), {}, "8001", "do not belong together"),
        (Credentials("mock-canary", "x"), {"foreign_keys": frozenset({"mock-canary"})}, "8030", "mockapi.kiwoom.com"),
        (KEYS, {"unknown_ips": frozenset({"127.0.0.1"})}, "8050", "IP address is not registered"),
    ],
)
def test_keys_that_are_not_taken_say_what_to_do_and_show_no_key(serve, keys, options, code, says):
    server, client = serve(keys=keys, **options)
    with pytest.raises(AuthFailed) as refusal:
        client.check()
    assert refusal.value.code == code
    assert says in str(refusal.value)
    assert "canary" not in str(refusal.value)
    assert server.requests.count(api_id="au10001") == 1  # trying again changes nothing


def test_maintenance_is_told_as_such(serve):
    day = timedelta(days=1)
    _, client = serve(maintenance=((EVENING - day, EVENING + day),))
    with pytest.raises(Unavailable, match="au10001.*maintenance"):
        client.check()


def test_what_a_request_went_through_is_logged_and_names_no_key(serve, caplog):
    server, client = serve(
        "rules: [{api_id: ka10081, nth: 1, do: reset}, {api_id: ka10081, nth: 3, do: kill_token}]", reissue="new"
    )
    with caplog.at_level(logging.INFO, "chartinsight_lib"):
        assert opens(client) == NEWEST_FIRST
    said = [record.getMessage() for record in caplog.records]
    assert [sum(word in line for line in said) for word in ("Again in", "another is used", "a new token")] == [1, 1, 2]
    secrets = {KEYS.appkey, KEYS.secretkey, *server.service.tokens._tokens}
    assert [line for line in said for secret in secrets if secret in line] == []
