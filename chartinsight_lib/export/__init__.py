"""Bars out of the database into files, in our own columns or in those that other programs read, with a manifest beside them.

A file is there whole or not at all; the manifest (`clients.manifest`) says what it holds, and its digest. Raw bars in our own
columns, imported again with `--source files:PATH`, are the same bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Connection, text

from chartinsight_lib.clients.manifest import Manifest
from chartinsight_lib.clock import Clock
from chartinsight_lib.db.bars import candles, panel
from chartinsight_lib.db.held import Basis
from chartinsight_lib.domain import MARKETS, Flag
from chartinsight_lib.errors import ConfigError, NotFound
from chartinsight_lib.export.files import FORMATS, format_of, refuse_taken, write_file, write_folder
from chartinsight_lib.export.tables import OURS, STYLES, ours, simulated, theirs
from chartinsight_lib.timeframes import base_of, length_of

APPLIED: dict[str, tuple[str, ...]] = {"raw": (), "price": ("all but dividend",), "price+dividend": ("all",)}
"""Which corporate actions are undone in prices of a basis."""


@dataclass(frozen=True)
class Exported:
    """What was written: the file or folder, and what its manifest says."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    market: str
    timeframe: str
    basis: Basis
    as_of: date | None
    since: date | None
    until: date | None
    final_only: bool


def export(
    conn: Connection,
    to: Path,
    *,
    market: str,
    clock: Clock,
    codes: Sequence[str] = (),
    timeframe: str = "1d",
    since: date | None = None,
    until: date | None = None,
    as_of: date | None = None,
    basis: Basis | None = None,
    style: str = "chartinsight",
    file_format: str | None = None,
    final_only: bool = False,
    force: bool = False,
) -> Exported:
    """Write the bars of a market, and a manifest beside them.

    Args:
        to: a file (.parquet, .csv) or, for a style that has one table per instrument, a folder, in which each table is named
            after its code. A single instrument may go into a file in every style.
        codes: these instruments alone; empty: all that have bars.
        since, until: first and last trading date of the bars, both included.
        as_of: the last trading date to know of, bars and corporate actions; None: everything held.
        basis: see `db.held.Basis`; None: "raw" in our own columns, "price" in those of others.
        style: one of STYLES. Only our own columns can say that a bar is unfinished; the others have finished bars alone.
        file_format: one of FORMATS; None: as `to` ends, else parquet.
        final_only: leave out bars that may still change.
        force: replace what lies at `to`, if it is a file, or a folder that was exported.
    Raises:
        NotFound: the market or a code has no bars that are wanted.
        ConfigError: a choice is none of those possible, `to` is taken, or a code cannot be the name of a file.
        OSError: nothing can be written there.
    """
    if style not in STYLES:
        raise ConfigError(f"export: style {style!r} is not known. Choose one of {', '.join(STYLES)}.")
    wanted = _Wanted(
        market=market, timeframe=timeframe, basis=basis or ("raw" if style == OURS else "price"), as_of=as_of, since=since,
        until=until, final_only=final_only or style != OURS,
    )  # fmt: skip
    one_file = style == OURS or to.suffix.lower() in {f".{one}" for one in FORMATS}
    file_format = format_of(to, file_format, one_file=one_file)
    refuse_taken(to, one_file=one_file, force=force)
    told = _instruments(conn, market, codes)
    bars = _bars(conn, told, wanted, whole=not codes)
    told = told[told.index.isin(bars["id"].unique())]
    told = told.assign(source=told.index.map(_sources(conn, told.index.tolist(), wanted)))
    if style == OURS:
        tables = {"": ours(bars, told, intraday=length_of(timeframe) is not None)}
    else:
        if one_file and len(told) > 1:
            raise ConfigError(
                f"export: {to.name} is one file, and in the columns of {style} each of {len(told)} instruments has its own. Name a "
                "folder, or one of --codes."
            )
        if style == "yfinance":
            adjusted = _bars(conn, told, replace(wanted, basis="price+dividend"), whole=not codes).set_index(
                ["id", "ts"]
            )
            bars = bars.assign(
                adj_close=adjusted["close"].reindex(pd.MultiIndex.from_frame(bars[["id", "ts"]])).to_numpy()
            )
        tables = {f"{code}.{file_format}": table for code, table in theirs(bars, told, style).items()}
    manifest = Manifest(
        market=market,
        timeframe=timeframe,
        basis=wanted.basis,
        style=style,
        as_of=_iso(as_of),
        since=_iso(since),
        until=_iso(until),
        final_only=wanted.final_only,
        provisional=int(((bars["flags"] & Flag.PROVISIONAL.value) != 0).sum()),
        rows=len(bars),
        columns=[str(name) for name in next(iter(tables.values())).columns],
        sources=sorted({one for names in told["source"] for one in names.split(", ")}),
        simulated=bool(told["source"].map(simulated).any()),
        exported_at=clock().isoformat(timespec="seconds"),
        code_version=version("chartinsight-studio"),
        instruments=_records(told.drop(columns="source")),
        factors=_factors(conn, told.index.tolist(), as_of),
        applied=list(APPLIED[wanted.basis]),
    )
    if one_file:
        ((_, table),) = tables.items()
        return Exported(to, write_file(to, table, manifest, file_format))
    return Exported(to, write_folder(to, tables, manifest, file_format))


def _instruments(conn: Connection, market: str, codes: Sequence[str]) -> pd.DataFrame:
    """Return the instruments asked for: index id; code, name, kind, sector, listed_on, delisted_on, currency."""
    columns = ["id", "code", "name", "kind", "sector", "listed_on", "delisted_on", "currency"]
    rows = conn.execute(
        text("""
            SELECT id, code, name, kind, sector, listed_on, delisted_on, currency
            FROM   live.instruments WHERE market = :market AND (:every OR code = ANY(:codes)) ORDER BY code
        """),
        {"market": market, "every": not codes, "codes": list(codes)},
    ).all()
    found = pd.DataFrame(rows, columns=columns).set_index("id")
    if absent := sorted(set(codes) - set(found["code"])):
        raise NotFound(f"export: {market} has no instrument {', '.join(absent)}. live.instruments lists them.")
    return found


def _bars(conn: Connection, told: pd.DataFrame, wanted: _Wanted, *, whole: bool) -> pd.DataFrame:
    """Return the wanted bars, ascending in (code, ts): id, ts, stamp, the NUMBERS, flags, change_pct, as `export.tables` says.
    `whole`: all instruments of the market are wanted."""
    options: dict[str, Any] = {"as_of": wanted.as_of, "basis": wanted.basis}
    if whole:
        read = panel(conn, wanted.market, timeframe=wanted.timeframe, final_only=False, **options)
        frame = pd.DataFrame(
            {"id": np.repeat(read.ids, np.diff(read.bounds)), "ts": read.ts, **read.columns}, copy=False
        )
    else:
        frames = [
            candles(conn, number, wanted.timeframe, **options).reset_index().assign(id=number) for number in told.index
        ]
        frame = pd.concat(frames, ignore_index=True)
    before = frame["close"].shift().where(frame["id"] == frame["id"].shift())
    frame = frame.assign(change_pct=(frame["close"] / before - 1) * 100)
    frame["stamp"] = _stamps(frame["ts"], wanted)
    day = frame["stamp"].to_numpy("datetime64[D]")
    keep = np.ones(len(frame), dtype=bool)
    if wanted.since:
        keep &= day >= np.datetime64(wanted.since)
    if wanted.until:
        keep &= day <= np.datetime64(wanted.until)
    if wanted.final_only:
        keep &= (frame["flags"] & Flag.PROVISIONAL.value).to_numpy() == 0
    frame = frame[keep]
    if frame.empty:
        raise NotFound(
            f"export: nothing is held of {wanted.market} in {wanted.timeframe} that is wanted. Collect it first, or ask for other "
            "days or instruments."
        )
    place = pd.Series(range(len(told)), index=told.index)  # the order of codes
    return (
        frame.assign(place=frame["id"].map(place)).sort_values(["place", "ts"], ignore_index=True).drop(columns="place")
    )


def _stamps(ts: pd.Series, wanted: _Wanted) -> pd.Series:
    """Return naive times: the trading date, or a shorter bar's start in the market's zone."""
    zone = MARKETS[wanted.market].zone if length_of(wanted.timeframe) is not None else "UTC"
    naive: pd.Series = ts.dt.tz_convert(zone).dt.tz_localize(None)
    return naive


def _sources(conn: Connection, ids: list[int], wanted: _Wanted) -> dict[int, str]:
    """Return where the bars of each instrument came from, joined by commas."""
    rows = conn.execute(
        text("""
            SELECT instrument_id, string_agg(DISTINCT source, ', ' ORDER BY source) AS source
            FROM   live.candles
            WHERE  instrument_id = ANY(:ids) AND timeframe = :timeframe
            GROUP  BY instrument_id
        """),
        {"ids": ids, "timeframe": base_of(wanted.timeframe)},
    )
    return {row.instrument_id: row.source for row in rows}


def _factors(conn: Connection, ids: list[int], as_of: date | None) -> list[dict[str, Any]]:
    """Return the corporate actions that are known of the instruments, ascending in (code, ex_date)."""
    rows = conn.execute(
        text("""
            SELECT code, ex_date, kind, price_factor, volume_factor, source
            FROM   api.factors WHERE instrument_id = ANY(:ids) AND ex_date <= :day ORDER BY code, ex_date
        """),
        {"ids": ids, "day": as_of or date.max},
    )
    return [{**row._mapping, "ex_date": row.ex_date.isoformat()} for row in rows]


def _records(told: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows for JSON: dates as ISO text, None where a value is missing."""
    rows = told.astype(object).where(told.notna(), None).to_dict("records")
    return [
        {str(name): _iso(value) if isinstance(value, date) else value for name, value in row.items()} for row in rows
    ]


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
