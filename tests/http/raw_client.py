"""Asks a simulator over plain HTTP, as the specification says, with nothing of the project's own client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
from handmade import DAYS, HandmadeMarket, at

from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.server import SimulatorServer

KEYS = {"appkey": "simulated-appkey", "secretkey": "simulated-secretkey"}
# Section 1: which path serves which TR.
PATHS = {
    **dict.fromkeys(("ka10001", "ka10059", "ka10095", "ka10099", "ka10100", "ka10101", "ka10102"), "stkinfo"),
    **dict.fromkeys(("ka10060", "ka10080", "ka10081", "ka10082", "ka10083", "ka10094"), "chart"),
    **dict.fromkeys(("ka20006", "ka20007", "ka20008", "ka20019"), "chart"),
    **dict.fromkeys(("ka20001", "ka20003"), "sect"),
    "ka10086": "mrkcond",
}
PATIENT = {"quota": 1_000, "feed_s": 0.005, "token_life": timedelta(days=30)}
EVENING = at(DAYS[-1], 21)
"""After everything of the handmade market has happened."""


class Asker:
    """A simulator and a token for it."""

    def __init__(self, server: SimulatorServer, clock: SimulatedClock) -> None:
        self.server, self.clock = server, clock
        self.http = httpx.Client(base_url=server.url, timeout=5)
        self.token = ""

    def issue(self, **other: str) -> httpx.Response:
        body = {"grant_type": "client_credentials", **KEYS, **other}
        return self.http.post("/oauth2/token", json={name: value for name, value in body.items() if value != "ABSENT"})

    def revoke(self, token: str, **other: str) -> httpx.Response:
        return self.http.post("/oauth2/revoke", json={**KEYS, "token": token, **other})

    def post(
        self, api_id: str, *, headers: dict[str, str] | None = None, path: str | None = None, **body: Any
    ) -> httpx.Response:
        if not self.token:
            self.token = self.issue().json()["token"]
        sent = {"authorization": f"Bearer {self.token}", "api-id": api_id, **(headers or {})}
        return self.http.post(f"/api/dostk/{path or PATHS.get(api_id, 'chart')}", json=body, headers=sent)

    def rows(self, api_id: str, **body: Any) -> list[dict[str, str]]:
        """The one list of an answer that is expected to succeed."""
        answer = self.post(api_id, **body).json()
        assert answer["return_code"] == 0, answer
        return next(value for value in answer.values() if isinstance(value, list))

    def daily(self, code: str = "000100", base: str = "20260918", adjusted: str = "0") -> list[dict[str, str]]:
        return self.rows("ka10081", stk_cd=code, base_dt=base, upd_stkpc_tp=adjusted)

    def minutes(self, code: str = "000100", scope: str = "1", adjusted: str = "0", **more: str) -> list[dict[str, str]]:
        return self.rows("ka10080", stk_cd=code, tic_scope=scope, upd_stkpc_tp=adjusted, **more)

    def walk(self, api_id: str, *, pages: int = 50, **body: Any) -> Iterator[httpx.Response]:
        """Every page, until the server says that there is no more."""
        headers: dict[str, str] = {}
        for _ in range(pages):
            answer = self.post(api_id, headers=headers, **body)
            yield answer
            if answer.headers.get("cont-yn") != "Y":
                return
            headers = {"cont-yn": "Y", "next-key": answer.headers["next-key"]}
        raise AssertionError(f"more than {pages} pages")


@contextmanager
def simulator(moment: datetime = EVENING, market: Any = None, speed: float = 0, **options: Any) -> Iterator[Asker]:
    """A simulator at a moment, whose clock stands, whose quota nobody meets and whose tokens outlive a test, unless told."""
    clock = SimulatedClock(moment, speed=speed)
    with SimulatorServer(market or HandmadeMarket(), clock, Options(**{**PATIENT, **options})) as server:
        asker = Asker(server, clock)
        try:
            yield asker
        finally:
            asker.http.close()


def code_of(answer: httpx.Response) -> tuple[int, int, int]:
    """HTTP status, return_code, and the documented code in the brackets of the message."""
    body = answer.json()
    return answer.status_code, body["return_code"], int(body["return_msg"].partition("[")[2][:4])


def dates(rows: list[dict[str, str]]) -> list[str]:
    return [row["dt"] for row in rows]


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)
