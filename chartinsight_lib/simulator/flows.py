"""Investors' net buys: invented, also for a replay, whose candles do not say who bought. Pure and deterministic."""

from __future__ import annotations

import numpy as np

from chartinsight_lib.simulator.model import DailyBars, Flows, Ints
from chartinsight_lib.simulator.prices import frozen

INSTITUTIONS = ("fnnc_invt", "insrnc", "invtrt", "etc_fnnc", "bank", "penfnd_etc", "samo_fund", "natn")
"""The kinds of which `orgn` is the sum."""
_SHARES = np.array([0.30, 0.06, 0.16, 0.03, 0.03, 0.22, 0.18, 0.02])


def invented_flows(bars: DailyBars, rng: np.random.Generator) -> Flows:
    """Return net buys in shares: foreigners and institutions tend to buy on rising days, and individuals take the rest.

    ind_invsr + frgnr_invsr + orgn + etc_corp + natfor = 0 on every day; all are 0 where nothing traded.
    """
    count, volume = len(bars.day), bars.volume
    before = np.concatenate((bars.open[:1], bars.close[:-1]))
    rise = np.tanh(20 * np.log(bars.close / before))

    def net(size: float, with_rise: float) -> Ints:
        drawn = np.clip(size * rng.standard_normal(count) + with_rise * rise, -0.4, 0.4)
        return np.asarray(np.rint(drawn * volume), np.int64)

    columns = {
        name: net(0.12 * share**0.5, 0.05 * share) for name, share in zip(INSTITUTIONS, _SHARES.tolist(), strict=True)
    }
    others = {"frgnr_invsr": net(0.08, 0.06), "orgn": _total(columns), "etc_corp": net(0.01, 0.0)}
    others["natfor"] = net(0.003, 0.0)
    columns = {"ind_invsr": -_total(others), **others, **columns}
    return Flows(bars.day, {name: frozen(column) for name, column in columns.items()})


def _total(columns: dict[str, Ints]) -> Ints:
    return np.asarray(sum(columns.values()), np.int64)
