"""Which Airflow this is, and what it knows of a task: asked by one that is told to stop.

Airflow 2 has its database for that, Airflow 3 an API that a task's supervisor passes questions to.
"""

from __future__ import annotations

from typing import Any

__all__ = ["airflow_has_task_sdk", "airflow_version", "row_in_database", "state_by_task_sdk"]


def airflow_version() -> tuple[int, int]:
    """Return the line of Airflow, as in (3, 0)."""
    from airflow import __version__

    major, minor = __version__.split(".")[:2]
    return int(major), int(minor)


def airflow_has_task_sdk() -> bool:
    """Whether this is an Airflow whose tasks ask an API: 3.0 or newer."""
    return airflow_version() >= (3, 0)


def row_in_database(task_instance: Any, *columns: str) -> Any:
    """Return columns of a task instance's row in Airflow 2; None if it was deleted."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        return (
            session.query(*(getattr(TaskInstance, column) for column in columns))
            .filter_by(
                dag_id=task_instance.dag_id,
                run_id=task_instance.run_id,
                task_id=task_instance.task_id,
                map_index=task_instance.map_index,
            )
            .one_or_none()
        )


def state_by_task_sdk(task_instance: Any) -> tuple[str | None] | None:
    """Return a task instance's state in Airflow 3, in a tuple; None if it was deleted.

    The state itself is None while the task is to be scheduled.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=task_instance.dag_id,
        task_ids=[task_instance.task_id],
        run_ids=[task_instance.run_id],
        map_index=task_instance.map_index,
    )
    # A mapped task stands there as task_id_index; there is only one that was asked for.
    found = list(states.get(task_instance.run_id, {}).values())
    return (found[0],) if found else None
