"""S16: the WebSocket, and that what it sends adds up to what REST shows."""

import json
from contextlib import contextmanager

import pytest
from handmade import DAYS, at
from raw_client import EVENING, seconds, simulator
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from chartinsight_lib.simulator.faults import read_faults


class Socket:
    def __init__(self, connection):
        self.connection = connection

    def ask(self, **frame):
        self.connection.send(json.dumps(frame))
        return self.next()

    def next(self, *, echo: bool = True):
        """The next frame, PINGs aside, which are echoed."""
        while True:
            text = self.connection.recv(timeout=2)
            if json.loads(text) != {"trnm": "PING"}:
                return json.loads(text)
            if echo:
                self.connection.send(text)

    def real(self, count: int) -> list[dict]:
        """The next so many entries of REAL frames."""
        found = []
        while len(found) < count:
            frame = self.next()
            assert frame["trnm"] == "REAL"
            found += frame["data"]
        return found

    def register(self, items, kinds, **more):
        return self.ask(trnm="REG", **{"grp_no": "1", "refresh": "1", **more}, data=[{"item": items, "type": kinds}])


@contextmanager
def socket(kiwoom, *, login: bool = True):
    with connect(kiwoom.server.websocket_url, ping_interval=None) as connection:
        one = Socket(connection)
        if login:
            kiwoom.token = kiwoom.token or kiwoom.issue().json()["token"]
            assert one.ask(trnm="LOGIN", token=kiwoom.token) == {
                "trnm": "LOGIN", "return_code": 0, "return_msg": "", "sor_yn": "Y"
            }  # fmt: skip
        yield one


def test_trades_are_sent_as_the_clock_passes_them():
    with simulator(at(DAYS[5], 9)) as kiwoom, socket(kiwoom) as one:
        assert one.register(["000100"], ["0B"]) == {"trnm": "REG", "return_code": 0, "return_msg": ""}
        kiwoom.clock.move_to(at(DAYS[5], 9, 0, 20))
        first, second = one.real(2)
        assert (first["type"], first["name"], first["item"]) == ("0B", "주식체결", "000100")
        # 10,500 is the base; the second step is the minute's low, and 3,999 of its 7,998 shares.
        wanted = {"20": "090015", "10": "-10000", "11": "-500", "12": "-4.76", "25": "5", "13": "3999", "15": "-1999",
                  "16": "10500", "17": "10500", "18": "-10000", "14": "41", "26": "-4401"}  # fmt: skip
        assert {fid: second["values"][fid] for fid in wanted} == wanted
        assert (first["values"]["20"], first["values"]["10"], first["values"]["15"]) == ("090000", "10500", "+2000")


def test_the_frames_of_a_day_add_up_to_the_bars_of_rest():
    with simulator(at(DAYS[4], 9)) as kiwoom, socket(kiwoom) as one:
        one.register(["000100"], ["0B"])
        seen = []
        for hour, minute, steps in ((9, 1, 4), (12, 0, 1), (15, 31, 2), (19, 0, 4)):
            kiwoom.clock.move_to(at(DAYS[4], hour, minute))
            seen += [entry["values"] for entry in one.real(steps)]
        bars = {row["cntr_tm"][8:12]: row for row in kiwoom.minutes() if row["cntr_tm"].startswith("20260914")}
        day = kiwoom.daily()[0]
    assert (seen[-1]["10"], seen[-1]["13"]) == (f"+{day['cur_prc']}", day["trde_qty"])
    assert (seen[-1]["17"], seen[-1]["18"]) == (f"+{day['high_pric']}", f"-{day['low_pric']}")
    assert sorted(bars) == ["0900", "0901", "1519", "1530", "1605"] == sorted({trade["20"][:4] for trade in seen})
    for minute, bar in bars.items():
        trades = [trade for trade in seen if trade["20"].startswith(minute)]
        prices = [int(trade["10"].lstrip("+-")) for trade in trades]
        assert sum(abs(int(trade["15"])) for trade in trades) == int(bar["trde_qty"])
        assert [prices[0], max(prices), min(prices), prices[-1]] == [
            int(bar[name].lstrip("+-")) for name in ("open_pric", "high_pric", "low_pric", "cur_prc")
        ]
        assert trades[-1]["13"] == bar["acc_trde_qty"]


def test_indices_and_phases_are_sent():
    with simulator(at(DAYS[4], 8, 30)) as kiwoom, socket(kiwoom) as one:
        one.register(["001"], ["0J"])
        one.register([""], ["0s"])
        (phase,) = one.real(1)
        assert phase["values"] == {"215": "0", "20": "083000", "214": "003000"}
        kiwoom.clock.move_to(at(DAYS[4], 15, 31))
        values = {entry["type"]: entry["values"] for entry in one.real(2)}
        assert values["0s"]["215"] == "8"
        # 2,504.50 after 2,503.50.
        assert (values["0J"]["10"], values["0J"]["11"]) == ("+2504.50", "+1.00")


def test_a_ping_that_is_not_echoed_ends_the_connection():
    with simulator(ping_s=0.02) as kiwoom, socket(kiwoom) as one, pytest.raises(ConnectionClosed):
        while True:
            one.next(echo=False)


def test_a_ping_that_is_echoed_keeps_it():
    with simulator(at(DAYS[4], 9), ping_s=0.1) as kiwoom, socket(kiwoom) as one:
        for _ in range(3):
            text = one.connection.recv(timeout=2)
            assert json.loads(text) == {"trnm": "PING"}
            one.connection.send(text)
        assert one.register(["000100"], ["0B"])["return_code"] == 0


def test_what_is_removed_is_not_sent():
    with simulator(at(DAYS[4], 9)) as kiwoom, socket(kiwoom) as one:
        one.register(["000100", "000500"], ["0B"])
        data = [{"item": ["000100"], "type": ["0B"]}]
        assert one.ask(trnm="REMOVE", grp_no="1", data=data) == {"trnm": "REMOVE", "return_code": 0, "return_msg": ""}
        kiwoom.clock.move_to(at(DAYS[4], 9, 0, 10))
        assert {entry["item"] for entry in one.real(1)} == {"000500"}


def test_refresh_0_drops_what_the_group_had():
    with simulator(at(DAYS[4], 9)) as kiwoom, socket(kiwoom) as one:
        one.register(["000100"], ["0B"])
        one.register(["000500"], ["0B"], refresh="0")
        kiwoom.clock.move_to(at(DAYS[4], 9, 0, 10))
        assert {entry["item"] for entry in one.real(1)} == {"000500"}


def test_registrations_do_not_survive_a_connection():
    with simulator(at(DAYS[4], 9)) as kiwoom:
        with socket(kiwoom) as one:
            one.register(["000100"], ["0B"])
        with socket(kiwoom) as one:
            one.register(["000500"], ["0B"])
            kiwoom.clock.move_to(at(DAYS[4], 9, 0, 10))
            assert {entry["item"] for entry in one.real(1)} == {"000500"}


def test_two_hundred_items_are_the_most_over_all_types_and_groups():
    with simulator() as kiwoom, socket(kiwoom) as one:
        assert one.register([f"{n:06d}" for n in range(100)], ["0B", "0D"])["return_code"] == 0
        refused = one.register(["900000"], ["0B"], grp_no="2")
        assert (refused["trnm"], refused["return_code"]) == ("REG", 105115)
        assert one.register(["000001"], ["0B"])["return_code"] == 0  # there already


def test_a_registration_before_the_login_is_refused():
    with simulator() as kiwoom, socket(kiwoom, login=False) as one:
        assert one.register(["000100"], ["0B"])["return_code"] == 100013


def test_a_bad_token_is_told_and_the_connection_ends():
    with simulator() as kiwoom, socket(kiwoom, login=False) as one:
        assert one.ask(trnm="LOGIN", token="nonsense") == {
            "trnm": "LOGIN",
            "return_code": 805004,
            "return_msg": "토큰 인증에 실패했습니다. 접속을 종료합니다 [CODE=8005, MESSAGE=Token이 유효하지 않습니다]",
        }
        with pytest.raises(ConnectionClosed):
            one.next()


def test_a_second_login_ends_the_first_unless_told_otherwise():
    with simulator() as kiwoom, socket(kiwoom) as first, socket(kiwoom):
        notice = first.next()
        assert (notice["trnm"], notice["code"]) == ("SYSTEM", "R10001")
        with pytest.raises(ConnectionClosed):
            first.next()
    with simulator(duplicate_login="both") as kiwoom, socket(kiwoom) as first, socket(kiwoom):
        assert first.register(["000100"], ["0B"])["return_code"] == 0


def test_maintenance_ends_the_connection_and_lets_nobody_in():
    start = EVENING + seconds(60)
    with simulator(maintenance=((start, start + seconds(60)),)) as kiwoom, socket(kiwoom) as one:
        kiwoom.clock.move_to(start)
        with pytest.raises(ConnectionClosed):
            one.next()
        with pytest.raises(InvalidStatus), socket(kiwoom, login=False):
            pass


def test_a_fault_ends_the_connection_at_a_frame():
    faults = read_faults("rules: [{api_id: websocket, code: REAL, nth: 2, do: disconnect}]")
    with simulator(at(DAYS[4], 9), faults=faults) as kiwoom, socket(kiwoom) as one:
        one.register(["000100"], ["0B"])
        kiwoom.clock.move_to(at(DAYS[4], 9, 0, 10))
        one.real(1)
        kiwoom.clock.move_to(at(DAYS[4], 9, 0, 20))
        with pytest.raises(ConnectionClosed):
            one.next()
        assert kiwoom.server.requests.count(api_id="websocket", fault="disconnect") == 1
