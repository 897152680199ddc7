"""The Trading Radar: status on top, the table of the market on the left, the chart of the chosen instrument beside it."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import ipywidgets
import pandas as pd

from chartinsight_lib.charts import Chartable
from chartinsight_lib.status.text import next_in_words
from chartinsight_lib.widgets.chart_panel import ChartPanel
from chartinsight_lib.widgets.look import Look
from chartinsight_lib.widgets.scanner import Scanner
from chartinsight_lib.widgets.status_strip import Pulse, StatusStrip, reason

if TYPE_CHECKING:
    from chartinsight_lib.radar import Status
    from chartinsight_lib.widgets.health_page import StatusReader

NO_SCAN = "No scan has been made yet. Run `./studio up`, or `chartinsight scan`."

_log = logging.getLogger(__name__)


class RadarReader(Protocol):
    """What the page reads; `radar.Radar` is one."""

    def status(self) -> "Status":
        """Say what is held and how fresh it is."""
        ...

    def table(self) -> pd.DataFrame:
        """Return one row per instrument."""
        ...

    def chart(self, instrument_id: int, timeframe: str) -> Chartable:
        """Return what a chart is drawn from."""
        ...


class TradingRadar(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """The page. It reads the radar again when somebody opens it, and every ten seconds while it is looked at.

    With a `health`, it also says how that stands: whoever looks at prices sees that nothing collects them any more.
    """

    def __init__(self, radar: RadarReader, *, health: "StatusReader | None" = None, dark: bool = False) -> None:
        self._radar, self._health = radar, health
        self._shown: Status | None = None
        self.status = StatusStrip()
        self.scanner = Scanner()
        self.chart = ChartPanel(radar.chart, dark=dark)
        body = ipywidgets.HBox([self.scanner, self.chart])
        body.add_class("ci-body-row")
        style = ipywidgets.HTML(f"<style>{(Path(__file__).parent / 'style.css').read_text(encoding='utf-8')}</style>")
        style.add_class("ci-style")
        self.look = Look(self.refresh)
        super().__init__([style, self.status, body, self.look])
        self.add_class("ci-radar")
        if dark:
            self.add_class("ci-dark")
        self.scanner.observe(lambda change: self.chart.show(change["new"]), "selected")
        self.refresh()

    def refresh(self) -> None:
        """Read the status, and where it differs from what is shown, the table and the chart."""
        self.status.show_pulse(self._pulse())
        try:
            status = self._radar.status()
            if status == self._shown:
                return
            table = self._radar.table()
        except Exception as error:
            # The edge of the page: the next look, seconds away, tries again.
            _log.warning("radar", exc_info=True)
            self._shown = None
            self.status.show_error(reason(error, "The radar cannot be read"))
            return
        self._shown = status
        self._show(status, table)

    def _pulse(self) -> Pulse | None:
        if self._health is None:
            return None
        try:
            found = self._health.status()
        except Exception:
            # The edge of the page: prices are worth showing without it, and the health page says what is wrong.
            _log.warning("health", exc_info=True)
            return None
        return Pulse(found.state, next_in_words(found))

    def _show(self, status: "Status", table: pd.DataFrame) -> None:
        if table.empty and not status.stale:
            self.status.show_error(NO_SCAN)
        else:
            self.status.show(status)
        before = self.scanner.selected
        self.scanner.show(table)
        if self.scanner.selected == before:  # else the change has shown it
            self.chart.show(before)
