"""A trend that turns: between two scans that follow each other it became `up`, or `down`, and was something else before."""

from typing import Any, Literal

from sqlalchemy import Row

from chartinsight_lib.alerts.rules.scans import Scan, ScanWatch

TRENDS = {"up": 1, "down": -1, "sideways": 0}
"""A trend's word -> its number in radar.snapshot."""


class TrendWatch(ScanWatch):
    """The trend of final bars becomes `to`; `of`: that of usual swings (`trend`) or of wide ones (`trend_long`)."""

    to: Literal["up", "down"]
    of: Literal["trend", "trend_long"] = "trend"

    def says(self, code: str | None) -> str:
        """See `Watch`."""
        return f"{code or 'any instrument'}: {self._what()}"

    def _fresh(self, before: Scan, after: Scan) -> list[Row[Any]]:
        # Of an instrument that was not scanned before, nobody knows that it turned.
        return [
            row for number, row in after.items()
            if number in before and self._is(row) and not self._is(before[number])
        ]  # fmt: skip

    def _is(self, row: Row[Any]) -> bool:
        return bool(getattr(row, self.of) == TRENDS[self.to])

    def _what(self) -> str:
        return f"the {'long ' if self.of == 'trend_long' else ''}trend turns {self.to}"
