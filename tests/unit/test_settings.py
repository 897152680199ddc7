"""Settings: read once from the environment and `.env`; what is misspelt or wrong is said, and no secret is shown."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from chartinsight_lib import settings as module
from chartinsight_lib.errors import ConfigError
from chartinsight_lib.settings import Settings

SECRET = "hunter2-hunter2"
URL = f"postgresql://me:{SECRET}@127.0.0.1/tradesmart"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of the test's own, so that nobody's `.env` is read."""
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    return tmp_path


def dotenv(project: Path, *lines: str) -> None:
    (project / ".env").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_without_settings_there_are_defaults():
    found = Settings.from_env()
    assert (found.database_url, found.radar_token, found.market, found.run_id) == (None, None, None, None)
    assert found.source == "simulated"
    assert found.runs == found.project / "runs"
    assert found.home.is_absolute()


def test_settings_are_read_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CHARTINSIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CHARTINSIGHT_RUN_ID", "00000000-0000-0000-0000-000000000007")
    monkeypatch.setenv("CHARTINSIGHT_NOW", "2024-08-05T15:30+09:00")
    monkeypatch.setenv("DATABASE_URL", URL)
    found = Settings.from_env()
    assert found.home == tmp_path / "home"
    assert found.run_id == UUID(int=7)
    assert found.clock() == datetime(2024, 8, 5, 6, 30, tzinfo=UTC)
    assert found.database_url.get_secret_value() == URL


def test_paths_are_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CHARTINSIGHT_HOME", "data/../data")
    monkeypatch.setenv("CHARTINSIGHT_RUNS_DIR", "~/runs")
    found = Settings.from_env()
    assert (found.home, found.runs) == (tmp_path.resolve() / "data", tmp_path.resolve() / "runs")


def test_the_file_is_read_and_the_environment_wins(project, monkeypatch):
    dotenv(project, "CHARTINSIGHT_SOURCE=files:a.csv", "CHARTINSIGHT_MARKET=KRX", f"DATABASE_URL={URL}", "OTHER=1")
    monkeypatch.setenv("CHARTINSIGHT_MARKET", "US")
    found = Settings.from_env()
    assert (found.source, found.market) == ("files:a.csv", "US")
    assert found.database_url.get_secret_value() == URL


@pytest.mark.parametrize("where", ["the environment", "the file"])
def test_a_misspelt_setting_is_an_error_that_offers_the_right_one(project, monkeypatch, where):
    if where == "the file":
        dotenv(project, "CHARTINSIGHT_HOEM=somewhere")
    else:
        monkeypatch.setenv("CHARTINSIGHT_HOEM", "somewhere")
    with pytest.raises(ConfigError, match=r"CHARTINSIGHT_HOEM is no setting. Did you mean CHARTINSIGHT_HOME\?"):
        Settings.from_env()


def test_a_setting_like_none_is_an_error_that_lists_them_all(monkeypatch):
    monkeypatch.setenv("CHARTINSIGHT_ZZZZZZZZZZZZZZZZZZZZ", "1")
    with pytest.raises(ConfigError, match="is no setting") as raised:
        Settings.from_env()
    for name in ("CHARTINSIGHT_HOME", "CHARTINSIGHT_NOW", "CHARTINSIGHT_SOURCE", "DATABASE_URL"):
        assert name in str(raised.value)


def test_the_address_has_one_name_only(monkeypatch):
    monkeypatch.setenv("CHARTINSIGHT_DATABASE_URL", URL)
    with pytest.raises(ConfigError, match="CHARTINSIGHT_DATABASE_URL is no setting") as raised:
        Settings.from_env()
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("name", ["CHARTINSIGHT_HOME", "CHARTINSIGHT_NOW", "CHARTINSIGHT_RUN_ID", "DATABASE_URL"])
def test_an_empty_variable_counts_as_unset(monkeypatch, name):
    plain = Settings.from_env()
    monkeypatch.setenv(name, "")
    assert Settings.from_env() == plain


@pytest.mark.parametrize(
    ("name", "value"), [("CHARTINSIGHT_RUN_ID", "seven"), ("CHARTINSIGHT_HOME", "~nobody-has-this-name/data")]
)
def test_a_bad_value_names_its_variable_and_shows_no_secret(monkeypatch, name, value):
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("CHARTINSIGHT_RADAR_TOKEN", SECRET)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"environment: {name}: ") as raised:
        Settings.from_env()
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_settings_that_are_printed_show_no_secret(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("CHARTINSIGHT_RADAR_TOKEN", SECRET)
    found = Settings.from_env()
    assert SECRET not in f"{found!r} {found} {found.model_dump()}"


def test_a_bad_time_is_an_error_when_the_clock_is_asked_for(monkeypatch):
    monkeypatch.setenv("CHARTINSIGHT_NOW", "2024-08-05T15:30")
    with pytest.raises(ConfigError, match="has no time zone"):
        _ = Settings.from_env().clock
