"""The request of a run that is launched in the triggerer, and what needs a worker."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG, BaseOperator, Param
from airflow.serialization.serialized_objects import BaseSerialization

from airflow_jobs_provider.airflow_compat import completion_reasons, triggerer_values
from airflow_jobs_provider.airflow_compat.stored_arguments import of_text
from airflow_jobs_provider.operators.jobs import (
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksTaskOperator,
)
from airflow_jobs_provider.operators.launch import LaunchRunOperator
from airflow_jobs_provider.operators.task_base import default_task_key
from tests.fakes.fake_service import FakeService
from tests.helpers.launch_trigger import messages, start, succeeded, triggerer_of
from tests.helpers.start_from_trigger import operator
from tests.helpers.triggerer import RUN_ID, Attempt, context_on_worker, values_of


def test_a_run_is_launched_and_its_output_is_pushed(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is a worker's: name, rendered parameters, validated, with the task's token."""
    triggerer = start(service, monkeypatch)
    assert succeeded(triggerer.start(Attempt()))
    (run,) = service.runs.values()
    assert run.request["run_name"] == "sales.etl manual__2026 try 1"
    assert run.request["notebook_task"]["base_parameters"] == {"day": "2026-01-02"}
    assert values_of(triggerer) == {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "run_page_url": f"http://workspace.invalid/#job/{run.job_id}/run/{run.run_id}",
        "return_value": f"output of {run.run_id}",
    }


@pytest.mark.parametrize("stores_xcoms", [True, False])
def test_what_is_asked_of_airflow_and_of_the_service(
    stores_xcoms: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message to Airflow takes the triggerer about 16 ms of CPU time.

    The first tasks of a triggerer record their attempts: its XComs may be out of order.
    """
    triggerer = start(service, monkeypatch)
    triggerer.stores_xcoms = stores_xcoms
    assert succeeded(triggerer.start(Attempt()))
    record = [] if stores_xcoms else ["GetXCom launch_record", "SetXCom launch_record"]
    assert messages(triggerer) == [
        *record,
        "SetXCom run_id",
        "SetXCom job_id",
        "SetXCom run_page_url",
        "SetXCom return_value",
    ]
    assert [seen.endpoint for seen in service.seen] == [
        "runs/submit",
        "runs/get",
        "runs/get",
        "runs/get-output",
    ]


@pytest.mark.parametrize(
    ("kind", "arguments", "sent"),
    [
        (
            DatabricksRunNowOperator,
            {"job_name": "the job", "notebook_params": {"day": "{{ ds }}"}},
            {"job_id": 501, "notebook_params": {"day": "2026-01-02"}},
        ),
        (
            DatabricksRunNowOperator,
            {"job_id": 501, "params": {"day": 2, "unset": None}},
            {"job_id": 501, "job_parameters": {"day": "2"}},
        ),
        (
            DatabricksNotebookOperator,
            {
                "notebook_path": "/{{ ds }}",
                "source": "WORKSPACE",
                "existing_cluster_id": "c",
                "max_retries": "{{ 1 + 1 }}",
            },
            {
                "run_name": "sales.etl manual__2026 try 1",
                "tasks": [
                    {
                        "task_key": default_task_key("sales", "etl"),
                        "notebook_task": {"notebook_path": "/2026-01-02", "source": "WORKSPACE"},
                        "existing_cluster_id": "c",
                        "max_retries": 2,
                    }
                ],
            },
        ),
        (
            DatabricksTaskOperator,
            {
                "databricks_task_key": "own",
                "existing_cluster_id": "c",
                "task_config": {"spark_jar_task": {"main_class_name": "{{ ti.task_id }}"}},
            },
            {
                "run_name": "own",
                "spark_jar_task": {"main_class_name": "etl"},
                "existing_cluster_id": "c",
            },
        ),
    ],
)
def test_the_request_is_that_of_a_worker(
    kind: type[LaunchRunOperator],
    arguments: dict[str, Any],
    sent: dict[str, Any],
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A job is looked up by its name; the DAG's params are forwarded as the operator does."""
    service.jobs[501] = {"name": "the job"}
    triggerer = start(service, monkeypatch, kind=kind, **arguments)
    assert succeeded(triggerer.start(Attempt()))
    (run,) = service.runs.values()
    request = {name: value for name, value in run.request.items() if name != "idempotency_token"}
    assert request == sent
    assert values_of(triggerer)["run_id"] == run.run_id


@pytest.mark.parametrize("given", [{"billing_tags": True}, {}])
def test_the_settings_of_the_triggerer_count(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    """For the run's name, and for tags unless the operator says otherwise."""
    cluster = {"spark_version": "15", "node_type_id": "n", "num_workers": 1}
    triggerer = start(
        service,
        monkeypatch,
        existing_cluster_id=None,
        new_cluster=cluster,
        owner="Ann",
        **given,
    )
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__RUN_NAME_TEMPLATE", "prod {task}")
    if not given:
        monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__BILLING_TAGS", "True")
    assert succeeded(triggerer.start(Attempt()))
    (run,) = service.runs.values()
    assert run.request["run_name"] == "prod etl"
    assert run.request["new_cluster"]["custom_tags"] == {
        "airflow_dag_id": "sales",
        "airflow_task_id": "etl",
        "airflow_owner": "Ann",
        "airflow_run_id": RUN_ID,
        "airflow_try_number": "1",
    }


def test_an_invalid_run_name_template_is_final_in_the_triggerer(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker tells it, and Airflow does not retry."""
    triggerer = start(service, monkeypatch)
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__RUN_NAME_TEMPLATE", "{dag}")
    payload = triggerer.start(Attempt()).payload
    assert (payload["is_launch"], payload["is_final"]) == (True, True)
    assert "run_name_template is invalid" in payload["error"]
    assert not service.runs


def test_a_request_that_cannot_succeed_is_not_sent(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known after rendering only; a worker fails the task without a retry."""
    event = start(service, monkeypatch, libraries="{{ 'x' }}").start(Attempt())
    assert event.payload["is_final"]
    assert "libraries" in event.payload["error"]
    assert service.requests == 0


@pytest.mark.parametrize("is_of_earlier_version", [False, True])
def test_any_text_arrives_as_it_is_given(
    is_of_earlier_version: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow renders the values. An earlier version stored each argument by itself."""
    given = 'a "quoted" \\ one\\n\n\u00e4 \U0001f600 {"b": [1]} it\'s \ud800 } %s '
    parameters = {"literal": given, "rendered": given + "{{ ds }}", given: "{{ params.text }}"}
    task = {"notebook_path": "/x", "base_parameters": parameters}
    triggerer = start(service, monkeypatch, notebook_task=task, params={"text": given})
    if is_of_earlier_version:
        arguments: Any = triggerer._dag.get_task("etl").start_trigger_args
        one_by_one = of_text(arguments.trigger_kwargs["__var"])
        assert one_by_one["notebook_task"] == task
        arguments.trigger_kwargs = BaseSerialization.serialize(one_by_one)
        triggerer.start_with(arguments)
    assert succeeded(triggerer.start(Attempt()))
    (run,) = service.runs.values()
    assert run.request["notebook_task"]["base_parameters"] == {
        "literal": given,
        "rendered": f"{given}2026-01-02",
        given: given,
    }


@pytest.mark.parametrize("stored", [True, False])
def test_the_output_of_another_task_keeps_its_type(
    stored: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that task has pushed none, a worker starts the task, as it always would."""
    triggerer = start(service, monkeypatch, notebook_task="of another task")
    if stored:
        parameters = {"n": 1, "day": "{{ ds }}"}
        task = {"notebook_path": "/x", "base_parameters": parameters}
        triggerer.xcoms["other", "p"] = task
    event = triggerer.start(Attempt())
    if stored:
        (run,) = service.runs.values()
        sent = run.request["notebook_task"]["base_parameters"]
        assert sent == {"n": "1", "day": "{{ ds }}"}
    else:
        assert "no XCom 'p'" in event.payload["start_on_worker"]
        assert service.requests == 0


NAMES = [
    *sorted(triggerer_values._NAMES - {"dict", "macros", "namespace", "params", "range"}),
    *(
        f"{owner}.{name}"
        for owner, names in triggerer_values._ATTRIBUTES.items()
        for name in sorted(names)
    ),
    "macros.ds_add(ds, 7)",
    "params.text",
]


def test_each_name_of_a_template_has_the_value_that_it_has_on_a_worker(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task with any other name starts on a worker."""
    parameters = {name: f"{{{{ {name} }}}}" for name in NAMES}
    with DAG("sales", schedule=None, catchup=False, params={"text": "a"}) as dag:
        task: Any = operator(notebook_task={"notebook_path": "/x", "base_parameters": parameters})
    assert succeeded(triggerer_of(dag, service, monkeypatch).start(Attempt()))
    (run,) = service.runs.values()
    task.render_template_fields(context_on_worker(task))
    sent = run.request["notebook_task"]["base_parameters"]
    assert sent == task.notebook_task["base_parameters"]


def test_a_template_that_fails_is_left_to_a_worker(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An undefined name is an error in the triggerer, too."""
    event = start(service, monkeypatch, run_name="{{ params.unknown }}").start(Attempt())
    assert "unknown" in event.payload["start_on_worker"]
    assert service.requests == 0


def test_a_required_param_ends_the_triggerer(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why such a task starts on a worker. Where this fails, Airflow has mended it."""
    monkeypatch.setattr(completion_reasons, "required_params", lambda task: [])  # noqa: ARG005
    triggerer = start(service, monkeypatch, params={"day": Param(type="string")})
    with pytest.raises(ValueError, match="no default"):
        triggerer.trigger(Attempt())


@pytest.mark.parametrize(
    ("kind", "arguments", "reason"),
    [
        (DatabricksRunNowOperator, {"job_id": 1, "repair_run": True}, "repair_run"),
        (
            DatabricksRunNowOperator,
            {"job_id": 1, "cancel_previous_runs": True},
            "cancel_previous_runs",
        ),
        (
            DatabricksRunNowOperator,
            {"job_id": 1, "openlineage_inject_parent_job_info": True},
            "OpenLineage",
        ),
    ],
)
def test_what_of_an_operator_needs_a_worker(
    kind: type[LaunchRunOperator], arguments: dict[str, Any], reason: str
) -> None:
    """What takes requests beside the launch."""
    with DAG("sales", schedule=None, catchup=False):
        assert operator(kind, **arguments).worker_start_reasons() == [reason]


@pytest.mark.parametrize("task_id", ["etl", "mapped"])
def test_a_worker_starts_the_task_if_the_xcom_of_another_one_cannot_be_read(
    task_id: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's API answers with an error, as where its database is locked."""
    with DAG("sales", schedule=None, catchup=False) as dag:
        other = BaseOperator(task_id="other")
        operator(notebook_task=other.output)
        DatabricksRunNowOperator.partial(
            task_id="mapped", job_id=1, start_from_trigger=True, end_from_trigger=True
        ).expand(notebook_params=other.output)
    triggerer = triggerer_of(dag, service, monkeypatch, task_id)
    triggerer.unreadable.add("other")
    event = triggerer.start(Attempt(map_index=0 if task_id == "mapped" else -1))
    assert "XCom" in event.payload["start_on_worker"]
    assert service.requests == 0
