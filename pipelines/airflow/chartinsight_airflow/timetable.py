"""The market's calendar as a timetable of Airflow: a run's logical date is the slot, and it starts at the slot.

Not at the end of an interval, as Airflow's cron schedules do: an interval that ends with the next slot would run the day's last
one on the next trading day.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.timetables.base import DagRunInfo, DataInterval, Timetable
from pendulum import instance

from chartinsight_airflow.rule import Rule, next_run
from chartinsight_lib.calendars import calendar
from chartinsight_lib.clock import system_clock
from chartinsight_lib.errors import BeyondHorizon

if TYPE_CHECKING:
    from airflow.timetables.base import TimeRestriction
    from airflow.utils.types import DagRunType
    from pendulum import DateTime

log = logging.getLogger(__name__)

SINCE_EVER = datetime(2000, 1, 1, tzinfo=UTC)
"""Airflow wants a first date of a DAG that catches up. Ours begin with their newest slot, and go on from their last run."""


class SlotTimetable(Timetable):
    """The slots of a job on a market's calendar."""

    def __init__(self, market: str, rule: Rule) -> None:
        self._market, self._rule = market, rule
        self.description = f"{rule.schedule} ({market})"

    def serialize(self) -> dict[str, Any]:
        """See `Timetable`; nothing but what `jobs.yaml` says is stored."""
        return {"market": self._market, **self._rule.to_json()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> SlotTimetable:
        """See `Timetable`."""
        return cls(data["market"], Rule.from_json(data))

    @property
    def summary(self) -> str:
        """What the list of DAGs shows."""
        return str(self._rule.schedule)

    def generate_run_id(
        self, *, run_type: DagRunType, run_after: DateTime, data_interval: DataInterval | None, **_: Any
    ) -> str:
        """Name a run after its slot in the market's time, which is what a person has on the wall."""
        moment = data_interval.start if data_interval is not None else run_after
        return run_type.generate_run_id(suffix=moment.astimezone(calendar(self._market).zone).isoformat())

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """See `Timetable`: the moment itself."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """See `Timetable`. Past the calendar's end there is no run, and the log says so: guessing would ask on holidays."""
        since = None if restriction.earliest is None else _plain(restriction.earliest)
        try:
            slot = next_run(
                self._rule,
                calendar(self._market),
                now=system_clock(),
                last=None if last_automated_data_interval is None else _plain(last_automated_data_interval.start),
                earliest=None if since == SINCE_EVER else since,
                latest=None if restriction.latest is None else _plain(restriction.latest),
                every_slot=restriction.catchup,
            )
        except BeyondHorizon as error:
            log.warning("NOTHING IS RUN ANY MORE: %s", error)
            return None
        return None if slot is None else DagRunInfo.exact(instance(slot).in_timezone("UTC"))


def _plain(moment: DateTime) -> datetime:
    """Pendulum's own arithmetic differs from the standard library's, with which the slots are worked out."""
    return datetime.fromisoformat(moment.isoformat())
