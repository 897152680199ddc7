"""`up`: the whole road on one machine, from the source to the dashboard, and everything it started stopped again."""

import fcntl
import html
import os
import secrets
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import InterfaceError, OperationalError

from chartinsight_lib import ledger, logs
from chartinsight_lib.clients.base import Source
from chartinsight_lib.db import query
from chartinsight_lib.db.embedded import write_private
from chartinsight_lib.db.engine import Database, open_database
from chartinsight_lib.db.migrate import check_schema, upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.domain import MARKETS
from chartinsight_lib.errors import ChartInsightError, ConfigError, DatabaseError, RunFailed
from chartinsight_lib.jobs import read_jobs
from chartinsight_lib.processes import is_starting
from chartinsight_lib.runner import give_up_lost, run_job
from chartinsight_lib.scheduler import Scheduler
from chartinsight_lib.settings import PREFIX, Settings
from chartinsight_lib.simulation import SPEED, simulated_market
from chartinsight_lib.sources import LIVE, credentials, live_market, open_source

if TYPE_CHECKING:
    from chartinsight_lib.dashboard import Dashboard

RADAR = Path("notebooks/dashboards/trading_radar.ipynb")
PAGES = {"health": Path("notebooks/dashboards/health.ipynb")}
DEFAULT_PORT = 8866
AGAIN_S = 0.5
"""A signal that was not obeyed is sent again after so many seconds."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What `up` may be told."""

    source: str
    market: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    last_day: str = "provisional"
    only: Mapping[str, str] = field(default_factory=dict)
    prices: str = "adjusted"
    port: int | None = None
    once: bool = False

    @property
    def live(self) -> bool:
        """Whether the source knows the running day."""
        return self.source in LIVE

    def invents(self, settings: Settings) -> bool:
        """Whether a simulator has to be started for the source: it is `simulated`, and the settings name no simulator."""
        from chartinsight_lib.clients.kiwoom import is_kiwoom

        return self.source == "simulated" and is_kiwoom(settings.kiwoom_url)

    def market_code(self, settings: Settings) -> str:
        """Return the market of the source, which is looked into. Raises ConfigError or SchemaError for a wrong source."""
        if self.live:
            credentials(settings)  # a missing key is said before anything starts
            return live_market(self.source, settings)
        source = self._opened(settings)
        if "1d" not in _timeframes(source):
            raise ConfigError(
                f"source {self.source!r}: it holds bars of five minutes alone, and the radar is made of daily ones. Name files of "
                "both; or collect these by themselves: `chartinsight run sync_instruments -p source=…`, then `collect_intraday`."
            )
        return source.market

    def collects_shorter(self, settings: Settings) -> bool:
        """Return whether the source has bars of five minutes, too."""
        return self.live or "5m" in _timeframes(self._opened(settings))

    def _opened(self, settings: Settings) -> Source:
        return open_source(
            self.source, settings, market=self.market, columns=self.columns or None, last_day=self.last_day,
            only=self.only or None, prices=self.prices,
        )  # fmt: skip


def _timeframes(source: Source) -> set[str]:
    """Return which bars a source holds that is no live one: files say so, all others have daily bars."""
    found: set[str] = getattr(source, "timeframes", {"1d"})
    return found


@dataclass(frozen=True, slots=True)
class Standing:
    """What a person may open while `up` waits: the dashboard's address with its token, and the command that reads data."""

    url: str
    psql: str


def run_pipeline(database: Database, settings: Settings, options: Options, market: str, say: Say) -> list[str]:
    """Run all jobs in their order on a source of `market`, but for those on request; return the failures after which the road
    could still go on.

    Raises:
        ConfigError: a parameter is wrong.
        RunFailed: a job failed and left nothing to go on with.
    """
    told: dict[str, Any] = {
        "source": options.source, "market": market, "columns": dict(options.columns), "only": dict(options.only)
    }  # fmt: skip
    own = {"collect_intraday"} if options.collects_shorter(settings) else set()
    failures: list[str] = []
    for job in read_jobs(settings.project).values():
        if job.on_request or (job.live and not options.live and job.name not in own):
            continue
        if options.live and job.live:
            parameters: dict[str, Any] = {"source": options.source}
        elif job.live:
            parameters = told | {"last_day": options.last_day}
        elif job.name == "scan_radar":
            # A file or the sample is history by nature: its newest day is named, so that the scan does not call it stale.
            parameters = {"market": market, "as_of": newest_day(database, market)}
        else:
            parameters = told | {"prices": options.prices}
            parameters |= {"last_day": options.last_day} if job.name in {"collect_daily", "repair_gaps"} else {}
        started = time.monotonic()
        try:
            run = run_job(database, settings, job, parameters, engine="up")
        except RunFailed as error:
            if job.name == "scan_radar" or not newest_day(database, market):
                raise
            failures.append(str(error))
            say(f"  {job.name:<17} FAILED, going on with what is stored: {error}")
            continue
        say(f"  {job.name:<17} {time.monotonic() - started:4.1f} s  {ledger.rows_text(run.rows)}")
    return failures


def newest_day(database: Database, market: str) -> str:
    """Return the date of the newest final bar held of a market, as text; "" where there is none."""
    with database.transaction(Role.READER) as conn:
        day = query.last_final_day(conn, market)
    return day.isoformat() if day else ""


def _scanned(database: Database, market: str) -> str:
    with database.transaction(Role.READER) as conn:
        day = query.health(conn, market)["as_of"]
    return day.isoformat() if day else ""


@contextmanager
def prepared(settings: Settings, say: Say, *, migrate: bool = False, writes: bool = True) -> Iterator[Database]:
    """Give a database that is up. The embedded one is migrated, that of DATABASE_URL only on `migrate`, because the login of
    a job may not; the records of dead runs are closed unless `writes` is off, because the login of a reader may not. What the
    library logs from here on is in the log of the data directory."""
    logs.configure(settings)
    started = time.monotonic()
    with _answering(), open_database(settings) as database:
        version = upgrade(database) if migrate or database.embedded else check_schema(database)
        lost = len(give_up_lost(database, settings)) if writes else 0
        where = f"embedded, port {database.embedded.port}" if database.embedded else "DATABASE_URL"
        say(f"  {'database':<17} {time.monotonic() - started:4.1f} s  tradesmart ({where}), schema {version}")
        if lost:
            say(f"  {'':<17}         {lost} earlier runs were cut off; their records say so now")
        yield database


@contextmanager
def _answering() -> Iterator[None]:
    """A server may go away at any moment, which is no fault of ours: it is said as of one that did not answer at first."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        cause = str(error.orig).strip().partition("\n")[0]
        raise DatabaseError(f"database: it went away: {cause}. Start it, or wait for it, and try again.") from error


@contextmanager
def source_settings(settings: Settings, options: Options, say: Say) -> Iterator[Settings]:
    """Give the settings under which a source is collected from: for `simulated`, a simulator is started and named, unless
    the settings name one. Raises ConfigError."""
    if not options.invents(settings):
        yield settings
        return
    if settings.now is not None:
        raise ConfigError(
            "simulated market: it has a clock of its own, and CHARTINSIGHT_NOW fixes another. Unset that, or choose --source."
        )
    with simulated_market(settings) as simulated:
        now = simulated.clock().astimezone(MARKETS["SIM"].zone)
        say(
            f"  {'simulator':<17}         a made-up market, not real; it is {now:%Y-%m-%d %H:%M} there, time x{SPEED:g}"
        )
        yield simulated


def serve_radar(
    database: Database, settings: Settings, *, port: int, market: str | None, host: str = "127.0.0.1"
) -> "Dashboard":
    """Start the Trading Radar on what is stored of `market`, and the health page beside it; they read as `chartinsight_reader`.
    Raises ConfigError."""
    from chartinsight_lib.dashboard import start_dashboard

    token = settings.radar_token.get_secret_value() if settings.radar_token else secrets.token_urlsafe(24)
    places = {name: getattr(settings, name) for name in ("home", "project", "runs_dir", "backup_dir")}
    told = {"now": settings.now, "market": market, "source": settings.source, **places}
    return start_dashboard(
        notebook=settings.project / RADAR,
        pages={name: settings.project / path for name, path in PAGES.items()},
        port=port,
        token=token,
        database_url=database.url(Role.READER),
        log=settings.home / "radar.log",
        extra_env={PREFIX + name.upper(): str(value) for name, value in told.items() if value},
        host=host,
    )


def up(settings: Settings, options: Options, say: Say, ready: Callable[[Standing, str], None]) -> list[str]:
    """Run the pipeline and, with `once`, return the failures gone past; else serve the radar until a signal comes.

    Raises:
        ConfigError: wrong settings, a taken port, or `up` is running already.
        ChartInsightError: the radar's server ended by itself.
        DatabaseError, RunFailed: as their names say.
    """
    from chartinsight_lib.dashboard import check_port

    settings.clock()  # a wrong one is said before anything starts, like a wrong source
    if not options.invents(settings):
        options.market_code(settings)
    with ExitStack() as stack:
        stack.enter_context(_alone(settings.home))
        stack.enter_context(interruptible())
        settings = stack.enter_context(source_settings(settings, options, say))
        market = options.market_code(settings)
        port = options.port if options.port is not None else DEFAULT_PORT
        if not options.once:
            check_port("127.0.0.1", port)  # before the database, so that it is said at once
        database = stack.enter_context(prepared(settings, say, migrate=True))
        if options.once:
            return run_pipeline(database, settings, options, market, say)
        dashboard = stack.enter_context(serve_radar(database, settings, port=port, market=market))
        standing = Standing(dashboard.url, read_command(database))
        shown = _scanned(database, market)
        if shown:  # what an earlier run stored can be looked at while the jobs run
            dashboard.wait_ready()
            ready(standing, f"It shows the scan of {shown} while the jobs run.")
        scheduler = Scheduler(database, settings, options.source, market, say, engine="up") if options.live else None
        if scheduler is not None:
            stack.enter_context(scheduler)
            failures = scheduler.catch_up(dashboard.ended_within, first=not shown)
        else:
            failures = run_pipeline(database, settings, options, market, say)
        dashboard.wait_ready()
        done = "The jobs are done; reload the page to see what they changed." if shown else ""
        ready(standing, "A job failed; its message stands above." if failures else done)
        if scheduler is not None:
            scheduler.run(dashboard.ended_within)
        dashboard.wait()
        raise ChartInsightError(
            f"radar: its server ended by itself. See {settings.home / 'radar.log'}, and start again."
        )


def read_command(database: Database) -> str:
    """Return what a person types to read the data. The address of DATABASE_URL holds a password of somebody's, and is not
    shown; that of the embedded reader is ours to show."""
    return f"psql '{database.url(Role.READER)}'" if database.embedded else "./studio db shell"


def open_in_browser(url: str, home: Path) -> None:
    """Open an address that holds a token: by a private file, because a command line is visible to everybody."""
    page = home / "open-radar.html"
    write_private(page, f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(url)}">')
    webbrowser.open(page.as_uri())


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One `up` per data directory; the lock ends with the process, however it ends."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        opened = (home / "up.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"data directory: {home} cannot be used ({error.strerror}). Set CHARTINSIGHT_HOME to a folder you may write."
        ) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigError(
                f"up: it is running already on {home} (process {lock.read().strip() or 'unknown'}). "
                "Use that one, stop it with Ctrl-C, or set CHARTINSIGHT_HOME to another folder."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Make a closed terminal and `kill` end `up` as tidily as Ctrl-C does; under `nohup` a closed terminal does not.

    An exception that a signal raises can be lost: in the midst of a finaliser, of somebody's bare `except`. So the signal comes
    again until it is obeyed, and not while it is. It also waits while a process is started, see `processes.starting`.
    """
    again: list[threading.Timer] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if isinstance(sys.exc_info()[1], KeyboardInterrupt):
            return  # everything is being stopped already
        again.append(threading.Timer(AGAIN_S, os.kill, (os.getpid(), number)))
        again[-1].daemon = True
        again[-1].start()
        if is_starting():
            return
        raise KeyboardInterrupt(signal.Signals(number).name)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, on_signal) for number in heard}
    try:
        yield
    finally:
        for timer in again:
            timer.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)
