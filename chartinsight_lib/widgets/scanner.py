"""The table of all instruments: sorted, searched and walked through in the browser; the kernel hears what was chosen.

A grid of our own, on anywidget, which plotly brings to the page anyway: it draws only the rows in view, sorts at a click
on a header, moves the choice with the arrow keys, and is real text that a browser can search and read aloud.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pandas as pd
import traitlets

from chartinsight_lib.chart_axes import change_text, price_text, value_text
from chartinsight_lib.domain import MARKETS

TREND_SIGNS = {"up": 1, "sideways": 0, "down": -1}
UNFINISHED = "◦ "
TREND_MARKS = {"up": "▲", "sideways": "–", "down": "▼"}
YEAR_BARS = 240
"""Fewer bars than this are no year: the distance to the high of 52 weeks is marked."""

_HERE = Path(__file__).parent


def _column(
    key: str, label: str, width: str, title: str, *, kind: str = "number", tone: str | None = None
) -> dict[str, Any]:
    return {"key": key, "label": label, "width": width, "title": title, "kind": kind, "tone": tone}


COLUMNS = [
    _column("code", "Code", "54px", "Code", kind="text"),
    _column("name", "Name", "minmax(60px,1fr)", "Name", kind="text"),
    _column("close", "Last", "78px", "Close of the last final bar; ◦ the running price of an unfinished one after it"),
    _column("change_pct", "Chg %", "54px", "Change of that price against the bar before, %", tone="change_pct"),
    _column("trend", "Trend", "46px", "Trend of the swings, and the bars it has lasted", tone="trend"),
    _column("trend_long", "Long", "34px", "Trend of the wide swings", tone="trend_long"),
    _column("high_52w_pct", "52w %", "50px", "Distance of the close to the high of 52 weeks, %"),
    _column("rsi14", "RSI", "30px", "Relative strength index over 14 bars"),
]
VALUE = _column("value", "Value", "60px", "Traded value of the same bar, in its currency")
VOLUME = _column("volume", "Volume", "84px", "Shares traded on the same bar")


class Scanner(anywidget.AnyWidget):
    """Shows a radar table; `selected` is the chosen instrument_id, or None."""

    _esm = _HERE / "scanner.js"
    _css = _HERE / "style.css"

    table = traitlets.Dict().tag(sync=True)
    sort_by = traitlets.Unicode("code").tag(sync=True)
    habit = traitlets.Unicode("west").tag(sync=True)
    selected = traitlets.Int(None, allow_none=True).tag(sync=True)

    def __init__(self) -> None:
        # What may be chosen is kept here, not read back from a trait: the page can set any trait to anything.
        self._ids: frozenset[int] = frozenset()
        super().__init__(table=table_values(pd.DataFrame()))

    def show(self, rows: pd.DataFrame) -> None:
        """Show a radar table; the choice stays where it is, or goes to the most traded instrument."""
        values = table_values(rows)
        ids = values["rows"]["id"]
        self._ids = frozenset(ids)
        sort_by = next((column["key"] for column in values["columns"] if column["key"] in {"value", "volume"}), "code")
        with self.hold_sync():
            self.habit = (
                "east" if len(rows) and all(MARKETS[market].korean for market in rows["market"].unique()) else "west"
            )
            self.sort_by = sort_by
            self.table = values
            if self.selected not in self._ids:
                traded = values["rows"]["sort"][sort_by]
                best = max(range(len(ids)), key=lambda i: (traded[i] is not None, traded[i], -i), default=None)
                self.selected = None if best is None else ids[best]

    @traitlets.validate("selected")
    def _known(self, proposal: dict[str, Any]) -> int | None:
        chosen: int | None = proposal["value"]
        if chosen is not None and chosen not in self._ids:
            raise traitlets.TraitError(f"scanner: {chosen} is no instrument of the table.")
        return chosen


def table_values(rows: pd.DataFrame) -> dict[str, Any]:
    """Turn a radar table into what the page draws: columns, texts, sort keys and hints, in the order of the codes.

    Texts are made here, so that a number reads the same in the table and in the chart.
    """
    valued = "value" in rows and rows["value"].notna().any()
    columns = [*COLUMNS, VALUE if valued else VOLUME]
    if rows.empty:
        nothing: dict[str, list[Any]] = {column["key"]: [] for column in columns}
        return {"columns": columns, "rows": {"id": [], "search": [], "text": nothing, "sort": nothing, "hints": {}}}
    rows = with_running(rows.sort_values("code"))
    currency = rows["currency"].tolist()
    names, codes = rows["name"].astype(str).tolist(), rows["code"].astype(str).tolist()
    days = _floats(rows, "trend_days")
    text: dict[str, list[str]] = {
        "code": codes,
        # A source without names lets the code stand for one: it need not be read twice.
        "name": ["" if name == code else name for code, name in zip(codes, names, strict=True)],
        "close": [
            f"{UNFINISHED if on else ''}{price_text(x, c)}"
            for x, c, on in zip(_floats(rows, "close"), currency, rows["provisional"], strict=True)
        ],
        "change_pct": [change_text(x).removesuffix("%") for x in _floats(rows, "change_pct")],
        "trend": [
            f"{_mark(word)} {n:.0f}" if np.isfinite(n) else _mark(word)
            for word, n in zip(rows["trend"], days, strict=True)
        ],
        "trend_long": [_mark(word) for word in rows["trend_long"]],
        "high_52w_pct": [f"{x:.1f}" if np.isfinite(x) else "–" for x in _floats(rows, "high_52w_pct")],
        "rsi14": [f"{x:.0f}" if np.isfinite(x) else "–" for x in _floats(rows, "rsi14")],
        "value": [value_text(x, c) for x, c in zip(_floats(rows, "value"), currency, strict=True)] if valued else [],
        "volume": [] if valued else [f"{x:,.0f}" if np.isfinite(x) else "–" for x in _floats(rows, "volume")],
    }
    sort: dict[str, list[Any]] = {"code": codes, "name": names}
    for key in ("trend", "trend_long"):
        sort[key] = [TREND_SIGNS.get(word) for word in rows[key]]
    for key in ("close", "change_pct", "high_52w_pct", "rsi14", "value" if valued else "volume"):
        sort[key] = [x if np.isfinite(x) else None for x in _floats(rows, key)]
    return {
        "columns": columns,
        "rows": {
            "id": [int(i) for i in rows.index],
            "search": [f"{code} {name}".lower() for code, name in zip(codes, names, strict=True)],
            "text": text,
            "sort": sort,
            "hints": {
                "code": _hints(
                    rows["provisional"].tolist(),
                    "Its newest bar is unfinished: price, change and value are of it, the rest is not",
                ),
                "close": {
                    i: f"Of {day}: it has no final bar since"
                    for i, (day, running) in enumerate(zip(rows["day"], rows["provisional"], strict=True))
                    if day < rows["day"].max() and not running
                },
                "high_52w_pct": {
                    i: f"Over the {n:.0f} bars there are" for i, n in enumerate(rows["bars_52w"]) if n < YEAR_BARS
                },
            },
        },
    }


def with_running(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the numbers of the unfinished bar in place of the last final one's, where there is one."""
    if "running_close" not in rows:
        return rows
    has = rows["provisional"].to_numpy(dtype=bool)
    running, final = (rows[name].to_numpy(dtype=float, na_value=np.nan) for name in ("running_close", "final_close"))
    return rows.assign(
        close=np.where(has, running, rows["close"]),
        change_pct=np.where(has, (running / final - 1) * 100, rows["change_pct"]),
        value=np.where(has, rows["running_value"], rows["value"]),
        volume=np.where(has, rows["running_volume"], rows["volume"]),
    )


def _floats(rows: pd.DataFrame, key: str) -> list[float]:
    return rows[key].to_numpy(dtype=float, na_value=np.nan).tolist()


def _mark(word: Hashable) -> str:
    return TREND_MARKS.get(str(word), "")


def _hints(marked: list[Any], hint: str) -> dict[int, str]:
    return {i: hint for i, on in enumerate(marked) if on}
