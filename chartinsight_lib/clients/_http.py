"""JSON over HTTP with a deadline: what came back, or a typed error that quotes no secret. Retries are the caller's business."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx

from chartinsight_lib import __version__
from chartinsight_lib.errors import Unavailable

USER_AGENT = f"chartinsight/{__version__}"
"""Said explicitly: a firewall in front of Kiwoom answers unusual ones with a page of HTML."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sent. `body` is None where it is no JSON object; `seen` then says in a few words what it is."""

    status: int
    headers: Mapping[str, str]
    body: dict[str, Any] | None
    seen: str = ""

    @property
    def retry_after_s(self) -> float | None:
        """Seconds that the server asks to wait, as far as it says so in seconds."""
        try:
            seconds = float(self.headers.get("retry-after", ""))
        except ValueError:
            return None
        return seconds if 0 <= seconds <= 3600 else None


class JsonHttp:
    """A connection pool to one host. For use by any number of threads."""

    def __init__(self, base_url: str, *, timeout_s: float, transport: httpx.BaseTransport | None = None) -> None:
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            base_url=base_url,
            headers={"User-Agent": USER_AGENT, "Content-Type": "application/json;charset=UTF-8"},
            transport=transport,  # tests pass one
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=32, keepalive_expiry=30),
            trust_env=not base_url.startswith(
                ("http://127.", "http://localhost")
            ),  # a proxy has no way to this machine
        )

    def post(self, path: str, body: Mapping[str, str], headers: Mapping[str, str], *, within_s: float) -> Answer:
        """Send one request and read the whole answer, in `within_s` seconds and the pool's time-out, whichever is less.

        Raises:
            Unavailable: no whole answer in time; what was sent may have been served.
        """
        timeout = max(0.001, min(within_s, self._timeout_s))
        try:
            reply = self._http.post(path, json=dict(body), headers=dict(headers), timeout=timeout)
        except httpx.HTTPError as error:
            # The kind says enough; the text of some errors holds the whole request.
            raise Unavailable(f"{path}: no answer from {self._http.base_url.host} ({type(error).__name__}).") from None
        return _read(reply)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(reply: httpx.Response) -> Answer:
    try:
        body = json.loads(reply.content)
    except (ValueError, RecursionError):
        kind = reply.headers.get("content-type", "no content type").partition(";")[0]
        seen = "a page of HTML" if "html" in kind else f"{len(reply.content)} bytes of {kind} that are no JSON"
        return Answer(reply.status_code, reply.headers, None, seen)
    if not isinstance(body, dict):
        return Answer(reply.status_code, reply.headers, None, f"JSON that is no object but {type(body).__name__}")
    return Answer(reply.status_code, reply.headers, body)
