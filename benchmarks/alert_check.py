"""What a check of alerts costs while nothing is new: a market of 2,700 instruments, a year of slots, rules of each kind.

    python benchmarks/alert_check.py [CHECKS]

A PostgreSQL of its own is started for it. Printed are the median and the slowest of the checks, and one that sends a notice.
"""

# ruff: noqa: T201 - it prints: that is what it is for
import statistics
import sys
import tempfile
import threading
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text

from chartinsight_lib import alerts
from chartinsight_lib.alerts import Level, rules
from chartinsight_lib.db.engine import Database, open_database
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.settings import Settings

NOW = datetime.fromisoformat("2026-10-13T12:00+09:00")
MARKET = """
INSERT INTO live.instruments (market, code, name, kind, currency, source, run_id)
SELECT 'KRX', lpad(n::text, 6, '0'), 'name', 'stock', 'KRW', 'test', gen_random_uuid() FROM generate_series(1, 2700) AS n;
INSERT INTO live.candles (instrument_id, timeframe, ts, open, high, low, close, volume, flags, source, run_id)
SELECT i.id, '1d', d, 100, 101, 99, 100, 1, 0, 'test', gen_random_uuid()
FROM   live.instruments AS i, generate_series('2026-01-01'::timestamptz, '2026-10-12', '1 day') AS d;
INSERT INTO ops.coverage (instrument_id, timeframe, expected, present, explained, missing, late, checked_at, run_id)
SELECT id, '1d', 285, 285, 0, 0, 0, now(), gen_random_uuid() FROM live.instruments;
INSERT INTO ops.slots (job, market, slot, day, state, run_id, attempts, claimed_by, changed_at)
SELECT job, 'KRX', s, s::date, 'succeeded', gen_random_uuid(), 1, 'test', s
FROM   unnest(ARRAY['collect_daily', 'collect_quotes', 'collect_intraday', 'scan_radar']) AS job,
       generate_series('2025-10-13'::timestamptz, '2026-10-13', '15 minutes') AS s;
INSERT INTO ops.runs (run_id, job, parameters, state, started_at, code_version, host, market)
SELECT run_id, job, '{}', 'succeeded', slot, '0', 'here', 'KRX' FROM ops.slots;
INSERT INTO ops.run_items (run_id, item, market, state, rows, finished_at)
SELECT run_id, 'all', 'KRX', 'done', '{}', slot FROM ops.slots WHERE job <> 'scan_radar';
INSERT INTO radar.snapshot (as_of, timeframe, instrument_id, day, close, volume, trend, trend_bars, trend_long, bars_52w, bars,
                            source, scanned_at, run_id)
SELECT d, '1d', i.id, d, 100, 1, 0, 1, 0, 1, 1, 'test', now(), gen_random_uuid()
FROM   live.instruments AS i, unnest(ARRAY['2026-10-08', '2026-10-12']::date[]) AS d;
"""


def main() -> None:
    """Fill, check again and again, print."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory(prefix="chartinsight-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        settings = Settings(home=home, now=NOW.isoformat(), _env_file=None)
        with open_database(settings) as database:
            upgrade(database)
            engine = database.engine(Role.OWNER)
            with engine.begin() as conn:
                conn.exec_driver_sql(MARKET)
                for n in range(10):
                    rules.add(conn, "price", f"price{n}", market="KRX", code=f"{n + 1:06}", level=Level.INFO, now=NOW,
                              parameters={"level": 120, "direction": "above"})  # fmt: skip
                rules.add(
                    conn, "trend", "trend", market="KRX", code=None, parameters={"to": "up"}, level=Level.INFO, now=NOW
                )
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
                conn.exec_driver_sql("VACUUM ANALYZE")
            took = [_seconds(database, settings) for _ in range(times + 1)][1:]
            print(f"{times} checks: median {statistics.median(took) * 1000:.1f} ms, slowest {max(took) * 1000:.1f} ms")
            with engine.begin() as conn:
                conn.execute(text("UPDATE ops.slots SET state = 'failed' WHERE job = 'scan_radar'"))
                conn.execute(text("DELETE FROM ops.runs WHERE job = 'scan_radar'"))
            server = ThreadingHTTPServer(("127.0.0.1", 0), _Webhook)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            told = SecretStr(f"json://127.0.0.1:{server.server_address[1]}")
            print(f"one that sends: {_seconds(database, settings.model_copy(update={'alert_urls': told})):.2f} s")
            server.shutdown()
            engine.dispose()


def _seconds(database: Database, settings: Settings) -> float:
    began = time.perf_counter()
    alerts.check(database, settings, "KRX", lambda _: None)
    return time.perf_counter() - began


class _Webhook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Take it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    main()
