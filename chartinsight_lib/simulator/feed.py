"""The WebSocket: LOGIN, PING, REG, REMOVE, and REAL frames of 0B (trades), 0J (indices) and 0s (phases of the day).

A trade is a step of a minute (see `world`), so that bars built from the frames are the bars that REST shows. There is no
replay: what happened while nobody listened is not sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from chartinsight_lib.simulator.reading import split_symbol
from chartinsight_lib.simulator.sectors import signed_points
from chartinsight_lib.simulator.service import Service
from chartinsight_lib.simulator.wire import MILLION, Refusal, change, dumps, mark, percent, signed, tick
from chartinsight_lib.simulator.world import STEP, Symbol, World

CAP = 200
"""Items of one connection, over all types."""
NAMES = {"0B": "주식체결", "0J": "업종지수", "0s": "장시작시간"}
API_ID = "websocket"
"""What frames are called in the log and in fault rules."""
_HUNDRED_MILLION = 100_000_000

Frame = dict[str, Any]


@dataclass
class Listener:
    """What one connection has asked for."""

    socket: FeedSocket
    appkey: str
    since: datetime
    groups: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """{group: (item, type)}."""
    shown: dict[str, object] = field(default_factory=dict)
    """What was last sent of an index, or of the day's phase."""
    awaits_echo: bool = False

    def wanted(self) -> list[tuple[str, str]]:
        """Return everything asked for, once each."""
        return sorted(set().union(*self.groups.values()))


class Feed:
    """All connections of a simulator."""

    def __init__(self, service: Service, log: Any) -> None:
        """Show what `service` shows; `log(frame name, status, return code, fault)` is told of every frame."""
        self.service, self.world, self.log = service, service.world, log
        self.listeners: list[Listener] = []

    def login(self, socket: FeedSocket, token: str) -> Frame:
        """Answer LOGIN. Raises Refusal."""
        appkey = self.service.tokens.holder(token)
        if self.world.options.duplicate_login == "kick":
            for other in [one for one in self.listeners if one.appkey == appkey and one.socket is not socket]:
                message = "동일한 App key로 접속이 되었습니다. 기존 세션은 종료가 됩니다"
                other.socket.send({"trnm": "SYSTEM", "code": "R10001", "message": message})
                other.socket.close(1000)
                self.listeners.remove(other)
        if socket.listener is None:
            socket.listener = Listener(socket, appkey, self.world.now())
            self.listeners.append(socket.listener)
        return {"trnm": "LOGIN", "return_code": 0, "return_msg": "", "sor_yn": "Y"}

    def ping(self) -> None:
        """Send PING to everybody; who has not echoed the last one is dropped."""
        for one in list(self.listeners):
            if one.awaits_echo:
                one.socket.close(1000)
            else:
                one.awaits_echo = True
                one.socket.send({"trnm": "PING"})

    def tick(self) -> None:
        """Send what has happened since the last look."""
        now = self.world.now()
        maintained = self.world.options.window(now) is not None
        for one in list(self.listeners):
            if maintained:
                one.socket.close(1000)
                continue
            since, one.since = one.since, now
            data = [frame for item, kind in one.wanted() for frame in self._frames(one, item, kind, since, now)]
            if data:
                data.sort(key=lambda frame: str(frame["values"]["20"]))
                one.socket.send({"trnm": "REAL", "data": data})

    def _frames(self, one: Listener, item: str, kind: str, since: datetime, now: datetime) -> Iterator[Frame]:
        values: Iterator[dict[str, str]] = iter(())
        if kind == "0B":
            values = trades(self.world, split_symbol(item), since, now)
        elif kind == "0J":
            values = _index(self.world, one, item, now)
        elif kind == "0s":
            values = _phases(self.world, one, now)
        for found in values:
            yield {"type": kind, "name": NAMES[kind], "item": item, "values": found}


class FeedSocket(WebSocketHandler):
    """One connection."""

    listener: Listener | None = None

    def initialize(self, feed: Feed) -> None:
        """Belong to `feed`."""
        self.feed = feed

    def prepare(self) -> None:
        """Refuse the handshake during maintenance."""
        if self.feed.world.options.window(self.feed.world.now()):
            self.send_error(503)

    def on_message(self, message: str | bytes) -> None:
        """Answer a frame."""
        try:
            frame = json.loads(message)
        except ValueError:
            frame = None
        if not isinstance(frame, dict):
            self.close(1000)
            return
        name = str(frame.get("trnm", ""))[:10]
        fault = self.feed.world.options.faults.next(API_ID, name)
        if fault and fault.action in ("disconnect", "reset"):
            self.feed.log(name, 0, None, str(fault))
            self.close(1000)
            return
        if name == "PING":
            if self.listener and frame == {"trnm": "PING"}:
                self.listener.awaits_echo = False
            return
        answer = self._answer(name, frame)
        self.feed.log(name, 101, answer["return_code"], "")
        self.send(answer)
        if answer["return_code"] == 805004:
            self.close(1000)

    def _answer(self, name: str, frame: Frame) -> Frame:
        if name == "LOGIN":
            try:
                return self.feed.login(self, str(frame.get("token", "")))
            except Refusal as refusal:
                reason = refusal.message.partition(":")[2].rstrip("]")
                message = f"토큰 인증에 실패했습니다. 접속을 종료합니다 [CODE={refusal.code}, MESSAGE={reason}]"
                return {"trnm": "LOGIN", "return_code": 805004, "return_msg": message}
        if self.listener is None:
            message = "로그인 인증이 들어오기 전에 다른 전문이 들어왔습니다"
            return {"trnm": name, "return_code": 100013, "return_msg": message}
        return self._registered(self.listener, name, frame)

    def _registered(self, listener: Listener, name: str, frame: Frame) -> Frame:
        """Answer REG and REMOVE."""
        if name not in ("REG", "REMOVE"):
            return {"trnm": name, "return_code": 100012, "return_msg": "지원하지 않는 전문입니다"}  # wording composed
        group, groups = str(frame.get("grp_no", "")), listener.groups
        named, kept = _named(frame), groups.get(group, set())
        if name == "REMOVE":
            groups[group] = kept - named
            return {"trnm": name, "return_code": 0, "return_msg": ""}
        joined = named if frame.get("refresh") == "0" else kept | named
        if len(set().union(joined, *(items for other, items in groups.items() if other != group))) > CAP:
            message = f"실시간 등록 가능 건수를 초과하였습니다. 최대={CAP}"
            return {"trnm": name, "return_code": 105115, "return_msg": message}
        groups[group] = joined
        return {"trnm": name, "return_code": 0, "return_msg": ""}

    def send(self, frame: Frame) -> None:
        """Send a frame, unless the connection is gone or a fault ends it."""
        if frame["trnm"] in ("REAL", "PING"):
            fault = self.feed.world.options.faults.next(API_ID, "REAL") if frame["trnm"] == "REAL" else None
            if fault and fault.action in ("disconnect", "reset"):
                self.feed.log("REAL", 0, None, str(fault))
                self.close(1000)
                return
        try:
            self.write_message(dumps(frame)).add_done_callback(lambda sent: sent.exception())
        except WebSocketClosedError:
            self.on_close()

    def on_close(self) -> None:
        """Forget the registrations: they do not survive a connection."""
        if self.listener in self.feed.listeners:
            self.feed.listeners.remove(self.listener)


def _named(frame: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the (item, type) pairs of a REG or REMOVE."""
    data = frame.get("data")
    return {
        (str(item), str(kind))
        for entry in (data if isinstance(data, list) else [])
        if isinstance(entry, dict)
        for item in entry.get("item") or [""]
        for kind in entry.get("type") or []
    }


def trades(world: World, symbol: Symbol, since: datetime, now: datetime) -> Iterator[dict[str, str]]:
    """Yield the trades of an instrument from `since` to before `now`, as the values of 0B."""
    listing = world.listings.get(symbol.code)
    if listing is None or not listing.listed(now.date()) or (symbol.suffix and not world.options.serves_suffixes):
        return
    day = now.date()
    # A clock that jumps over days shows the newest only, as a connection that was away would see.
    start = max(since, now.replace(hour=0, minute=0, second=0, microsecond=0)).replace(tzinfo=None)
    bars = world.whole_minutes(symbol, day)
    first, last = np.searchsorted(
        bars.start, np.array([start - timedelta(minutes=1), now.replace(tzinfo=None)], "datetime64[us]")
    )
    if first == last:
        return
    base, shares = world.base(symbol.code, day), listing.shares_on(day)
    life = world.life(symbol.code)
    at = int(np.searchsorted(life.day, np.datetime64(day)))
    before = (int(life.volume[at - 1]), int(life.value[at - 1])) if at else (0, 0)
    volume, value = int(bars.volume[:first].sum()), int(bars.value[:first].sum())
    high, low = int(bars.high[:first].max(initial=0)), int(bars.low[:first].min(initial=np.iinfo(np.int64).max))
    sent = volume
    for n in range(int(first), int(last)):
        moment: datetime = bars.start[n].astype("datetime64[us]").astype(object)
        for price, so_far, worth in world.steps(bars, n, day):
            high, low = max(high, price), min(low, price)
            if start <= moment < now.replace(tzinfo=None):
                total, total_value = volume + so_far, value + worth
                yield {
                    "20": f"{moment:%H%M%S}",
                    "10": signed(price, base),
                    "11": change(price - base),
                    "12": percent(price - base, base),
                    "27": signed(price + tick(price, listing.kind), base),
                    "28": signed(price, base),
                    "15": change((total - sent) * (1 if price >= int(bars.open[n]) else -1)),
                    "13": str(total),
                    "14": str(total_value // MILLION),
                    "16": signed(int(bars.open[0]), base),
                    "17": signed(high, base),
                    "18": signed(low, base),
                    "25": mark(price - base),
                    "26": change(total - before[0]),
                    "29": change(total_value - before[1]),
                    "30": percent(total, before[0]),
                    "31": percent(total, shares).lstrip("+"),
                    "228": "100.00",
                    "311": str(shares * price // _HUNDRED_MILLION),
                    "290": "2",
                    "9081": "2" if symbol.suffix == "NX" else "1",
                }
            sent = volume + so_far
            moment += STEP
        volume, value = volume + int(bars.volume[n]), value + int(bars.value[n])


def _index(world: World, one: Listener, code: str, now: datetime) -> Iterator[dict[str, str]]:
    """Yield the newest level of an index, if it is another than the last that was sent."""
    if code not in world.sectors:
        return
    rows = world.index(code, now, now.date())
    if not len(rows.day) or rows.day[-1] != np.datetime64(now.date()):
        return
    level, open_, high, low, base, volume, value = (
        int(column[-1]) for column in (rows.close, rows.open, rows.high, rows.low, rows.base, rows.volume, rows.value)
    )
    if one.shown.get(code) == (level, volume):
        return
    one.shown[code] = (level, volume)
    yield {
        "20": f"{now:%H%M%S}",
        "10": signed_points(level, base),
        "11": f"{(level - base) / 100:+.2f}" if level != base else "0.00",
        "12": percent(level - base, base),
        "13": str(volume),
        "14": str(value // MILLION),
        "16": signed_points(open_, base),
        "17": signed_points(high, base),
        "18": signed_points(low, base),
        "25": mark(level - base),
    }


def _phases(world: World, one: Listener, now: datetime) -> Iterator[dict[str, str]]:
    """Yield the phase of the day, if it is another than the last that was sent; the first look tells the one in force."""
    session = world.session(now.date())
    if session is None:
        return
    phases = [(session.opens, "3"), (session.auction, "2"), (session.closes, "8")]
    if session.after_opens:
        phases.append((session.after_opens, "b"))
    phases.append((session.after_closes or session.closes + timedelta(minutes=30), "9"))
    phase = next((letter for start, letter in reversed(phases) if now >= start), "0")
    if one.shown.get("0s") == (session.day, phase):
        return
    one.shown["0s"] = (session.day, phase)
    left = int(max((session.opens - now).total_seconds(), 0))
    yield {"215": phase, "20": f"{now:%H%M%S}", "214": f"{left // 3600:02d}{left // 60 % 60:02d}{left % 60:02d}"}
