"""`chartinsight alerts`: rules are added, listed and removed, and the history is read, as a person does it."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result
from holding import hold, know
from sqlalchemy import Engine, text

from chartinsight_lib.cli import main
from chartinsight_lib.db.roles import Role


@pytest.fixture
def run(database, settings, loader: Engine) -> Callable[..., Result]:
    with loader.begin() as conn:
        know(conn, "005930")
        hold(conn, "005930", {"2026-10-12": (69_900, 69_900, 69_900, 69_900, 1, None, 0)})
    environment = {
        "DATABASE_URL": database.url(Role.LOADER), "CHARTINSIGHT_HOME": str(settings.home),
        "CHARTINSIGHT_ALERT_URLS": ",",  # no channel, whatever the keyring of the machine holds
        "CHARTINSIGHT_NOW": "2026-10-13T12:00+09:00", "CHARTINSIGHT_MARKET": "KRX",
    }  # fmt: skip
    return lambda *arguments: CliRunner(env=environment).invoke(main, ["alerts", *arguments])


def test_a_rule_is_added_sees_something_and_is_removed(run, loader):
    assert run("rules").output.startswith("there are no rules.")
    added = run("add", "price", "samsung", "--code", "005930", "--above", "70000")
    assert added.output == "KRX samsung: 005930: the running price goes above 70,000 (prices of 2026-10-12)\n"
    assert run("add", "trend", "turns", "--to", "up", "--long", "--level", "warning").exit_code == 0
    assert run("add", "screen", "cheap", "--where", "rsi_14 < 30", "--where", "trend=up").exit_code == 0
    assert [line.split()[1:3] for line in run("rules").output.splitlines()] == [
        ["cheap", "info"], ["samsung", "info"], ["turns", "warning"],
    ]  # fmt: skip

    assert run("list").output == "nothing has been alerted yet.\n"
    with loader.begin() as conn:
        hold(conn, "005930", {"2026-10-13": (71_400, 71_400, 71_400, 71_400, 1, None, 1)})
    checked = run("check")
    assert checked.output.splitlines()[-1] == "KRX: 1 new, 0 over; notices sent: none", checked.output
    listed = run("list").output.splitlines()
    assert listed[0] == "2026-10-13 03:00Z  KRX  info     happened 005930 name above 70,000 KRW: 71,400 KRW"
    assert listed[1].strip().startswith("rule:samsung:")
    assert run("list", "--open").output == "nothing is open.\n"

    assert run("remove", "samsung").output == "KRX has no rule samsung any more.\n"
    gone = run("remove", "samsung")
    assert (gone.exit_code, gone.stderr) == (2, "chartinsight: alerts: KRX has no rule samsung. It has cheap, turns.\n")


def test_a_key_is_muted_until_a_time_of_the_market(run, loader):
    assert (
        run("mute", "job", "--until", "2026-10-14").output
        == "job: nothing is told until 2026-10-14 00:00 (Asia/Seoul).\n"
    )
    with loader.connect() as conn:
        held = conn.execute(text("SELECT key, until = '2026-10-14T00:00+09:00' FROM ops.mutes")).one()
    assert tuple(held) == ("job", True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("price", "x", "--code", "005930"), "say either --above PRICE or --below PRICE"),
        (
            ("price", "x", "--code", "005930", "--above", "1", "--below", "2"),
            "say either --above PRICE or --below PRICE",
        ),
        (("price", "x", "--code", "999999", "--above", "1"), "KRX has no instrument 999999"),
        (("price", "a:b", "--code", "005930", "--above", "1"), "'a:b' is no name of a rule"),
        (("screen", "x", "--where", "rsi_14 is low"), "'rsi_14 is low' is no condition"),
        (("screen", "x", "--where", "run_id = 1"), "where.0.column: Input should be 'close', 'change_pct'"),
        (("trend", "x", "--to", "up", "--market", "MARS"), "there is no market 'MARS'. Known are KRX, SIM, US"),
    ],
)
def test_what_is_asked_wrongly_ends_with_2_and_says_what_was_expected(run, arguments, says):
    ended = run("add", *arguments)
    assert ended.exit_code == 2
    assert says in ended.stderr
