"""Which state each expected bar is in. Pure: no database, network, file, clock; arrays of the whole market at once.

A daily bar is expected on each trading day from the first to the last on which its instrument was listed and asked for, as
far as that is known. It is in exactly one state, the first of these that holds: present, halted, no-trade, late, missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Columns = NDArray[np.int64]


class State(IntEnum):
    """What became of a bar."""

    UNEXPECTED = 0
    PRESENT = 1
    """A final bar is held."""
    NO_TRADE = 2
    HALTED = 3
    LATE = 4
    """Its day has ended, and it may still come: only a provisional bar is held, or nobody was asked since, or hardly."""
    MISSING = 5
    """A source was asked about it after it had ended, and told nothing."""


KIND = {State.NO_TRADE: "no-trade", State.HALTED: "halted", State.LATE: "late", State.MISSING: "missing"}
"""What a state is called in the ledger (`ops.gaps.kind`)."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of some instruments (rows) on the trading days of a market (columns, ascending); all of (rows, days)."""

    final: Mask
    provisional: Mask
    no_trade: Mask
    halted: Mask

    def known(self) -> Mask:
        """Where there is anything at all."""
        return self.final | self.provisional | self.no_trade | self.halted


def classify(held: Held, first: Columns, last: Columns, *, asked: Columns, fresh: int) -> NDArray[np.int8]:
    """Return the `State` of each instrument on each day: (rows, days).

    Args:
        held: what there is.
        first, last: (rows) columns of the first and the last day on which a bar is expected; none if last < first.
        asked: (rows) column of the last day that had ended when a source was last asked about the instrument.
        fresh: column from which on a bar may still come whoever was asked: the newest day that ended.
    """
    column = np.arange(held.final.shape[1])
    expected = (column >= first[:, None]) & (column <= last[:, None])
    late = held.provisional | (column > asked[:, None]) | (column >= fresh)
    state = np.select(
        [held.final, held.halted, held.no_trade, late],
        [State.PRESENT, State.HALTED, State.NO_TRADE, State.LATE],
        default=State.MISSING,
    )
    return np.where(expected, state, State.UNEXPECTED).astype(np.int8)


def first_true(mask: Mask) -> Columns:
    """Return the column of the first True of each row; the number of columns where there is none."""
    return np.asarray(np.where(mask.any(axis=1), mask.argmax(axis=1), mask.shape[1]), dtype=np.int64)


def last_true(mask: Mask) -> Columns:
    """Return the column of the last True of each row; -1 where there is none."""
    from_the_end = mask[:, ::-1].argmax(axis=1)
    return np.where(mask.any(axis=1), mask.shape[1] - 1 - from_the_end, -1).astype(np.int64)


def begins(held: Held, *, asked_from: Columns, listed: Columns, market_first: int) -> Columns:
    """Return the column of the first day on which each instrument's bar is expected.

    It is the day of its listing, or of what was asked first, whichever is later. What is not known does not count: with
    neither, its history begins with what is held of it; without what was asked, a listing counts if it falls into the
    time of which the market is held, and if anything is held of it. No history begins after its own first bar.

    Args:
        asked_from, listed: (rows) columns of those days; -1: not known.
        market_first: column of the first day of which anything is held of the market.
    """
    own = first_true(held.known())
    told = np.maximum(asked_from, listed)
    unasked = np.where((listed >= market_first) & held.known().any(axis=1), listed, own)
    start = np.where(asked_from >= 0, np.where(listed >= 0, told, own), unasked)
    return np.asarray(np.minimum(own, start))


def counts(states: NDArray[np.int8], axis: int) -> dict[str, NDArray[np.int64]]:
    """Count along an axis: {expected, present, explained, missing, late: (…)}; expected is the sum of the others."""
    found = {
        "present": states == State.PRESENT,
        "explained": (states == State.NO_TRADE) | (states == State.HALTED),
        "missing": states == State.MISSING,
        "late": states == State.LATE,
    }
    totals = {name: mask.sum(axis=axis, dtype=np.int64) for name, mask in found.items()}
    return {"expected": (states != State.UNEXPECTED).sum(axis=axis, dtype=np.int64), **totals}
