"""The one reader of the environment. Called once, at the edge, and handed inward.

Every setting is a variable `CHARTINSIGHT_<NAME>`, of the process or of the file `.env` in the project; `DATABASE_URL` is
the one exception, because hosts and containers set it by that name. A variable with our prefix that is no setting is an
error: a misspelt setting must not pass in silence.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Self
from uuid import UUID

from dotenv import dotenv_values
from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chartinsight_lib.clock import Clock, clock_from
from chartinsight_lib.errors import ConfigError

PREFIX = "CHARTINSIGHT_"
PROJECT = Path(__file__).resolve().parents[1]


class Settings(BaseSettings):
    """What a user may choose. Paths are absolute after reading."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Field(default_factory=lambda: user_data_path("chartinsight"), description="the data directory")
    project: Path = Field(default=PROJECT, description="the checkout: notebooks/ and pipelines/ lie in it")
    runs_dir: Path | None = Field(default=None, description="executed notebooks; default: runs/ in the project")
    backup_dir: Path | None = Field(default=None, description="backups of the database; default: backups/ in the home")
    database_url: SecretStr | None = Field(default=None, validation_alias="DATABASE_URL")
    radar_token: SecretStr | None = Field(
        default=None, description="the dashboard's token; default: a new one each start"
    )
    source: str = Field(
        default="simulated",
        description="where `up` gets its data: simulated, kiwoom, krx, yahoo:TICKER[,…], sample, or files:PATH[,PATH…]",
    )
    kiwoom_appkey: SecretStr | None = Field(default=None, description="default: the keyring's")
    kiwoom_secretkey: SecretStr | None = Field(default=None, description="default: the keyring's")
    kiwoom_url: str = Field(default="https://api.kiwoom.com", description="the API's host; a simulator's when it runs")
    kiwoom_rate: float | None = Field(
        default=None, gt=0, description="requests per second and API id; default: 5, on the mock host 1"
    )
    kiwoom_total_rate: float | None = Field(
        default=None, gt=0, description="requests per second over all API ids; default: no such limit"
    )
    kiwoom_years: int = Field(default=10, ge=1, le=60, description="how far back daily bars are asked for at first")
    kiwoom_workers: int = Field(default=4, ge=1, le=32, description="requests under way at a time")
    dart_key: SecretStr | None = Field(default=None, description="the key of Open DART, 40 characters; default: none")
    dart_url: str = Field(default="https://opendart.fss.or.kr", description="Open DART's host")
    dart_daily: int = Field(default=20_000, ge=1, description="requests that Open DART allows a key in a day (KST)")
    watchlist: str = Field(default="", description="codes of which five-minute bars are collected, by commas")
    alert_urls: SecretStr | None = Field(
        default=None,
        description="where alerts go, addresses of apprise, or @PATH of a file of them; default: the keyring's",
    )
    quiet_hours: str = Field(default="", description="HH:MM-HH:MM in the market's zone: only what is critical is told")
    market: str | None = Field(default=None, description="the market the radar shows; default: the one collected last")
    now: str | None = Field(
        default=None, description="fixes the clock, ISO 8601 with an offset, or @PATH of a simulator's clock"
    )
    run_id: UUID | None = Field(default=None, description="set by the runner for the notebook it runs")

    @field_validator("home", "project", "runs_dir", "backup_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        try:
            return path.expanduser().resolve() if path else path
        except RuntimeError as error:  # of expanduser; pydantic wants the other
            raise ValueError(f"{path}: there is no such user") from error

    @field_validator("quiet_hours")
    @classmethod
    def _hours(cls, written: str) -> str:
        begins, _, ends = written.partition("-")
        if written and (
            not all(re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", end) for end in (begins, ends)) or begins == ends
        ):
            raise ValueError("expected HH:MM-HH:MM, as in 22:00-07:30")
        return written

    @classmethod
    def from_env(cls) -> Self:
        """Read the process's environment and the project's `.env`; raise ConfigError for what is misspelt or ill-typed."""
        known = {PREFIX + name.upper() for name in cls.model_fields if name != "database_url"}
        file = PROJECT / ".env"
        for name in sorted({*os.environ, *dotenv_values(file)}):
            if name.startswith(PREFIX) and name not in known:
                hint = difflib.get_close_matches(name, known, n=1)
                raise ConfigError(
                    f"environment: {name} is no setting. "
                    + (f"Did you mean {hint[0]}?" if hint else f"Known are {', '.join(sorted(known))}, DATABASE_URL.")
                )
        try:
            return cls(_env_file=file, _env_file_encoding="utf-8")  # type: ignore[call-arg]
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            name = str(first["loc"][0])
            name = name if name.isupper() else PREFIX + name.upper()
            raise ConfigError(f"environment: {name}: {first['msg']}.") from None  # the cause would print the value

    @property
    def watched(self) -> list[str]:
        """The codes of the watchlist."""
        return [code.strip() for code in self.watchlist.split(",") if code.strip()]

    def for_children(self) -> dict[str, str]:
        """Return the variables that make another process read the same hosts, keys and clock as these settings hold."""
        names = ("now", *(name for name in type(self).model_fields if name.startswith(("kiwoom_", "dart_"))))
        values = {name: getattr(self, name) for name in names if name in self.model_fields_set}
        return {
            PREFIX + name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in values.items()
            if value is not None
        }

    @property
    def runs(self) -> Path:
        """The folder of the executed notebooks."""
        return self.runs_dir or self.project / "runs"

    @property
    def backups(self) -> Path:
        """The folder of the database's backups."""
        return self.backup_dir or self.home / "backups"

    @property
    def clock(self) -> Clock:
        """The clock of this process."""
        return clock_from(self.now)
