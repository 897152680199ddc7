"""A canary key and token pass through everything the product does with them, disturbed calls included, and are looked for
afterwards: in what is printed, logged, written into notebooks and tables, and in the list of processes meanwhile."""

import gzip
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from sqlalchemy import text
from watching import Watcher

from chartinsight_lib.db.engine import open_database
from chartinsight_lib.db.layout import find_layout
from chartinsight_lib.db.roles import Role
from chartinsight_lib.settings import PROJECT, Settings
from chartinsight_lib.simulator.clock import SimulatedClock
from chartinsight_lib.simulator.faults import read_faults
from chartinsight_lib.simulator.generated import GeneratedMarket
from chartinsight_lib.simulator.model import KST
from chartinsight_lib.simulator.options import Options
from chartinsight_lib.simulator.server import SimulatorServer

CHARTINSIGHT = Path(sys.executable).with_name("chartinsight")
APPKEY, SECRETKEY = (f"canary{secrets.token_hex(16)}" for _ in range(2))
FAULTS = """
rules:
  - {api_id: ka10081, nth: 3, do: kill_token}
  - {api_id: ka10081, nth: [5, 9], do: html}
  - {api_id: ka10081, nth: 7, do: reset}
  - {api_id: ka10081, code: "CODE", do: {code: 1902}}
  - {api_id: ka10095, do: {code: 8050}}
"""


def issued(server: SimulatorServer) -> set[str]:
    """Every token that the simulator knows."""
    return set(server.service.tokens._tokens)


def files(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                yield path, gzip.decompress(content) if path.suffix == ".gz" else content


def test_no_key_and_no_token_is_found_anywhere_but_in_the_environment_they_came_from(empty_home, tmp_path):
    market = GeneratedMarket(3, instruments=14)
    clock = SimulatedClock(datetime(2026, 10, 13, 11, tzinfo=KST), speed=0, published=tmp_path / "clock")
    faults = FAULTS.replace("CODE", market.listings[0].code)
    options = Options(keys={APPKEY: SECRETKEY}, quota=10_000, reissue="new", faults=read_faults(faults),
                      request_log=tmp_path / "requests.jsonl")  # fmt: skip
    environment = {
        **os.environ, "CHARTINSIGHT_HOME": str(empty_home), "CHARTINSIGHT_RUNS_DIR": str(tmp_path / "runs"),
        "CHARTINSIGHT_KIWOOM_APPKEY": APPKEY, "CHARTINSIGHT_KIWOOM_SECRETKEY": SECRETKEY,
        "CHARTINSIGHT_KIWOOM_RATE": "10000", "CHARTINSIGHT_NOW": f"@{tmp_path / 'clock'}",
        "CHARTINSIGHT_KIWOOM_YEARS": "1",
    }  # fmt: skip
    watcher = Watcher()
    watcher.start()
    tokens: set[str] = set()
    said = b""
    with SimulatorServer(market, clock, options) as server:
        environment["CHARTINSIGHT_KIWOOM_URL"] = server.url
        commands = (
            ["up", "--once", "--source", "kiwoom"],
            ["doctor"],
            ["run", "collect_quotes", "-p", "source=kiwoom"],
        )
        for command in commands:
            process = subprocess.Popen(
                [CHARTINSIGHT, *command], env=environment, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            until = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < until:
                tokens |= issued(server)
                time.sleep(0.01)
            assert process.poll() is not None, "it hangs"
            assert process.stdout is not None
            said += process.stdout.read()
        assert server.requests.count(api_id="au10001") >= 2  # one was killed
    watcher.ended.set()
    watcher.join()

    # It was a real walk: bars are there, and so are refusals that quote the server.
    assert b"collect_daily" in said and b"8050" in said
    assert len(tokens) >= 2
    canaries = [secret.encode() for secret in (APPKEY, SECRETKEY, *tokens)]

    found: list[object] = [("printed", canary) for canary in canaries if canary in said]
    found += [(line, canary) for line in watcher.seen for canary in canaries if canary.decode() in line]
    with open_database(Settings(home=empty_home, _env_file=None)) as database:
        engine = database.engine(Role.OWNER)
        with engine.connect() as conn:
            tables = conn.execute(
                text(
                    "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('live', 'ops', 'radar', 'public')"
                )
            ).all()
            for schema, table in tables:
                for (row,) in conn.execute(text(f'SELECT t::text FROM "{schema}"."{table}" AS t')):
                    found += [(f"{schema}.{table}", canary) for canary in canaries if canary.decode() in row]
            held = conn.execute(text("SELECT count(*) FROM live.candles")).scalar_one()
            sealed = conn.execute(text("SELECT count(*) FROM ops.tokens")).scalar_one()
        engine.dispose()
    # The server's own files too, its journal among them.
    for path, content in files(tmp_path, empty_home, find_layout(empty_home).data):
        found += [(path, canary) for canary in canaries if canary in content]
    assert found == []
    assert held > 1000 and sealed == 1
    assert watcher.looks > 20 and any("papermill_child" in line for line in watcher.seen)
    assert any(path.suffix == ".ipynb" for path, _ in files(tmp_path / "runs"))
