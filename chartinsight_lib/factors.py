"""Raw and adjusted closes -> factors: the corporate actions that stand between the two. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from chartinsight_lib.domain import FACTOR
from chartinsight_lib.errors import SchemaError
from chartinsight_lib.normalise import Floats, read_codes, read_days, read_numbers, require

# Ratios in which shares are split (or joined: the inverse): new shares for old. Smaller stock dividends (21 for 20, 11
# for 10) are left out on purpose: as price steps they cannot be told from a large cash dividend.
SPLITS = [(new, 1) for new in (*range(2, 11), 12, 15, 20, 25, 30, 40, 50, 100)]
SPLITS += [(3, 2), (4, 3), (5, 2), (5, 3), (5, 4), (6, 5)]
SPLIT_ERROR = 1e-4  # relative distance at which a step is taken for such a ratio; rounding comes on top
SMALLEST = 5e-6  # relative; half of the smallest step that counts: adjusted closes carry single-precision noise
TRIFLE = 1e-3  # relative; no action lifts the ratio by less
STEPS_AT_MOST = 0.1  # share of days: more steps are no corporate actions, and the ratio is not piecewise constant


def learn_factors(records: pd.DataFrame) -> pd.DataFrame:
    """Learn corporate actions from pairs of raw and adjusted closes.

    The ratio adjusted / raw is constant between two actions. Closes are rounded by their source, so each day bounds the
    ratio to an interval, and the days between two actions bound it to the intersection of theirs. A step counts where
    two such intersections have nothing in common:

        price_factor = ratio before ex_date / ratio from ex_date on

    It is a split when that is a usual ratio of shares; then the factor is that ratio, and volume_factor its inverse.
    Every other step is called a dividend (cash, spin-off, rights), with volume_factor 1.

    Args:
        records: (rows) the columns code, date, close, adj_close, in any order; rows without both closes are left out.
    Returns:
        the columns `domain.FACTOR`, ascending in (code, ex_date); ex_date is a `datetime.date`; factors are for
        bars before it. A step at a day that a source's error moved for a day or two is no event.
    Raises:
        SchemaError: a column is missing, or a code's ratio steps too often to come from corporate actions.
    """
    require(records, ["code", "date", "close", "adj_close"])
    frame = pd.DataFrame(
        {
            "code": read_codes(records["code"], market="").astype("str"),
            "day": read_days(records["date"]),
            "close": read_numbers(records["close"]),
            "adj_close": read_numbers(records["adj_close"]),
        }
    ).replace([np.inf, -np.inf], np.nan)
    frame = frame.dropna()
    frame = frame[(frame["close"] > 0) & (frame["adj_close"] > 0)]
    frame = frame.drop_duplicates().drop_duplicates(["code", "day"], keep=False).sort_values(["code", "day"])
    found = []
    for code, one in frame.groupby("code"):
        close, adjusted = (one[name].to_numpy(np.float64) for name in ("close", "adj_close"))
        days = one["day"].to_numpy("datetime64[D]").tolist()
        found += [(code, days[at], *step) for at, step in _steps(str(code), close, adjusted)]
    kinds = {"code": "str", "price_factor": "float64", "volume_factor": "float64", "kind": "str"}
    return pd.DataFrame(found, columns=FACTOR).astype(kinds)


def _steps(code: str, close: Floats, adjusted: Floats) -> list[tuple[int, tuple[float, float, str]]]:
    """Return (position of the first day after it, (price factor, volume factor, kind)) of each step of the ratio."""
    runs: list[_Run] = []
    # A raw close is exact as a rule. No action lifts the ratio by a trifle, so where it rises by one, the raw close was
    # rounded as well, and its error has to be allowed for too.
    for raw_error in (0.0, _half_unit(close)):
        low = (adjusted - _half_unit(adjusted)) / (close + raw_error) * (1 - SMALLEST)
        high = (adjusted + _half_unit(adjusted)) / np.maximum(close - raw_error, 1e-12) * (1 + SMALLEST)
        runs = _runs(low, high)
        rises = sum(1 < old.ratio / new.ratio < 1 + TRIFLE for old, new in pairwise(runs))
        if not rises:
            break
    if len(runs) - 1 > 2 + STEPS_AT_MOST * len(close):  # two may fall into a short file
        raise SchemaError(
            f"factors {code}: the ratio of adjusted to raw close changes {len(runs) - 1} times in {len(close)} days; "
            f"corporate actions change it on {STEPS_AT_MOST:.0%} of days at most. One of the columns is damaged or is "
            "something else: import the prices without adj_close."
        )
    return [(new.start, _event(old, new)) for old, new in pairwise(runs)]


@dataclass
class _Run:
    """Days from `start` on whose ratio of adjusted to raw close is one number between low and high."""

    start: int
    low: float
    high: float
    days: int = 1

    @property
    def ratio(self) -> float:
        return (self.low + self.high) / 2

    def holds(self, low: float, high: float) -> bool:
        return max(self.low, low) <= min(self.high, high)

    def add(self, low: float, high: float, days: int = 1) -> None:
        self.low, self.high, self.days = max(self.low, low), min(self.high, high), self.days + days


def _runs(low: Floats, high: Floats) -> list[_Run]:
    """Divide days into as few runs of one ratio as their intervals allow; short errors are passed over."""
    runs: list[_Run] = []
    for at, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        if runs and runs[-1].holds(least, most):
            runs[-1].add(least, most)
            continue
        if len(runs) > 1 and runs[-1].days <= 2 and runs[-2].holds(least, most):
            runs.pop()  # a day or two out of line, and back again: no action
            runs[-1].add(least, most)
            continue
        runs.append(_Run(at, least, most))
    return runs


def _event(old: _Run, new: _Run) -> tuple[float, float, str]:
    factor = old.ratio / new.ratio
    error = (old.high - old.low) / (old.high + old.low) + (new.high - new.low) / (new.high + new.low) + SPLIT_ERROR
    for new_shares, old_shares in SPLITS:
        for one, other in ((new_shares, old_shares), (old_shares, new_shares)):
            if abs(factor * one / other - 1) <= min(error, 0.01):
                return other / one, one / other, "split"
    return factor, 1.0, "dividend"


def _half_unit(prices: Floats) -> float:
    """Return half a unit of the last decimal in use: what rounding can have taken; above six decimals, nothing."""
    for decimals in range(7):
        if np.allclose(prices, np.round(prices, decimals), rtol=1e-12, atol=1e-9):
            return float(0.5 * 10.0**-decimals)
    return 0.0
