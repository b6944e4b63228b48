"""A DAG that starts when a run ends. It is paused, so that other tests have no watcher."""

from __future__ import annotations

import os
from typing import Any

import airflow

if airflow.__version__ >= "3" and "AIRFLOW_CONN_DATABRICKS_EVENTS" in os.environ:
    from airflow.sdk import DAG, Asset, AssetWatcher, task

    from airflow_jobs_provider.triggers.jobs import DatabricksJobRunEventTrigger

    trigger = DatabricksJobRunEventTrigger(
        job_name="by hand",
        states=["SUCCESS"],
        databricks_conn_id="databricks_events",
        polling_period_seconds=2,
        look_back_seconds=0,
    )
    ended = Asset("ended_runs", watchers=[AssetWatcher(name="by_hand", trigger=trigger)])

    with DAG("after_run", schedule=[ended], catchup=False, is_paused_upon_creation=True):

        @task
        def tell(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
            """Return the runs of the events."""
            return [event.extra["payload"] for event in triggering_asset_events[ended]]

        tell()
