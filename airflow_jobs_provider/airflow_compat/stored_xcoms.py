"""XComs as Airflow's own server reads them: from the metadata database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.lines import airflow_line

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["decoded", "stored_xcoms"]


def stored_xcoms(
    ti_key: TaskInstanceKey, keys: Sequence[str], *, task_id: str | None = None
) -> dict[str, Any]:
    """Return XComs of a task instance by key; those that are missing are left out.

    For the API server (Airflow 3) and the web server (Airflow 2). A task's process must not read
    the database.

    :param ti_key: the task instance.
    :param keys: keys of the XComs.
    :param task_id: another task of the same DAG run, at the same map index; default the task
        itself.
    """
    stored = airflow_line().stored_xcoms(
        {
            "dag_id": ti_key.dag_id,
            "run_id": ti_key.run_id,
            "task_id": task_id or ti_key.task_id,
            "map_index": ti_key.map_index,
        },
        keys,
    )
    return {key: decoded(value) for key, value in stored.items()}


def decoded(value: Any) -> Any:
    """Return an XCom as it was pushed.

    Airflow 3 stores an XCom as JSON. What the event of a trigger pushes, as with
    ``end_from_trigger``, it stores as text that is JSON again.

    :param value: the value in the database.
    """
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value
