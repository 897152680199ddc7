"""Access tokens: issued for a key pair, valid for a while on the simulated clock, revoked, re-issued in three manners."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.wire import Refusal, Reply

ISSUE, REVOKE = "au10001", "au10002"


@dataclass(frozen=True)
class _Token:
    text: str = field(repr=False)
    appkey: str = field(repr=False)
    expires: datetime


class Tokens:
    """The tokens of one host. Knows keys and tokens, and never writes them anywhere."""

    def __init__(self, options: Options, clock: SimulatedClock) -> None:
        """Start without tokens."""
        self._options, self._clock = options, clock
        self._tokens: dict[str, _Token] = {}

    def issue(self, body: Mapping[str, object], ip: str) -> Reply:
        """Answer au10001. Raises Refusal."""
        grant = body.get("grant_type")
        if not grant:
            raise Refusal(8011)
        if grant != "client_credentials":
            raise Refusal(8012)
        appkey = self._checked_key(body, ip)
        token = self._issued(appkey)
        return Reply({"expires_dt": f"{token.expires:%Y%m%d%H%M%S}", "token_type": "bearer", "token": token.text})

    def revoke(self, body: Mapping[str, object], ip: str) -> Reply:
        """Answer au10002. Raises Refusal."""
        appkey = self._checked_key(body, ip)
        if not (text := body.get("token")):
            raise Refusal(8016)
        token = self._tokens.get(str(text))
        if token is None or token.appkey != appkey:
            raise Refusal(8015)
        del self._tokens[token.text]
        return Reply()

    def kill(self, text: str) -> None:
        """Make a token invalid, if it is one."""
        self._tokens.pop(text, None)

    def holder(self, text: str, ip: str = "") -> str:
        """Return the appkey that a valid token belongs to. Raises Refusal."""
        if ip in self._options.unknown_ips:
            raise Refusal(8050)
        token = self._tokens.get(text)
        if token is None and text[:1] in "rm" and text[:1] != self._options.profile[0] and len(text) == 64:
            raise Refusal(8031)
        if token is None or token.expires <= self._clock.now():
            raise Refusal(8005, status=401 if self._options.http_401 else 200)
        return token.appkey

    def _checked_key(self, body: Mapping[str, object], ip: str) -> str:
        appkey, secretkey = body.get("appkey"), body.get("secretkey")
        if not appkey or not secretkey:
            raise Refusal(8020)
        if appkey in self._options.foreign_keys:
            raise Refusal(8030)
        expected = self._options.keys.get(str(appkey))
        if expected is None or not hmac.compare_digest(expected.encode(), str(secretkey).encode()):
            raise Refusal(8001)
        if ip in self._options.unknown_ips:
            raise Refusal(8050)
        return str(appkey)

    def _issued(self, appkey: str) -> _Token:
        now = self._clock.now()
        # What has expired stays known to nobody: to forget it answers 8005 as well.
        self._tokens = {text: token for text, token in self._tokens.items() if token.expires > now}
        own = [token for token in self._tokens.values() if token.appkey == appkey]
        if own and self._options.reissue == "same":
            return own[-1]
        if self._options.reissue == "kill_old":
            for token in own:
                del self._tokens[token.text]
        # The first letter tells the other host's tokens from nonsense: 8031 and not 8005.
        text = self._options.profile[0] + secrets.token_urlsafe(48)[:63]
        expires = (now + self._options.token_life).replace(microsecond=0)
        self._tokens[text] = _Token(text, appkey, expires)
        return self._tokens[text]
