"""Whatever comes back from Kiwoom's address: an error of ours, or bars that can be. No server: a transport answers at random.

Replies are valid ones of the specification (section 7) with fields dropped, retyped, blanked, overflowed or nested, under any
status and with any headers; some are any JSON or any bytes. `HYPOTHESIS_PROFILE=long` looks at many more of them.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chartinsight_lib import normalise, normalise_kiwoom
from chartinsight_lib.base_prices import learn_chain
from chartinsight_lib.clients import kiwoom
from chartinsight_lib.clients.base import Batch
from chartinsight_lib.clients.kiwoom import RE_ASKS, KiwoomClient
from chartinsight_lib.clients.kiwoom_auth import Credentials
from chartinsight_lib.clients.kiwoom_source import KiwoomSource
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.errors import ChartInsightError
from chartinsight_lib.normalise import Bars
from chartinsight_lib.pace import LocalSlots, Pacer

NOW = datetime(2026, 9, 18, 8, tzinfo=UTC)
"""17:00 in Seoul: today's bar is running."""
TODAY = date(2026, 9, 18)
SINCE = date(2026, 9, 1)
PAGES, TRIES = 5, 3
"""In place of 400 and 10, so that a server that always has more, or never answers, is given up early."""
MOST_REQUESTS = PAGES * 2 * (RE_ASKS + 1) * (TRIES + 1)
CODE = "005930"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or (20_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 200))

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

fuzz_source = settings(fuzz, max_examples=EXAMPLES // 3)
"""Each example is several walks there."""


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kiwoom, "MAX_PAGES", PAGES)
    monkeypatch.setattr(kiwoom, "TRIES", TRIES)


# What a reply looks like when all is well: specification, section 7.

DAYS = [TODAY - timedelta(days=n) for n in range(8)]
DAILY_ROW = {"cur_prc": "70100", "trde_qty": "9263135", "trde_prica": "648525", "dt": "20260918", "open_pric": "69800",
             "high_pric": "70500", "low_pric": "69600", "pred_pre": "+600", "pred_pre_sig": "2"}  # fmt: skip
MINUTE_ROW = {"cur_prc": "-78800", "trde_qty": "7913", "cntr_tm": "20260918132000", "open_pric": "-78850",
              "high_pric": "-78900", "low_pric": "-78800", "acc_trde_qty": "14947571", "pred_pre": "-600",
              "pred_pre_sig": "5"}  # fmt: skip
QUOTE_ROW = {"stk_cd": CODE, "stk_nm": "삼성전자", "cur_prc": "-71500", "base_pric": "71600", "trde_qty": "12",
             "dt": "20260918", "trde_prica": "1", "open_pric": "+71700", "high_pric": "+71800", "low_pric": "-71400",
             "close_pric": "-71500"}  # fmt: skip
LIST_ROW = {"code": CODE, "name": "삼성전자", "listCount": "0000000026034239", "auditInfo": "정상", "regDay": "20090803",
            "lastPrice": "00136000", "state": "증거금20%", "marketCode": "0", "upName": "전기/전자"}  # fmt: skip
FLOW_ROW = {"dt": "20260918", "cur_prc": "+61300", "flu_rt": "+698", "acc_trde_qty": "1105968", "ind_invsr": "1584",
            "frgnr_invsr": "-61779", "orgn": "60195", "natfor": "--1"}  # fmt: skip
ROWS = {
    "ka10059": ("stk_invsr_orgn", FLOW_ROW),
    "ka10080": ("stk_min_pole_chart_qry", MINUTE_ROW),
    "ka10081": ("stk_dt_pole_chart_qry", DAILY_ROW),
    "ka10095": ("atn_stk_infr", QUOTE_ROW),
    "ka10099": ("list", LIST_ROW),
    "ka10101": ("list", {"marketCode": "0", "code": "001", "name": "종합(KOSPI)", "group": "1"}),
    "ka20006": ("inds_dt_pole_qry", DAILY_ROW),
}
FLAT = {"ka10001": {"stk_cd": CODE, "stk_nm": "삼성전자", "per": "-11.5", "mac": "24352"}, "ka10100": LIST_ROW}
TOKEN = {"expires_dt": "20260919170000", "token_type": "bearer", "token": "WQJCwyqInph"}
FINE = {"return_code": 0, "return_msg": "정상적으로 처리되었습니다"}


def rows_of(api_id: str, newest: int, count: int) -> list[dict[str, Any]]:
    """Rows of a TR, newest first, from the day or bar of this number on."""
    rows = [dict(ROWS[api_id][1]) for _ in range(count)]
    for number, row in enumerate(rows, newest):
        if api_id == "ka10080":
            row["cntr_tm"] = f"{DAYS[number // 10]:%Y%m%d}{15 - number % 10 // 2:02}{number % 2 * 30:02}00"
        elif "dt" in row and api_id != "ka10095":
            row["dt"] = f"{DAYS[min(number // 3, 7)]:%Y%m%d}"
    return rows


# What can be wrong with it.

ABSENT = "(absent)"
NUMBERS = [
    "", " ", "0", "-0", "00136000", "--714", "+-5", "12.5", "1e5", "1,000", "1_000", "0x10", "NaN", "inf", "-inf", "9" * 17,
    "9" * 25, "9" * 400, "9" * 5000, "4294967295", "2147483647", "-2147483648", "-2147483", "-4294967295", "１２３", "٣٤", "²", "٣",
    "9007199254740993", "0.5", "-1",
]  # fmt: skip
TIMES = [
    "00000000", "00010101", "18991231", "19000101", "19870510", "20260230", "20261399", "20260919", "20270101", "22000101",
    "99991231", "٢٠٢٦٠٩١٨", "2026-09-18", "00010101000000", "19870510023000", "19871011023000", "20260918250000", "20260918170001",
    "20260919090000", "99991231235959", "20260918",
]  # fmt: skip
TEXTS = ["\x00", "\ud800", "한글", "a|b", "거래정지", "N/A", CODE, "000660", "5930", "x" * 100, "\n", "'; --"]
OTHERS = [
    None, True, False, 0, 5, -1, 12.5, 1e300, float("inf"), float("nan"), 10**30, [], {}, [None], {"a": [{"b": 1}]}, ABSENT,
]  # fmt: skip
VALUES = st.sampled_from([*NUMBERS, *TIMES, *TEXTS, *OTHERS])
ANY_TEXT = st.text(max_size=6)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
MESSAGES = [
    "허용된 요청 개수를 초과하였습니다[1700:유량=5, API ID=ka10081]", "인증에 실패했습니다[8005:Token이 유효하지 않습니다]",
    "[1902:종목 정보가 없습니다]", "[1999:x]", "[8030:x]", "[1511:x]", "[2000](RC4058:모의투자 장종료)", "\x00[1999:\ud800",
    "secretkey", ["[1700:"], None, 5,
]  # fmt: skip
STATUSES = [200] * 50 + [201, 204, 301, 304, 400, 401, 403, 404, 429, 500, 503, 599]
HEADERS = {
    "cont-yn": ["Y", "Y", "N", "y", "", "YY"],
    "next-key": ["", "a", "b", "c", " ", "x" * 300, "키".encode(), b"\xff\xfe", "a b"],
    "retry-after": ["0", "0.5", "3", "1e3", "-1", "nan", "inf", "1e400", "Wed, 21 Oct 2026 07:28:00 GMT", ""],
    "content-type": ["application/json", "text/html; charset=x", "nonsense", ""],
    "content-encoding": ["gzip", "identity", "nonsense"],
}
FAILURES = [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.PoolTimeout, httpx.DecodingError]


@dataclass(frozen=True)
class Sent:
    """A reply on its way, or the failure in its place."""

    status: int = 200
    headers: tuple[tuple[str, str | bytes], ...] = ()
    body: bytes = b""
    failure: type[httpx.TransportError] | type[httpx.DecodingError] | None = None


def dumped(body: Any) -> bytes:
    return json.dumps(body).encode()


@st.composite
def headers(draw: st.DrawFn) -> tuple[tuple[str, str | bytes], ...]:
    names = draw(st.lists(st.sampled_from(["cont-yn", "next-key", *HEADERS]), max_size=4, unique=False))
    if draw(st.booleans()):
        names = ["cont-yn", "next-key"]  # so that many a walk goes on
    return tuple((name, draw(st.sampled_from(HEADERS[name]))) for name in dict.fromkeys(names))


def change(row: dict[str, Any], name: str, value: Any) -> None:
    if value == ABSENT:
        row.pop(name, None)
    else:
        row[name] = value


@st.composite
def nearly_valid(draw: st.DrawFn, api_id: str) -> Any:
    """A reply to a TR, with some fields of some rows changed, and sometimes of the envelope."""
    body: dict[str, Any] = dict(FINE)
    if api_id in FLAT or api_id == "au10001":
        body |= FLAT.get(api_id, TOKEN)
        for name in draw(st.lists(st.sampled_from(sorted(body)), max_size=2)):
            change(body, name, draw(VALUES))
    else:
        key, row = ROWS[api_id]
        rows = rows_of(api_id, draw(st.integers(0, 20)), draw(st.integers(0, 5)))
        for name in draw(st.lists(st.sampled_from(sorted(row)), max_size=4)):
            if rows:
                change(rows[draw(st.integers(0, len(rows) - 1))], name, draw(VALUES))
        if rows and draw(st.integers(0, 9)) == 0:
            rows[draw(st.integers(0, len(rows) - 1))] = draw(
                st.sampled_from([{}, dict.fromkeys(row, ""), dict.fromkeys(row), None, "x", []])
            )
        body[key] = rows
    if draw(st.integers(0, 5)) == 0:
        change(body, "return_msg", draw(st.sampled_from(MESSAGES)))
        change(body, "return_code", draw(VALUES | st.integers(-1, 21)))
    if draw(st.integers(0, 15)) == 0:
        change(body, draw(st.sampled_from(sorted(body))), draw(ANY_JSON))
    return body


@st.composite
def sent(draw: st.DrawFn, api_id: str) -> Sent:
    which = draw(st.integers(0, 14))
    if which == 0:
        return Sent(failure=draw(st.sampled_from(FAILURES)))
    if which == 1:
        body = draw(st.binary(max_size=20)) or b'{"return_code":0,"x":' + b"[" * 100_000
    elif which == 2:
        body = dumped(draw(ANY_JSON))
    else:
        body = dumped(draw(nearly_valid(api_id)))
        if which == 3:
            body = body[: draw(st.integers(0, len(body)))]
    return Sent(draw(st.sampled_from(STATUSES)), draw(headers()), body)


GOOD_TOKEN = Sent(body=dumped(FINE | TOKEN))
TOKENS = st.just([GOOD_TOKEN]) | st.lists(sent("au10001"), min_size=1, max_size=2)


def replies(*api_ids: str) -> st.SearchStrategy[dict[str, list[Sent]]]:
    """What is answered, in turn and again from the start, to each TR."""
    scripts = {api_id: st.lists(sent(api_id), min_size=1, max_size=4) for api_id in api_ids}
    return st.fixed_dictionaries({**scripts, "au10001": TOKENS})


class Endless(BaseException):
    """More requests than there may be."""


class Stage:
    """A client whose server says what it is told to."""

    def __init__(self, script: dict[str, list[Sent]]) -> None:
        self._script, self.asked = script, dict[str, int]()
        self.client = KiwoomClient(
            Credentials("appkey", "secretkey"), base_url="http://127.0.0.1", clock=fixed_clock(NOW),
            transport=httpx.MockTransport(self._answer), sleep=lambda _: None, between_issues_s=0,
            pacer=Pacer(LocalSlots(), 1e4, sleep=lambda _: None),
        )  # fmt: skip

    def source(self) -> KiwoomSource:
        return KiwoomSource(self.client, name="fuzz", market="SIM", clock=fixed_clock(NOW), years=1, workers=1)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        api_id = request.headers["api-id"]
        turn = self.asked.get(api_id, 0)
        self.asked[api_id] = turn + 1
        if turn > MOST_REQUESTS:
            raise Endless(api_id)
        lines = self._script.get(api_id) or [Sent(body=dumped(FINE))]
        line = lines[turn % len(lines)]
        if line.failure:
            raise line.failure("no", request=request)
        return httpx.Response(line.status, headers=list(line.headers), content=line.body)


def storable(text: str) -> bool:
    """Whether the ledger can keep a text."""
    return "\x00" not in text and text == text.encode("utf-8", "replace").decode()


def expected(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or None when it raises an error of ours, which the ledger can keep."""
    try:
        return call()
    except ChartInsightError as error:
        assert storable(str(error)), repr(error)
        assert "secretkey" not in str(error)
        return None


def possible(bars: Bars, last: date | datetime) -> None:
    """Check that bars can be."""
    candles = bars.candles
    prices = candles[["open", "high", "low", "close"]].to_numpy(np.float64)
    assert np.isfinite(prices).all() and (prices > 0).all()
    assert (candles["high"] >= candles[["open", "close", "low"]].max(axis=1)).all()
    assert (candles["low"] <= candles[["open", "close"]].min(axis=1)).all()
    assert candles["volume"].dtype == np.int64 and (candles["volume"] >= 0).all()
    assert (candles["value"].isna() | (candles["value"] >= 0)).all() and not np.isinf(candles["value"]).any()
    latest = pd.Timestamp(last) if isinstance(last, datetime) else pd.Timestamp(last, tz="UTC")
    for frame in (candles, bars.gaps):
        assert (frame["ts"] <= latest).all() and (frame["ts"] >= pd.Timestamp("1900-01-01", tz="UTC")).all()
        assert not frame.duplicated(["code", "ts"]).any()
    rejected = int((bars.quarantine["action"] == "rejected").sum())
    assert bars.rows == len(candles) + len(bars.gaps) + rejected + bars.duplicates


def as_daily(frame: pd.DataFrame) -> None:
    bars = expected(lambda: normalise.daily(frame, market="SIM", today=TODAY, provisional_from=TODAY))
    assert bars is not None and bars.rows == len(frame)
    possible(bars, TODAY)


def as_intraday(frame: pd.DataFrame) -> None:
    bars = expected(lambda: normalise.intraday(frame, market="SIM", now=NOW, provisional_from=NOW))
    assert bars is not None and bars.rows == len(frame)
    possible(bars, NOW)


def factors_of(pairs: pd.DataFrame) -> None:
    found = expected(lambda: learn_chain(pairs))
    if found is not None:
        factors = found[["price_factor", "volume_factor"]].to_numpy(np.float64)
        assert np.isfinite(factors).all() and (factors > 0).all()
        assert found["ex_date"].is_monotonic_increasing and found["ex_date"].is_unique


# The client.

CALLS: dict[str, Callable[[KiwoomClient], Any]] = {
    "ka10001": lambda client: client.basics(CODE),
    "ka10059": lambda client: list(client.investor_flows(CODE, since=SINCE, until=TODAY)),
    "ka10080": lambda client: list(client.minute_candles(CODE, since=NOW - timedelta(days=20))),
    "ka10081": lambda client: list(client.daily_candles(CODE, since=SINCE, until=TODAY)),
    "ka10095": lambda client: list(client.quotes([CODE, "000660"])),
    "ka10099": lambda client: client.instruments("KOSPI"),
    "ka10100": lambda client: client.instrument(CODE),
    "ka10101": lambda client: client.sectors("KOSPI"),
    "ka20006": lambda client: list(client.index_candles("001", since=SINCE, until=TODAY)),
    "au10001": lambda client: client.check(),
    "au10002": lambda client: client.revoke(),
}


@given(st.data())
@fuzz
def test_every_method_returns_records_or_raises_an_error_of_ours(data):
    api_id = data.draw(st.sampled_from(sorted(CALLS)))
    script = data.draw(replies(*({api_id} - {"au10001", "au10002"})))
    if api_id == "au10002":
        script[api_id] = [data.draw(sent("au10001"))]
    stage = Stage(script)
    found = expected(lambda: CALLS[api_id](stage.client))
    for record in found if isinstance(found, list) else []:
        assert isinstance(record, dict) and all(isinstance(value, str) for value in record.values())


# From the wire to candles.


def rows_read(api_id: str, script: dict[str, list[Sent]]) -> list[dict[str, str]]:
    return expected(lambda: CALLS[api_id](Stage(script).client)) or []


def page(api_id: str, *changes: dict[str, Any], **headers: str) -> Sent:
    rows = [row | changed for row, changed in zip(rows_of(api_id, 0, len(changes)), changes, strict=True)]
    return Sent(body=dumped(FINE | {ROWS[api_id][0]: rows}), headers=tuple(headers.items()))


def only(api_id: str, *pages: Sent) -> dict[str, list[Sent]]:
    return {api_id: list(pages), "au10001": [GOOD_TOKEN]}


@given(replies("ka10081"), st.booleans())
@example(only("ka10081", page("ka10081", {"dt": "20261399"}, {"dt": "00010101"})), False)
@example(only("ka10081", page("ka10081", {"trde_qty": "9" * 25}, {"cur_prc": "1_000"})), True)
@fuzz
def test_daily_rows_become_bars_that_can_be(script, halted):
    rows = rows_read("ka10081", script)
    frame = expected(lambda: normalise_kiwoom.daily(rows, CODE, now=NOW, halted=halted))
    if frame is not None:
        assert len(frame) == len(rows)
        as_daily(frame)


@given(replies("ka10080"))
@example(only("ka10080", page("ka10080", {"cntr_tm": "20260918"}, {"cntr_tm": "20260918250000"})))
@fuzz
def test_minute_rows_become_bars_that_can_be(script):
    rows = rows_read("ka10080", script)
    frame = expected(lambda: normalise_kiwoom.minutes(rows, CODE))
    if frame is not None:
        assert len(frame) == len(rows)
        as_intraday(frame)


@pytest.mark.parametrize("written", ["19870510023000", "19871011023000", "00010101000000", "99991231235959"])
def test_a_minute_that_no_clock_in_seoul_showed_is_rejected(written):
    """Korea had summer time in 1987 and 1988: one hour of May is not there, and one of October is there twice."""
    rows = rows_of("ka10080", 0, 2)
    rows[1]["cntr_tm"] = written
    as_intraday(normalise_kiwoom.minutes(rows, CODE))


@given(replies("ka10095"))
@example(only("ka10095", page("ka10095", {"stk_cd": "\ud800"}, {"stk_cd": "\x00"})))
@fuzz
def test_quotes_become_bars_that_can_be(script):
    rows = rows_read("ka10095", script)
    frame = expected(lambda: normalise_kiwoom.quotes(rows, now=NOW))
    if frame is not None:
        assert len(frame) <= len(rows)
        as_daily(frame)


@given(replies("ka10099", "ka10059", "ka20006"))
@example(only("ka10059", page("ka10059", {"dt": "20261399"})))
@example(only("ka20006", page("ka20006", {"dt": "20260918000000"})))
@example(only("ka10099", page("ka10099", {"name": "\ud800"})))
@example(only("ka10099", page("ka10099", {"name": "\x00"})))
@fuzz
def test_lists_flows_and_indices_become_frames(script):
    listed = rows_read("ka10099", script)
    instruments = expected(lambda: normalise_kiwoom.instruments(listed, "SIM"))
    if instruments is not None:
        assert instruments["code"].is_unique
        texts: Iterable[Any] = instruments[["code", "name", "kind", "sector", "section"]].to_numpy().ravel()
        assert all(storable(word) for word in texts if isinstance(word, str))
        assert all(storable(word) for states in instruments["states"].dropna() for word in states)
        assert instruments["shares"].dropna().between(1, 10**15).all()
        [normalise_kiwoom.halted_now(row) for row in listed]
    for api_id, read in (("ka10059", normalise_kiwoom.flows), ("ka20006", normalise_kiwoom.index_points)):
        rows = rows_read(api_id, script)
        frame = expected(lambda rows=rows, read=read: read(rows))
        assert frame is None or (len(frame) == len(rows) and frame.index.notna().all())


# The source.


def batches(read: Callable[[], Iterable[Batch]]) -> list[Batch]:
    found = expected(lambda: list(read())) or []
    for batch in found:
        assert all(storable(reason) for reason in batch.errors.values()), batch.errors
    return found


@given(replies("ka10081", "ka10099"))
@example(only("ka10081", page("ka10081", {"dt": "20261399"}, {})) | {"ka10099": [page("ka10099", {})]})
@fuzz_source
def test_the_source_gives_days_that_can_be_and_factors(script):
    for batch in batches(lambda: Stage(script).source().daily({CODE: date(2026, 9, 16)})):
        as_daily(batch.records)
        if batch.pairs is not None:
            for _, own in batch.pairs.groupby("code"):
                factors_of(own)


@given(replies("ka10080", "ka10095", "ka10099"))
@fuzz_source
def test_the_source_gives_quotes_and_minutes_that_can_be(script):
    source = Stage(script).source()
    for batch in batches(source.quotes):
        as_daily(batch.records)
    for batch in batches(lambda: source.intraday([CODE, "000660"], {CODE: NOW - timedelta(days=1)})):
        as_intraday(batch.records)


@given(st.lists(st.tuples(*[VALUES] * 4), min_size=1, max_size=6))
@fuzz
def test_factors_are_learnt_of_any_pairs_or_refused(changes):
    raw, adjusted = rows_of("ka10081", 0, 20)[::3], rows_of("ka10081", 0, 20)[::3]
    for number, (price, volume, its_price, its_volume) in enumerate(changes):
        change(raw[number], "cur_prc", price)
        change(raw[number], "trde_qty", volume)
        change(adjusted[number], "high_pric", its_price)
        change(adjusted[number], "trde_qty", its_volume)
    stage = Stage(
        {
            "ka10099": [page("ka10099", {})],
            "ka10081": [Sent(body=dumped(FINE | {"stk_dt_pole_chart_qry": rows})) for rows in (raw, adjusted)],
            "au10001": [GOOD_TOKEN],
        }
    )
    for batch in batches(lambda: stage.source().daily({})):
        as_daily(batch.records)
        if batch.pairs is not None:
            factors_of(batch.pairs)
