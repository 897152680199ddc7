"""The outside world in, raw records out. `open_source` turns what a person writes into a source of whole histories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chartinsight_lib.domain import MARKETS
from chartinsight_lib.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chartinsight_lib.clients.base import Source

__all__ = ["open_source"]

LAST_DAY = ("provisional", "final")
"""What the newest day of a file may be taken for."""


def open_source(
    spec: str,
    *,
    market: str | None = None,
    columns: Mapping[str, str] | None = None,
    last_day: str = "provisional",
) -> Source:
    """Open the source that `spec` names; files are looked for now, and read when they are asked for data.

    Args:
        spec: "sample", or "files:PATH[,PATH…]", where a path is a .csv or .parquet file, a directory or a glob.
        market: code of a market (`domain.MARKETS`); None: from the looks of the codes.
        columns: {our name: the file's name} for columns that are not recognised; for files only.
        last_day: "provisional": the newest day of the files may be unfinished; "final": it is known to be finished.
    Raises:
        ConfigError: the spec, an option or a path is wrong, or the package of the sample is absent.
    """
    if market is not None and market not in MARKETS:
        raise ConfigError(f"source {spec!r}: there is no market {market!r}. Choose one of {', '.join(MARKETS)}.")
    if last_day not in LAST_DAY:
        raise ConfigError(f"source {spec!r}: last_day is {last_day!r}. Choose one of {', '.join(LAST_DAY)}.")
    kind, _, rest = spec.partition(":")
    if kind == "files" and (paths := [path.strip() for path in rest.split(",") if path.strip()]):
        from chartinsight_lib.clients.files import FileSource

        return FileSource(paths, market=market, columns=columns, last_day=last_day)
    if spec == "sample":
        from chartinsight_lib.clients.sample import SampleSource

        if columns or market not in {None, SampleSource.market}:
            raise ConfigError("source 'sample': it has its own market (US) and columns. Leave both options out.")
        return SampleSource()
    raise ConfigError(
        f"source {spec!r} is not known. Possible are 'simulated', 'kiwoom', 'sample', and 'files:PATH[,PATH…]' with .csv or "
        ".parquet files, directories or globs, as in files:data/*.csv."
    )
