"""The rooms know only what they may: read from the sources, imports inside functions and for types included."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "chartinsight_lib"
WORLD = {"sqlalchemy", "psycopg2", "alembic", "httpx", "requests", "urllib", "urllib3", "http", "socket", "aiohttp",
         "yfinance", "pyarrow", "tornado"}  # fmt: skip
HEAVY = {"pandas", "numpy", "sqlalchemy", "psycopg2", "plotly", "ipywidgets", "papermill", "nbformat", "pyarrow", "talib",
         "alembic", "pydantic", "click", "yaml", "psutil"}  # fmt: skip

TODAY = re.compile(
    r"\b(datetime|date|Timestamp)\.(now|utcnow|today)$|\btime\.(time|time_ns|localtime|gmtime|strftime|ctime)$"
)

# Who else reads the process's environment, and what for. Each builds the environment of a child process.
BUILDS_AN_ENVIRONMENT = {
    "cli.database": "psql gets the user's environment, with the database's address added",
    "backup.tools": "pg_dump, pg_restore and psql get the user's environment, with the address added",
    "running.job_environment": "a job's kernel gets the user's environment, with the loader's address added",
    "dashboard": "Voila gets a few named variables and no others",
    "simulation": "the simulator gets the user's environment, with keys of its own added",
    "db.embedded": "PostgreSQL, run as another user, gets PATH and no others",
}


@cache
def modules() -> dict[str, ast.Module]:
    """{module, as in db.engine: its tree}; a package goes by its own name, the topmost by ""."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        if path.name == "__main__.py":
            continue
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """Every dotted name that a module imports: `from a import b` gives a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> set[str]:
    """The modules of the project that a module imports."""
    prefix = f"{PACKAGE.name}."
    return {theirs.removeprefix(prefix) for theirs in imported(modules()[name]) if theirs.startswith(prefix)} & set(
        modules()
    ) - {name}


def foreign(name: str) -> set[str]:
    """The top names of everything else that a module imports."""
    return {theirs.partition(".")[0] for theirs in imported(modules()[name])} - {PACKAGE.name}


def room(name: str) -> str:
    return name.partition(".")[0]


def of(*rooms: str) -> list[str]:
    found = [name for name in modules() if room(name) in rooms]
    assert {room(name) for name in found} == set(rooms), "a room was renamed"
    return found


def rooms_of(name: str) -> set[str]:
    return {room(theirs) for theirs in own(name)} - {room(name)}


def names_used(tree: ast.Module) -> set[str]:
    """Every dotted name in the code, as in os.environ; and what is imported from a module by name."""
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return (
        used
        | set(imported(tree))
        | {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    )


PURE = {"analysis", "timeframes", "factors", "base_prices", "basis", "ratios", "states"} | {
    room(name) for name in modules() if name.startswith(("chart", "normalise"))
}


@pytest.mark.parametrize("name", of(*PURE))
def test_calculations_and_pictures_know_no_world(name):
    assert rooms_of(name) <= {"domain", "errors"} | PURE
    assert foreign(name) & (WORLD | {"os", "pathlib", "shutil", "subprocess", "io", "time"}) == set()
    assert "open" not in names_used(modules()[name])


@pytest.mark.parametrize("name", of("domain", "errors"))
def test_nouns_and_errors_import_nothing_of_the_project(name):
    assert own(name) == set()


@pytest.mark.parametrize("name", of("clients", "db"))
def test_clients_and_database_do_not_know_one_another(name):
    pure = {"timeframes", "pace"} | {theirs for theirs in PURE if theirs.startswith("normalise")}
    assert rooms_of(name) <= {"domain", "errors", "clock", "settings", "calendars", "processes"} | pure
    if room(name) == "clients":
        assert foreign(name) & {"sqlalchemy", "psycopg2", "alembic"} == set()


@pytest.mark.parametrize("name", of("simulator"))
def test_the_simulator_shares_nothing_with_the_client_but_the_specification(name):
    assert not [
        theirs for theirs in own(name) if theirs.startswith(("clients.kiwoom", "clients._http", "normalise_kiwoom"))
    ]


@pytest.mark.parametrize("name", of("clients", "normalise_kiwoom"))
def test_the_client_shares_nothing_with_the_simulator_but_the_specification(name):
    assert "simulator" not in rooms_of(name)


@pytest.mark.parametrize("name", of("widgets"))
def test_widgets_know_no_provider_and_write_nothing(name):
    assert rooms_of(name) & {"clients", "collect", "normalise", "runner", "studio"} == set()
    assert "db.store" not in own(name)


def test_nothing_imports_the_command_line():
    assert [name for name in modules() if room(name) != "cli" and "cli" in rooms_of(name)] == []


def test_the_rooms_import_one_another_in_one_direction():
    below = {room(name): set() for name in modules()}
    for name in modules():
        below[room(name)] |= rooms_of(name)
    while leaves := {name for name, theirs in below.items() if not theirs}:
        below = {name: theirs - leaves for name, theirs in below.items() if name not in leaves}
    assert below == {}, "these rooms import each other in a circle"


@pytest.mark.parametrize("name", sorted(set(modules()) - {"clock"}))
def test_only_the_clock_knows_what_time_it_is(name):
    assert [used for used in names_used(modules()[name]) if TODAY.search(used)] == []


@pytest.mark.parametrize("name", sorted(set(modules()) - {"settings"} - set(BUILDS_AN_ENVIRONMENT)))
def test_only_the_settings_read_the_environment(name):
    assert names_used(modules()[name]) & {"os.environ", "os.getenv", "os.environb", "getenv"} == set()


@pytest.mark.parametrize("name", BUILDS_AN_ENVIRONMENT)
def test_who_builds_a_childs_environment_reads_no_setting_from_it(name):
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Subscript | ast.Call):
            written = ast.unparse(node)
            assert not (written.startswith("os.environ") and ("CHARTINSIGHT" in written or "DATABASE" in written))
    assert "os.environ" in names_used(modules()[name]), "it reads none any more: take it out of the list"


@pytest.mark.parametrize("name", sorted(name for name in modules() if room(name) != "cli"))
def test_only_the_command_line_prints(name):
    used = names_used(modules()[name])
    assert used & {"print", "click.echo", "sys.stdout.write", "sys.stderr.write"} == set()


def test_importing_the_package_takes_nothing_heavy_along():
    program = "import sys, chartinsight_lib; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & HEAVY == set()
