"""The steps of storing a batch, by name, and how something is made to happen before or after one of them.

The product knows nothing of it: a step is a function that is found by its name, and stands in for itself for a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine

from chartinsight_lib import collect, joining, ledger
from chartinsight_lib.db import factors, stage, store

STEPS: dict[str, tuple[Any, str]] = {
    "fence": (ledger, "fence"),
    "ids": (collect, "instrument_ids"),
    "told factors": (factors, "told_factors"),
    "stage": (stage, "stage_candles"),
    "official closes": (stage, "keep_official_closes"),
    "suspects": (joining, "suspects"),
    "final closes": (store, "final_closes"),
    "join": (collect, "join_staged"),
    "leave out": (stage.Stage, "leave_out"),
    "drop factors": (factors, "drop_factors"),
    "restatements": (store, "add_restatements"),
    "upsert": (stage, "upsert_staged"),
    "close gaps": (stage, "close_gaps"),
    "gaps": (store, "upsert_gaps"),
    "drop unfinished": (store, "drop_unfinished"),
    "drop untold": (stage, "drop_untold"),
    "quarantine": (store, "add_quarantine"),
    "forget factors": (factors, "forget_factors"),
    "factors": (factors, "upsert_factors"),
    "watermark": (store, "move_watermark"),
    "cursors": (store, "keep_cursors"),
    "item": (ledger, "record_item"),
    "commit": (None, "do_commit"),
}
"""What happens to a batch, in about this order; factors are upserted as seams by "join", too."""
IN_A_TRANSACTION = tuple(name for name in STEPS if name not in {"fence", "commit"})


@contextmanager
def at(
    engine: Engine, step: str, when: str, number: int, happen: Callable[[], None], *, calls: Counter[str] | None = None
) -> Iterator[None]:
    """Let `happen()` come about `before` or `after` call number `number` of a step, counted from 1."""
    with _replaced(engine, step, _wrapper(step, when, number, happen, calls if calls is not None else Counter())):
        yield


@contextmanager
def counted(engine: Engine, calls: Counter[str]) -> Iterator[None]:
    """Count the calls of every step."""
    names = list(STEPS)

    @contextmanager
    def nested(rest: list[str]) -> Iterator[None]:
        if not rest:
            yield
            return
        with at(engine, rest[0], "never", 0, lambda: None, calls=calls), nested(rest[1:]):
            yield

    with nested(names):
        yield


def _wrapper(
    step: str, when: str, number: int, happen: Callable[[], None], calls: Counter[str]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **options: Any) -> Any:
            calls[step] += 1
            mine = calls[step] == number
            if mine and when == "before":
                happen()
            result = real(*args, **options)
            if mine and when == "after":
                happen()
            return result

        return instead

    return around


@contextmanager
def _replaced(engine: Engine, step: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    place, name = STEPS[step]
    place = engine.dialect if place is None else place
    real, own = getattr(place, name), name in vars(place)
    setattr(place, name, around(real))
    try:
        yield
    finally:
        if own:
            setattr(place, name, real)
        else:
            delattr(place, name)  # its class has it


@contextmanager
def committed(engine: Engine, happen: Callable[[], None]) -> Iterator[None]:
    """Let `happen()` come about after each commit."""

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **options: Any) -> Any:
            result = real(*args, **options)
            happen()
            return result

        return instead

    with _replaced(engine, "commit", around):
        yield
