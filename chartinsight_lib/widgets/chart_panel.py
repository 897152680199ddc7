"""One chart with its timeframe buttons. The figure is built once and filled anew: each new one would load 5 MB of script."""

import logging
import math
from collections.abc import Callable
from copy import deepcopy
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
from plotly import graph_objects as go

from chartinsight_lib import charts
from chartinsight_lib.chart_axes import around, first_window, view
from chartinsight_lib.chart_palette import palette
from chartinsight_lib.widgets.status_strip import reason

TIMEFRAMES = {"1D": "1d", "1W": "1w", "1M": "1mo"}
_log = logging.getLogger(__name__)


class ChartPanel(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Shows the chart of one instrument. `load(instrument_id, timeframe)` brings the data and may raise."""

    def __init__(self, load: Callable[[int, str], charts.Chartable], *, dark: bool = False) -> None:
        self._load, self._dark = load, dark
        self._instrument_id: int | None = None
        self._data: charts.Chartable | None = None
        self._drawn = range(0)
        self._window: tuple[float, float] | None = None  # what somebody dragged or zoomed to; None: the newest bars
        self._filling = False
        self.timeframe = ipywidgets.ToggleButtons(
            options=list(TIMEFRAMES.items()), value="1d", tooltips=["Days", "Weeks", "Months"]
        )
        self._reset = ipywidgets.Button(description="Reset", tooltip="Back to the newest bars")
        tools = ipywidgets.HBox([self.timeframe, self._reset])
        tools.add_class("ci-tools")
        self.message = ipywidgets.HTML()
        self.message.add_class("ci-message")
        self.figure = _empty_figure(dark)
        self.figure.add_class("ci-figure")
        super().__init__([tools, self.message, self.figure, _Fit()])
        self.add_class("ci-panel")
        self.timeframe.observe(lambda _: self._refill(), "value")
        self._reset.on_click(lambda _: self._look_at_newest())
        self.figure.layout.on_change(self._moved, "xaxis.range")
        self.add_class("ci-nothing")

    @property
    def data(self) -> charts.Chartable | None:
        """What is in the picture; None when nothing is, or when loading failed."""
        return self._data

    def show(self, instrument_id: int | None) -> None:
        """Show an instrument in the chosen timeframe; also when it is shown already, because its data may be new."""
        self._instrument_id = instrument_id
        self._refill()

    def _refill(self) -> None:
        if self._instrument_id is None:
            self._clear()
            self.message.value = ""
            return
        try:
            # The buttons have checked their value against their options: a page cannot ask for another timeframe.
            self._fill(self._load(self._instrument_id, self.timeframe.value))
        except Exception as error:
            # The edge of the page: whatever went wrong is said in the place of the chart, and never as an old picture.
            _log.warning("chart of instrument %s", self._instrument_id, exc_info=True)
            self._clear()
            self._say(reason(error, "This chart could not be loaded"))

    def _fill(self, data: charts.Chartable) -> None:
        before, n = self._data, len(data.candles)
        same = before is not None and (before.instrument, before.timeframe) == (data.instrument, data.timeframe)
        if before is None or not same:
            self._window = None
        elif self._window is not None:  # newer bars do not move what somebody looks at
            self._window = self._window if n >= len(before.candles) else None
        window = self._window or first_window(data.candles)
        drawn = around(*window, n)
        traces, layout = charts.chart_parts(data, dark=self._dark, drawn=drawn)
        if self._window is not None:
            layout = {name: values for name, values in layout.items() if name not in {"xaxis", "yaxis", "yaxis2"}}
            layout |= view(data.candles, *window)
        self._put(traces, layout)
        self._data, self._drawn = data, drawn
        self.message.value = ""
        self.remove_class("ci-nothing")

    def _clear(self) -> None:
        self._data = None
        self.add_class("ci-nothing")
        self._put(_no_traces(), {"title": {"text": ""}, "shapes": [], "xaxis": {"tickvals": [], "ticktext": []}})

    def _put(self, traces: list[dict[str, Any]], layout: dict[str, Any]) -> None:
        """Replace what the figure shows, in one message; shapes whole, since single ones are not updated (plotly#4318)."""
        self._filling = True
        try:
            with self.figure.batch_update():
                for trace, values in zip(self.figure.data, traces, strict=False):  # no traces: they stay as they are
                    trace.update({key: value for key, value in values.items() if key != "type"}, overwrite=True)
                if "shapes" in layout:
                    self.figure.layout.shapes = layout["shapes"]
                self.figure.update_layout({key: value for key, value in layout.items() if key != "shapes"})
        finally:
            self._filling = False

    def _look_at_newest(self) -> None:
        self._window = None
        if self._data is not None:
            self._look(self._data, *first_window(self._data.candles))

    def _moved(self, _: Any, span: Any) -> None:
        """Fit the prices and the dates to the window that was dragged or zoomed to."""
        if self._filling or self._data is None:
            return
        n = len(self._data.candles)
        try:
            first, last = (float(end) for end in span)
        except (TypeError, ValueError):
            return
        # A page can send anything. Ten times the bars there are is as far as anybody zooms.
        if math.isfinite(first) and math.isfinite(last) and -10 * n - 100 <= first < last <= 11 * n + 100:
            self._window = (first, last)
            self._look(self._data, first, last)

    def _look(self, data: charts.Chartable, first: float, last: float) -> None:
        """Show a window of the chart; bars that were not drawn so far are drawn first."""
        n = len(data.candles)
        axes = view(data.candles, first, last)
        if max(0, int(first)) in self._drawn and min(n - 1, int(last)) in self._drawn:
            self._put([], axes)
            return
        self._drawn = around(first, last, n)
        traces, layout = charts.chart_parts(data, dark=self._dark, drawn=self._drawn)
        self._put(traces, {"shapes": layout["shapes"]} | axes)

    def _say(self, sentence: str) -> None:
        self.message.value = f'<div class="ci-says ci-wrong" role="alert">{escape(sentence)}</div>'


def _no_traces() -> list[dict[str, Any]]:
    nothing: dict[str, Any] = {"x": []}
    prices: dict[str, Any] = nothing | {"open": [], "high": [], "low": [], "close": [], "customdata": []}
    return [prices if name in {"candles", "unfinished"} else nothing | {"y": []} for name in charts.TRACES]


class _Fit(anywidget.AnyWidget):
    """Nothing to see: keeps the figure as large as its panel."""

    _esm = Path(__file__).parent / "fit.js"


class _Figure(go.FigureWidget):  # type: ignore[misc]  # plotly has no types
    """A FigureWidget that a page opened later gets as it is by then; plotly would send what it was made with."""

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        # All of it is asked for; set without notice, since nothing has changed for those who look. A widget that is
        # being made has no layout yet.
        if key is None and hasattr(self, "_layout_obj"):
            self._trait_values["_widget_layout"] = deepcopy(self._layout_obj._props)
            self._trait_values["_widget_data"] = deepcopy(self._data)
        return super().get_state(key, drop_defaults)


def _empty_figure(dark: bool) -> _Figure:
    colours = palette("", dark=dark)
    kinds = {"candles": "candlestick", "unfinished": "candlestick", "volume": "bar"}
    # Built as a figure first and wrapped once: traces added to a widget afterwards may stay blank (plotly#4998).
    figure = _Figure(
        go.Figure(
            [
                {"type": kinds.get(name, "scatter"), "name": name} | ({"yaxis": "y2"} if name == "volume" else {})
                for name in charts.TRACES
            ],
            {"paper_bgcolor": colours.paper, "plot_bgcolor": colours.paper, "template": "none", "autosize": True}
            # The axes are there from the start: plotly makes a missing one and fills it in one message, which its own
            # front end refuses ("a parent attribute simultaneously"), and the chart stays blank.
            | {axis: {"visible": True} for axis in ("xaxis", "yaxis", "yaxis2")}
            | {"showlegend": False},
        )
    )
    figure._config = figure._config | {
        "responsive": True,
        "scrollZoom": True,
        "displayModeBar": False,
        "doubleClick": False,  # "Reset" does it, and knows which bars are the newest
    }
    return figure
