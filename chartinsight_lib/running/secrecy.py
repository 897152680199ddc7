"""The secrets that this process holds, and how they are taken out of what a run leaves behind."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus
from uuid import uuid4

from pydantic import SecretStr

from chartinsight_lib.db.engine import Database
from chartinsight_lib.logs import HIDDEN
from chartinsight_lib.settings import PREFIX, Settings

_SHORTEST = 6  # what is shorter is found everywhere


def secrets_of(settings: Settings, database: Database) -> dict[str, str]:
    """Return {what a person calls it: its value} of the secret settings and of the database's passwords."""
    found = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr) and name != "database_url":
            found[PREFIX + name.upper()] = value.get_secret_value()
    found |= {
        f"the database's password of {role.value}": str(url.password or "") for role, url in database.urls.items()
    }
    return {name: value for name, value in found.items() if len(value) >= _SHORTEST}


def redact(text: str, secrets: Mapping[str, str]) -> tuple[str, set[str]]:
    """Return a text without the values, as they are or as an address, Python or JSON spells them; and whose stood in it."""
    found = set()
    for name, value in secrets.items():
        for spelt in _spellings(value):
            if spelt in text:
                found.add(name)
                text = text.replace(spelt, HIDDEN)
    return text, found


def redact_file(path: Path, secrets: Mapping[str, str]) -> set[str]:
    """Take the values out of a file, which is replaced as a whole; return whose stood in it. One that is not there has none."""
    try:
        written = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return set()
    clean, found = redact(written, secrets)
    if found:
        # Two may do so at the same time. Whoever clears away what the other is writing has replaced the file before.
        part = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
        part.write_text(clean, encoding="utf-8", errors="surrogateescape")
        with suppress(FileNotFoundError):
            part.replace(path)
    return found


def _spellings(value: str) -> Iterable[str]:
    """An address is spelt by `quote`, by SQLAlchemy (which leaves a plus) or as a form's; a notebook is JSON around all that."""
    address = (quote(value, safe=""), quote(value), quote(value, safe=" +"), quote_plus(value))
    shown = (value, repr(value)[1:-1], json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], *address)
    return dict.fromkeys(
        spelt for one in shown for spelt in (one, json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1])
    )
