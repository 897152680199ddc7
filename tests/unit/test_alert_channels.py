"""Where alerts go, and when they are quiet: read from the settings, and no secret is shown."""

import ast
from datetime import UTC, datetime
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from pydantic import SecretStr, ValidationError

from chartinsight_lib import alerts
from chartinsight_lib.alerts.channels import Channel, channels
from chartinsight_lib.alerts.quiet import QuietHours
from chartinsight_lib.alerts.rules.screen import Condition, written
from chartinsight_lib.domain import KST
from chartinsight_lib.errors import ConfigError
from chartinsight_lib.settings import Settings

CANARY = "canary0123456789"


def read(urls: str) -> list[Channel]:
    return channels(Settings(alert_urls=SecretStr(urls), _env_file=None))


@pytest.mark.parametrize(
    "written_as", ["json://a.b/c mailto://u:p@h?to=x@y,z@w", "json://a.b/c, mailto://u:p@h?to=x@y,z@w", "json://a.b/c\nmailto://u:p@h?to=x@y,z@w\n"]
)  # fmt: skip
def test_addresses_stand_apart_by_space_or_comma_and_a_comma_within_one_is_its_own(written_as):
    assert [channel.url for channel in read(written_as)] == ["json://a.b/c", "mailto://u:p@h?to=x@y,z@w"]


def test_an_address_that_stands_twice_is_one_channel():
    assert len(read("json://a.b/c json://a.b/c json://a.b/d")) == 2


def test_a_channel_is_named_by_its_scheme_and_a_fingerprint():
    (found,) = read(f"TGram://{CANARY}/1")
    # printf %s TGram://canary0123456789/1 | sha256sum
    assert found.name == "tgram:a4cc1f3c"
    assert CANARY not in f"{found} {found!r} {found.name}"


def test_what_is_no_address_is_told_by_its_place_and_not_shown():
    with pytest.raises(
        ConfigError, match="address 2 of CHARTINSIGHT_ALERT_URLS does not begin with a scheme://"
    ) as raised:
        read(f"json://a.b {CANARY}")
    assert CANARY not in str(raised.value)


def test_addresses_may_lie_in_a_file(tmp_path):
    (tmp_path / "urls").write_text("# mine\njson://a.b/c\n\n  slack://x/y/z  \n")
    assert [channel.url for channel in read(f"@{tmp_path / 'urls'}")] == ["json://a.b/c", "slack://x/y/z"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=rf"{tmp_path}/urls, which CHARTINSIGHT_ALERT_URLS names, cannot be read"):
        read(f"@{tmp_path / 'urls'}")


class Ring(KeyringBackend):
    """A keyring that holds one secret."""

    priority = -1  # a class that is only defined is a candidate of every keyring of the process

    def get_password(self, service: str, username: str) -> str | None:
        return {("chartinsight", "alert_urls"): "json://ring.ed/x"}.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        raise AssertionError

    def delete_password(self, service: str, username: str) -> None:
        raise AssertionError


@pytest.fixture
def ring():
    before = keyring.get_keyring()
    keyring.set_keyring(Ring())
    yield
    keyring.set_keyring(before)


@pytest.mark.usefixtures("ring")
def test_without_a_setting_the_keyring_is_asked_and_an_empty_setting_is_none():
    assert [channel.url for channel in channels(Settings(_env_file=None))] == ["json://ring.ed/x"]
    assert read("") == []


def test_settings_that_are_printed_show_no_address():
    assert CANARY not in repr(Settings(alert_urls=SecretStr(f"tgram://{CANARY}/1"), _env_file=None))


@pytest.mark.parametrize(
    ("hours", "clock", "quiet"),
    [
        ("22:00-07:30", "21:59", False), ("22:00-07:30", "22:00", True), ("22:00-07:30", "00:00", True),
        ("22:00-07:30", "07:29", True), ("22:00-07:30", "07:30", False), ("22:00-07:30", "12:00", False),
        ("12:00-13:00", "11:59", False), ("12:00-13:00", "12:00", True), ("12:00-13:00", "13:00", False),
    ],
)  # fmt: skip
def test_quiet_hours_include_their_beginning_and_not_their_end(hours, clock, quiet):
    moment = datetime.fromisoformat(f"2026-10-13T{clock}:00+09:00").astimezone(UTC)
    assert QuietHours.of(hours).hold(moment, KST) is quiet


@pytest.mark.parametrize("hours", ["22-7", "24:00-07:00", "22:00", "07:00-07:00", "22:00-07:60", "always"])
def test_quiet_hours_that_cannot_be_read_are_refused_with_an_example(hours):
    with pytest.raises(ValidationError, match="expected HH:MM-HH:MM, as in 22:00-07:30"):
        Settings(quiet_hours=hours, _env_file=None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("rsi_14 < 30", "rsi_14 < 30"), ("trend=up", "trend = up"), ("volume >= 1e6", "volume >= 1,000,000")],
)
def test_a_condition_is_read_as_it_is_written(text, shown):
    assert str(Condition.model_validate(written(text))) == shown


@pytest.mark.parametrize("text", ["rsi_14", "rsi_14 < 30; DROP TABLE x", "__import__('os')", "< 3", "rsi_14 ~ 3"])
def test_a_condition_of_another_form_is_refused(text):
    with pytest.raises(ConfigError, match="is no condition. Expected COLUMN SIGN NUMBER"):
        written(text)


@pytest.mark.parametrize("text", ["run_id = 3", "rsi_14 < nan", "rsi_14 < inf", "rsi_14 < sma_20"])
def test_a_condition_on_another_column_or_with_no_number_is_refused(text):
    with pytest.raises(ValidationError):
        Condition.model_validate(written(text))


def test_apprise_is_imported_by_the_process_that_sends_and_by_nothing_else():
    users = []
    for path in Path(alerts.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            users += [path.name for name in named if name.partition(".")[0] == "apprise"]
    assert users == ["sender.py"]
