"""States and sections of an instrument: what the Korean exchange and its brokers call them -> our words. Pure.

A word that is not known here is kept as it came, so that a new kind of warning is seen and not lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

STATES = {
    "관리종목": "administrative",
    "거래정지": "halted",
    "정리매매": "liquidation",
    "증거금100%": "margin_100",
    "단기과열": "overheated",
    "투자주의": "caution",
    "투자주의환기종목": "attention",
    "투자경고": "warning",
    "투자위험": "risk",
}
"""The exchange's word -> ours. Source: ka10099 (`state`, `auditInfo`), KRX's list of issues (소속부). `margin_100` is the
broker's: the whole price has to be there at the order; `attention` is KOSDAQ's, for companies that may become administrative."""

SPAC = "SPAC"
"""The section of companies that exist to merge with another one."""

_NEUTRAL = re.compile(r"정상|담보대출|신용가능|증거금\d{1,2}%|-|0?")
_NO_SECTION = "(소속부없음)"


def states_of(words: Iterable[str]) -> list[str]:
    """Return the states that words tell of, sorted; [] is an instrument like most. A margin below 100 % is no state."""
    stripped = (word.strip() for word in words)
    return sorted({STATES.get(word, word) for word in stripped if not _NEUTRAL.fullmatch(word)})


def section_of(written: str) -> str | None:
    """Return the section of KOSDAQ or KONEX (우량기업부, SPAC, …); None where none is told, as for all of KOSPI."""
    section = written.replace(_NO_SECTION, "").strip()
    if section.upper() == SPAC or section in {"스팩", "기업인수목적회사"}:
        return SPAC
    return section or None
