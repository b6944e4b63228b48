"""When a payload is complete, and what is checked when a DAG is parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    SET_DURING_EXECUTION,
    AirflowFailException,
    BaseOperator,
)

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.schema import validation
from airflow_jobs_provider.operators.cancel_runs import DatabricksCancelRunsOperator
from airflow_jobs_provider.operators.create_job import DatabricksCreateJobsOperator
from airflow_jobs_provider.operators.delete_run import DatabricksDeleteRunOperator
from airflow_jobs_provider.operators.export_run import DatabricksExportRunOperator
from airflow_jobs_provider.operators.jobs import (
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
)
from airflow_jobs_provider.operators.payload_validation import (
    check_before_sending,
    check_when_parsed,
    fields_over_json,
    has_unrendered,
)
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.responses import LAUNCHED, RUNNING
from tests.helpers.tasks import deferred_by, parsed_for_a_task, submit

OPERATORS: dict[type[Any], dict[str, Any]] = {
    DatabricksCreateJobsOperator: {"name": "n", "run_job_task": {"job_id": 1}},
    DatabricksExportRunOperator: {"run_id": 7, "path": "/p"},
    DatabricksCancelRunsOperator: {"run_id": 7},
    DatabricksDeleteRunOperator: {"run_id": 7},
}


@pytest.mark.parametrize(
    "value",
    [
        "{{ ds }}",
        "a {% if x %}b{% endif %}",
        "{# note #}",
        "request.json-tpl",
        {"deep": [{"er": ("{{ ds }}",)}]},
        [SET_DURING_EXECUTION],
        str,  # what is called with the context
    ],
)
def test_what_is_rendered_later(value: Any) -> None:
    """Templates, template files and what Airflow resolves make a payload incomplete."""
    assert has_unrendered(value)


@pytest.mark.parametrize(
    "value", [None, True, 5, 0.5, "x", "a.json", "{x}", {"a": [()]}, {1}, b"x"]
)
def test_what_is_complete(value: Any) -> None:
    """Plain values are known when the DAG is parsed, also those that cannot be sent."""
    assert not has_unrendered(value)


def test_outputs_of_other_tasks() -> None:
    """An XComArg, its parts and what is mapped over it are known only when they have run."""
    with DAG("d", schedule=None, params={"p": 1}) as dag:
        output: Any = BaseOperator(task_id="first").output
        assert has_unrendered({"a": output})
        assert has_unrendered([output["key"]])
        assert has_unrendered(output.map(str))
        assert has_unrendered(dag.param("p"))


def test_fields_win_over_json() -> None:
    """A field given by name replaces the same in json; None is not given."""
    fields = {"a": 3, "b": None}
    assert fields_over_json("run-now", {"a": 1, "b": 2}, fields) == {"a": 3, "b": 2}
    assert fields_over_json("run-now", "{'a': 1, 'b': 2}", fields) == {"a": 3, "b": 2}
    assert fields_over_json("run-now", None, {"a": 0}) == {"a": 0}
    with pytest.raises(InvalidRequestError, match="json must be a map of fields; it is a list"):
        fields_over_json("run-now", "[]", {})


def test_what_is_checked_when_parsed() -> None:
    """A complete request is; one with a template, one not given at all, and an unwanted one not."""
    bad = {"limit": -1}
    with pytest.raises(InvalidRequestError, match="limit must be from 0 to 1000; it is -1"):
        check_when_parsed("runs/list", None, bad)
    with pytest.raises(InvalidRequestError):
        check_when_parsed("runs/list", bad, {"run_type": None})
    check_when_parsed("runs/list", bad, {"run_type": "{{ x }}"})
    check_when_parsed("runs/get", None, {"run_id": None})
    check_when_parsed("runs/list", bad, {}, validate=False)


def test_what_is_checked_before_sending() -> None:
    """A rendered request is, unless the user said not to."""
    with pytest.raises(InvalidRequestError):
        check_before_sending("runs/get", {})
    check_before_sending("runs/get", {}, validate=False)
    # A dynamic value reference of the service looks like a template, and is sent as it is.
    check_before_sending("run-now", {"job_id": 1, "python_params": ["{{job.id}}"]})


@pytest.mark.parametrize("kind", OPERATORS)
def test_every_field_is_templated_and_takes_xcomargs(kind: Any) -> None:
    """A template is rendered wherever it stands; an XComArg makes its task upstream."""
    given = OPERATORS[kind]
    with DAG("d", schedule=None) as dag:
        first = BaseOperator(task_id="first")
        for name in kind.template_fields:
            others = {} if kind is DatabricksCancelRunsOperator else given
            if name == "databricks_conn_id":
                others = given
            operator = kind(task_id=f"t_{name}", **{**others, name: "{{ x }}"})
            operator.render_template_fields({"x": "rendered"})
            assert getattr(operator, name) == "rendered"
            kind(task_id=f"x_{name}", **{**others, name: first.output})
            assert dag.get_task(f"x_{name}").upstream_task_ids == {"first"}


def test_a_mistake_shows_when_the_dag_is_parsed() -> None:
    """The constructor tells all problems of a complete request; validate=False lets it pass."""
    wrong: dict[str, Any] = {"name": "n", "notebook_task": {"notebook_path": "etl"}}
    with pytest.raises(InvalidRequestError) as caught:
        DatabricksCreateJobsOperator(task_id="t", **wrong)
    assert [problem.field for problem in caught.value.problems] == ["notebook_task.notebook_path"]
    DatabricksCreateJobsOperator(task_id="t", validate=False, **wrong)
    DatabricksCreateJobsOperator(task_id="t", **wrong, timeout_seconds="{{ x }}")
    with pytest.raises(InvalidRequestError, match="views_to_export"):
        DatabricksExportRunOperator(task_id="t", run_id=7, path="/p", views_to_export="HTML")
    with pytest.raises(InvalidRequestError, match="run_id must be a whole number"):
        DatabricksDeleteRunOperator(task_id="t", run_id="seven")
    with pytest.raises(InvalidRequestError, match="job_id must be a whole number"):
        DatabricksCancelRunsOperator(task_id="t", job_id="seven")
    with pytest.raises(ValueError, match="exactly one of run_id and job_id must be given; none is"):
        DatabricksCancelRunsOperator(task_id="t")


def test_a_template_file_is_read_before_it_is_checked(tmp_path: Path) -> None:
    """A request kept in a file is complete only after rendering."""
    (tmp_path / "job.json-tpl").write_text("{}")
    with DAG("d", schedule=None, template_searchpath=[str(tmp_path)]):
        DatabricksCreateJobsOperator(task_id="t", name="n", json="job.json-tpl")


def test_a_mapped_operator_is_checked_when_it_is_known() -> None:
    """Nothing is checked of what is mapped until it is unmapped."""
    with DAG("d", schedule=None) as dag:
        DatabricksDeleteRunOperator.partial(task_id="t").expand(run_id=["1", "seven"])
    assert dag.has_task("t")


def test_a_task_process_validates_only_what_it_sends_and_once(
    server: ScriptedServer, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It parses a file with many operators, and executes one of them."""
    validated: list[str] = []
    validate = validation.validate

    def counted(call_name: str, payload: Any, **more: Any) -> None:
        validated.append(call_name)
        validate(call_name, payload, **more)

    monkeypatch.setattr(validation, "validate", counted)
    submit(deferrable=True)
    assert validated == ["runs/submit"], "the DAG processor validates"
    validated.clear()
    parsed_for_a_task(monkeypatch)
    with DAG("d", schedule=None):
        for kind, arguments in OPERATORS.items():
            kind(task_id=kind.__name__, **arguments)
        DatabricksNotebookOperator(task_id="n", notebook_path="/n", source="WORKSPACE")
        DatabricksRunNowOperator(
            task_id="r",
            job_id=7,
            repair_run=True,
            databricks_repair_reason_new_settings={"a": {"max_concurrent_runs": 2}},
        )
        task = submit(deferrable=True)
    assert validated == []
    server.will(LAUNCHED, RUNNING)
    deferred_by(task, context)
    assert validated == ["runs/submit"]


def test_a_mistake_in_a_task_process_is_found_before_it_is_sent(
    server: ScriptedServer, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the DAG file was changed after the DAG processor had read it."""
    parsed_for_a_task(monkeypatch)
    task = submit(notebook_task={"notebook_path": 5})
    with pytest.raises(AirflowFailException, match=r"notebook_task\.notebook_path must be text"):
        task.execute(context)
    assert server.requests == []
