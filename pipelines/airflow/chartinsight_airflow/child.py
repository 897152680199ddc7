"""The process that a task starts: what it is called with, what it may know, and what its end means. Airflow is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Protocol
from urllib.parse import quote, urlencode

PROGRAM = "CHARTINSIGHT_BIN"
"""Names the program of the project's environment; otherwise it is looked for on PATH."""

WAIT_S = 300
"""So long a slot that a person wants run again waits for what is in its way. Who asked twice for `again` might run it twice."""

# Of Airflow's environment the child gets these and our own settings. The rest holds Airflow's secrets, or leads Python astray.
_HANDED_ON = {
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}  # fmt: skip


class Login(Protocol):
    """The parts of a connection of Airflow's that are read here."""

    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: str | None
    extra_dejson: dict[str, str]


class End(Enum):
    """What becomes of a task whose program ended."""

    DONE = "done"
    SKIPPED = "skipped"
    ASK_AGAIN = "ask again"
    FAILED = "failed"
    BROKEN = "broken"


_ENDS = {0: End.DONE, 1: End.FAILED, 2: End.FAILED, 3: End.SKIPPED, 75: End.ASK_AGAIN}


_FAILED_BEFORE = "it is failed already"
"""So a slot is refused that has used up its tries, in this task or before: nothing to be passed over in green."""


def end_of(code: int, said: str = "") -> End:
    """Return what an exit code of `chartinsight run`, and what it said last, mean; a signal or an unknown code: BROKEN."""
    end = _ENDS.get(code, End.BROKEN)
    return End.FAILED if end is End.SKIPPED and _FAILED_BEFORE in said else end


def command(
    program: str, job: str, *, slot: datetime | None = None, again: bool = False, as_of: str | None = None
) -> list[str]:
    """Return the command line, in which there is no secret: others on the machine can read it."""
    line = [program, "run", job, "--engine", "airflow"]
    if slot is not None:
        line += ["--slot", slot.isoformat()]
    if again:
        line += ["--again", "--wait", str(WAIT_S)]
    if as_of is not None:
        line += ["--as-of", as_of]
    return line


def environment(own: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the child: what is harmless of `own`, and the secrets."""
    kept = {
        name: value
        for name, value in own.items()
        if name in _HANDED_ON or name.startswith("LC_") or (name.startswith("CHARTINSIGHT_") and name != PROGRAM)
    }
    return kept | secrets


def database_url(found: Login) -> str:
    """Return a connection as DATABASE_URL. Raises ValueError where a part is missing."""
    if not (found.host and found.login and found.schema):
        raise ValueError(
            "a host, a login and the name of the database are needed, as in postgresql://login:…@host/tradesmart"
        )
    user = quote(found.login, safe="")
    if found.password:
        user += f":{quote(found.password, safe='')}"
    port = f":{found.port}" if found.port else ""
    options = f"?{urlencode(found.extra_dejson)}" if found.extra_dejson else ""
    return f"postgresql://{user}@{found.host}{port}/{quote(found.schema, safe='')}{options}"
