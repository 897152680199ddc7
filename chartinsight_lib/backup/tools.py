"""pg_dump, pg_restore and psql: which ones fit a server, and how they are run. Passwords go by the environment alone."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.layout import client_folders
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError, DatabaseError
from chartinsight_lib.processes import die_with_parent, starting, stop_group


@dataclass(frozen=True, slots=True)
class Tools:
    """The client programs of one PostgreSQL."""

    folder: Path
    major: int

    def path(self, name: str) -> str:
        """Return where a program lies."""
        return str(self.folder / name)


def find_tools(major: int, *, reads: int = 0) -> Tools:
    """Return the oldest client programs that are as new as a server of version `major`, and as the ones of version `reads` that
    made a dump: older ones cannot read it, newer ones say to an older server what it does not understand.

    Raises:
        ConfigError: this machine has none so new.
    """
    found = sorted((Tools(folder, version) for version, folder in client_folders()), key=lambda tools: tools.major)
    for tools in found:
        if tools.major >= max(major, reads):
            return tools
    raise ConfigError(
        f"backup: the programs pg_dump, pg_restore and psql of PostgreSQL {max(major, reads)} or newer are needed, and this "
        f"machine has {', '.join(str(tools.major) for tools in found) or 'none'}. Install that version's client (Debian: "
        f"apt install postgresql-client-{max(major, reads)})."
    )


def environment(database: Database, role: Role) -> dict[str, str]:
    """Return what a program is told that connects as `role`: the user's environment, with the address added."""
    return {**os.environ, **database.psql_environment(role)}


@contextmanager
def running(
    command: Sequence[str | Path], environment: Mapping[str, str], *, stdin: bool = False, stdout: bool = False
) -> Iterator["Program"]:
    """Start a program, with pipes where they are asked for; it is gone at the end of the `with`, and on Linux dies with us."""
    with tempfile.TemporaryFile() as said:
        with starting():
            process = subprocess.Popen(
                [str(part) for part in command],
                env=dict(environment), cwd="/", start_new_session=True, umask=0o077, stderr=said,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
                preexec_fn=die_with_parent(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - prctl only
            )  # fmt: skip
        try:
            yield Program(Path(command[0]).name, process, said)
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what is left in it can go nowhere any more
                        pipe.close()
            stop_group(process)


@dataclass(frozen=True, slots=True)
class Program:
    """A program that runs, and what it said so far."""

    name: str
    process: "subprocess.Popen[bytes]"
    said: IO[bytes]

    def finish(self) -> None:
        """Wait for its end. Raises DatabaseError, with what it said, when that was no success."""
        code = self.process.wait()
        if code:
            raise DatabaseError(f"{self.name} failed ({self.reason(code)}).")

    def reason(self, code: int) -> str:
        """Return what it said, first and last, in a line."""
        self.said.seek(0)
        lines = [line.strip() for line in self.said.read().decode("utf-8", "replace").splitlines() if line.strip()]
        shown = lines if len(lines) <= 3 else [*lines[:2], "…", lines[-1]]
        return " ".join(shown)[:800] or (f"signal {-code}" if code < 0 else f"exit code {code}")


def output_of(command: Sequence[str | Path]) -> str:
    """Run a program that needs no server, and return what it printed. Raises DatabaseError."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise DatabaseError(f"{Path(command[0]).name} failed ({' '.join(done.stderr.split())[:800]}).")
    return done.stdout
