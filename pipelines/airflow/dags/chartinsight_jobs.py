"""A DAG for each job of `pipelines/jobs.yaml`. Airflow reads this file every half minute: it only hands on what is built."""

import os
from pathlib import Path

from chartinsight_airflow.dags import build

globals().update(build(Path(os.environ.get("CHARTINSIGHT_PROJECT") or Path(__file__).parents[3]), os.environ))
