"""Candles, pivots and trend -> a plotly figure. Pure: no network, no database, no files, no clock.

The x axis counts bars: position 0 is the oldest bar, and days without trade take no room. Dates are written as tick
labels for the window that is looked at. Prices in the market's currency, volume in shares; colours follow the habit of
the market (Korea: red rises, blue falls). A bar that may still change is drawn hollow.

`chart_parts` gives plain dictionaries, so that a picture can be built once (`candle_chart`) or an existing one be
updated in place (the chart panel of `widgets`). Every trace is always there, empty or not: their order is `TRACES`.
"""

from datetime import date
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chartinsight_lib.chart_axes import WINDOW, change_text, date_ticks, first_view, price_text, value_text
from chartinsight_lib.chart_palette import Palette, palette
from chartinsight_lib.domain import NUMBERS, PRICES, Flag
from chartinsight_lib.errors import NotEnoughHistory

if TYPE_CHECKING:
    import plotly.graph_objects as go

TRACES = ("candles", "unfinished", "volume", "zigzag", "known", "highs", "lows")
FONT = '"Pretendard","Noto Sans KR","Noto Sans CJK KR","Malgun Gothic","Apple SD Gothic Neo",system-ui,sans-serif'
TIMEFRAME_WORDS = {"1d": "daily", "1w": "weekly", "1mo": "monthly"}


class _Instrument(Protocol):
    @property
    def market(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def currency(self) -> str: ...


class _Pivots(Protocol):
    @property
    def at(self) -> NDArray[Any]: ...
    @property
    def known_at(self) -> NDArray[Any]: ...
    @property
    def price(self) -> NDArray[Any]: ...
    @property
    def kind(self) -> NDArray[Any]: ...


class Chartable(Protocol):
    """What a chart is drawn from; `radar.ChartData` is one."""

    @property
    def instrument(self) -> _Instrument: ...
    @property
    def timeframe(self) -> str: ...
    @property
    def candles(self) -> pd.DataFrame: ...
    @property
    def pivots(self) -> _Pivots: ...
    @property
    def trend(self) -> NDArray[Any]: ...
    @property
    def as_of(self) -> date: ...
    @property
    def source(self) -> str: ...
    @property
    def basis(self) -> str: ...


def trend_spans(trend: NDArray[Any]) -> list[tuple[int, int, int]]:
    """Join equal neighbours: (first bar, last bar, state) of each stretch that goes up (+1) or down (-1)."""
    if not len(trend):
        return []
    edges = np.concatenate([[0], np.flatnonzero(np.diff(trend)) + 1, [len(trend)]])
    spans = [(int(a), int(b) - 1, int(trend[a])) for a, b in pairwise(edges)]
    return [span for span in spans if span[2] != 0]


def chart_parts(
    data: Chartable, *, dark: bool = False, drawn: range | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Turn one instrument's bars into trace values, in the order of TRACES, and layout values.

    Args:
        drawn: the bars to draw, by position; None: all. A browser takes most of its time for the number of candles.
    Raises:
        NotEnoughHistory: there is no bar.
    """
    n = len(data.candles)
    if n == 0:
        raise NotEnoughHistory(
            f"chart: {data.instrument.market} {data.instrument.code} has no {data.timeframe} bar. Collect it first."
        )
    drawn = range(n)[drawn.start : drawn.stop] if drawn else range(n)
    colours = palette(data.instrument.market, dark=dark)
    return _traces(data, colours, drawn), _layout(data, colours, drawn)


def candle_chart(data: Chartable, *, dark: bool = False) -> "go.Figure":
    """Draw candles, volume, pivots, zigzag and trend of one instrument; the newest WINDOW bars are in view.

    Args:
        data: bars, pivots and trend with their source; see `radar.Radar.chart`.
        dark: light lines on a dark ground.
    Raises:
        NotEnoughHistory: there is no bar.
    """
    from plotly import graph_objects as go

    traces, layout = chart_parts(data, dark=dark)
    layout |= {"height": 640}
    # Outside a kernel nothing can relabel the axis while it moves, so the older years are named beforehand.
    shown = layout["xaxis"]["tickvals"]
    years = date_ticks(pd.DatetimeIndex(data.candles.index), 0, (shown[0] if shown else 0) - WINDOW // 8)
    layout["xaxis"] = layout["xaxis"] | {
        "tickvals": years[0] + layout["xaxis"]["tickvals"],
        "ticktext": years[1] + layout["xaxis"]["ticktext"],
    }
    return go.Figure(traces, layout)


def _traces(data: Chartable, colours: Palette, drawn: range) -> list[dict[str, Any]]:
    candles, pivots = data.candles.iloc[drawn.start : drawn.stop], data.pivots
    position = np.arange(drawn.start, drawn.stop)
    unfinished = (candles["flags"].to_numpy(dtype=int) & Flag.PROVISIONAL) != 0
    rose = candles["close"].to_numpy(dtype=float) >= candles["open"].to_numpy(dtype=float)
    # Numbers on a scale of three colours: plotly checks each colour that is a word, and that took half of an update.
    side = np.where(rose, 0.5, 0.0)
    scale = {
        "colorscale": [[0, colours.down_volume], [0.5, colours.up_volume], [1, colours.paper]],
        "cmin": 0,
        "cmax": 1,
    }
    notes = np.array(_hover_notes(data, drawn), dtype=object)
    at = np.asarray(pivots.at, dtype=int)
    price = np.asarray(pivots.price, dtype=float)
    high = np.asarray(pivots.kind) > 0
    marked = (at >= drawn.start) & (at < drawn.stop)
    # One thin line from each pivot to the bar at which it became known; a missing value lifts the pen.
    lift = np.full(len(at), np.nan)
    known_x = np.column_stack([at, np.asarray(pivots.known_at, dtype=float), lift]).ravel()
    known_y = np.column_stack([price, price, lift]).ravel()
    axes = {"xaxis": "x", "yaxis": "y", "showlegend": False}
    quiet = axes | {"type": "scatter", "hoverinfo": "skip"}

    def bars(name: str, chosen: NDArray[np.bool_]) -> dict[str, Any]:
        hollow = name == "unfinished"
        paint = {
            side: {
                "line": {"color": colour, "width": 1.5 if hollow else 1},
                "fillcolor": colours.paper if hollow else colour,
            }
            for side, colour in (("increasing", colours.up), ("decreasing", colours.down))
        }
        values = {column: candles[column].to_numpy(dtype=float)[chosen] for column in PRICES}
        said = {"customdata": notes[chosen].tolist(), "hovertemplate": "%{customdata}<extra></extra>"}
        shape = {"type": "candlestick", "name": name, "x": position[chosen], "whiskerwidth": 0}
        return axes | shape | values | said | paint

    def marks(name: str, chosen: NDArray[np.bool_], *, angle: int) -> dict[str, Any]:
        # A triangle points at its bar from a few pixels off: down from above a high, up from below a low.
        look = {"symbol": "triangle-up", "size": 9, "angle": angle, "standoff": 5, "color": colours.zigzag}
        return quiet | {"name": name, "mode": "markers", "x": at[chosen], "y": price[chosen], "marker": look}

    return [
        bars("candles", ~unfinished),
        bars("unfinished", unfinished),
        axes
        | {
            "type": "bar",
            "name": "volume",
            "x": position,
            "y": candles["volume"].to_numpy(dtype=float),
            "yaxis": "y2",
            "hoverinfo": "skip",
            "marker": scale
            | {
                "color": np.where(unfinished, 1.0, side),
                "line": scale | {"color": side, "width": np.where(unfinished, 1.2, 0.0)},
            },
        },
        quiet
        | {"name": "zigzag", "mode": "lines", "x": at, "y": price, "line": {"color": colours.zigzag, "width": 1.2}},
        quiet
        | {"name": "known", "mode": "lines", "x": known_x, "y": known_y}
        | {"line": {"color": colours.muted, "width": 1, "dash": "dot"}},
        marks("highs", marked & high, angle=180),
        marks("lows", marked & ~high, angle=0),
    ]


def _hover_notes(data: Chartable, drawn: range) -> list[str]:
    """Return what is said about each bar: date, prices, change, volume, value, and the pivot that lies on it."""
    candles, currency, ts = data.candles.iloc[drawn.start : drawn.stop], data.instrument.currency, data.candles.index
    numbers = {name: candles[name].to_numpy(dtype=float).tolist() for name in NUMBERS}
    flags = candles["flags"].to_numpy(dtype=int).tolist()
    dates = pd.DatetimeIndex(candles.index).strftime("%Y-%m-%d").tolist()
    swings = {
        int(at) - drawn.start: f"<br>swing {'high' if kind > 0 else 'low'}, known on {ts[int(known)]:%Y-%m-%d}"
        for at, known, kind in zip(data.pivots.at, data.pivots.known_at, data.pivots.kind, strict=True)
        if at in drawn
    }
    notes = []
    before = float(data.candles["close"].iloc[drawn.start - 1]) if drawn.start else float("nan")
    for i, (open_, high, low, close, volume, value) in enumerate(zip(*numbers.values(), strict=True)):
        unfinished = " · unfinished" if flags[i] & Flag.PROVISIONAL else ""
        prices = " ".join(
            f"<b>{word}</b> {price_text(price, currency)}"
            for word, price in zip("OHLC", (open_, high, low, close), strict=True)
        )
        worth = f" · {value_text(value, currency)}" if np.isfinite(value) else ""
        notes.append(
            f"<b>{dates[i]}</b>{unfinished}   {change_text((close / before - 1) * 100)}<br>{prices}"
            f"<br>Vol {volume:,.0f}{worth}{swings.get(i, '')}"
        )
        before = close
    return notes


def _layout(data: Chartable, colours: Palette, drawn: range) -> dict[str, Any]:
    """Return title, axes and trend shading; every key is there each time, so that an update leaves nothing behind."""
    axes = first_view(data.candles)
    line = {
        "gridcolor": colours.grid,
        "zeroline": False,
        "showspikes": True,
        "spikemode": "across",
        "spikesnap": "cursor",
        "spikethickness": 1,
        "spikedash": "dot",
        "spikecolor": colours.muted,
        "tickfont": {"color": colours.muted, "size": 11},
    }
    price_format = ",.0f" if data.instrument.currency == "KRW" else ",.2f"
    right = {"side": "right", "fixedrange": True, "ticks": "", "automargin": False}
    return {
        "title": {
            "text": title(data, colours),
            "x": 0.008,
            "xanchor": "left",
            "y": 1,
            "pad": {"t": 26},
            "yanchor": "top",
            "font": {"size": 16, "color": colours.text},
        },
        "xaxis": line
        | axes["xaxis"]
        | {
            "tickmode": "array",
            "unifiedhovertitle": {"text": f"<b>{escape(data.instrument.name)}</b>"},
            "tickangle": 0,
            "anchor": "y2",
            "rangeslider": {"visible": False},
            "spikesnap": "data",
        },
        "yaxis": line | right | axes["yaxis"] | {"domain": [0.205, 1], "tickformat": price_format, "nticks": 9},
        "yaxis2": line
        | right
        | axes["yaxis2"]
        | {"domain": [0, 0.175], "tickformat": "~s", "nticks": 4, "ticklabelshift": -6},
        "shapes": trend_shapes(data.trend, colours, drawn),
        "template": "none",
        "paper_bgcolor": colours.paper,
        "plot_bgcolor": colours.paper,
        "font": {"family": FONT, "size": 12, "color": colours.text},
        "margin": {"l": 10, "r": 70, "t": 58, "b": 26},
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "hoverlabel": {"bgcolor": colours.paper, "bordercolor": colours.muted, "align": "left"}
        | {"font": {"family": FONT, "size": 12, "color": colours.text}},
        "dragmode": "pan",
        "bargap": 0.25,
        "showlegend": False,
    }


def trend_shapes(trend: NDArray[Any], colours: Palette, drawn: range) -> list[dict[str, Any]]:
    """Return one pale band over the price panel for each stretch of an up or down trend that reaches the drawn bars."""
    return [
        {
            "type": "rect",
            "xref": "x",
            "yref": "y domain",
            "x0": first - 0.5,
            "x1": last + 0.5,
            "y0": 0,
            "y1": 1,
            "layer": "below",
            "line": {"width": 0},
            "fillcolor": colours.up_shade if state > 0 else colours.down_shade,
        }
        for first, last, state in trend_spans(trend)
        if first < drawn.stop and last >= drawn.start
    ]


def title(data: Chartable, colours: Palette) -> str:
    """Return two lines: who and the newest close; below, the timeframe and where the numbers come from."""
    instrument, closes = data.instrument, data.candles["close"].to_numpy(dtype=float)
    change = (closes[-1] / closes[-2] - 1) * 100 if len(closes) > 1 else float("nan")
    colour = colours.up if change > 0 else colours.down if change < 0 else colours.text
    if int(data.candles["flags"].iloc[-1]) & Flag.PROVISIONAL:
        words_of_bar = f" <span style='font-size:12px;color:{colours.muted}'>unfinished</span>"
    else:
        words_of_bar = ""
    code = "" if instrument.name == instrument.code else f" {escape(instrument.code)}"
    words = TIMEFRAME_WORDS.get(data.timeframe, data.timeframe)
    origin = " · ".join(
        escape(part) for part in (words, f"as of {data.as_of:%Y-%m-%d}", data.source, data.basis) if part
    )
    return (
        f"<b>{escape(instrument.name)}</b><span style='color:{colours.muted}'>{code}</span>   "
        f"{price_text(closes[-1], instrument.currency)} {escape(instrument.currency)} "
        f"<span style='color:{colour}'>{change_text(change)}</span>{words_of_bar}"
        f"<br><span style='font-size:12px;color:{colours.muted}'>{origin}</span>"
    )
