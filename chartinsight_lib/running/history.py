"""The runs that were: which there are, what one of them did, and how two of them differ."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, text

from chartinsight_lib.domain import MARKETS
from chartinsight_lib.errors import ConfigError, NotFound
from chartinsight_lib.ledger import rows_text

SHORT = 8
"""So many digits of a run's id are shown, and stand in the name of its executed copy."""
_TAIL = 20
_MISSING = "(none)"


def listed(
    conn: Connection,
    *,
    job: str | None = None,
    state: str | None = None,
    since: datetime | None = None,
    limit: int = 20,
) -> list[Row[Any]]:
    """Return runs as of `api.runs`, the newest first; `since`, tz-aware, is the earliest start."""
    return list(
        conn.execute(
            text("""
                SELECT * FROM api.runs
                WHERE  (CAST(:job AS text) IS NULL OR job = :job) AND (CAST(:state AS text) IS NULL OR state = :state)
                AND    (CAST(:since AS timestamptz) IS NULL OR started_at >= :since)
                ORDER  BY started_at DESC, run_id LIMIT :limit
            """),
            {"job": job, "state": state, "since": since, "limit": limit},
        )
    )


def find(conn: Connection, prefix: str) -> Row[Any]:
    """Return the run whose id begins so. Raises NotFound; ConfigError when there are several."""
    wanted = prefix.lower().replace("-", "")
    found = conn.execute(
        text("""
            SELECT * FROM api.runs WHERE starts_with(replace(run_id::text, '-', ''), :wanted)
            ORDER  BY started_at DESC LIMIT 2
        """),
        {"wanted": wanted},
    ).all()
    if not wanted or not found:
        raise NotFound(f"run {prefix!r}: there is none whose id begins so. `chartinsight runs list` shows the newest.")
    if len(found) > 1:
        raise ConfigError(
            f"run {prefix!r}: several begin so, as {found[0].run_id} and {found[1].run_id}. Write more of it."
        )
    return found[0]


def items(conn: Connection, run: Row[Any]) -> list[Row[Any]]:
    """Return what a run did to each item, as of `api.run_items`: those that failed first."""
    return list(
        conn.execute(
            text("SELECT * FROM api.run_items WHERE run_id = :run_id ORDER BY state = 'failed' DESC, item"),
            {"run_id": run.run_id},
        )
    )


def when(moment: datetime | None, market: str | None) -> str:
    """Write a moment in the zone of its market, and in UTC."""
    if moment is None:
        return "-"
    universal = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if market not in MARKETS:
        return universal
    return f"{moment.astimezone(MARKETS[market].zone):%Y-%m-%d %H:%M:%S %Z} ({universal})"


def line(run: Row[Any]) -> str:
    """Write a run in one line, without its end."""
    took = f"{(run.finished_at - run.started_at).total_seconds():8.1f} s" if run.finished_at else " " * 10
    said = (run.error or rows_text(run.rows or {})).splitlines()[:1] or [""]
    return f"{run.run_id.hex[:SHORT]}  {run.job:<18} {run.state:<9} {took}  {when(run.started_at, run.market)}  {said[0][:80]}"


def as_json(runs: Sequence[Row[Any]]) -> str:
    """Write runs as a JSON array of objects, a column each; times in ISO 8601, UTC."""
    return json.dumps([dict(run._mapping) for run in runs], default=_plain, ensure_ascii=False, indent=2)


def told(run: Row[Any], done: Sequence[Row[Any]], log: Sequence[str]) -> Iterator[str]:
    """Yield the lines that tell a run: its record, its parameters, its rows, what failed, the end of its log.

    Args:
        done: its items. log: what the library said of it.
    """
    yield f"{run.job}  {run.state}  {run.run_id}"
    for name, value in _facts(run).items():
        yield f"  {name:<12} {value}"
    for name, value in (run.parameters or {}).items():
        yield f"  {'parameter':<12} {name} = {json.dumps(value, ensure_ascii=False)}"
    for name, count in (run.rows or {}).items():
        yield f"  {'rows':<12} {name} {count:,}"
    failed = [item for item in done if item.state == "failed"]
    yield f"  {'items':<12} {len(done):,}, of which {len(failed):,} failed"
    for item in failed[:_TAIL]:
        yield f"    {item.item}: {item.error}"
    own = _lines(run.log_path)
    for name, lines in (("log", log), ("said beside", own)):
        for said in list(lines)[-_TAIL:]:
            yield f"  {name:<12} {said}"


def difference(first: Row[Any], second: Row[Any]) -> Iterator[str]:
    """Yield the lines in which two runs differ: in what they were, what they were told, and what their cells show."""
    for name, (mine, theirs) in _pairs(_compared(first), _compared(second)):
        if mine != theirs:
            yield f"  {name:<24} {mine}  ->  {theirs}"
    mine, theirs = (f"{run.job} {run.run_id.hex[:SHORT]}" for run in (first, second))
    yield from difflib.unified_diff(_shown(first), _shown(second), mine, theirs, lineterm="", n=1)


def _facts(run: Row[Any]) -> dict[str, Any]:
    facts = {
        "started": when(run.started_at, run.market),
        "ended": when(run.finished_at, run.market),
        "slot": when(run.slot, run.market) if run.slot else None,
        "attempt": run.attempt,
        "started by": f"{run.engine} as {run.host}",
        "replay of": run.replay_of,
        "code": run.code_version,
        "packages": run.lock_hash,
        "error": run.error,
        "error class": run.error_class,
        "output": run.output_path,
        "log file": run.log_path,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _compared(run: Row[Any]) -> dict[str, str]:
    flat = {"job": run.job, "state": run.state, "code": run.code_version, "packages": run.lock_hash, "error": run.error}
    for kind in ("parameters", "watermark", "rows"):
        flat |= {f"{kind} {name}": value for name, value in (getattr(run, kind) or {}).items()}
    return {name: _MISSING if value is None else str(value) for name, value in flat.items()}


def _pairs(mine: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, str]]]:
    for name in dict.fromkeys((*mine, *theirs)):
        yield name, (mine.get(name, _MISSING), theirs.get(name, _MISSING))


def _shown(run: Row[Any]) -> list[str]:
    """Return what the code cells of an executed copy show as text, in lines."""
    if run.output_path is None or not Path(run.output_path).is_file():
        return []
    lines: list[str] = []
    for cell in json.loads(Path(run.output_path).read_bytes())["cells"]:
        for output in cell.get("outputs", []):
            said = output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue") or ""
            lines += ("".join(said) if isinstance(said, list) else said).splitlines()
    return lines


def _lines(path: str | None) -> list[str]:
    if path is None or not Path(path).is_file():
        return []
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
