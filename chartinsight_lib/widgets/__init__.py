"""ipywidgets components over the radar, the charts and the status: the Trading Radar, the parts it is made of, and the health page.

Importing this loads neither pandas nor plotly; the first use of a name does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chartinsight_lib.widgets.app import TradingRadar
    from chartinsight_lib.widgets.chart_panel import ChartPanel
    from chartinsight_lib.widgets.health_page import HealthPage
    from chartinsight_lib.widgets.scanner import Scanner
    from chartinsight_lib.widgets.status_strip import StatusStrip

__all__ = ["ChartPanel", "HealthPage", "Scanner", "StatusStrip", "TradingRadar"]

_HOMES = {
    "ChartPanel": "chart_panel",
    "HealthPage": "health_page",
    "Scanner": "scanner",
    "StatusStrip": "status_strip",
    "TradingRadar": "app",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
