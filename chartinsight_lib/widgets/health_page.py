"""The health page: whether somebody should look, and at what. Thin: what is said comes from `status`, how from `health_html`."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import ipywidgets

from chartinsight_lib.widgets import health_html
from chartinsight_lib.widgets.look import Look
from chartinsight_lib.widgets.status_strip import reason

if TYPE_CHECKING:
    from chartinsight_lib.status import Status

SECTIONS: dict[str, Callable[["Status"], str]] = {
    "head": health_html.head_html,
    "reasons": health_html.reasons_html,
    "facts": health_html.facts_html,
    "jobs": health_html.jobs_html,
    "completeness": health_html.completeness_html,
    "quota": health_html.quota_html,
    "alerts": health_html.alerts_html,
}
_HERE = Path(__file__).parent
_log = logging.getLogger(__name__)


class StatusReader(Protocol):
    """What the page reads; `status.Health` is one."""

    def status(self) -> "Status":
        """Say how the market stands."""
        ...


class HealthPage(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """The page. It reads the status when somebody opens it, and every ten seconds while it is looked at; a section whose words
    are the same is left as it is."""

    def __init__(self, health: StatusReader) -> None:
        self._health = health
        self.sections = {name: ipywidgets.HTML() for name in SECTIONS}
        for name, section in self.sections.items():
            section.add_class("ci-section").add_class(f"ci-of-{name}")
        sheets = (_HERE / name for name in ("style.css", "health.css"))
        style = ipywidgets.HTML(f"<style>{''.join(sheet.read_text(encoding='utf-8') for sheet in sheets)}</style>")
        style.add_class("ci-style")
        self.look = Look(self.refresh)
        super().__init__([style, *self.sections.values(), self.look])
        self.add_class("ci-radar").add_class("ci-health")
        self.refresh()

    def refresh(self) -> None:
        """Read the status, and write the sections that differ."""
        try:
            status = self._health.status()
        except Exception as error:
            # The edge of the page: the next look, seconds away, tries again.
            _log.warning("health", exc_info=True)
            written = dict.fromkeys(SECTIONS, "")
            written["head"] = health_html.broken_html(reason(error, "The status cannot be read"))
        else:
            written = {name: write(status) for name, write in SECTIONS.items()}
        for name, html in written.items():
            self.sections[name].value = html  # the same value is no change, and is not sent
