"""Start a DAG each time a run of a job ends, whoever has started the run (Airflow 3).

An asset watcher reports the runs of the job "Penguins, nightly" that succeed, and each event starts
the DAG. The event has the run's ids, state, times and page. The job of the example
``databricks_wait_for_job`` has that name: unpause this DAG, and run that one.

The DAG runs on the local workspace (``make airflow``) and on Databricks without a change.
"""

from __future__ import annotations

from typing import Any

import airflow

# Airflow 2 has no asset watchers: this file has no DAG there.
if airflow.__version__ >= "3":
    from airflow.sdk import DAG, Asset, AssetWatcher, task

    from airflow_jobs_provider.triggers.jobs import DatabricksJobRunEventTrigger

    penguins = Asset(
        "penguins",
        watchers=[
            AssetWatcher(
                name="penguins_runs",
                trigger=DatabricksJobRunEventTrigger(
                    job_name="Penguins, nightly",
                    states=["SUCCESS"],
                    polling_period_seconds=10,
                ),
            )
        ],
    )

    with DAG(
        "databricks_job_events",
        schedule=[penguins],
        catchup=False,
        is_paused_upon_creation=True,
        tags=["databricks", "example"],
        doc_md=__doc__,
    ):

        @task
        def print_runs(triggering_asset_events: Any = None) -> None:
            for event in triggering_asset_events[penguins]:
                run = event.extra["payload"]
                print(f"Run {run['run_id']} of job {run['job_id']}: {run['result_state']}")
                print(run["run_page_url"])

        print_runs()
