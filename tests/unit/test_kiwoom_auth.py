"""Who owns the token, when it is renewed, and how often: on a clock of the test's own."""

from datetime import UTC, datetime, timedelta

import pytest

from chartinsight_lib.clients.kiwoom_auth import Credentials, MemoryTokens, Token, TokenOwner
from chartinsight_lib.errors import AuthFailed

NOW = datetime(2026, 9, 4, 1, 15, 2, tzinfo=UTC)


class Desk:
    """A clock, an issuer that counts, and a store."""

    def __init__(self, *, life: timedelta = timedelta(hours=24)) -> None:
        self.now, self.life = NOW, life
        self.issued: list[Token] = []
        self.slept: list[float] = []
        self.store = MemoryTokens()

    def issue(self, within_s: float) -> Token:
        assert within_s > 0
        self.issued.append(Token(f"token {len(self.issued)}", self.now + self.life, self.now))
        return self.issued[-1]

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)

    def owner(self) -> TokenOwner:
        return TokenOwner("print", self.issue, self.store, lambda: self.now, sleep=self.sleep)


def test_a_token_is_issued_once_and_renewed_ten_minutes_before_its_end():
    desk = Desk(life=timedelta(hours=18))
    owner = desk.owner()
    for after in (timedelta(0), timedelta(hours=17, minutes=49)):
        desk.now = NOW + after
        assert owner.token().value == "token 0"
    desk.now = NOW + timedelta(hours=17, minutes=50)
    assert owner.token().value == "token 1"
    assert len(desk.issued) == 2


def test_another_program_uses_the_token_that_is_there():
    desk = Desk()
    assert desk.owner().token() == desk.owner().token() == desk.issued[0]
    assert len(desk.issued) == 1


def test_a_token_that_lives_shorter_than_the_margin_is_used_for_half_its_life():
    desk = Desk(life=timedelta(minutes=4))
    owner = desk.owner()
    owner.token()
    desk.now += timedelta(seconds=119)
    assert owner.token().value == "token 0"
    desk.now += timedelta(seconds=1)
    assert owner.token().value == "token 1"


def test_a_refused_token_is_replaced_at_once_when_it_is_a_minute_old():
    desk = Desk()
    owner = desk.owner()
    first = owner.token()
    desk.now += timedelta(seconds=60)
    assert owner.token(refused=first).value == "token 1"
    assert desk.slept == []


def test_two_issues_lie_a_minute_apart():
    desk = Desk()
    owner = desk.owner()
    first = owner.token()
    desk.now += timedelta(seconds=20)
    assert owner.token(refused=first, within_s=100).value == "token 1"
    assert desk.slept == [40.0]


def test_a_token_that_is_refused_at_once_is_an_error_where_there_is_no_time_to_wait():
    desk = Desk()
    owner = desk.owner()
    first = owner.token()
    with pytest.raises(AuthFailed, match="issued 0 s ago is refused already.*Another program") as refusal:
        owner.token(refused=first, within_s=30)
    assert first.value not in str(refusal.value)


def test_neither_keys_nor_token_show_in_a_representation():
    keys = Credentials("canary-appkey", "canary-secretkey")
    token = Token("canary-token", NOW, NOW)
    assert "canary" not in f"{keys!r} {keys} {token!r} {token} {keys.fingerprint('https://api.kiwoom.com')}"
    prints = {
        keys.fingerprint(f"{host}:{port}") for host in ("https://api.kiwoom.com", "http://127.0.0.1") for port in (1, 2)
    }
    assert {len(found) for found in prints} == {16}
    assert len(prints) == 2  # a host's token is none of another's


def test_a_token_of_the_future_was_issued_just_now():
    """The clock was set back, or the token is of a simulation that began later."""
    desk = Desk()
    owner = desk.owner()
    first = owner.token()
    desk.now -= timedelta(hours=3)
    assert owner.token(refused=first, within_s=100).value == "token 1"
    assert desk.slept == [60.0]


def test_a_token_that_was_given_back_is_used_by_nobody():
    desk = Desk()
    owner = desk.owner()
    owner.forget(owner.token())
    desk.now += timedelta(minutes=2)
    assert owner.token().value == desk.owner().token().value == "token 1"
