"""The task of a job: calls `chartinsight run` in the project's environment and tells Airflow how it ended.

Which slot has its run, how often it was tried and what it waits for is in our own database, where other engines see it, too.
Airflow decides when to ask, and shows the answer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Connection
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowRescheduleException,
    AirflowSkipException,
)
from airflow.sdk.log import mask_secret

from chartinsight_airflow import child
from chartinsight_airflow.rule import Rule, stands_in
from chartinsight_lib.calendars import calendar
from chartinsight_lib.clock import system_clock
from chartinsight_lib.processes import die_with_parent, spawn, stop_group

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.sdk import Context

PATIENCE_S = 3.0  # Airflow kills a task five seconds after it told it to end
SOONEST, LATEST = timedelta(seconds=20), timedelta(minutes=5)
LONGEST_WAIT = timedelta(days=1)
"""So long a run without a rule of its own, one of a backfill or by hand, asks again."""

SLOTTED = {"scheduled", "backfill"}
"""The types of runs whose logical date is a slot."""


class RunJob(BaseOperator):
    """Runs a job's notebook for the slot of the DAG run; by hand, for the slot that is given, or for none."""

    template_fields = ()  # nothing is rendered, so nothing rendered is stored
    ui_color = "#e8f1fa"

    def __init__(self, *, job: str, market: str, project: Path, rule: Rule | None, **others: Any) -> None:
        """`rule`: None for a job without a schedule."""
        super().__init__(do_xcom_push=False, **others)
        self.job, self.market, self.project, self.rule = job, market, project, rule

    def execute(self, context: Context) -> None:
        """Run the child and map its end. Raises what Airflow wants: skip, fail, reschedule, or an exception that is retried."""
        self._process: subprocess.Popen[bytes] | None = None
        self._follow_supervisor()
        ti, run = context["ti"], context["dag_run"]
        by_rule = str(getattr(run.run_type, "value", run.run_type)) == "scheduled"
        slot = _slot(context)
        first_try = ti.max_tries - (self.retries or 0) + 1  # a person who clears a task moves it; a retry does not
        again = slot is not None and first_try > 1 and ti.try_number == first_try
        if by_rule and not again and slot is not None and (newer := self._newer(slot)) is not None:
            raise AirflowSkipException(
                f"{self.job}: the slot of {newer:%Y-%m-%d %H:%M} is due, and its run stands for this one"
            )
        program, as_of = os.environ.get(child.PROGRAM, "chartinsight"), context["params"].get("as_of")
        command = child.command(program, self.job, slot=slot, again=again, as_of=as_of)
        code, last = self._run(command, child.environment(os.environ, _secrets()))
        match child.end_of(code, last):
            case child.End.DONE:
                return
            case child.End.SKIPPED:
                raise AirflowSkipException(last)
            case child.End.FAILED:
                raise AirflowFailException(last)
            case child.End.ASK_AGAIN if again:
                raise AirflowException(last)  # the next try asks without `again`, as our database counts the tries
            case child.End.ASK_AGAIN:
                self._ask_again(context, slot if by_rule else None, last)
        raise AirflowException(
            f"{self.job}: the program ended with {code}, which is none of its own. It said last: {last}"
        )

    def on_kill(self) -> None:
        """End the child's whole group; what it started beyond that ends with it."""
        if (process := getattr(self, "_process", None)) is not None:
            stop_group(process, patience_s=PATIENCE_S)

    def _newer(self, slot: datetime) -> datetime | None:
        return None if self.rule is None else stands_in(self.rule, calendar(self.market), slot, system_clock())

    def _ask_again(self, context: Context, slot: datetime | None, reason: str) -> None:
        """Give the pool's place back and come again later, the longer it lasts the more rarely.

        A place that is held while waiting would keep out the very job that is waited for.
        """
        now = system_clock()
        since = context["ti"].get_first_reschedule_date(context) or now
        if slot is None and now - since > LONGEST_WAIT:
            raise AirflowFailException(f"{self.job}: it has been asking since {since:%Y-%m-%d %H:%M} UTC. {reason}")
        pause = min(max((now - since) / 4, SOONEST), LATEST)
        self.log.info("asks again in %.0f s: %s", pause.total_seconds(), reason)
        raise AirflowRescheduleException(now + pause)

    def _run(self, command: list[str], environment: dict[str, str]) -> tuple[int, str]:
        """Run the child, its output going to the task's log; return its exit code and the last thing that it said."""
        ours, theirs = os.pipe()
        said = ""
        with os.fdopen(ours, encoding="utf-8", errors="replace") as output:
            with os.fdopen(theirs, "wb") as log:
                self._process = process = spawn(command, env=environment, cwd=self.project, log=log)
            # Whoever of the child's group outlives it holds the pipe open, and would hold us.
            threading.Thread(target=_end_group_after, args=(process,), daemon=True).start()
            for line in output:
                if text := line.rstrip():
                    self.log.info("%s", text)
                    said = text
        return process.wait(), said or f"{self.job}: it said nothing"

    @staticmethod
    def _follow_supervisor() -> None:
        """Be told to end when the supervisor dies: nobody else would tell, and Airflow would start the task anew beside us."""
        if (arm := die_with_parent(os.getppid(), signal.SIGTERM)) is not None:
            arm()


def _end_group_after(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    stop_group(process, patience_s=PATIENCE_S)


def _slot(context: Context) -> datetime | None:
    run = context["dag_run"]
    if str(getattr(run.run_type, "value", run.run_type)) in SLOTTED:
        return datetime.fromisoformat(run.logical_date.isoformat())
    given = context["params"].get("slot")
    return datetime.fromisoformat(given) if given else None


def _secrets() -> dict[str, str]:
    """Return what the connections hold, under the names of our settings; it goes to the child's environment and nowhere else."""
    try:
        found = {"DATABASE_URL": child.database_url(Connection.get("tradesmart"))}
    except AirflowNotFoundException:
        raise AirflowFailException(
            "connection 'tradesmart': there is none. Give AIRFLOW_CONN_TRADESMART=postgresql://LOGIN:…@HOST/tradesmart "
            "to what runs tasks, or keep it in a secrets backend."
        ) from None
    except ValueError as error:
        raise AirflowFailException(f"connection 'tradesmart': {error}.") from None
    for name, keys in {
        "kiwoom": {"login": "CHARTINSIGHT_KIWOOM_APPKEY", "password": "CHARTINSIGHT_KIWOOM_SECRETKEY"},
        "dart": {"password": "CHARTINSIGHT_DART_KEY"},
    }.items():
        try:
            held = Connection.get(name)
        except AirflowNotFoundException:
            continue  # the job says itself that it lacks a key, if it needs one
        found |= {variable: value for part, variable in keys.items() if (value := getattr(held, part))}
    for value in found.values():
        mask_secret(value)
    return found
