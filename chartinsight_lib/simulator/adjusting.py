"""Adjusted prices as of a day: the KRX base-price chain, in exact arithmetic.

    adjusted(d, b) = raw(d) * product over the events e with d < e <= b of base_price(e) / previous_close(e)

rounded half up to whole won; the volume is divided by the same product, and the traded value stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from chartinsight_lib.simulator.model import Days, Event, Ints
from chartinsight_lib.simulator.world import Rows

_SAFE = 2**62


def products(days: Days, events: Sequence[Event]) -> Iterator[tuple[int, int, Fraction]]:
    """Yield (start, stop, product) for the ranges of `days` whose product is not one; `events` are those up to b."""
    product, stop = Fraction(1), len(days)
    for event in reversed(events):
        start = int(np.searchsorted(days, np.datetime64(event.ex_day)))
        if start < stop and product != 1:
            yield start, stop, product
        product, stop = product * Fraction(event.base_price, event.previous_close), min(start, stop)
    if stop and product != 1:
        yield 0, stop, product


def scaled(values: Ints, product: Fraction) -> Ints:
    """Return values times a product, rounded half up."""
    if not len(values):
        return values
    over, under = product.numerator, product.denominator
    if (int(values.max()) * over + under) * 2 < _SAFE:
        return np.asarray((values * (2 * over) + under) // (2 * under), np.int64)
    # Several events can have terms that no longer fit into 64 bits; a rounded factor would be off by a won.
    return np.array([(2 * value * over + under) // (2 * under) for value in values.tolist()], np.int64)


def adjusted(rows: Rows, events: Sequence[Event]) -> Rows:
    """Return rows on the price basis after `events`."""
    columns = rows._asdict()
    changed: set[str] = set()
    for start, stop, product in products(rows.day, events):
        for name in ("open", "high", "low", "close", "base", "official", "volume"):
            if name not in changed:
                columns[name] = columns[name].copy()
                changed.add(name)
            ratio = 1 / product if name == "volume" else product
            columns[name][start:stop] = scaled(columns[name][start:stop], ratio)
    return Rows(**columns)
