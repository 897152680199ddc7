"""What a job's processes see of the environment."""

import os
from uuid import UUID

from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.running.notebook_process import RUN_ID
from chartinsight_lib.settings import PREFIX, Settings


def job_environment(database: Database, settings: Settings, run_id: UUID) -> dict[str, str]:
    """Return the process's environment, with the loader's address instead of the login's."""
    return {
        **os.environ,
        **settings.for_children(),
        "DATABASE_URL": database.url(Role.LOADER),
        f"{PREFIX}HOME": str(settings.home),
        RUN_ID: str(run_id),
        "JUPYTER_PREFER_ENV_PATH": "1",  # a kernel of this environment, whatever kernels the user has installed elsewhere
        "PYTHONWARNINGS": "ignore::RuntimeWarning:platformdirs",
    }
