"""Requests that are text once they are rendered. Over real HTTP."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    BaseOperator,
    TaskDeferred,
)

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.operators.jobs import (
    DatabricksCreateJobsOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, OUTPUT, RUNNING, SUCCEEDED

TASK = {"notebook_path": "/etl", "base_parameters": {"it's": 'a "b"', "n": "1"}}
REQUEST = {"existing_cluster_id": "1201-my-cluster", "run_name": "r", "notebook_task": TASK}
KINDS: dict[Any, dict[str, Any]] = {
    DatabricksSubmitRunOperator: REQUEST,
    DatabricksRunNowOperator: {"job_id": 3, "notebook_params": {"a": "it's"}},
    DatabricksCreateJobsOperator: {"name": "n", **REQUEST},
}
TEXTS = ["{{ payload }}", "{{ payload | tojson }}", "request.json-tpl"]


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_json_as_text(
    context: Any, server: ScriptedServer, tmp_path: Path, kind: Any, text: str, native: bool
) -> None:
    """As Python and as JSON writes it, and from a file; with native rendering on and off."""
    (tmp_path / "request.json-tpl").write_text("{{ payload | tojson }}\n")
    with DAG(
        "d",
        schedule=None,
        template_searchpath=[str(tmp_path)],
        render_template_as_native_obj=native,
    ):
        operator = kind(task_id="t", json=text)
    operator.resolve_template_files()
    operator.render_template_fields({"payload": KINDS[kind]})
    if kind is DatabricksCreateJobsOperator:
        server.will(answer({}), answer({"job_id": 3}))
    else:
        server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    operator.execute(context)
    place = 1 if kind is DatabricksCreateJobsOperator else 0
    sent = server.requests[place].body
    assert KINDS[kind].items() <= sent.items()


def test_fields_as_text(context: Any, server: ScriptedServer) -> None:
    """Each field that is a structure, and fields within; a field still wins over json."""
    operator = DatabricksSubmitRunOperator(
        task_id="t",
        json="{'run_name': 'from json', 'existing_cluster_id': '{{ cluster }}'}",
        run_name="r",
        notebook_task={"notebook_path": "/etl", "base_parameters": "{{ parameters }}"},
        libraries="{{ libraries | tojson }}",
        deferrable=True,
    )
    libraries = [{"jar": "dbfs:/a.jar"}]
    values: Any = {"parameters": TASK["base_parameters"], "libraries": libraries}
    operator.render_template_fields(values | {"cluster": "1201-my-cluster"})
    server.will(LAUNCHED, RUNNING)
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    body = server.requests[0].body
    del body["idempotency_token"]
    assert body == {**REQUEST, "libraries": libraries}


def test_what_renders_to_none_is_told(
    context: Any, server: ScriptedServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """None counts as not given, as in Python; the log says so."""
    with DAG("d", schedule=None, render_template_as_native_obj=True):
        operator = DatabricksRunNowOperator(task_id="t", job_id=3, notebook_params="{{ none }}")
    operator.render_template_fields(context)
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    operator.execute(context)
    assert "notebook_params" not in server.requests[0].body
    assert "notebook_params rendered to None and counts as not given" in "".join(capfd.readouterr())


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (None, "json must be a map of fields; it is null"),
        ("{'a': nan}", "json must be JSON or a Python literal; it breaks at character 7"),
        ("no payload", "json must be JSON or a Python literal; it breaks at character 4"),
        ([1], "json must be a map of fields; it is a list of 1 element"),
    ],
)
def test_text_that_is_no_request(
    context: Any, server: ScriptedServer, kind: Any, payload: Any, message: str, validate: bool
) -> None:
    """The task fails for good, with nothing sent; what is no template fails the DAG's parsing."""
    operator = kind(task_id="t", json="{{ payload }}", validate=validate)
    operator.render_template_fields({"payload": payload})
    with pytest.raises(AirflowFailException, match=message):
        operator.execute(context)
    assert server.requests == []
    if isinstance(payload, str):
        with pytest.raises(InvalidRequestError, match=message):
            kind(task_id="t", json=payload)


class Preset(DatabricksSubmitRunOperator):
    """A user's operator, which sets a field after the constructor of the base class."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.libraries = [{"jar": "{{ jar }}"}]


def test_only_given_fields_are_rendered_and_stored() -> None:
    """Airflow does so with each template field of the copy that it executes."""
    with DAG("d", schedule=None):
        operator = Preset(task_id="t", existing_cluster_id="{{ c }}", notebook_task=TASK)
    given = {"existing_cluster_id", "libraries", "notebook_task"}
    executed = operator.prepare_for_execution()
    assert set(executed.template_fields) == {*given, "databricks_conn_id"}
    assert set(operator.template_fields) == given < set(Preset.template_fields)
    values: Any = {"c": "1201-my-cluster", "jar": "dbfs:/a.jar"}
    executed.render_template_fields(values)
    assert executed.existing_cluster_id == "1201-my-cluster"
    assert executed.libraries == [{"jar": "dbfs:/a.jar"}]
    assert executed.new_cluster is None


def test_airflow_stores_only_given_fields() -> None:
    """A field may be given after the constructor, and is a field of the class without a value."""
    module: Any = importlib.import_module("airflow.serialization.serialized_objects")
    serializer = getattr(module, "DagSerialization", None) or module.SerializedDAG
    with DAG("d", schedule=None) as dag:
        first = BaseOperator(task_id="first")
        task: Any = DatabricksSubmitRunOperator(
            task_id="t", existing_cluster_id="c", notebook_task=TASK, timeout_seconds=0
        )
        task.run_name = first.output
        task.existing_cluster_id = None
        task.new_cluster = {}
    stored = serializer.from_dict(serializer.to_dict(dag)).get_task("t")
    given = {"notebook_task", "run_name", "new_cluster", "timeout_seconds"}
    assert set(stored.template_fields) == given
    assert stored.notebook_task == TASK
    assert set(stored.template_fields_renderers) == {"notebook_task", "new_cluster"}
    assert task.upstream_task_ids == {"first"}
    assert set(task.template_fields) == given
    task.databricks_conn_id = "{{ params.connection }}"
    assert set(task.template_fields) == {*given, "databricks_conn_id"}
    mapped = DatabricksSubmitRunOperator.partial(task_id="m", dag=dag).expand(run_name=["a"])
    assert mapped.template_fields == DatabricksSubmitRunOperator.template_fields
