"""No secret is told to a run, and none stays in what it leaves."""

import nbformat
import pytest
from pydantic import SecretStr
from running import only_record, records, shown

from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError, RunFailed
from chartinsight_lib.runner import check_parameters, run_job

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_no_password_is_in_the_executed_copy_the_log_or_the_record(database, place, loader, notebook):
    job = notebook(
        "from chartinsight_lib.db.engine import open_engine\n"
        "from chartinsight_lib.db.roles import Role\n"
        "from chartinsight_lib.settings import Settings\n"
        "import logging; logging.basicConfig(level=logging.DEBUG)\n"
        "settings = Settings.from_env(); settings",
        "engine = open_engine(settings, Role.LOADER); engine",
        "engine.url",
        "with engine.begin() as conn: conn.exec_driver_sql('SELECT 1 FROM nowhere')",
    )
    with pytest.raises(RunFailed, match="nowhere") as failure:
        run_job(database, place, job, {})
    secret = database.urls[Role.LOADER].password
    assert secret
    assert len(secret) >= 20
    assert secret not in str(failure.value)
    assert secret not in str(only_record(loader))
    kept = [path for path in place.runs.rglob("*") if path.is_file()]
    assert any("nowhere" in path.read_text() for path in kept)
    assert [path for path in kept if secret in path.read_text()] == []


CANARIES = {"dart_key": "canary-dart-0123456789abcdef0123456789abcd", "kiwoom_secretkey": 'canary-"kiwoom"/한글&=+'}


@pytest.fixture
def keyed(place):
    return place.model_copy(update={name: SecretStr(value) for name, value in CANARIES.items()})


@pytest.mark.parametrize("name", ["appkey", "dart_key", "secret", "client_secret", "access_token", "password", "auth"])
def test_a_parameter_called_as_a_secret_is_refused(database, place, loader, notebook, name):
    with pytest.raises(ConfigError, match=rf"made\.ipynb: parameter {name} is called as a secret is"):
        run_job(database, place, notebook("1", parameters=f'{name}: str = ""'), {name: "x"})
    assert records(loader) == []


@pytest.mark.parametrize("name", ["keys_shown", "tokenise", "author", "keyword", "monkey"])
def test_a_parameter_whose_name_only_sounds_so_is_none(notebook, name):
    job = notebook("1", parameters=f'{name}: str = ""')
    check_parameters(job.notebook, {name: "x"})


def test_a_parameter_that_holds_the_value_of_a_secret_is_refused_without_being_said(database, keyed, loader, notebook):
    for setting, value in CANARIES.items():
        for told in ({"code": f"x{value}y"}, {"names": {"key": [value]}}):
            with pytest.raises(ConfigError, match=f"holds the value of CHARTINSIGHT_{setting.upper()}") as refusal:
                run_job(database, keyed, notebook("1"), told)
            assert "canary" not in str(refusal.value)
    password = database.urls[Role.LOADER].password
    with pytest.raises(ConfigError, match="holds the value of the database's password of"):
        run_job(database, keyed, notebook("1"), {"code": password})
    assert records(loader) == []


SHOWS = (
    "import os, sys, logging\nfrom urllib.parse import quote\n"
    "for name in ('DART_KEY', 'KIWOOM_SECRETKEY'):\n"
    "    value = os.environ['CHARTINSIGHT_' + name]\n"
    "    print(value, quote(value, safe=''), repr(value))\n"
    "    os.write(2, value.encode())\n"  # what a library in C would say: it goes to the log
    "os.environ"
)


def left_by(place) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in place.runs.rglob("*") if path.is_file())


def test_a_secret_that_a_notebook_shows_is_taken_out_and_the_record_says_so(database, keyed, loader, notebook):
    run = run_job(database, keyed, notebook(SHOWS), {})
    record = only_record(loader)
    assert record.state == "succeeded"
    assert record.error.startswith(
        "The value of CHARTINSIGHT_DART_KEY and CHARTINSIGHT_KIWOOM_SECRETKEY and the database's"
    )
    assert record.error.endswith("stood in what it left, and was taken out.")
    left = left_by(keyed)
    assert "canary" not in left
    assert database.urls[Role.LOADER].password not in left
    nbformat.validate(nbformat.read(run.output, as_version=4))
    assert "[hidden]" in shown(run.output)[1]


def test_a_secret_in_an_error_is_taken_out_of_message_and_record(database, keyed, loader, notebook):
    fails = SHOWS + "\nraise ValueError(os.environ['CHARTINSIGHT_DART_KEY'])"
    with pytest.raises(RunFailed, match=r"cell 2: ValueError: \[hidden\]") as failure:
        run_job(database, keyed, notebook(fails), {})
    assert "canary" not in str(failure.value)
    assert "canary" not in str(only_record(loader))
    assert "canary" not in left_by(keyed)
