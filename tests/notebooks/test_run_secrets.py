"""No secret is told to a run, and none stays in what it leaves."""

import pytest
from running import only_record

from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import RunFailed
from chartinsight_lib.runner import run_job

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
