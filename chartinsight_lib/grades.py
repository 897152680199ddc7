"""CAN SLIM grades of a market, as they were known on a day: database -> analysis -> frame."""

from __future__ import annotations

from datetime import date

import pandas as pd
from sqlalchemy import Connection

from chartinsight_lib.analysis import canslim
from chartinsight_lib.analysis.canslim import Grade
from chartinsight_lib.analysis.financials import Figure, ShareFactor
from chartinsight_lib.db import financials

COLUMNS = ["letter", "c", "c_pct", "a_pct", "cagr_pct", "roe_pct", "period_end", "known_from", "reasons"]


def grade(conn: Connection, code: str, as_of: date, *, market: str = "KRX") -> Grade:
    """Return one company's grade by what was received by the end of `as_of`, with its reasons; `unknown` where there is
    nothing of it."""
    held = financials.figures_held(conn, market, as_of=as_of, code=code).get(code, [])
    factors = financials.share_factors(conn, market, as_of=as_of, code=code).get(code, [])
    return canslim.grade([Figure(**one) for one in held], as_of, [ShareFactor(*one) for one in factors])


def grades(conn: Connection, market: str, as_of: date) -> pd.DataFrame:
    """Return the grades of all companies of a market that have filed by the end of `as_of`.

    Returns:
        index code, sorted; letter; c, what became of quarterly earnings per share; c_pct, the least of the three years a_pct,
        cagr_pct and roe_pct in percent, NaN where there is none; period_end, the newest period, and known_from, the day on
        which the newest report used was received (`datetime.date`); reasons, sentences joined by a line break.
    """
    factors = financials.share_factors(conn, market, as_of=as_of)
    rows = {}
    for code, held in sorted(financials.figures_held(conn, market, as_of=as_of).items()):
        if not held:
            continue
        found = canslim.grade(
            [Figure(**one) for one in held], as_of, [ShareFactor(*one) for one in factors.get(code, [])]
        )
        yearly = [change.pct for change in found.a]
        least = min((pct for pct in yearly if pct is not None), default=None) if None not in yearly else None
        rows[code] = (
            found.letter, found.c.kind, found.c.pct, least, found.cagr, found.roe, found.period_end, found.known_from,
            "\n".join(found.reasons),
        )  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)
    table.index = table.index.astype("str").rename("code")
    numbers = ["c_pct", "a_pct", "cagr_pct", "roe_pct"]
    return table.astype(dict.fromkeys(numbers, "float64") | dict.fromkeys(["letter", "c", "reasons"], "str"))
