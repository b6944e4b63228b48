"""A mapped task that starts in the triggerer: over which values, and what it has launched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_jobs_provider.operators.jobs import DatabricksRunNowOperator
from tests.fakes.fake_service import FakeService
from tests.helpers.launch_trigger import triggerer_of
from tests.helpers.triggerer import Triggerer

__all__ = ["COMMON", "Expand", "mapped", "over_literal_values", "sent"]

#: Arguments of the task.
COMMON: dict[str, Any] = {
    "task_id": "etl",
    "start_from_trigger": True,
    "end_from_trigger": True,
    "polling_period_seconds": 0.05,
    "retries": 2,
}
#: Takes the result of ``partial`` and another task, and maps the task.
Expand = Callable[[Any, Any], Any]


def over_literal_values(partial: Any, _: Any) -> Any:
    """Map the task over two values."""
    return partial.expand(notebook_params=[{"a": "0"}, {"a": "1"}])


def mapped(
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    expand: Expand,
    kind: Any = DatabricksRunNowOperator,
    **arguments: Any,
) -> Triggerer:
    """Make a DAG with one mapped task, and the triggerer."""
    if kind is DatabricksRunNowOperator:
        arguments.setdefault("job_id", 1)
    with DAG("sales", schedule=None, catchup=False) as dag:
        expand(kind.partial(**{**COMMON, **arguments}), BaseOperator(task_id="other"))
    return triggerer_of(dag, service, monkeypatch)


def sent(service: FakeService, name: str = "notebook_params") -> list[Any]:
    """Return a field of each request."""
    return [run.request.get(name) for run in service.runs.values()]
