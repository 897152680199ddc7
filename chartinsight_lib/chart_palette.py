"""The colours of a chart: what rises and falls, by the habit of its market, on light or dark paper. Pure."""

from dataclasses import dataclass

from chartinsight_lib.domain import MARKETS


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one picture."""

    up: str
    down: str
    up_shade: str
    down_shade: str
    up_volume: str
    down_volume: str
    zigzag: str
    paper: str
    grid: str
    text: str
    muted: str


RED, BLUE, GREEN = "213,43,43", "24,96,196", "12,134,88"
DARK_RED, DARK_BLUE, DARK_GREEN = "240,84,84", "84,150,246", "46,184,128"


def palette(market: str, *, dark: bool = False) -> Palette:
    """Return the colours for a market: Korea's red for rising and blue for falling, elsewhere green and red."""
    red, blue, green = (DARK_RED, DARK_BLUE, DARK_GREEN) if dark else (RED, BLUE, GREEN)
    up, down = (red, blue) if market in MARKETS and MARKETS[market].korean else (green, red)
    shade = 0.11 if dark else 0.075
    return Palette(
        up=f"rgb({up})",
        down=f"rgb({down})",
        up_shade=f"rgba({up},{shade})",
        down_shade=f"rgba({down},{shade})",
        up_volume=f"rgba({up},0.5)",
        down_volume=f"rgba({down},0.5)",
        zigzag="#c9a227" if dark else "#8a6d1a",
        paper="#14181f" if dark else "#ffffff",
        grid="#262c36" if dark else "#eceff3",
        text="#dfe4ea" if dark else "#1b222c",
        muted="#8d97a5" if dark else "#677281",
    )
