"""One run as somebody asks for it by name: a person, or Airflow for a slot. Worked out and checked before anything starts."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from time import monotonic, sleep
from typing import Any
from uuid import UUID, uuid4

from chartinsight_lib import due, slots
from chartinsight_lib.calendars import Calendar, calendar
from chartinsight_lib.db.engine import Database
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import ConfigError, NotFound, SlotRefused
from chartinsight_lib.jobs import Job, JobList, find_job, read_list
from chartinsight_lib.runner import Run, SlotRequest, check_parameters, declared, parse_parameters, run_job
from chartinsight_lib.schedule import newest_slot, next_slot
from chartinsight_lib.settings import Settings
from chartinsight_lib.sources import LIVE, live_market

NEAR = timedelta(days=14)
"""So far about a moment that is no slot the nearest ones are looked for."""
POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be run: `parameters` are all that the notebook is told; `left_out` says why nothing is run."""

    job: Job
    parameters: Mapping[str, Any]
    market: str | None = None
    slot: SlotRequest | None = None
    left_out: str | None = None


def ask(
    settings: Settings,
    name: str,
    texts: Mapping[str, str],
    *,
    as_of: date | None = None,
    slot: datetime | None = None,
    market: str | None = None,
    again: bool = False,
    engine: str = "person",
) -> Asked:
    """Work out the run that is asked for.

    Args:
        texts: NAME=VALUE, as a person writes them.
        slot: one of the job's slots, tz-aware; what the notebook then is told beside `texts` is what a scheduler would tell it.
        market: default: that of the settings, else of their source.
        again: also a slot that has ended, and one for which it is too late.
    Raises:
        ConfigError: a parameter, a date or a market is wrong. NotFound: there is no such job.
        SlotRefused: it is no slot of the job, or not due yet.
    """
    listed = read_list(settings.project)
    job = listed.jobs.get(name)
    if job is None:
        raise NotFound(f"job {name!r}: there is none of this name. Known are {', '.join(listed.jobs)}.")
    names = declared(job.notebook)
    told = {**job.parameters, **parse_parameters(job.notebook, texts)}
    if as_of is not None:
        if "as_of" not in names:
            raise ConfigError(f"{job.name}: its notebook has no parameter as_of, so it cannot be run as of a day.")
        told["as_of"] = as_of.isoformat()
    left_out = due.lacks(job, settings)
    if slot is None:
        if market is not None and "market" in names:
            told.setdefault("market", market)
        check_parameters(job.notebook, told)
        return Asked(job, told, market, None, left_out)
    known = calendar(market or _market(settings))
    now = settings.clock()
    _check_slot(job, known, slot, now)
    if left_out is None and not again and job.within_min is not None and now - slot > timedelta(minutes=job.within_min):
        left_out = f"nothing ran within {job.within_min} minutes after it"
    told = {**due.parameters(job, names, known, slot, settings.source), **told}
    check_parameters(job.notebook, told)
    return Asked(job, told, known.market, _request(listed, job, known, slot, again, engine), left_out)


def replay(settings: Settings, name: str, parameters: Mapping[str, Any], market: str | None) -> Asked:
    """Work out the repetition of a run: its job, as it is now, told what it was told.

    Raises:
        NotFound: there is no such job any more. ConfigError: its notebook no longer takes what the run was told.
    """
    job = find_job(settings.project, name)
    try:
        check_parameters(job.notebook, parameters)
    except ConfigError as error:
        raise ConfigError(
            f"{error} The run was told {', '.join(parameters)}; it cannot be repeated as it was."
        ) from error
    # What the job sets by itself today is not what the run was told.
    return Asked(replace(job, parameters={}), dict(parameters), market, None, due.lacks(job, settings))


def hindrance(database: Database, settings: Settings, asked: Asked) -> str | None:
    """Say what keeps it from being run at this moment; None: nothing. The slot is claimed for that, and given back."""
    if asked.left_out is not None or asked.slot is None or asked.market is None:
        return asked.left_out
    wanted, pool = asked.slot, database.engine(Role.LOADER)
    try:
        with pool.connect() as conn, conn.begin() as transaction:
            found = slots.claim(
                conn, asked.job, asked.market, wanted.slot, run_id=uuid4(), now=settings.clock(), by=wanted.by,
                pools=wanted.pools, waits_for=wanted.waits_for, again=wanted.again,
            )  # fmt: skip
            transaction.rollback()
    finally:
        pool.dispose()
    return found.reason if isinstance(found, slots.Refusal) else None


def run_asked(
    database: Database,
    settings: Settings,
    asked: Asked,
    *,
    engine: str = "person",
    wait_s: float = 0.0,
    replay_of: UUID | None = None,
) -> Run:
    """Run it; a slot before which something else has to happen is asked for again for up to `wait_s`.

    Raises:
        SlotRefused: it is left out, which is recorded for a slot; or it was refused.
        RunFailed, ConfigError: as of `run_job`.
    """
    if asked.left_out is not None:
        _record_skip(database, settings, asked)
        message = f"{asked.job.name}: skipped, because {asked.left_out}."
        raise SlotRefused(message, why=slots.Why.SKIPPED, reason=asked.left_out)
    deadline = monotonic() + wait_s
    while True:
        try:
            return run_job(
                database,
                settings,
                asked.job,
                asked.parameters,
                engine=engine,
                market=asked.market,
                slot=asked.slot,
                replay_of=replay_of,
            )
        except SlotRefused as refusal:
            left_s = deadline - monotonic()
            if refusal.why != slots.Why.NOT_YET or left_s <= 0:
                raise
            sleep(min(POLL_S, left_s))


def _market(settings: Settings) -> str:
    if settings.market is not None:
        return settings.market
    if settings.source in LIVE:
        return live_market(settings.source, settings)
    raise ConfigError(f"slot: of which market? Name it with --market; source {settings.source!r} does not say.")


def _check_slot(job: Job, known: Calendar, slot: datetime, now: datetime) -> None:
    """Raise ConfigError where there are no slots, SlotRefused for a moment that is none, and for one that is still to come."""
    if job.schedule is None:
        raise ConfigError(f"{job.name}: it has no schedule, and so no slots. Run it without one.")
    if slot.tzinfo is None:
        raise ConfigError(f"slot: {slot.isoformat()} has no time zone. Write it with an offset, or Z for UTC.")
    moment = slot.astimezone(known.zone)
    why = None
    if moment not in job.schedule.slots(known, moment - timedelta(seconds=1), moment):
        near = (
            newest_slot(job.schedule, known, moment, within=NEAR),
            next_slot(job.schedule, known, moment, within=NEAR),
        )
        nearest = " and ".join(found.isoformat() for found in near if found is not None) or "more than two weeks away"
        why = f"{moment.isoformat()} is no slot of {job.name} ({job.schedule}); the nearest are {nearest}"
    elif slot > now:
        why = f"the slot {moment.isoformat()} of {job.name} is still to come; it is {now.astimezone(known.zone):%Y-%m-%d %H:%M}"
    if why is not None:
        raise SlotRefused(f"slot: {why}.", why=slots.Why.SKIPPED, reason=why)


def _request(listed: JobList, job: Job, known: Calendar, slot: datetime, again: bool, engine: str) -> SlotRequest:
    return SlotRequest(
        slot.astimezone(UTC), by=f"{engine}:{platform.node()}:{os.getpid()}", pools=listed.pools,
        waits_for=due.waits_for(listed.jobs, job, known, slot), again=again,
    )  # fmt: skip


def _record_skip(database: Database, settings: Settings, asked: Asked) -> None:
    if asked.slot is None or asked.market is None or asked.left_out is None:
        return
    pool = database.engine(Role.LOADER)
    try:
        with pool.begin() as conn:
            slots.skip(
                conn, asked.job, asked.market, [asked.slot.slot], reason=asked.left_out, by=asked.slot.by,
                now=settings.clock(),
            )  # fmt: skip
    finally:
        pool.dispose()
