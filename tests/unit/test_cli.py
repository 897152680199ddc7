"""The command line: 0 done, 1 something failed, 2 asked wrongly; what is wrong is said in one line, without a trace."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from chartinsight_lib import settings as settings_module
from chartinsight_lib.cli import main
from chartinsight_lib.db.roles import Role
from chartinsight_lib.settings import PROJECT

Told = Callable[..., Result]


@pytest.fixture
def told(empty_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    """Runs a command with a data directory of its own and further settings; the developer's .env is not read."""
    monkeypatch.setattr(settings_module, "PROJECT", tmp_path)
    own = {
        "CHARTINSIGHT_HOME": str(empty_home),
        "CHARTINSIGHT_PROJECT": str(PROJECT),
        "CHARTINSIGHT_RUNS_DIR": str(tmp_path / "runs"),
    }

    def run(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(main, arguments, env=own | environment)

    return run


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that is taken, by a listener that never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refusal(result: Result, code: int) -> str:
    """What a command said when it was refused: one line, our prefix, no trace, and the exit code."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    assert lines[0].startswith("chartinsight: ")
    return lines[0].removeprefix("chartinsight: ")


def nothing_started(home: Path) -> bool:
    return list(home.iterdir()) == []


# --- settings -------------------------------------------------------------------------------------


def test_a_misspelt_setting_is_refused_with_the_one_that_was_meant(told, empty_home):
    said = refusal(told("up", "--once", CHARTINSIGHT_SORCE="sample"), 2)
    assert said == "environment: CHARTINSIGHT_SORCE is no setting. Did you mean CHARTINSIGHT_SOURCE?"
    assert nothing_started(empty_home)


def test_an_ill_typed_setting_is_named_and_its_value_is_not_shown(told, empty_home):
    said = refusal(told("up", "--once", CHARTINSIGHT_RUN_ID="secret-value"), 2)
    assert said.startswith("environment: CHARTINSIGHT_RUN_ID: ")
    assert "secret-value" not in said
    assert nothing_started(empty_home)


def test_a_clock_without_an_offset_is_refused(told):
    said = refusal(told("up", "--once", CHARTINSIGHT_NOW="2013-03-04T13:00"), 2)
    assert "has no time zone" in said


def test_a_data_directory_that_cannot_be_made_names_its_setting(told, tmp_path):
    (tmp_path / "file").write_text("in the way")
    said = refusal(told("up", "--once", CHARTINSIGHT_HOME=str(tmp_path / "file" / "home")), 2)
    assert "Set CHARTINSIGHT_HOME to a folder you may write." in said


# --- sources --------------------------------------------------------------------------------------


def test_an_unknown_source_is_refused_before_anything_starts(told, empty_home):
    said = refusal(told("up", "--once", "--source", "smaple"), 2)
    assert said.startswith("source 'smaple' is not known. Possible are")
    assert nothing_started(empty_home)


def test_a_missing_file_is_refused_before_anything_starts(told, empty_home, tmp_path):
    said = refusal(told("up", "--once", "--source", f"files:{tmp_path}/005930.csv"), 2)
    assert said.startswith(f"{tmp_path}/005930.csv: there is no such file or directory.")
    assert nothing_started(empty_home)


def test_a_path_is_read_from_where_the_person_stands(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refusal(told("up", "--once", "--source", "files:prices/005930.csv"), 2)
    assert said.startswith(f"{tmp_path}/prices/005930.csv: ")


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_corrupt_parquet_file_is_named_before_anything_starts(told, empty_home, tmp_path, damage):
    path = tmp_path / "005930.parquet"
    if damage == "cut":
        pq.write_table(pa.table({"date": ["2024-08-05"] * 1000, "close": list(range(1000))}), path)
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.write_text("date,open,high,low,close,volume\n")
    said = refusal(told("up", "--once", "--source", f"files:{path}"), 1)
    assert said.startswith(f"{path}: ")
    assert "Parquet file" in said
    assert nothing_started(empty_home)


def test_a_csv_file_that_lacks_a_column_is_named_with_the_columns_it_has(told, empty_home, tmp_path):
    path = tmp_path / "005930.csv"
    path.write_text("date,open,high,low,volume\n2024-08-05,1,1,1,1\n")
    said = refusal(told("up", "--once", "--source", f"files:{path}"), 1)
    assert said.startswith(
        f"{path}: no column is recognised as close. Found: ['date', 'open', 'high', 'low', 'volume']."
    )
    assert nothing_started(empty_home)


def test_options_that_the_sample_does_not_take_are_refused(told):
    said = refusal(told("up", "--once", "--source", "sample", "--market", "KRX"), 2)
    assert said.startswith("source 'sample': it has its own market (US) and columns.")


# --- the database ---------------------------------------------------------------------------------


def test_a_database_that_refuses_is_named_without_its_password(told, free_port):
    address = f"postgresql://somebody:s3cret@127.0.0.1:{free_port}/tradesmart"
    said = refusal(told("up", "--once", DATABASE_URL=address), 1)
    assert said.startswith(f"DATABASE_URL: postgresql+psycopg2://somebody:***@127.0.0.1:{free_port}/tradesmart")
    assert "does not answer" in said
    assert "unset DATABASE_URL to use the embedded one." in said
    assert "s3cret" not in said


def test_a_database_that_never_answers_is_given_up(told, silent_port, monkeypatch):
    monkeypatch.setattr("chartinsight_lib.db.engine.CONNECT_TIMEOUT_S", 2)
    said = refusal(told("db", "upgrade", DATABASE_URL=f"postgresql://a:s3cret@127.0.0.1:{silent_port}/tradesmart"), 1)
    assert "does not answer" in said
    assert "s3cret" not in said


def test_a_wrong_password_is_said_without_the_password(told, database):
    address = database.urls[Role.READER].set(drivername="postgresql", password="s3cret")
    said = refusal(told("up", "--once", DATABASE_URL=address.render_as_string(hide_password=False)), 1)
    assert "password authentication failed" in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("tradesmart", "DATABASE_URL: not an address."),
        ("mysql://a:s3cret@127.0.0.1/tradesmart", "DATABASE_URL: 'mysql' is not supported."),
        ("postgresql://a:s3cret@127.0.0.1", "DATABASE_URL: no database is named."),
    ],
)
def test_what_is_no_address_of_a_database_is_refused(told, address, sentence):
    said = refusal(told("up", "--once", DATABASE_URL=address), 2)
    assert said.startswith(sentence)
    assert said.endswith(" Expected postgresql://user:password@host:5432/tradesmart.") or "/tradesmart." in said
    assert "s3cret" not in said


# --- up -------------------------------------------------------------------------------------------


def test_a_port_in_use_is_refused_and_everything_is_stopped_again(told, empty_home, silent_port):
    said = refusal(told("up", "--no-browser", "--port", str(silent_port)), 2)
    assert said.startswith(f"port {silent_port} is taken")
    assert said.endswith("Stop what uses it, or pass --port N.")
    assert not (empty_home / "postgres" / "server.json").exists()


# --- run ------------------------------------------------------------------------------------------


def test_an_unknown_job_is_refused_with_those_that_are_known(told, empty_home):
    said = refusal(told("run", "scan_rader"), 2)
    assert said.startswith("job 'scan_rader': there is none of this name. Known are sync_instruments, initial_load, ")
    assert nothing_started(empty_home)


def test_a_misspelt_parameter_is_refused_before_anything_starts(told, empty_home):
    said = refusal(told("run", "scan_radar", "-p", "asof=2024-08-05"), 2)
    assert said == "30_scan_radar.ipynb: it has no parameter 'asof'. Its parameters are market, as_of, top."
    assert nothing_started(empty_home)


def test_an_ill_typed_parameter_is_refused_before_anything_starts(told, empty_home):
    said = refusal(told("run", "scan_radar", "-p", "top=many"), 2)
    assert said == "30_scan_radar.ipynb: parameter top must be int, and 'many' is str."
    assert nothing_started(empty_home)


def test_a_run_that_fails_says_cell_error_and_where_to_read_it(told, tmp_path):
    said = refusal(told("run", "scan_radar"), 1)
    (executed,) = (tmp_path / "runs" / "scan_radar").glob("*.ipynb")
    assert said.startswith("scan_radar: cell 3: ConfigError: scan: nothing is held of market ''.")
    # A path is copied whole or not at all, so no full stop may touch it.
    assert said.endswith(f"The executed copy: {executed}")


# --- the manners of the command line itself -------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["upp"], ["up", "--prot", "1"], ["run"], ["run", "scan_radar", "-p", "top"], ["up", "--port", "0"]]
)
def test_what_cannot_be_parsed_ends_with_2_and_the_usage(told, arguments):
    result = told(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["up", "--help"], ["run", "--help"], ["db", "--help"], ["--version"]]
)
def test_help_and_version_end_with_0_and_need_no_settings(told, arguments):
    result = told(*arguments, CHARTINSIGHT_SORCE="misspelt")
    assert result.exit_code == 0
    assert result.stderr == ""


def test_the_installed_program_itself_ends_with_its_code_and_one_line(empty_home):
    program = Path(sys.executable).with_name("chartinsight")
    environment: dict[str, Any] = {"PATH": "/usr/bin:/bin", "CHARTINSIGHT_HOME": str(empty_home)}
    done = subprocess.run(
        [program, "run", "nothing"], env=environment, capture_output=True, text=True, check=False, cwd="/"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("chartinsight: job 'nothing': there is none of this name.")
    assert done.stderr.count("\n") == 1


def test_the_command_line_is_read_without_a_database_library():
    program = (
        "import sys; from chartinsight_lib import cli; print('sqlalchemy' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("option", ["--map", "--only"])
def test_a_name_that_is_given_twice_is_asked_wrongly(told, option):
    result = told("up", "--once", "--source", "files:a.csv", option, "close=a", option, "close=b")
    assert result.exit_code == 2
    assert "a name is given twice" in result.stderr
