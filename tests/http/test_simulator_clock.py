"""S7 and the simulator's own endpoint: hours, the clock, skipping what is closed, starting and stopping."""

import contextlib
import threading
import time
from datetime import date

import httpx
import pytest
from handmade import DAYS, HandmadeMarket, at, session_of
from raw_client import EVENING, simulator

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.faults import read_faults
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.server import SimulatorServer


def test_a_holiday_has_no_row():
    with simulator(at(date(2026, 9, 10), 12)) as kiwoom:
        assert kiwoom.daily(base="20260910")[0]["dt"] == "20260909"


def test_a_day_that_opens_at_ten_has_its_first_row_then():
    market = HandmadeMarket({DAYS[0]: session_of(DAYS[0], opens=10)})
    with simulator(at(DAYS[0], 9, 59), market) as kiwoom:
        assert set(kiwoom.daily()[0].values()) == {""}
        kiwoom.clock.move_to(at(DAYS[0], 10, 0, 1))
        assert kiwoom.minutes()[0]["cntr_tm"] == "20260907100000"


def test_the_day_of_the_university_entrance_exam_runs_from_ten_to_half_past_four():
    exam = session_of(DAYS[4], opens=10, closes=(16, 30))
    with simulator(at(DAYS[4], 16, 29), HandmadeMarket({DAYS[4]: exam})) as kiwoom:
        assert kiwoom.rows("ka10095", stk_cd="000100")[0]["close_pric"] == ""
        kiwoom.clock.move_to(at(DAYS[4], 16, 31))
        assert kiwoom.rows("ka10095", stk_cd="000100")[0]["close_pric"] == "+10500"
        assert kiwoom.minutes()[0]["cntr_tm"] == "20260914163000"


def test_the_simulator_tells_what_it_shows():
    with simulator() as kiwoom:
        kiwoom.post("ka99999")
        assert kiwoom.http.get("/_simulator").json() == {
            "label": "handmade", "now": "2026-09-18T21:00:00+09:00", "speed": 0, "profile": "real", "calls": 2, "refused": 1,
        }  # fmt: skip


def test_the_clock_can_be_moved_and_set_running():
    with simulator(at(DAYS[0], 8)) as kiwoom:
        moved = kiwoom.http.post("/_simulator/clock", json={"move_to": "2026-09-07T12:00:00+09:00"})
        assert moved.json()["now"] == "2026-09-07T12:00:00+09:00"
        assert kiwoom.daily()[0]["dt"] == "20260907"
        assert kiwoom.http.post("/_simulator/clock", json={"speed": 60}).json()["speed"] == 60


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"move_to": "2026-09-07T07:00:00+09:00"}, "cannot go back"),
        ({"move_to": "2026-09-07T09:00:00"}, "without a time zone"),
        ({"move_to": "soon"}, "Expected ISO 8601"),
        ({"speed": -1}, "speed is -1"),
        ({"speed": "fast"}, "speed is 'fast'"),
        ({}, "expected POST"),
    ],
)
def test_a_wrong_order_to_the_clock_is_explained(body, says):
    with simulator(at(DAYS[0], 8)) as kiwoom:
        answer = kiwoom.http.post("/_simulator/clock", json=body)
        assert answer.status_code == 400 and says in answer.json()["error"]


def test_the_clock_obeys_no_page_of_a_browser():
    with simulator(at(DAYS[0], 8)) as kiwoom:
        assert kiwoom.http.get("/_simulator", headers={"Host": "evil.example"}).status_code == 403
        plain = kiwoom.http.post("/_simulator/clock", content='{"speed": 5}', headers={"Content-Type": "text/plain"})
        assert plain.status_code == 415
        assert kiwoom.clock.speed == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (at(DAYS[0], 15, 41), at(DAYS[1], 8, 40)),  # no after-market yet
        (at(DAYS[0], 15, 39), at(DAYS[0], 15, 39)),
        (at(DAYS[4], 20, 9), at(DAYS[4], 20, 9)),
        (at(DAYS[4], 20, 11), at(DAYS[5], 8, 40)),
        (at(date(2026, 9, 10), 3), at(DAYS[3], 8, 40)),  # a holiday
        (at(date(2026, 9, 12), 12), at(DAYS[4], 8, 40)),  # a Saturday
        (at(DAYS[4], 3), at(DAYS[4], 3)),  # the night before a session, which is soon
        (EVENING, EVENING),  # no further day is known
    ],
)
def test_closed_hours_are_skipped(before, after):
    server = SimulatorServer(HandmadeMarket(), SimulatedClock(before, speed=0))
    server.skip_closed()
    assert server.clock.now() == after
    server.close()


def test_closed_hours_are_skipped_by_a_running_server():
    with simulator(at(DAYS[0], 15, 41), skip_closed=True) as kiwoom:
        deadline = time.monotonic() + 2
        while kiwoom.clock.now() != at(DAYS[1], 8, 40) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert kiwoom.clock.now() == at(DAYS[1], 8, 40)


def test_a_port_that_is_taken_is_refused():
    with simulator() as kiwoom, pytest.raises(ConfigError, match="cannot be opened"):
        SimulatorServer(HandmadeMarket(), kiwoom.clock, port=int(kiwoom.server.url.rpartition(":")[2]))


def test_it_serves_in_the_foreground_until_it_is_closed():
    server = SimulatorServer(HandmadeMarket(), SimulatedClock(EVENING, speed=0))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    assert httpx.get(f"{server.url}/_simulator", timeout=2).json()["label"] == "handmade"
    server.close()
    thread.join(timeout=2)
    assert not thread.is_alive()
    server.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/_simulator", timeout=2)


def test_the_answer_takes_as_long_as_told():
    with simulator(latency_s=0.03) as kiwoom:
        start = time.monotonic()
        kiwoom.issue()
        assert time.monotonic() - start >= 0.03


@pytest.mark.parametrize(
    "wrong", [{"quota": 0}, {"page_sizes": {"ka10081": 0}}, {"maintenance": ((EVENING, EVENING),)}]
)
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        Options(**wrong)


def test_it_ends_at_once_while_an_answer_is_still_held_back():
    faults = read_faults("rules: [{do: {timeout: 30}}]")
    with SimulatorServer(HandmadeMarket(), SimulatedClock(EVENING, speed=0), Options(faults=faults)) as server:
        asked = threading.Thread(target=lambda: suppressed(server.url))
        asked.start()
        while not len(server.requests):
            time.sleep(0.005)
        start = time.monotonic()
    asked.join(timeout=2)
    assert time.monotonic() - start < 2 and not asked.is_alive()


def suppressed(url: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(f"{url}/oauth2/token", json={}, timeout=5)
