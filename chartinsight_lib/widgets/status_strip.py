"""The line on top of the page: which market, as of when, from where, how much; and, if need be, what is wrong with it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from html import escape
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import ipywidgets

from chartinsight_lib.errors import ChartInsightError

if TYPE_CHECKING:
    from chartinsight_lib.radar import Status


PAGES = {"Trading Radar": "./", "Health": "health"}
"""The pages that are served together, and their addresses as seen from one another; the cookie of a visitor is that of both."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How the health page stands, in a word (green, amber, red), and which job runs next; "" where none does."""

    state: str
    next_run: str


class StatusStrip(ipywidgets.HTML):  # type: ignore[misc]  # ipywidgets has no types
    """Shows a radar's status; stale or simulated data carry a banner. The link to the health page says how that stands."""

    def __init__(self) -> None:
        super().__init__()
        self._pulse: Pulse | None = None
        self._written: Callable[[Pulse | None], str] = partial(_error_html, "")
        self.add_class("ci-status")

    def show(self, status: "Status") -> None:
        """Show a status."""
        self._write(partial(status_html, status))

    def show_error(self, sentence: str) -> None:
        """Show that the data cannot be read, in place of what was there."""
        self._write(partial(_error_html, sentence))

    def show_pulse(self, pulse: Pulse | None) -> None:
        """Show how the health page stands; None: it is not known."""
        self._pulse = pulse
        self._write(self._written)

    def _write(self, written: Callable[[Pulse | None], str]) -> None:
        self._written = written
        self.value = written(self._pulse)


def _error_html(sentence: str, pulse: Pulse | None = None) -> str:
    return f'<div class="ci-strip">{pages_html("Trading Radar", pulse)}</div>{banner_html("wrong", sentence)}'


def status_html(status: "Status", pulse: Pulse | None = None) -> str:
    """Write a status as HTML; nothing in it is taken for markup."""
    parts = [("", status.market)] if status.market else []
    if status.as_of:
        parts.append(("as of", f"{status.as_of:%Y-%m-%d}"))
    if status.instruments:
        parts.append(("instruments", _of(status.scanned, status.instruments)))
    if status.last_bar and status.last_bar != status.as_of:
        parts.append(("last bar", f"{status.last_bar:%Y-%m-%d}"))
    if status.provisional:
        parts.append(("unfinished bars", f"{status.provisional:,}"))
    if status.complete is not None:
        parts.append(("complete", _completeness(status)))
    if status.collected_at:
        parts.append(("collected", _local(status.collected_at, status.zone)))
    if status.scanned_at:
        parts.append(("scanned", _local(status.scanned_at, status.zone)))
    cells = "".join(f"<span>{f'<i>{label}</i>' if label else ''}{escape(value)}</span>" for label, value in parts)
    source = f'<span class="ci-last"><i>source</i>{escape(status.source)}</span>' if status.source else ""
    banners = banner_html("simulated", "Simulated data: no price on this page is real.") if status.simulated else ""
    if status.stale:
        banners += banner_html("stale", status.stale)
    return f'<div class="ci-strip">{pages_html("Trading Radar", pulse)}{cells}{source}</div>{banners}'


def _of(scanned: int, instruments: int) -> str:
    return f"{instruments:,}" if scanned == instruments else f"{scanned:,} of {instruments:,} scanned"


def _completeness(status: "Status") -> str:
    """Write the share of expected bars that are held or explained; rounded down, so that a single hole is not 100 %."""
    holes = [f"{count:,} {kind}" for kind, count in (("missing", status.missing), ("late", status.late)) if count]
    return f"{math.floor((status.complete or 0) * 10_000) / 100:g} %" + (f" ({', '.join(holes)})" if holes else "")


def _local(moment: datetime, zone: str) -> str:
    return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M %Z}"


def pages_html(here: str, pulse: Pulse | None = None) -> str:
    """Write the name of a page, and links to the others, which are seen where the pages are served together."""
    links = "".join(f'<a class="ci-page" href="{path}">{name}</a>' for name, path in PAGES.items() if name != here)
    badge = f'<span class="ci-state ci-{escape(pulse.state)}">{escape(pulse.state.upper())}</span>' if pulse else ""
    coming = f"<span><i>next</i>{escape(pulse.next_run)}</span>" if pulse and pulse.next_run else ""
    return f'<b class="ci-brand">{escape(here)}</b>{links}{badge}{coming}'


def banner_html(kind: str, sentence: str) -> str:
    """Write a sentence as a banner: wrong, stale or simulated."""
    return f'<div class="ci-banner ci-{kind}" role="status">{sentence_html(sentence)}</div>'


def sentence_html(sentence: str) -> str:
    """Write a sentence; `a command` in it is set as code, after everything was escaped."""
    pieces = escape(sentence).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def reason(error: Exception, what: str) -> str:
    """Write an error for a person. Only our own errors are quoted: others may name hosts, paths or statements."""
    return (
        f"{what}. {error}"
        if isinstance(error, ChartInsightError)
        else f"{what} ({type(error).__name__}). The log says more."
    )
