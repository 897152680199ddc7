"""One request in, one answer out: authentication, quota, dispatch and faults, without a socket.

A request passes in this order: maintenance, a fault of the script, its api-id and path, its token, its quota, its fields. The
order of the real host between them is not known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from chartinsight_lib.simulator.dispatch import bearer, checked, routed, table
from chartinsight_lib.simulator.faults import Fault
from chartinsight_lib.simulator.lists import Lists
from chartinsight_lib.simulator.paging import LOOP, Place, opened, seal
from chartinsight_lib.simulator.quota import SlidingWindow
from chartinsight_lib.simulator.reading import Query
from chartinsight_lib.simulator.tokens import ISSUE, REVOKE, Tokens
from chartinsight_lib.simulator.wire import BLOCKED, HTML, JSON, Refusal, Reply, dumps, notice
from chartinsight_lib.simulator.world import World

SATURATED = "4294967295"
_TIMEOUT_S = 60.0


@dataclass
class Answer:
    """What goes back, and what the log says of it."""

    body: str = ""
    status: int = 200
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    return_code: int | None = None
    bracket_code: int | None = None
    page: int = 1
    fault: str = ""
    delay_s: float = 0.0
    dropped: str = ""
    """reset: the connection is reset; silence: it closes without an answer."""


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    headers: Mapping[str, str]
    body: Mapping[str, object] | None
    """None: it is not a JSON object."""
    ip: str

    @property
    def api_id(self) -> str:
        """Which TR it names."""
        return self.headers.get("api-id", "")

    @property
    def code(self) -> str:
        """What it is about, for the log and for fault rules."""
        body = self.body or {}
        return next((str(body[name]) for name in ("stk_cd", "inds_cd", "mrkt_tp") if body.get(name)), "")


class Service:
    """The REST half of a simulated Kiwoom."""

    def __init__(self, world: World) -> None:
        """Serve `world`."""
        self.world, self.options = world, world.options
        self.tokens = Tokens(world.options, world.clock)
        self._trs = table(Lists(world))
        self._quota = SlidingWindow(self.options.requests_per_second, world.clock.pace)
        total = self.options.quota_total
        self._total = SlidingWindow(total, world.clock.pace) if total else None

    def token(self, asked: Asked, api_id: str) -> Answer:
        """Answer au10001 or au10002."""
        now = self.world.now()
        if window := self.options.window(now):
            return self._notice(*window)
        fault = self.options.faults.next(api_id, "")
        if fault and (early := self._early(fault, api_id, now)):
            return early
        try:
            if asked.body is None:
                raise Refusal(1517, "파라미터=body")
            answer = {ISSUE: self.tokens.issue, REVOKE: self.tokens.revoke}[api_id](asked.body, asked.ip)
            return self._finished(_accepted(answer), fault)
        except Refusal as refusal:
            return self._finished(_refused(refusal), fault)

    def data(self, asked: Asked, path: str) -> Answer:
        """Answer any other TR."""
        now = self.world.now()
        if window := self.options.window(now):
            return (
                self._notice(*window) if self.options.maintenance_data == "html" else Answer(status=0, dropped="reset")
            )
        fault = self.options.faults.next(asked.api_id, asked.code)
        if fault and fault.action == "kill_token":
            self.tokens.kill(asked.headers.get("authorization", "").partition(" ")[2].strip())
        if fault and (early := self._early(fault, asked.api_id, now)):
            return early
        try:
            answer = self._read(asked, path, now, fault)
        except Refusal as refusal:
            answer = _refused(refusal)
        answer.headers = {"api-id": asked.api_id, "cont-yn": "N", "next-key": "", **answer.headers}
        return self._finished(answer, fault)

    def _read(self, asked: Asked, path: str, now: datetime, fault: Fault | None) -> Answer:
        token = bearer(asked.headers.get("authorization"))
        tr = routed(self._trs, path, asked.api_id)
        appkey = self.tokens.holder(token, asked.ip)
        if self._total and not self._total.admit(appkey):
            raise Refusal(1701, f"유량={self._total.limit}", status=429)
        if not self._quota.admit((appkey, asked.api_id)):
            raise self._too_many(asked.api_id)
        if asked.body is None:
            raise Refusal(1517, "파라미터=body")
        body = checked(tr, asked.body)
        key = asked.headers.get("next-key", "")
        place = opened(appkey, asked.api_id, body, key) if asked.headers.get("cont-yn") == "Y" and key else Place()
        reply = tr.read(self.world, Query(asked.api_id, body, now, place))
        answer = _accepted(_spoiled(reply, fault) if fault else reply)
        answer.page = place.page
        answer.headers = self._next(reply, fault, key, (appkey, asked.api_id, body), place)
        return answer

    def _next(
        self, reply: Reply, fault: Fault | None, key: str, scope: tuple[str, str, dict[str, str]], place: Place
    ) -> dict[str, str]:
        """Return the headers that lead to the next page."""
        action = fault.action if fault else ""
        following = Place(reply.cursor, place.page + 1) if reply.cursor else None
        if action == "loop_key":
            following = Place()
        elif action in ("blank_row", "zero_rows"):
            following = None
        elif action == "empty_page":
            following = following or place
        if following is None:
            return {}
        sent_back = key if action == "repeat_key" else ""
        unsealed = f"A{scope[2]['stk_cd']}{following.cursor}" if following.cursor.endswith(LOOP) else ""
        return {"cont-yn": "Y", "next-key": sent_back or unsealed or seal(*scope, following)}

    def _early(self, fault: Fault, api_id: str, now: datetime) -> Answer | None:
        """Return the answer of a fault that needs no reading."""
        answer: Answer | None = None
        if fault.action in ("rate_limit", "status"):
            status = fault.value or 429
            answer = _refused(self._too_many(api_id)) if status == 429 else Answer(_failure(status), status, HTML)
            if fault.retry_after is not None:
                answer.headers["Retry-After"] = f"{fault.retry_after:g}"
        elif fault.action == "reset":
            answer = Answer(status=0, dropped="reset")
        elif fault.action == "timeout":
            answer = Answer(status=0, dropped="silence", delay_s=_TIMEOUT_S if fault.value is None else fault.value)
        elif fault.action == "html":
            start = now.replace(minute=0)
            answer = self._notice(start, start + timedelta(hours=5))
        elif fault.action == "waf":
            answer = Answer(BLOCKED, 400, HTML)
        elif fault.action == "code":
            answer = _refused(Refusal(fault.value, status=429 if fault.value in (1700, 1701, 1702) else 200))
        if answer:
            answer.fault = str(fault)
            answer.delay_s += self.options.latency_s
        return answer

    def _finished(self, answer: Answer, fault: Fault | None) -> Answer:
        answer.delay_s += self.options.latency_s
        if fault:
            answer.fault = str(fault)
            if fault.action == "delay":
                answer.delay_s += fault.value
            elif fault.action == "truncated":
                answer.body = answer.body[: len(answer.body) // 2]
        return answer

    def _notice(self, start: datetime, end: datetime) -> Answer:
        return Answer(notice(start, end), self.options.maintenance_status, HTML)

    def _too_many(self, api_id: str) -> Refusal:
        return Refusal(1700, f"유량={self._quota.limit}, API ID={api_id}", status=429)


def parsed(raw: bytes) -> dict[str, object] | None:
    """Return a request's body; None: it is not a JSON object."""
    try:
        body = json.loads(raw)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _accepted(reply: Reply) -> Answer:
    return Answer(reply.body(), return_code=0)


def _refused(refusal: Refusal) -> Answer:
    return Answer(refusal.body(), refusal.status, return_code=refusal.return_code, bracket_code=refusal.code)


def _failure(status: int) -> str:
    return f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"


def _spoiled(reply: Reply, fault: Fault) -> Reply:
    """Return a reply with what a fault does to its rows."""
    if fault.action == "blank_row":
        return reply.blank()
    if fault.action in ("zero_rows", "empty_page"):
        return Reply(reply.head, reply.list_key, reply.columns)
    if fault.action not in ("drop_column", "extra_column", "saturate"):
        return reply
    rows: list[dict[str, Any]] = [json.loads(row) for row in reply.rows]
    head = dict(reply.head)
    for row in rows if reply.list_key else [head]:
        if fault.action == "drop_column":
            row.pop(fault.value, None)
        elif fault.action == "extra_column":
            row[fault.value] = ""
        elif fault.value in row:
            row[fault.value] = SATURATED
    return Reply(head, reply.list_key, reply.columns, [dumps(row) for row in rows], reply.cursor)
