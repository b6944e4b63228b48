"""How often a task that waits on a worker reads its run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.responses import LAUNCHED, OUTPUT, RUNNING, SUCCEEDED
from tests.helpers.tasks import deferred_by, paths


def task(**arguments: Any) -> DatabricksSubmitRunOperator:
    """Make a task without a polling period."""
    return DatabricksSubmitRunOperator(
        task_id="etl",
        existing_cluster_id="1201-my-cluster",
        notebook_task={"notebook_path": "/etl"},
        **arguments,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [10, 20, 30, 30, 30]),
        ({"polling_period_seconds": 10}, [10] * 5),
        ({"polling_period_seconds": timedelta(minutes=1)}, [60] * 5),
        ({"queued_timeout_seconds": 600}, [10] * 5),
    ],
)
def test_the_waits(
    context: Any, server: ScriptedServer, arguments: dict[str, Any], expected: list[float]
) -> None:
    """Without a period they grow, so that a long run takes no more reads than elsewhere."""
    server.will(LAUNCHED, *[RUNNING] * 5, SUCCEEDED, OUTPUT)
    with no_waiting() as waits:
        assert task(**arguments).execute(context) == "42"
    assert waits == expected
    assert paths(server) == ["runs/submit", *["runs/get"] * 6, "runs/get-output"]


def test_the_triggerer(context: Any, server: ScriptedServer) -> None:
    """All waits of a triggerer share their reads, so the period stays short there."""
    server.will(LAUNCHED, RUNNING)
    trigger: Any = deferred_by(task(deferrable=True), context).trigger
    assert trigger.polling_period_seconds == 10
