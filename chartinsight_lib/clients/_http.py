"""JSON over HTTP with a deadline: what came back, or a typed error that quotes no secret. Retries are the caller's business."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx

from chartinsight_lib import __version__
from chartinsight_lib.errors import Unavailable

USER_AGENT = f"chartinsight/{__version__}"
"""Said explicitly: a firewall in front of Kiwoom answers unusual ones with a page of HTML."""


_NO_TEXT = re.compile(r"\\u(?:0000|d[89a-f])", re.IGNORECASE)
"""JSON can spell characters that no text may hold and no database takes: zero bytes, and halves of characters."""


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
        return read_answer(*self._send("POST", path, within_s=within_s, json=dict(body), headers=dict(headers)))

    def get(self, path: str, params: Mapping[str, str], *, within_s: float) -> tuple[int, Mapping[str, str], bytes]:
        """Send one request and read the whole answer as it is, in time as `post`; return status, headers and content.

        Raises:
            Unavailable: no whole answer in time.
        """
        return self._send("GET", path, within_s=within_s, params=dict(params))

    def _send(self, method: str, path: str, *, within_s: float, **content: Any) -> tuple[int, Mapping[str, str], bytes]:
        timeout = max(0.001, min(within_s, self._timeout_s))
        until = time.monotonic() + timeout
        try:
            with self._http.stream(method, path, timeout=timeout, **content) as reply:
                parts = []
                for part in reply.iter_bytes():  # a time-out of httpx is for each part
                    parts.append(part)
                    if time.monotonic() > until:
                        raise httpx.ReadTimeout("the answer comes too slowly")
        except httpx.HTTPError as error:
            # The kind says enough; the text of some errors holds the whole request.
            raise Unavailable(f"{path}: no answer from {self._http.base_url.host} ({type(error).__name__}).") from None
        return reply.status_code, reply.headers, b"".join(parts)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_answer(status: int, headers: Mapping[str, str], content: bytes) -> Answer:
    """Read what came back."""
    try:
        text = content.decode("utf-8-sig")
        body = json.loads(text)
        if _NO_TEXT.search(text):
            body = _as_text(body)
    except (ValueError, RecursionError):
        kind = headers.get("content-type", "no content type").partition(";")[0]
        seen = "a page of HTML" if "html" in kind else f"{len(content)} bytes of {kind} that are no JSON"
        return Answer(status, headers, None, seen)
    if not isinstance(body, dict):
        return Answer(status, headers, None, f"JSON that is no object but {type(body).__name__}")
    return Answer(status, headers, body)


def _as_text(value: Any) -> Any:
    """Return a JSON value with a question mark for every character that is none."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
    if isinstance(value, list):
        return [_as_text(one) for one in value]
    return {_as_text(name): _as_text(one) for name, one in value.items()} if isinstance(value, dict) else value
