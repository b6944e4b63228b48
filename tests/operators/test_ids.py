"""An id that a template rendered wrong reaches no run and no job. Over real HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.operators.jobs import (
    DatabricksCancelRunsOperator,
    DatabricksDeleteRunOperator,
    DatabricksExportRunOperator,
    DatabricksRunNowOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.invalid_ids import NO_IDS
from tests.helpers.tasks import events

TASKS: list[tuple[type[Any], str, dict[str, Any]]] = [
    (DatabricksRunNowOperator, "job_id", {}),
    (DatabricksRunNowOperator, "job_id", {"deferrable": True}),
    (DatabricksCancelRunsOperator, "job_id", {}),
    (DatabricksCancelRunsOperator, "run_id", {}),
    (DatabricksDeleteRunOperator, "run_id", {}),
    (DatabricksExportRunOperator, "run_id", {"path": "/nowhere"}),
    (DatabricksJobRunSensor, "run_id", {}),
    (DatabricksJobRunSensor, "run_id", {"deferrable": True}),
    (DatabricksJobRunSensor, "job_id", {"started_since": "2026-01-01"}),
    (DatabricksJobRunSensor, "job_id", {"started_since": "2026-01-01", "deferrable": True}),
]
WRONG = [value for value in NO_IDS if value not in (None, "")]


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(("kind", "name", "more"), TASKS)
def test_a_wrong_id_is_final_and_sends_nothing(
    context: Any,
    server: ScriptedServer,
    kind: type[Any],
    name: str,
    more: dict[str, Any],
    native: bool,
) -> None:
    """In every task that takes an id, as text and as the object that native rendering gives."""
    for place, value in enumerate(WRONG):
        validate = place % 2 == 0  # an id is read with and without it
        with DAG("d", schedule=None, render_template_as_native_obj=native):
            operator = kind(task_id="t", validate=validate, **{name: "{{ x }}"}, **more)
        operator.render_template_fields({"x": value})
        rendered = getattr(operator, name)
        if native and isinstance(rendered, int) and not isinstance(rendered, bool) and rendered > 0:
            continue  # as Python writes numbers, such as 1_000
        with pytest.raises(AirflowFailException, match=f"{name}.*must be given|{name} must be"):
            operator.execute(context)
        if isinstance(value, (int, str, float)):
            with pytest.raises(InvalidRequestError, match=f"{name} must be"):
                kind(task_id="t", validate=validate, **{name: value}, **more)
    assert server.requests == []


def test_a_wrong_id_in_the_triggerer_is_final(context: Any, server: ScriptedServer) -> None:
    """A sensor that begins there fails on the worker, for good."""
    began = DatabricksJobRunSensor(task_id="t", run_id=7, start_from_trigger=True)
    arguments = began.start_trigger_args
    assert arguments is not None
    module, _, name = arguments.trigger_cls.rpartition(".")
    trigger = getattr(__import__(module, fromlist=[name]), name)
    (event,) = events(trigger(**{**(arguments.trigger_kwargs or {}), "run_id": "12abc"}))
    with pytest.raises(AirflowFailException, match="run_id must be a whole number"):
        began.execute_complete(context, json.loads(json.dumps(event)))
    assert server.requests == []
