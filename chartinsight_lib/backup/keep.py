"""Which backups are kept: the newest of each of the newest days, weeks and months that have one; never the last good one."""

import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from chartinsight_lib.backup.manifest import Backup, listed
from chartinsight_lib.backup.verify import verify
from chartinsight_lib.errors import SchemaError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Keep:
    """How many days, weeks (of ISO) and months, all of UTC, keep their newest backup."""

    daily: int = 7
    weekly: int = 4
    monthly: int = 6


_PERIODS: dict[str, Callable[[datetime], object]] = {
    "daily": lambda at: at.date(),
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
}


def kept(backups: Iterable[Backup], keep: Keep) -> set[Path]:
    """Return which of some backups the rule keeps."""
    newest_first = sorted(backups, key=lambda backup: (backup.manifest.made_at, backup.path.name), reverse=True)
    found: set[Path] = set()
    for name, period in _PERIODS.items():
        newest_of: dict[object, Path] = {}
        for backup in newest_first:
            newest_of.setdefault(period(backup.manifest.made_at), backup.path)
        found.update(list(newest_of.values())[: getattr(keep, name)])
    return found


def discard(folder: Path, made: Backup, keep: Keep) -> list[Path]:
    """Remove from a folder what the rule does not keep, and return it. `made`, which was made just now, stays in any case.

    Backups of other databases are not looked at, and neither is anything else that lies there. Where not one of those that
    would stay is whole, nothing is removed.

    Raises:
        SchemaError: not one of those that would stay is whole.
    """
    ours = [backup for backup in listed(folder) if backup.manifest.database == made.manifest.database]
    staying = kept(ours, keep) | {made.path}
    going = [backup.path for backup in ours if backup.path not in staying]
    if going:
        _check_one([made, *reversed([backup for backup in ours if backup.path in staying])])
    for path in going:
        shutil.rmtree(path)
        logger.info("backup: %s is discarded", path)
    return going


def _check_one(staying: list[Backup]) -> None:
    for backup in staying:
        try:
            verify(backup)
        except SchemaError as error:
            logger.warning("%s", error)
            continue
        return
    raise SchemaError(
        f"backup: none of the {len(staying)} newest is whole, and so none is discarded. Look at the disk."
    )
