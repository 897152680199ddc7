"""Kiwoom's access token: one owner per appkey, whoever and wherever the others are.

Some servers kill a token when another is issued for the same appkey, so programs must share one. A `TokenStore` holds it
under a lock: `MemoryTokens` for one process, `db.tokens.SealedTokens` for all that share the database. No token or key
appears in a text that anything here makes.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol
from urllib.parse import urlsplit

from chartinsight_lib.clock import Clock
from chartinsight_lib.errors import AuthFailed, Unavailable

_log = logging.getLogger(__name__)

MARGIN = timedelta(minutes=10)
"""A token is renewed this long before it expires."""
RENEWING = "kiwoom: the token is being renewed by somebody else, and that took too long."
BETWEEN_ISSUES_S = 60.0
"""At least so long lies between two issues of one appkey: a program that renews in a circle would lock itself out."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The two keys of a Kiwoom account."""

    appkey: str = field(repr=False)
    secretkey: str = field(repr=False)

    def fingerprint(self, url: str) -> str:
        """Return sixteen hexadecimal digits that stand for the appkey on a host where it must not be seen: a token or quota of
        one host is none of another's."""
        named = f"chartinsight kiwoom appkey:{urlsplit(url).hostname}:{self.appkey}"
        return hashlib.sha256(named.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; times are tz-aware."""

    value: str = field(repr=False)
    expires_at: datetime
    issued_at: datetime

    def fresh(self, now: datetime) -> bool:
        """Whether it may still be used, with a margin; a token that lives shorter than the margin is used for half its life."""
        return now < self.expires_at - min(MARGIN, (self.expires_at - self.issued_at) / 2)


class Held(Protocol):
    """What a store holds of one appkey, while it is locked."""

    @property
    def token(self) -> Token | None:
        """The token held, good or not."""
        ...

    def keep(self, token: Token) -> None:
        """Hold another one from now on."""
        ...


class TokenStore(Protocol):
    """Where programs that use the same appkey find the same token."""

    def alone(self, fingerprint: str, *, within_s: float) -> AbstractContextManager[Held]:
        """Give what is held of an appkey, locked against everybody else for the length of a `with`. Raises Unavailable when
        somebody else held it for so long."""
        ...


class MemoryTokens:
    """The tokens of this process alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}

    @contextmanager
    def alone(self, fingerprint: str, *, within_s: float) -> Iterator[Held]:
        """Give what is held of an appkey; see `TokenStore`."""
        if not self._lock.acquire(timeout=max(0.0, within_s)):
            raise Unavailable(RENEWING)
        try:
            yield _InMemory(self._tokens, fingerprint)
        finally:
            self._lock.release()


class _InMemory:
    def __init__(self, tokens: dict[str, Token], fingerprint: str) -> None:
        self._tokens, self._fingerprint = tokens, fingerprint

    @property
    def token(self) -> Token | None:
        return self._tokens.get(self._fingerprint)

    def keep(self, token: Token) -> None:
        self._tokens[self._fingerprint] = token


class TokenOwner:
    """Gives the token in force, and sees to it that no two renewals of it run at a time."""

    def __init__(
        self,
        fingerprint: str,
        issue: Callable[[float], Token],
        store: TokenStore,
        clock: Clock,
        *,
        between_issues_s: float = BETWEEN_ISSUES_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`issue` asks the server for a new token within so many seconds; `between_issues_s` are seconds of `clock`'s."""
        self._fingerprint, self._issue, self._store, self._clock = fingerprint, issue, store, clock
        self._between_s, self._sleep = between_issues_s, sleep
        self._lock = threading.Lock()
        self._mine: Token | None = None

    def token(self, *, refused: Token | None = None, within_s: float = 60.0) -> Token:
        """Return a token to use now.

        Args:
            refused: the token that the server has just refused; another one is returned.
            within_s: how long a renewal may take, with all its waits.
        Raises:
            AuthFailed: the server refused a token that was issued a moment ago.
            Unavailable: another thread was renewing it for all that time.
        """
        until = time.monotonic() + within_s
        if not self._lock.acquire(timeout=max(0.0, within_s)):
            raise Unavailable(RENEWING)
        try:
            if self._good(self._mine, refused):
                assert self._mine is not None  # noqa: S101 - `_good` says so; for the type checker
                return self._mine
            with self._store.alone(self._fingerprint, within_s=until - time.monotonic()) as held:
                token = held.token
                # Somebody else may have renewed it while we waited, or before we were born.
                if token is None or not self._good(token, refused):
                    self._let_some_time_pass(token, until - time.monotonic())
                    token = self._issue(until - time.monotonic())
                    held.keep(token)
                    _log.info(
                        "kiwoom: a new token; the last one was %s",
                        "refused" if refused else "at its end, or there was none",
                    )
            self._mine = token
            return token
        finally:
            self._lock.release()

    def forget(self, token: Token, *, within_s: float = 60.0) -> None:
        """Let nobody use a token any more: it was given back."""
        with self._lock, self._store.alone(self._fingerprint, within_s=within_s) as held:
            self._mine = None
            if held.token is not None and held.token.value == token.value:
                held.keep(replace(token, expires_at=token.issued_at))

    def _good(self, token: Token | None, refused: Token | None) -> bool:
        return token is not None and token.fresh(self._clock()) and (refused is None or token.value != refused.value)

    def _let_some_time_pass(self, last: Token | None, within_s: float) -> None:
        if last is None:
            return
        # A clock that was set back, or another simulation's, makes a token of the future: it counts as issued just now.
        left = self._between_s - max(0.0, (self._clock() - last.issued_at).total_seconds())
        if left <= 0:
            return
        if left > within_s:
            raise AuthFailed(
                f"kiwoom: the token issued {self._between_s - left:.0f} s ago is refused already. Another program seems to "
                f"use the same appkey without sharing the token; stop it, and try again in {left:.0f} s.",
                code="8005",
            )
        self._sleep(left)
