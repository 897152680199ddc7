"""Several tellings in one file: a column says which is meant, and they may be adjusted differently. Such a file is refused, and
the way to take one of them is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from chartinsight_lib.clients.layouts import short
from chartinsight_lib.clients.tables import holds_text, read_texts
from chartinsight_lib.errors import SchemaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from chartinsight_lib.clients.layouts import Layout
    from chartinsight_lib.clients.tables import Rows

SOURCES = {"source", "datasource", "vendor", "provider", "feed", "출처", "자료원", "timeframe", "interval", "주기"}
"""Headers, as `layouts.HEADERS` writes them, of columns that say whose or which bars a row is of."""
FEW = 50
"""A column that names tellings has at most so many different words."""
REPEATED = 0.01
"""Where this share of a file's rows is of codes and times that occur again, it tells them more than once."""


def refuse_mixture(layout: Layout, rows: Rows) -> None:
    """Raise SchemaError where one code has rows of several sources, or where words of one column tell apart rows that are of the
    same code and time."""
    taken = {*layout.columns.values(), *(at for at, _ in layout.only)}
    others = [at for at in range(len(layout.headers)) if at not in taken]
    number, code = rows.frame["row"].to_numpy(), np.asarray(rows.frame["code"].cat.codes)
    for at in (at for at in others if short(layout.headers[at]) in SOURCES):
        pairs = pd.DataFrame({"code": code, "word": read_texts(layout, at, number)}).drop_duplicates()
        if (many := pairs[pairs["code"].duplicated(keep=False)]).empty:
            continue
        words = many.loc[many["code"] == many["code"].iloc[0], "word"].tolist()
        about = rows.frame["code"].cat.categories[many["code"].iloc[0]] if many["code"].iloc[0] >= 0 else "one code"
        raise _mixed(layout, at, words, f"names several for {about}")
    repeated = _repeated(rows, code)
    if len(repeated) <= max(2, REPEATED * len(code)):  # a contradiction here and there, for the quarantine
        return
    for at in (at for at in others if holds_text(layout, at)):
        words = read_texts(layout, at, number[repeated])
        if words.nunique() > FEW or pd.to_numeric(words, errors="coerce").notna().any():
            continue
        keys = pd.DataFrame({"code": code[repeated], "at": rows.written.local[repeated], "word": words.to_numpy()})
        if not keys.duplicated().any():
            raise _mixed(layout, at, words.unique().tolist(), "tells apart rows of the same code and time")


def _repeated(rows: Rows, code: NDArray[np.int8]) -> NDArray[np.intp]:
    """Return the positions of rows whose code and time occur more than once."""
    stamps = rows.written.local
    keys = np.where(code >= 0, code.astype(np.int64), -1) * 10**12 + stamps.astype(np.int64)
    known = (code >= 0) & ~np.isnat(stamps)
    if np.all(np.diff(keys) > 0) and known.all():
        return np.empty(0, dtype=np.intp)
    return np.flatnonzero(pd.Series(np.where(known, keys, -1 - np.arange(len(keys)))).duplicated(keep=False))


def _mixed(layout: Layout, at: int, words: list[str], does: str) -> SchemaError:
    header, shown = layout.headers[at], ", ".join(words[:4])
    example = f"--only {header}={words[-1]} (in a notebook only={{{header!r}: {words[-1]!r}}})"
    return SchemaError(
        f"{layout.path}: the column {header!r} {does}: {shown}{', …' if len(words) > 4 else ''}. Their prices may be adjusted "
        f"differently. Take one, as in {example}; if they are known to be of one kind, remove the column."
    )
