"""Access tokens in `ops.tokens`, sealed: found by every program that has the same keys, readable by no other.

The key of the seal comes from the secretkey, which the database never sees. The row's lock, held while a token is renewed,
makes the renewal the only one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from psycopg2 import errors
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from chartinsight_lib.clock import Clock
from chartinsight_lib.errors import DatabaseError, Unavailable


class Kept(Protocol):
    """What is kept of a token."""

    @property
    def value(self) -> str:
        """The token itself."""
        ...

    @property
    def expires_at(self) -> datetime:
        """Its end, tz-aware."""
        ...

    @property
    def issued_at(self) -> datetime:
        """Its beginning, tz-aware."""
        ...


T = TypeVar("T", bound=Kept)


class SealedTokens(Generic[T]):
    """A store of tokens in the database. `make` builds a token from value, expires_at, issued_at."""

    def __init__(self, engine: Engine, secret: str, make: Callable[[str, datetime, datetime], T], clock: Clock) -> None:
        derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"chartinsight token seal").derive(
            secret.encode()
        )
        self._seal = Fernet(base64.urlsafe_b64encode(derived))
        self._engine, self._make, self._clock = engine, make, clock

    @contextmanager
    def alone(self, fingerprint: str, *, within_s: float) -> Iterator[_Row[T]]:
        """Give what is held of an appkey, locked against everybody else.

        Raises:
            Unavailable: another program held it for `within_s`.
            DatabaseError: the table cannot be used.
        """
        try:
            with self._engine.begin() as conn:
                conn.execute(
                    text("SELECT set_config('lock_timeout', :most, true)"),
                    {"most": f"{max(1, round(within_s * 1000))}ms"},
                )
                # An advisory lock, because there may be no row yet.
                conn.execute(
                    text("SELECT pg_advisory_xact_lock(hashtextextended('token ' || :of, 0))"), {"of": fingerprint}
                )
                yield _Row(conn, fingerprint, self._seal, self._make, self._clock)
        except DBAPIError as error:
            if isinstance(error.orig, errors.LockNotAvailable):
                raise Unavailable("tokens: another program is renewing the token, and that took too long.") from None
            raise DatabaseError(f"tokens: ops.tokens cannot be used ({type(error.orig).__name__}).") from None


class _Row(Generic[T]):
    def __init__(
        self,
        conn: Connection,
        fingerprint: str,
        seal: Fernet,
        make: Callable[[str, datetime, datetime], T],
        clock: Clock,
    ) -> None:
        self._conn, self._fingerprint, self._seal, self._make, self._clock = conn, fingerprint, seal, make, clock

    @property
    def token(self) -> T | None:
        """The token held; one that was sealed with another secretkey is none of ours."""
        sealed = self._conn.execute(
            text("SELECT sealed FROM ops.tokens WHERE fingerprint = :of"), {"of": self._fingerprint}
        ).scalar_one_or_none()
        if sealed is None:
            return None
        try:
            value, expires_at, issued_at = json.loads(self._seal.decrypt(bytes(sealed)))
        except (InvalidToken, ValueError):
            return None
        return self._make(value, datetime.fromisoformat(expires_at), datetime.fromisoformat(issued_at))

    def keep(self, token: T) -> None:
        """Hold another token from now on."""
        plain = json.dumps([token.value, token.expires_at.isoformat(), token.issued_at.isoformat()])
        self._conn.execute(
            text("""
                INSERT INTO ops.tokens (fingerprint, sealed, kept_at) VALUES (:of, :sealed, :now)
                ON CONFLICT (fingerprint) DO UPDATE SET sealed = excluded.sealed, kept_at = excluded.kept_at
            """),
            {"of": self._fingerprint, "sealed": self._seal.encrypt(plain.encode()), "now": self._clock()},
        )
