"""The outside world in, raw records out. `open_source` turns what a person writes into a source of whole histories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chartinsight_lib.clock import system_clock
from chartinsight_lib.domain import MARKETS
from chartinsight_lib.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chartinsight_lib.clients.base import Source
    from chartinsight_lib.clock import Clock

__all__ = ["open_source"]

LAST_DAY = ("provisional", "final")
"""What the newest day of a file may be taken for."""
PRICES = ("adjusted", "raw")
"""What the prices of files are: restated after corporate actions, perhaps; or as they were traded, for ever."""


def open_source(
    spec: str,
    *,
    market: str | None = None,
    columns: Mapping[str, str] | None = None,
    last_day: str = "provisional",
    only: Mapping[str, str] | None = None,
    prices: str = "adjusted",
    codes: Sequence[str] = (),
    clock: Clock = system_clock,
    cache: Path | None = None,
) -> Source:
    """Open the source that `spec` names; files are looked for now, and read when they are asked for data.

    Args:
        spec: "sample"; "files:PATH[,PATH…]", where a path is a .csv or .parquet file, a directory or a glob; "yahoo:TICKER[,…]",
            as in yahoo:AAPL,MSFT or yahoo:005930.KS; "krx", all Korean stocks, or "krx:CODE[,…]".
        market: code of a market (`domain.MARKETS`); None: from the looks of the codes.
        columns: {our name: the file's name} for columns that are not recognised; {"date": "@name"}: all rows of a file are of the
            trading day that its name holds. For files only, like the next three.
        last_day: "provisional": the newest day of the files may be unfinished; "final": it is known to be finished.
        only: {column: value}: of the rows of files those alone that have this value in that column, as in {"source": "krx"}.
        prices: "adjusted": prices may be restated after a corporate action; "raw": they are as they were traded, so that a price
            that a later file tells differently is a correction.
        codes: of yahoo and krx these alone; empty: all that the spec names.
        clock: what time it is to a source that is asked over the network.
        cache: a folder where such a source may keep what it has to remember.
    Raises:
        ConfigError: the spec, an option or a path is wrong, or a package that it needs is absent.
    """
    if market is not None and market not in MARKETS:
        raise ConfigError(f"source {spec!r}: there is no market {market!r}. Choose one of {', '.join(MARKETS)}.")
    if last_day not in LAST_DAY:
        raise ConfigError(f"source {spec!r}: last_day is {last_day!r}. Choose one of {', '.join(LAST_DAY)}.")
    if prices not in PRICES:
        raise ConfigError(f"source {spec!r}: prices is {prices!r}. Choose one of {', '.join(PRICES)}.")
    kind, _, rest = spec.partition(":")
    named = [word.strip() for word in rest.split(",") if word.strip()]
    if kind == "files" and named:
        from chartinsight_lib.clients.files import FileSource

        _without(spec, codes=codes)
        return FileSource(
            named, market=market, columns=columns, last_day=last_day, only=only, prices=prices, clock=clock
        )
    source: Source
    if spec == "sample":
        from chartinsight_lib.clients.sample import SampleSource

        _without(spec, codes=codes)
        source = SampleSource()
    elif kind == "yahoo" and named:
        from chartinsight_lib.clients.yahoo import YahooSource

        source = YahooSource(named, codes=codes, clock=clock, cache=cache)
    elif spec == "krx" or (kind == "krx" and named):
        from chartinsight_lib.clients.krx import KrxSource

        source = KrxSource(list(codes) or named, clock=clock)
    else:
        raise _unknown(spec)
    if columns or only or prices != "adjusted" or market not in {None, source.market}:
        raise ConfigError(
            f"source {spec!r}: it has its own market ({source.market}) and columns. Leave out what is for files: market, columns, "
            "only, prices."
        )
    return source


def _without(spec: str, *, codes: Sequence[str]) -> None:
    if codes:
        raise ConfigError(f"source {spec!r}: single codes cannot be asked of it, it gives all that it has.")


def _unknown(spec: str) -> ConfigError:
    return ConfigError(
        f"source {spec!r} is not known. Possible are 'simulated', 'kiwoom', 'krx[:CODE,…]', 'yahoo:TICKER[,…]', 'sample', and "
        "'files:PATH[,PATH…]' with .csv or .parquet files, directories or globs, as in files:data/*.csv."
    )
