"""The real list of jobs on a real Airflow, against a simulated Kiwoom: parsed, run when due, in a pool, again, killed."""

import stack


def test_every_job_is_a_dag_and_none_has_an_error(airflow, listed):
    airflow_dags = stack.until("the DAGs", lambda: set(d["dag_id"] for d in airflow.api("GET", "dags?limit=100")["dags"]) or None, within_s=60)
    assert airflow.api("GET", "importErrors")["import_errors"] == []
    assert airflow_dags == set(listed)


def test_scan_radar(airflow):
    def look():
        r = airflow.api("GET", "dags/scan_radar/dagRuns")["dag_runs"]
        return r[0]["dag_run_id"] if r else None
    rid = stack.until("run", look, within_s=60)
    print(rid)
    print(airflow.ended("scan_radar", rid))
    for r in airflow.rows("select dag_id, run_id, state, try_number, start_date, end_date from task_instance order by 1"):
        print(r)
    print(airflow.log_text("scan_radar", rid)[-3000:])
    assert 0
