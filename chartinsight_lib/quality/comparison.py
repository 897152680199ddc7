"""Two tellings of the same daily bars, compared. Pure: no database, network, file, clock."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

COMPARISON = ["code", "days", "equal", "verdict", "ratio", "pieces", "volume_differs", "only_ours", "only_theirs",
              "first_difference"]  # fmt: skip
"""Columns of a comparison: counts of days, but for `verdict` (see `compare`), `ratio` (theirs / ours in the newest piece),
`pieces` (of one ratio each) and `first_difference` (date of the first day whose closes differ; missing: none)."""

SAME_RATIO = 2e-3
"""Relative distance within which two days have one ratio, besides what rounding takes."""
STRAYS = 0.02
"""Share of days, and at least one, that may lie apart from pieces of one ratio."""
MOST_PIECES = 12


def compare(ours: pd.DataFrame, theirs: pd.DataFrame, *, unit: float) -> pd.DataFrame:
    """Compare closes and volumes of two sources per instrument, on the days that both have, and count the others.

    Args:
        ours, theirs: columns code, day, close, volume; unique in (code, day). Days outside the span of time that both have
            of an instrument are not counted as lacking.
        unit: smallest step of prices; closes that differ by no more are equal.
    Returns: columns COMPARISON, ascending in code, one row per instrument that both have. `verdict` is
        equal: all closes are;
        basis: theirs is ours times one number;
        events: times one number in each of some pieces: one of the two undoes an event that the other does not;
        errors: equal, or piecewise so, but for some days;
        unrelated: none of these.
    """
    both = ours.merge(theirs, on=["code", "day"], suffixes=("", "_theirs")).sort_values(["code", "day"])
    lacking = _lacking(ours, theirs)
    rows = [
        (code, *_one(frame, unit), *lacking.get(str(code), (0, 0)), _first_difference(frame, unit))
        for code, frame in both.groupby("code", sort=True)
    ]
    order = [*COMPARISON[:7], "only_ours", "only_theirs", "first_difference"]
    return pd.DataFrame(rows, columns=order)


def summary(compared: pd.DataFrame) -> str:
    """Say for a person what a comparison shows: one line per verdict, and the sums."""
    if compared.empty:
        return "the two have no instrument and day in common"
    lines = [
        f"{len(compared):,} instruments, {compared['days'].sum():,} common days, closes equal on "
        f"{compared['equal'].sum():,} ({compared['equal'].sum() / max(compared['days'].sum(), 1):.2%}), volume differs on "
        f"{compared['volume_differs'].sum():,}; {compared['only_ours'].sum():,} days only here, "
        f"{compared['only_theirs'].sum():,} only there"
    ]
    for verdict, frame in compared.groupby("verdict"):
        shown = ", ".join(f"{row.code} ×{row.ratio:.6g}" for row in frame.head(5).itertuples())
        lines.append(f"  {verdict:<10} {len(frame):>6,}  {shown}{' …' if len(frame) > 5 else ''}")
    return "\n".join(lines)


def _one(frame: pd.DataFrame, unit: float) -> tuple[int, int, str, float, int, int]:
    close, other = frame["close"].to_numpy(float), frame["close_theirs"].to_numpy(float)
    days, equal = len(frame), np.abs(close - other) <= unit * (1 + 1e-9)
    differs = int((frame["volume"].to_numpy(float) != frame["volume_theirs"].to_numpy(float)).sum())
    ratio, error = other / close, SAME_RATIO + unit * (1 / close + 1 / other)
    pieces, strays = _pieces(ratio, error)
    newest = float(np.median(ratio[pieces[-1]])) if pieces else float("nan")
    if equal.all():
        return days, days, "equal", 1.0, 1, differs
    allowed = max(1, int(STRAYS * days))
    if len(pieces) > MOST_PIECES or strays > allowed or not pieces:
        verdict = "unrelated"
    elif strays or (len(pieces) == 1 and abs(newest - 1) <= float(error.max())):
        verdict = "errors"
    else:
        verdict = "basis" if len(pieces) == 1 else "events"
    return days, int(equal.sum()), verdict, newest, len(pieces), differs


def _pieces(ratio: NDArray[np.float64], error: NDArray[np.float64]) -> tuple[list[slice], int]:
    """Divide days into runs of one ratio; return those of three days and more, and how many days are in no such run.

    A run goes on after a stray day where the ratio comes back.
    """
    runs: list[tuple[int, int, float]] = []  # start, end, ratio
    for at, one in enumerate(ratio):
        if runs and abs(one / runs[-1][2] - 1) <= error[at]:
            runs[-1] = (runs[-1][0], at + 1, runs[-1][2])
        elif len(runs) > 1 and runs[-1][1] - runs[-1][0] < _RUN and abs(one / runs[-2][2] - 1) <= error[at]:
            runs[-2:] = [(runs[-2][0], at + 1, runs[-2][2])]
        else:
            runs.append((at, at + 1, float(one)))
    whole = [slice(start, end) for start, end, _ in runs if end - start >= min(_RUN, len(ratio))]
    inside = np.zeros(len(ratio), dtype=bool)
    for start, end, level in runs:
        if end - start >= min(_RUN, len(ratio)):
            inside[start:end] = np.abs(ratio[start:end] / level - 1) <= error[start:end]
    return whole, int((~inside).sum())


_RUN = 3


def _lacking(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Return {code: (days only ours, days only theirs)} within the span of time that both have."""
    spans = [frame.groupby("code")["day"].agg(["min", "max"]) for frame in (ours, theirs)]
    common = pd.concat([spans[0], spans[1].add_suffix("_theirs")], axis=1, join="inner")
    if common.empty:
        return {}
    first = common[["min", "min_theirs"]].max(axis=1)
    last = common[["max", "max_theirs"]].min(axis=1)
    keys = ours[["code", "day"]].merge(theirs[["code", "day"]], on=["code", "day"], how="outer", indicator="which")
    keys = keys[keys["code"].isin(common.index)]
    keys = keys[(keys["day"] >= keys["code"].map(first)) & (keys["day"] <= keys["code"].map(last))]
    counted = keys.groupby(["code", "which"], observed=False).size().unstack(fill_value=0)
    return {str(code): (int(row["left_only"]), int(row["right_only"])) for code, row in counted.iterrows()}


def _first_difference(frame: pd.DataFrame, unit: float) -> object:
    apart = frame.loc[(frame["close"] - frame["close_theirs"]).abs() > unit * (1 + 1e-9), "day"]
    return apart.iloc[0] if len(apart) else pd.NaT
