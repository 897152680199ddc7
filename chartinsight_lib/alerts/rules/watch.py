"""What every kind of rule is: its parameters, checked, and how it looks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from chartinsight_lib.alerts.alert import Alert, Level

State = Mapping[str, Any]
"""What a rule saw last, as plain JSON; {} before it ever looked."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Whose look it is; `code` None: all instruments of the market."""

    id: int
    market: str
    name: str
    code: str | None
    level: Level

    def alert(self, which: object, subject: str, body: str, now: datetime) -> Alert:
        """Return what this rule tells; `which` tells its alerts from each other."""
        return Alert(
            "radar", f"rule:{self.name}:{self.id}:{which}", self.level, subject, f"{body}\nRule {self.name}.", self.market, now,
            standing=False,
        )  # fmt: skip


class Watch(BaseModel, ABC):
    """The parameters of a kind of rule, and what it does with them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @abstractmethod
    def look(self, conn: Connection, rule: Rule, state: State, now: datetime) -> tuple[list[Alert], State]:
        """Return what is to be told since `state`, and the state from now on; nothing is told at the first look."""

    @abstractmethod
    def says(self, code: str | None) -> str:
        """Say in words what is watched."""

    def prepared(self, conn: Connection, market: str, code: str | None, now: datetime) -> Self:
        """Return the parameters as they are stored, when a rule is added. Raises ConfigError where they do not fit."""
        return self
