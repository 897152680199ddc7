"""Tells Airflow of the timetable, which the scheduler needs without reading any DAG's code."""

from airflow.plugins_manager import AirflowPlugin
from chartinsight_airflow.timetable import SlotTimetable


class ChartInsight(AirflowPlugin):
    """What ChartInsight Studio brings along."""

    name = "chartinsight"
    timetables = [SlotTimetable]  # noqa: RUF012 - Airflow reads the class
