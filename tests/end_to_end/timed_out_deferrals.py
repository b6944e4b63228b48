"""Let DAG runs time out while their tasks defer, with Airflow's own scheduler and API.

    python timed_out_deferrals.py DAGS_FOLDER > results

Both act on the metadata database in threads of this process, in an order that is given. The result
is a JSON object: by order, the states of the DAG run and of its task.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

# What this writes to stdout is the result; all else goes to stderr.
RESULT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from airflow.api_fastapi.execution_api.datamodels.taskinstance import (  # noqa: E402
    TIDeferredStatePayload,
)
from airflow.api_fastapi.execution_api.routes.task_instances import ti_update_state  # noqa: E402
from airflow.dag_processing.bundles.manager import DagBundlesManager  # noqa: E402
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db  # noqa: E402
from airflow.jobs.job import Job  # noqa: E402
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner  # noqa: E402
from airflow.models.dagbag import DBDagBag  # noqa: E402
from airflow.models.dagrun import DagRun  # noqa: E402
from airflow.models.taskinstance import TaskInstance  # noqa: E402
from airflow.utils.session import create_session  # noqa: E402
from airflow.utils.state import DagRunState  # noqa: E402
from airflow.utils.types import DagRunTriggeredByType, DagRunType  # noqa: E402
from fastapi import HTTPException  # noqa: E402
from sqlalchemy import select, update  # noqa: E402

BUNDLE = "dags-folder"
SECONDS = 60


def begin(dag_id: str) -> UUID:
    """Begin a DAG run that has taken too long, whose task is running; return the task's id."""
    now = datetime.now(UTC)
    with create_session() as session:
        dag = DBDagBag().get_latest_version_of_dag(dag_id, session=session)
        assert dag is not None
        dag_run = dag.create_dagrun(
            run_id=f"{now:%H%M%S%f}",
            logical_date=now,
            data_interval=(now, now),
            run_after=now,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            start_date=now - timedelta(days=1),
            session=session,
        )
        (task,) = dag_run.task_instances
        session.flush()
        running = update(TaskInstance).where(TaskInstance.id == task.id)
        session.execute(running.values(state="running", try_number=1))
        return UUID(str(task.id))


def time_out(task_id: UUID, written: threading.Event, go_on: threading.Event) -> None:
    """Do what the scheduler does to the DAG run of a task.

    :param written: is set when all is written.
    :param go_on: is waited for before that is committed.
    """
    with create_session(scoped=False) as session:
        of_task = select(TaskInstance.run_id).where(TaskInstance.id == task_id)
        dag_run = session.scalars(select(DagRun).where(DagRun.run_id.in_(of_task))).one()
        SchedulerJobRunner(Job(), executors=[])._schedule_dag_run(dag_run, session=session)
        session.flush()
        written.set()
        go_on.wait(SECONDS)


def defer(task_id: UUID) -> None:
    """Do what the API server does where the task's process defers."""
    payload = TIDeferredStatePayload.model_validate(
        {"state": "deferred", "classpath": "none.None", "next_method": "execute", "next_kwargs": {}}
    )
    # The exception is the refusal that the process gets as a response.
    with suppress(HTTPException), create_session(scoped=False) as session:
        ti_update_state(task_id, payload, session, DBDagBag())


def states(task_id: UUID) -> list[str]:
    """Return the states of the task's DAG run and of the task."""
    with create_session() as session:
        task = session.scalars(select(TaskInstance).where(TaskInstance.id == task_id)).one()
        return [str(task.dag_run.state), str(task.state)]


def both(dag_id: str, *, deferral_is_first: bool) -> list[str]:
    """Let the task defer before its DAG run times out, or while that is not committed."""
    task_id, written, go_on = begin(dag_id), threading.Event(), threading.Event()
    if deferral_is_first:
        defer(task_id)
    scheduler = threading.Thread(target=time_out, args=(task_id, written, go_on))
    scheduler.start()
    if not deferral_is_first:
        assert written.wait(SECONDS)
        deferring = threading.Thread(target=defer, args=(task_id,))
        deferring.start()
        # By then it waits for the scheduler's transaction.
        deferring.join(3)
        assert deferring.is_alive()
        go_on.set()
        deferring.join()
    go_on.set()
    scheduler.join()
    return states(task_id)


if __name__ == "__main__":
    dags = Path(sys.argv[1])
    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
    bag = BundleDagBag(dags, bundle_path=dags, bundle_name=BUNDLE)
    sync_bag_to_db(bag, BUNDLE, None)
    (dag_id,) = bag.dags
    found = {
        "deferral first": both(dag_id, deferral_is_first=True),
        "meanwhile": both(dag_id, deferral_is_first=False),
    }
    RESULT.write(json.dumps(found))
    RESULT.flush()
