"""A market's bars and corporate actions on disk, so that reading all of them is not reading them out of the database.

A file is a copy, and never trusted by itself: its name and its head say which database it was copied from and at which
watermark, and it is read only while the database says the same. The watermark moves in every transaction that changes bars
or factors of the market. A file that is damaged, cut short or of another version of this program is made anew.

    0 magic, with the format's number   8 length of the head   12 CRC-32 of all that follows   16 head (JSON), padding, arrays
"""

import json
import logging
import re
import tempfile
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from chartinsight_lib.db.held import Events, Held, read_market
from chartinsight_lib.domain import NUMBERS
from chartinsight_lib.timeframes import Series

logger = logging.getLogger(__name__)

MAGIC = b"CIBARS\x00\x01"
_ALIGN = 64
_FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
_LEFT_OVER_S = 3600.0

_ARRAYS = {
    "ids": "<i8", "bounds": "<i8", "ts": "<M8[us]", **dict.fromkeys(NUMBERS, "<f8"), "volume": "<i8", "flags": "<i2",
    "event_instrument": "<i8", "event_ex_date": "<M8[D]", "event_price": "<f8", "event_volume": "<f8", "event_kind": "<i1",
}  # fmt: skip
"""What lies in a file, in this order: {name: type}."""


class _Key(NamedTuple):
    """Which state of which market a file holds."""

    database: str
    market: str
    timeframe: str
    version: int

    def path(self, directory: Path) -> Path:
        return directory / f"{self.prefix}{self._database}-{self.version}.bars"

    @property
    def prefix(self) -> str:
        """How the names of all copies of the market begin."""
        return f"{re.sub(r'[^A-Za-z0-9]', '_', self.market)}-{self.timeframe}-"

    @property
    def _database(self) -> str:
        return blake2b(self.database.encode(), digest_size=6).hexdigest()


def held_market(conn: Connection, market: str, timeframe: str, directory: Path) -> Held:
    """Return all that is stored of a market in a collected timeframe: from the copy, where it is current, else from the
    database, and then the copy is made anew."""
    key = _current(conn, market, timeframe)
    if key is not None and (found := _load(key.path(directory), key)):
        return found
    held = read_market(conn, market, timeframe, until=_FOREVER)
    if key is not None and held.version is not None:
        # Its own watermark: between the two statements somebody may have been faster.
        _save(directory, key._replace(version=held.version), held)
    return held


def _current(conn: Connection, market: str, timeframe: str) -> _Key | None:
    """Return the key of the copy that would be current now; None where there cannot be one: the market was never written to,
    or this transaction has written itself, and what it sees may be rolled back."""
    row = conn.execute(
        text("""
            SELECT w.version, i.id, d.oid, has_function_privilege('pg_control_system()', 'EXECUTE') AS may_ask
            FROM   live.watermarks AS w CROSS JOIN ops.identity AS i
            JOIN   pg_database AS d ON d.datname = current_database()
            WHERE  w.market = :market AND w.timeframe = :timeframe AND pg_current_xact_id_if_assigned() IS NULL
        """),
        {"market": market, "timeframe": timeframe},
    ).one_or_none()
    if row is None:
        return None
    # A copy of a whole server keeps the identity; a restored dump gets another system identifier.
    system = conn.execute(text("SELECT system_identifier FROM pg_control_system()")).scalar_one() if row.may_ask else ""
    return _Key(f"{system} {row.oid} {row.id}", market, timeframe, row.version)


def _load(path: Path, key: _Key) -> Held | None:
    """Return what a file holds, or None when it does not exist or is not to be trusted."""
    try:
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("panel cache: %s cannot be read (%s); the database is read instead", path, error)
        return None
    try:
        return _unpacked(content, key)
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("panel cache: %s is not to be trusted (%s); it is made anew", path, error)
        return None


def _unpacked(content: NDArray[np.uint8], key: _Key) -> Held:
    fixed = content[:16].tobytes()
    if len(fixed) < 16 or fixed[:8] != MAGIC:
        raise ValueError("it is no file of this kind and version")
    length, checksum = np.frombuffer(fixed, "<u4", offset=8).tolist()
    if zlib.crc32(content.data[16:]) != checksum:
        raise ValueError("its checksum is wrong")
    head = json.loads(content[16 : 16 + length].tobytes())
    if head["key"] != list(key):
        raise ValueError(f"it is a copy of {head['key']}")
    arrays: dict[str, NDArray[Any]] = {}
    at = 16 + length
    for name, kind in _ARRAYS.items():
        at += -at % _ALIGN
        end = at + int(head["counts"][name]) * np.dtype(kind).itemsize
        arrays[name] = content[at:end].view(kind)
        at = end
    if at != len(content):
        raise ValueError(f"it has {len(content)} bytes, and {at} are expected")
    columns = {name: arrays[name] for name in [*NUMBERS, "flags"]}
    events = Events(*(arrays[f"event_{name}"] for name in Events._fields))
    return Held(arrays["ids"], Series(arrays["ts"], columns, arrays["bounds"]), events, key.version)


def _packed(key: _Key, held: Held) -> tuple[bytes, list[Any]]:
    """Return the first 16 bytes and the portions that follow them."""
    arrays = {"ids": held.ids, "bounds": held.bars.bounds, "ts": held.bars.ts, **held.bars.columns}
    arrays |= {f"event_{name}": column for name, column in held.events._asdict().items()}
    head = json.dumps({"key": list(key), "counts": {name: len(arrays[name]) for name in _ARRAYS}}).encode()
    portions: list[Any] = [head]
    at = 16 + len(head)
    for name, kind in _ARRAYS.items():
        column = np.ascontiguousarray(arrays[name], kind).view(np.uint8)
        portions += [bytes(-at % _ALIGN), column]
        at += -at % _ALIGN + len(column)
    checksum = 0
    for portion in portions:
        checksum = zlib.crc32(portion, checksum)
    return MAGIC + np.array([len(head), checksum], "<u4").tobytes(), portions


def _save(directory: Path, key: _Key, held: Held) -> None:
    """Write a copy, whole or not at all, and remove the ones it supersedes. What cannot be written is logged, and no error."""
    path, fixed, portions = key.path(directory), *_packed(key, held)
    unfinished = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=key.prefix, suffix=".unfinished", delete=False) as file:
            unfinished = Path(file.name)
            file.write(fixed)
            for portion in portions:
                file.write(portion)
        written_at = unfinished.stat().st_mtime
        unfinished.replace(path)
    except OSError as error:
        logger.warning("panel cache: %s cannot be written (%s); each read goes to the database", path, error)
        if unfinished is not None:
            with suppress(OSError):
                unfinished.unlink()
        return
    _remove_old(directory, key, written_at)


def _remove_old(directory: Path, key: _Key, written_at: float) -> None:
    """Remove older copies of the market, copies of it from other databases, and what killed writers left behind."""
    ours = key.path(directory).name.rpartition("-")[0]
    for path in directory.glob(f"{key.prefix}*"):
        before, _, version = path.stem.rpartition("-")
        with suppress(OSError, ValueError):
            if path.suffix == ".unfinished":
                old = path.stat().st_mtime < written_at - _LEFT_OVER_S
            else:
                old = before != ours or int(version) < key.version
            if old:
                path.unlink()
