"""The jobs of `pipelines/jobs.yaml` on Airflow: which slot is next, a DAG for each job, a task that calls `chartinsight run`.

Runs in Airflow's own environment, with the checkout and `pipelines/airflow` on PYTHONPATH; see docs/airflow.md.
"""
