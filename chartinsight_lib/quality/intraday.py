"""Which five-minute bars are missing. Pure: no database, network, file, clock.

A bar in which nothing was traded does not exist, so a hole alone says nothing; the volume of the day tells. Of a day on
which an instrument traded according to its daily bar:

- without any shorter bar, all of them are missing (one entry of the ledger, at the opening);
- where their volumes fall short of the day's, the holes of that day are missing;
- where they make up the day's volume, nothing was traded in the holes, and they are no entries: of an instrument that
  hardly trades there would be seventy a day;
- holes of most busy instruments of a board at once, with bars before and after, are a halt of that board (circuit breaker).

An instrument is looked at from its first to its last day with such bars: which ones are collected changes every day.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chartinsight_lib.quality.states import KIND, Columns, Mask, State, first_true, last_true

LENGTH = np.timedelta64(5, "m")
CLOSING_AUCTION = np.timedelta64(10, "m")
"""Before the close prices are found in an auction, in which no bar is expected."""
SHARE = 0.9
"""The least share of a day's volume that its shorter bars make up; the rest is traded at fixed prices outside of them."""
BUSY = 0.8
"""Share of the slots of a day in which an instrument must have traded for its holes to say something about its board."""
BUSY_LEAST, HALT_SHARE, HALT_LEAST = 2, 0.5, 3
"""So many busy instruments at least, this share of them, and so many empty slots in a row, are a halt: a circuit breaker stops
trade for twenty minutes, and an auction of ten follows."""


def find(
    bars: Mapping[str, NDArray[Any]],
    daily: Mapping[str, NDArray[Any]],
    ids: NDArray[np.int64],
    days: NDArray[np.datetime64],
    sessions: pd.DataFrame,
    *,
    boards: NDArray[np.int64],
    asked: Columns,
    fresh: int,
    zone: ZoneInfo,
) -> tuple[NDArray[np.int8], pd.DataFrame]:
    """Return the `State` of each instrument on each day, and the bars that are missing, late or halted.

    Args:
        bars, daily: instrument_id, ts (datetime64[us], UTC), volume of the shorter bars and of the final daily ones.
        ids: instruments, ascending.
        days: trading days, ascending (datetime64[D]); sessions: their hours, as `Calendar.sessions` gives them.
        boards: number of each instrument's board; boards are halted one by one.
        asked, fresh: as for `states.classify`.
    Returns:
        (instruments, days); columns instrument_id, ts (UTC), kind, unique in the first two.
    """
    shape = (len(ids), len(days))
    row, column, known = _places(bars, ids, days, zone)
    ts, volume = bars["ts"][known], bars["volume"][known]
    place = row * len(days) + column
    summed = np.bincount(place, weights=volume, minlength=shape[0] * shape[1]).reshape(shape)
    any_bar = np.zeros(shape, dtype=bool)
    any_bar[row, column] = True
    owner, on, dated = _places(daily, ids, days, ZoneInfo("UTC"))
    traded = np.zeros(shape)
    traded[owner, on] = daily["volume"][dated]

    columns = np.arange(len(days))
    expected = (columns >= first_true(any_bar)[:, None]) & (columns <= last_true(any_bar)[:, None]) & (traded > 0)
    short = expected & (summed < SHARE * traded)
    late = (columns > asked[:, None]) | (columns >= fresh)
    opens, closes, after_opens, after_closes = (
        sessions[name].dt.tz_localize(None).to_numpy("datetime64[us]")
        for name in ("opens", "closes", "after_opens", "after_closes")
    )

    torn = short & ~any_bar
    holes = [_holes(torn[:, day], opens[day]) for day in np.flatnonzero(torn.any(axis=0))]
    order = np.argsort(column, kind="stable")
    bounds = np.searchsorted(column[order], np.arange(len(days) + 1))
    for day in np.flatnonzero(any_bar.any(axis=0)):
        mine = order[bounds[day] : bounds[day + 1]]
        regular = np.arange(opens[day], closes[day] - CLOSING_AUCTION, LENGTH)
        starts = np.append(regular, _after_market(after_opens[day], after_closes[day]))
        slot = np.minimum(np.searchsorted(starts, ts[mine], side="right") - 1, len(starts) - 1)
        inside = (slot >= 0) & (ts[mine] - starts[slot] < LENGTH)
        held = np.zeros((len(ids), len(starts)), dtype=bool)
        held[row[mine][inside], slot[inside]] = True
        # After the close few trade, and a hole of all of them says nothing.
        halt = np.zeros_like(held)
        halt[:, : len(regular)] = _halts(held[:, : len(regular)], boards) & any_bar[:, day, None]
        holes += [_holes(halt[:, at], starts[at], KIND[State.HALTED]) for at in np.flatnonzero(halt.any(axis=0))]
        empty = short[:, day, None] & any_bar[:, day, None] & ~held & ~halt
        torn[:, day] |= empty.any(axis=1)
        holes += [_holes(empty[:, at], starts[at]) for at in np.flatnonzero(empty.any(axis=0))]

    state = np.select([~expected, torn & late, torn], [State.UNEXPECTED, State.LATE, State.MISSING], State.PRESENT)
    return state.astype(np.int8), _ledger(holes, ids, days, state, zone)


def _places(
    rows: Mapping[str, NDArray[Any]], ids: NDArray[np.int64], days: NDArray[np.datetime64], zone: ZoneInfo
) -> tuple[NDArray[np.int64], NDArray[np.int64], Mask]:
    """Return row and column of the bars that fall on a trading day, and which those are."""
    local = pd.DatetimeIndex(rows["ts"]).tz_localize("UTC").tz_convert(zone).tz_localize(None)
    day = local.to_numpy("datetime64[us]").astype("datetime64[D]")
    column = np.minimum(np.searchsorted(days, day), len(days) - 1)
    known = days[column] == day
    return np.searchsorted(ids, rows["instrument_id"][known]), column[known], known


def _after_market(opens: np.datetime64, closes: np.datetime64) -> NDArray[np.datetime64]:
    return np.empty(0, dtype="datetime64[us]") if np.isnat(opens) else np.arange(opens, closes, LENGTH)


def _halts(held: Mask, boards: NDArray[np.int64]) -> Mask:
    """Return the slots of a day in which an instrument had no bar because its board stood still: (instruments, slots)."""
    halted = np.zeros(held.shape, dtype=bool)
    busy = held.mean(axis=1) >= BUSY if held.shape[1] else np.zeros(len(held), dtype=bool)
    for board in np.unique(boards[busy]):
        ours = boards == board
        trading = held[ours & busy]
        if len(trading) < BUSY_LEAST:
            continue
        moving = (~trading).sum(axis=0) < max(BUSY_LEAST, HALT_SHARE * len(trading))
        for before, after in pairwise(np.flatnonzero(moving)):
            if after - before > HALT_LEAST:
                halted[ours, before + 1 : after] = ~held[ours, before + 1 : after]
    return halted


def _holes(instruments: Mask, ts: np.datetime64, kind: str = "") -> pd.DataFrame:
    return pd.DataFrame({"row": np.flatnonzero(instruments), "ts": ts, "kind": kind})


def _ledger(
    holes: list[pd.DataFrame], ids: NDArray[np.int64], days: NDArray[np.datetime64], state: NDArray[Any], zone: ZoneInfo
) -> pd.DataFrame:
    """Return the holes as the ledger has them; those without a kind are late or missing as their day is."""
    if not holes:
        return pd.DataFrame(
            {"instrument_id": pd.Series(dtype="int64"), "ts": pd.Series(dtype="datetime64[us, UTC]"),
             "kind": pd.Series(dtype="str")}
        )  # fmt: skip
    all_ = pd.concat(holes, ignore_index=True)
    ts = pd.DatetimeIndex(all_["ts"]).tz_localize("UTC")
    day = ts.tz_convert(zone).tz_localize(None).to_numpy("datetime64[us]").astype("datetime64[D]")
    row = all_["row"].to_numpy()
    of_day = state[row, np.searchsorted(days, day)]
    kind = np.where(
        all_["kind"] == "", np.where(of_day == State.LATE, KIND[State.LATE], KIND[State.MISSING]), all_["kind"]
    )
    return pd.DataFrame({"instrument_id": ids[row], "ts": ts, "kind": pd.Series(kind, dtype="str")})
