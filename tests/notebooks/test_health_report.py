"""The health report is a run like any other: its executed copy says how the market stood, and a red market does not fail it."""

import nbformat
from sqlalchemy import Engine

from chartinsight_lib.db.engine import Database
from chartinsight_lib.jobs import find_job
from chartinsight_lib.runner import run_job
from chartinsight_lib.settings import PROJECT, Settings


def test_the_report_of_a_red_market_succeeds_and_says_why_it_is_red(
    database: Database, settings: Settings, loader: Engine, tmp_path
):
    here = settings.model_copy(update={"runs_dir": tmp_path / "runs", "now": "2024-11-13T10:00:00+09:00"})
    run = run_job(database, here, find_job(PROJECT, "health_report"), {"market": "KRX"})
    cells = nbformat.read(run.output, as_version=4).cells
    shown = [output["data"]["text/plain"] for cell in cells for output in cell.get("outputs", []) if "data" in output]
    assert shown[0] == "'KRX: RED at 2024-11-13 10:00 KST'"
    assert "No final daily bar is held yet" in shown[1]
    assert len(shown) == 6  # reasons, facts, jobs, days, quota
