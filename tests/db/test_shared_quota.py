"""Slots and tokens in the database: shared between connections and processes, held through crashes, sealed."""

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from chartinsight_lib.clients.kiwoom_auth import Credentials, Token, TokenOwner
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.pace import SharedSlots
from chartinsight_lib.db.roles import Role
from chartinsight_lib.db.tokens import SealedTokens
from chartinsight_lib.errors import Unavailable
from chartinsight_lib.pace import SLOWER

NOW = datetime(2026, 10, 13, 1, tzinfo=UTC)
CLOCK = fixed_clock(NOW)
KEYS = Credentials("canary-appkey", "canary-secretkey")
PRINT = KEYS.fingerprint("https://api.kiwoom.com")


def token(value: str, *, hours: float = 24, issued: datetime = NOW) -> Token:
    return Token(value, issued + timedelta(hours=hours), issued)


def sealed(engine: Engine, secret: str = KEYS.secretkey) -> SealedTokens[Token]:
    return SealedTokens(engine, secret, Token, CLOCK)


# Slots.


def test_slots_follow_one_another_at_the_distance_whoever_asks(loader):
    one, other = SharedSlots(loader, "print"), SharedSlots(loader, "print")
    first = one.reserve("ka10081", 3, 0.2)
    second = other.reserve("ka10081", 2, 0.2)
    third = one.reserve("ka10081", 1, 0.2)
    assert first == (pytest.approx(0, abs=0.1), 0.2)
    # Little time passes between the questions, and less than that is subtracted.
    assert second[0] == pytest.approx(0.6, abs=0.1)
    assert third[0] == pytest.approx(1.0, abs=0.1)


def test_other_api_ids_and_other_keys_have_slots_of_their_own(loader):
    SharedSlots(loader, "print").reserve("ka10081", 50, 0.2)
    assert SharedSlots(loader, "print").reserve("ka10080", 1, 0.2)[0] == pytest.approx(0, abs=0.1)
    assert SharedSlots(loader, "other").reserve("ka10081", 1, 0.2)[0] == pytest.approx(0, abs=0.1)
    assert SharedSlots(loader, "print").reserve("ka10081", 1, 0.2)[0] == pytest.approx(10, abs=0.2)


def test_a_refusal_holds_the_slots_of_everybody_and_sets_them_apart_until_they_come_together_again(loader):
    one, other = SharedSlots(loader, "print"), SharedSlots(loader, "print")
    one.reserve("ka10081", 1, 0.2)
    one.slow_down("ka10081", 0.2, wait_s=3.0, sent_ago_s=0.0)
    delay, apart = other.reserve("ka10081", 1, 0.2)
    assert delay == pytest.approx(3.0, abs=0.2)
    assert apart == pytest.approx(0.2 * SLOWER * 0.99)
    for _ in range(30):
        _, apart = other.reserve("ka10081", 1, 0.2)
    assert apart == 0.2


def test_a_second_refusal_of_requests_sent_before_the_first_sets_nothing_further_apart(loader):
    slots = SharedSlots(loader, "print")
    slots.reserve("ka10081", 1, 0.2)
    for _ in range(5):
        slots.slow_down("ka10081", 0.2, wait_s=0.1, sent_ago_s=60.0)
    assert slots.reserve("ka10081", 1, 0.2)[1] == pytest.approx(0.2 * SLOWER * 0.99)


def test_slots_that_nobody_used_are_no_credit_and_a_clock_that_was_set_back_is_no_queue(loader):
    slots = SharedSlots(loader, "print")
    slots.reserve("ka10081", 1, 0.2)
    with loader.begin() as conn:
        conn.execute(text("UPDATE ops.pace SET next_at = now() - interval '1 hour'"))
    assert slots.reserve("ka10081", 1, 0.2)[0] == pytest.approx(0, abs=0.1)
    assert slots.reserve("ka10081", 1, 0.2)[0] == pytest.approx(0.2, abs=0.1)
    with loader.begin() as conn:
        conn.execute(text("UPDATE ops.pace SET next_at = now() + interval '9 hours'"))
    assert slots.reserve("ka10081", 1, 0.2)[0] == pytest.approx(120, abs=1)


TAKE = """
import sys
from sqlalchemy import create_engine
from chartinsight_lib.db.pace import SharedSlots
slots = SharedSlots(create_engine(sys.argv[1]), "print")
for _ in range(40):
    slots.reserve("ka10081", 2, 0.05)
"""


def test_processes_that_ask_at_the_same_time_get_different_slots(database: Database, loader: Engine):
    SharedSlots(loader, "print").reserve("ka10081", 1, 0.05)
    with loader.connect() as conn:
        before = conn.execute(text("SELECT next_at FROM ops.pace")).scalar_one()
    address = database.url(Role.LOADER).replace("postgresql://", "postgresql+psycopg2://")
    takers = [subprocess.Popen([sys.executable, "-c", TAKE, address]) for _ in range(3)]
    assert [taker.wait(60) for taker in takers] == [0, 0, 0]
    with loader.connect() as conn:
        after = conn.execute(text("SELECT next_at FROM ops.pace")).scalar_one()
    # 3 x 40 x 2 slots of 0.05 s each are 12 s; less would mean that two got the same.
    assert (after - before).total_seconds() >= 12


# Tokens.


def test_a_token_is_found_by_whoever_has_the_secretkey_and_by_nobody_else(loader):
    with sealed(loader).alone(PRINT, within_s=5) as held:
        assert held.token is None
        held.keep(token("canary-token"))
    with sealed(loader).alone(PRINT, within_s=5) as held:
        assert held.token == token("canary-token")
    with sealed(loader, "another secretkey").alone(PRINT, within_s=5) as held:
        assert held.token is None
    with sealed(loader).alone("0123456789abcdef", within_s=5) as held:
        assert held.token is None


def test_neither_token_nor_keys_can_be_read_from_the_database(database: Database, loader: Engine):
    with sealed(loader).alone(PRINT, within_s=5) as held:
        held.keep(token("canary-token"))
    with loader.connect() as conn:
        row = conn.execute(text("SELECT fingerprint, encode(sealed, 'escape') FROM ops.tokens")).one()
    assert "canary" not in "".join(row)
    reader = database.engine(Role.READER)
    with reader.connect() as conn, pytest.raises(ProgrammingError, match="permission denied for table tokens"):
        conn.execute(text("SELECT * FROM ops.tokens"))
    reader.dispose()


def test_programs_that_need_a_token_at_the_same_time_ask_for_one(loader):
    issued: list[str] = []
    asking = threading.Barrier(4)

    def issue(_: float) -> Token:
        issued.append(f"token {len(issued)}")
        return token(issued[-1])

    def program(found: list[str]) -> None:
        owner = TokenOwner(PRINT, issue, sealed(loader), CLOCK)  # each with a store and a lock of its own
        asking.wait()
        found.append(owner.token().value)

    found: list[str] = []
    threads = [threading.Thread(target=program, args=(found,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert issued == ["token 0"]
    assert found == ["token 0"] * 4


def test_who_waits_too_long_for_somebody_elses_renewal_says_so(loader):
    with (
        sealed(loader).alone(PRINT, within_s=5),
        pytest.raises(Unavailable, match="another program is renewing the token"),
        sealed(loader).alone(PRINT, within_s=0.05),
    ):
        pass


def test_a_program_whose_token_was_replaced_takes_over_the_new_one_without_asking(loader):
    old, new = token("old", issued=NOW - timedelta(hours=1)), token("new")
    values = iter([old, new])
    one = TokenOwner(PRINT, lambda _: next(values), sealed(loader), CLOCK)
    other = TokenOwner(PRINT, lambda _: pytest.fail("asked for a third token"), sealed(loader), CLOCK)
    assert (one.token().value, other.token().value) == ("old", "old")
    assert one.token(refused=old).value == "new"
    assert other.token(refused=old).value == "new"
