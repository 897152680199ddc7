"""A small screen over the radar: which instruments satisfy it in a scan and did not in the scan before."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row

from chartinsight_lib.alerts.rules.scans import Scan, ScanWatch
from chartinsight_lib.alerts.rules.trend import TRENDS
from chartinsight_lib.errors import ConfigError

Column = Literal[
    "close", "change_pct", "volume", "value", "trend", "trend_bars", "trend_long", "high_52w", "high_52w_pct", "bars_52w",
    "sma_20", "rsi_14", "atr_14", "bars",
]  # fmt: skip
"""The numbers of radar.snapshot."""
Sign = Literal["<", "<=", ">", ">=", "=", "!="]
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip
_WRITTEN = re.compile(r"\s*(\w+)\s*(<=|>=|!=|<|>|=)\s*(\S+)\s*")


class Condition(BaseModel):
    """A number of the radar, compared with another one; where the radar has none, the condition does not hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    column: Column
    sign: Sign
    value: float

    def holds(self, row: Row[Any]) -> bool:
        """Whether it holds of a row of radar.snapshot."""
        number = getattr(row, self.column)
        return number is not None and not math.isnan(number) and _COMPARE[self.sign](number, self.value)

    def __str__(self) -> str:
        words = {number: word for word, number in TRENDS.items()} if self.column in {"trend", "trend_long"} else {}
        return f"{self.column} {self.sign} {words.get(int(self.value), f'{self.value:,.10g}')}"


def written(text: str) -> dict[str, str]:
    """Read `COLUMN SIGN NUMBER`, as in "rsi_14 < 30" or "trend = up", for `Condition` to check.

    Raises:
        ConfigError: it has another form.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ConfigError(f'alerts: {text!r} is no condition. Expected COLUMN SIGN NUMBER, as in "rsi_14 < 30".')
    column, sign, value = found.groups()
    return {"column": column, "sign": sign, "value": str(TRENDS.get(value, value))}


class ScreenWatch(ScanWatch):
    """All of the conditions hold of an instrument, and did not in the scan before, or it was not in it."""

    where: tuple[Condition, ...] = Field(min_length=1, max_length=12)

    def says(self, code: str | None) -> str:
        """See `Watch`."""
        return f"{code or 'any instrument'}: new where {self._what()}"

    def _fresh(self, before: Scan, after: Scan) -> list[Row[Any]]:
        return [
            row for number, row in after.items()
            if self._holds(row) and not (number in before and self._holds(before[number]))
        ]  # fmt: skip

    def _holds(self, row: Row[Any]) -> bool:
        return all(condition.holds(row) for condition in self.where)

    def _what(self) -> str:
        return " and ".join(map(str, self.where))
