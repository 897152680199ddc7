"""Pages: their sizes, and the keys that lead from one to the next.

A key is opaque to the client: it names the instrument and where the next page begins, and ends in a seal over the appkey,
the TR and the body. It says nothing to another request: a foreign or altered key is refused with 1517. It holds no state of
the server's, so that a walk survives a restart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

from chartinsight_lib.simulator.wire import Refusal

PAGE_SIZES = {
    "ka10081": 600,
    "ka10082": 300,
    "ka10083": 240,
    "ka10094": 40,
    "ka10080": 900,
    "ka10059": 100,
    "ka10060": 100,
    "ka10086": 20,
    "ka20006": 600,
    "ka20007": 300,
    "ka20008": 240,
    "ka20019": 40,
}
"""Rows a page, measured on the real host. What is not here comes in one page."""

LOOP = "000000-1"
"""How the key ends that ka10086 gives for an NXT code past its beginning; sent back, it leads to page 1."""
_SEAL = b"chartinsight simulator: next-key"  # no secret: it only has to differ from what a client makes up
_TAIL = 3 + 12  # page number and seal


class Place(NamedTuple):
    """Where a page begins, as its TR wrote it, and its number from 1. The first begins at ""."""

    cursor: str = ""
    page: int = 1


def seal(appkey: str, api_id: str, body: Mapping[str, object], place: Place) -> str:
    """Return the key of a place: at most 50 characters."""
    head = f"A{_subject(body)}{place.cursor}{min(place.page, 999):03d}"
    return head + _mac(appkey, api_id, body, head)


def opened(appkey: str, api_id: str, body: Mapping[str, object], key: str) -> Place:
    """Return the place of a key. Raises Refusal for one that this request was not given."""
    subject = f"A{_subject(body)}"
    if api_id == "ka10086" and key.startswith(subject) and key.endswith(LOOP):
        return Place()
    head, mac = key[:-12], key[-12:]
    if not key.startswith(subject) or len(key) < len(subject) + _TAIL or mac != _mac(appkey, api_id, body, head):
        raise Refusal(1517, "파라미터=next-key")
    return Place(head[len(subject) : -3], int(head[-3:]))


def _subject(body: Mapping[str, object]) -> str:
    return str(body.get("stk_cd") or body.get("inds_cd") or "")[:9]


def _mac(appkey: str, api_id: str, body: Mapping[str, object], head: str) -> str:
    text = json.dumps([appkey, api_id, dict(body), head], sort_keys=True)
    return hashlib.blake2b(text.encode(), key=_SEAL, digest_size=6).hexdigest()
