"""A radar as the product serves it: the sample data in a PostgreSQL, the dashboard behind its token."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chartinsight_lib import collect, radar
from chartinsight_lib.clients import open_source
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.dashboard import start_dashboard
from chartinsight_lib.db.embedded import free_port
from chartinsight_lib.db.engine import open_database
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.ledger import notebook_run
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.settings import PROJECT, Settings


@pytest.fixture(scope="session")
def radar_url() -> Iterator[str]:
    """The address, with its token, of a Trading Radar on the five stocks of the sample."""
    home = Path(tempfile.mkdtemp(prefix="chartinsight-test-"))
    home.chmod(0o755)
    clock = fixed_clock(datetime(2013, 3, 4, tzinfo=UTC))
    with open_database(Settings(home=home, _env_file=None)) as database:
        upgrade(database)
        engine = database.engine(Role.LOADER)
        source = open_source("sample")
        with notebook_run(engine, None, job="seed", clock=clock) as run_id:
            sync_instruments(engine, source, run_id=run_id, clock=clock)
            collect.collect_daily(engine, source, run_id=run_id, clock=clock).check()
            radar.scan(engine, market=source.market, as_of=None, clock=clock, run_id=run_id)
        engine.dispose()
        with start_dashboard(
            notebook=PROJECT / "notebooks" / "dashboards" / "trading_radar.ipynb",
            port=free_port(),
            token=secrets.token_urlsafe(24),
            database_url=database.url(Role.READER),
            log=home / "radar.log",
        ) as dashboard:
            dashboard.wait_ready()
            yield dashboard.url
    shutil.rmtree(home, ignore_errors=True)
