"""A notebook's parameters: which it has, of which types, and whether what a run is told fits them.

papermill takes what it is given: a name it does not know with a warning, a name that is code as code, a password into the
executed copy twice. So all of it is checked before anything starts.
"""

import ast
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from chartinsight_lib.errors import ConfigError

NAME = re.compile(r"[a-z_][a-z0-9_]*")  # papermill pastes a parameter's name into the notebook as code
SECRET = re.compile(
    r"(^|_)((app|api|secret|private|access)?key|secret|password|passwd|pwd|\w*token|credentials?|auth)(_|$)"
)
"""Names under which nothing may be told: a parameter stands in the record, in the executed copy and in its metadata."""
NONE: Mapping[str, str] = MappingProxyType({})
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "dict": (dict,),
    "list": (list,),
}
_PARSING = threading.Lock()
"""CPython 3.11 counts the depth of all threads' syntax trees together, and calls it an error when two are made at once."""


def declared(notebook: Path) -> dict[str, str]:
    """Return {parameter: its type as it is written, "None" where none is} of the cell tagged `parameters`, in its order.

    Raises:
        ConfigError: it is no notebook, or that cell is not Python.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
        with _PARSING:
            tree = ast.parse("".join(tagged[0]["source"]) if tagged else "")
    except (OSError, ValueError, KeyError, TypeError, SyntaxError) as error:
        raise ConfigError(
            f"{notebook}: its parameters cannot be read ({error}). Expected a notebook in format 4, and plain Python."
        ) from error
    found: dict[str, str] = {}
    for node in tree.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = ast.unparse(node.annotation)
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = "None"
    return found


def check_parameters(notebook: Path, parameters: Mapping[str, Any], secrets: Mapping[str, str] = NONE) -> None:
    """Raise ConfigError for a parameter the notebook does not have, of another type than it says, not recordable, or secret.

    Args:
        secrets: {name of a setting: its value}; no parameter may hold one of the values.
    """
    known = declared(notebook)
    for name, value in parameters.items():
        if not NAME.fullmatch(name) or name not in known:
            raise ConfigError(
                f"{notebook.name}: it has no parameter {name!r}. Its parameters are {', '.join(known) or 'none'}."
            )
        wanted = known[name]
        allowed = TYPES.get(wanted)
        if allowed is None:
            raise ConfigError(
                f"{notebook.name}: parameter {name} is declared as {wanted!r}; declare it as one of {', '.join(TYPES)}."
            )
        if SECRET.search(name):
            raise ConfigError(
                f"{notebook.name}: parameter {name} is called as a secret is, and what a run is told is kept. Use a setting."
            )
        if not isinstance(value, allowed) or (isinstance(value, bool) and wanted != "bool"):
            raise ConfigError(
                f"{notebook.name}: parameter {name} must be {wanted}, and {value!r} is {type(value).__name__}."
            )
    try:
        written = json.dumps(dict(parameters), allow_nan=False, ensure_ascii=False)
        if rb"\u0000" in written.encode():
            raise ValueError("a NUL character")
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{notebook.name}: a parameter holds what a record cannot ({error}). Use plain text, numbers, true and false."
        ) from error
    for setting, secret in secrets.items():
        if secret and json.dumps(secret, ensure_ascii=False)[1:-1] in written:
            raise ConfigError(
                f"{notebook.name}: a parameter holds the value of {setting}, and what a run is told is kept. Leave it out: "
                "the notebook reads the setting itself."
            )


def parse_parameters(notebook: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """Turn a person's NAME=VALUE texts into the types that the notebook declares. Raises ConfigError."""
    known = declared(notebook)
    values: dict[str, Any] = {}
    for name, written in texts.items():
        wanted = known.get(name, "str")
        try:
            values[name] = written if wanted == "str" else yaml.safe_load(written)
        except yaml.YAMLError as error:
            raise ConfigError(f"{notebook.name}: parameter {name}: {written!r} cannot be read as {wanted}.") from error
    check_parameters(notebook, values)
    return values
