"""OpenLineage's information in a launch. ``tests/real_clients`` has the same with its provider."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from tests.fakes.fake_service import UNTIL_ENDED, FakeService
from tests.fakes.scripted_server import TOKEN, ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, RUNNING, run
from tests.helpers.tasks import TaskInstance, deferred_by, fired, run_now, submit
from tests.helpers.workflow_group import Airflow
from tests.helpers.workflow_group import sent as bodies

CLUSTER = {"spark_version": "15", "node_type_id": "n", "num_workers": 1, "spark_conf": {"a": "b"}}
PROVIDER = "airflow.providers.openlineage"
SPARK = "airflow.providers.common.compat.openlineage.utils.spark"


def installed(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> None:
    """Install a provider that knows a task's names, in place of the one that is not here."""
    macros = {
        "lineage_run_id": lambda ti: f"run of {ti.task_id}",
        "lineage_job_name": lambda ti: f"{ti.dag_id}.{ti.task_id}",
        "lineage_job_namespace": lambda: "here",
        "lineage_root_run_id": lambda _ti: "root run",
        "lineage_root_job_name": lambda ti: ti.dag_id,
        "lineage_root_job_namespace": lambda _ti: "there",
    }
    modules: dict[str, dict[str, Any]] = {
        "": {},
        ".conf": {"is_disabled": lambda: False},
        ".plugins": {},
        ".plugins.listener": {"get_openlineage_listener": object},
        ".plugins.macros": {**macros, **functions},
    }
    for name, content in modules.items():
        module = ModuleType(f"{PROVIDER}{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        if name.count(".") > 1:
            parent, _, child = module.__name__.rpartition(".")
            setattr(sys.modules[parent], child, module)
    for kind in ("parent_job", "transport"):
        monkeypatch.setattr(
            f"{SPARK}.inject_{kind}_information_into_spark_properties",
            lambda properties, context, kind=kind: {**properties, kind: context["ti"].task_id},
        )


def sent(server: ScriptedServer, context: Any, task: Any) -> Any:
    """Return the request with which a task launches its run."""
    server.will(LAUNCHED, RUNNING)
    task.execute(context)
    return server.requests[-2].body


def parent_of(parameters: dict[str, str]) -> Any:
    """Return the parent that parameters name."""
    return json.loads(parameters["OPENLINEAGE_CONTEXT"])["parent"]


@pytest.mark.parametrize("make", [submit, run_now])
def test_without_the_provider(
    context: Any, server: ScriptedServer, make: Any, logged: Callable[[], str]
) -> None:
    """The run is launched as it is, and the log says why."""
    more = {"job_id": 3} if make is run_now else {}
    more |= {"wait_for_termination": False, "openlineage_inject_parent_job_info": True}
    body = sent(server, context, make(**more))
    assert "OPENLINEAGE_CONTEXT" not in str(body)
    assert "OpenLineage provider is not installed" in logged()


def test_nothing_is_said_where_nothing_is_asked_for(
    context: Any, server: ScriptedServer, logged: Callable[[], str]
) -> None:
    """It is off by default."""
    sent(server, context, submit(wait_for_termination=False))
    assert "OpenLineage" not in logged()


def test_airflows_setting_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the official provider."""
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__SPARK_INJECT_PARENT_JOB_INFO", "True")
    assert submit().openlineage_inject_parent_job_info
    assert not submit().openlineage_inject_transport_info
    assert run_now(job_id=3).openlineage_inject_parent_job_info
    given = run_now(job_id=3, openlineage_inject_parent_job_info=False)
    assert not given.openlineage_inject_parent_job_info


def test_a_flag_that_is_text() -> None:
    """``"False"`` is true in Python."""
    with pytest.raises(InvalidRequestError, match="openlineage_inject_parent_job_info"):
        submit(openlineage_inject_parent_job_info="False")


def test_a_submitted_run(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notebook's parameters and the new cluster have the task; the arguments are unchanged."""
    installed(monkeypatch)
    task = submit(
        existing_cluster_id=None,
        new_cluster=CLUSTER,
        wait_for_termination=False,
        openlineage_inject_parent_job_info=True,
        openlineage_inject_transport_info=True,
    )
    body = sent(server, context, task)
    parent = parent_of(body["notebook_task"]["base_parameters"])
    assert parent["run"] == {"runId": "run of etl"}
    assert parent["job"]["name"] == "sales.etl"
    assert parent["root"]["run"] == {"runId": "root run"}
    assert parent["root"]["job"]["namespace"] == "there"
    assert parent["root"]["job"]["facets"]["jobType"]["jobType"] == "DAG"
    assert body["new_cluster"]["spark_conf"] == {"a": "b", "parent_job": "etl", "transport": "etl"}
    assert task.new_cluster == CLUSTER


@pytest.mark.parametrize(
    ("conf", "job_type"),
    [
        ({}, "DAG"),
        ({"openlineage": {"parentRunId": "no uuid"}}, "DAG"),
        ({"openlineage": {"parentRunId": "ROOT", "rootParentJobType": {"jobType": "X"}}}, "X"),
        ({"openlineage": {"parentRunId": "ROOT"}}, None),
    ],
)
def test_a_dag_run_with_a_root_of_its_own(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    conf: dict[str, Any],
    job_type: str | None,
) -> None:
    """Another run has triggered the DAG run: the root is of that run's kind."""
    installed(monkeypatch)
    if inherited := conf.get("openlineage"):
        names = {"parentJobNamespace": "n", "parentJobName": "j"}
        root_id = inherited["parentRunId"].replace("ROOT", "019b76da-a800-79a0-a2ed-5b45c17f6875")
        conf = {"openlineage": {**inherited, **names, "parentRunId": root_id}}
    context["dag_run"] = type("DagRun", (), {"conf": conf})()
    task = run_now(job_id=3, wait_for_termination=False, openlineage_inject_parent_job_info=True)
    body = sent(server, context, task)
    facets = parent_of(body["job_parameters"])["root"]["job"].get("facets", {})
    assert facets.get("jobType", {}).get("jobType") == job_type


def test_a_fault_of_the_provider(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    """The run is launched without; the cluster's part is not lost with the parameters' part."""

    def fail(_ti: Any) -> str:
        raise RuntimeError("no such task instance")

    installed(monkeypatch, lineage_run_id=fail)
    body = sent(
        server,
        context,
        submit(
            existing_cluster_id=None,
            new_cluster=CLUSTER,
            wait_for_termination=False,
            openlineage_inject_parent_job_info=True,
        ),
    )
    assert "OPENLINEAGE_CONTEXT" not in str(body)
    assert body["new_cluster"]["spark_conf"]["parent_job"] == "etl"
    assert "no such task instance" in logged()


def test_a_disabled_provider(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    """The same as none."""
    installed(monkeypatch)
    monkeypatch.setattr(sys.modules[f"{PROVIDER}.conf"], "is_disabled", lambda: True)
    task = run_now(job_id=3, wait_for_termination=False, openlineage_inject_parent_job_info=True)
    assert "job_parameters" not in sent(server, context, task)
    assert "OpenLineage is disabled" in logged()


def test_a_provider_with_an_invalid_setting(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    """It keeps no run from being launched."""

    def fail() -> bool:
        raise ValueError("disabled is no boolean")

    installed(monkeypatch)
    monkeypatch.setattr(sys.modules[f"{PROVIDER}.conf"], "is_disabled", fail)
    task = run_now(job_id=3, wait_for_termination=False, openlineage_inject_parent_job_info=True)
    assert "job_parameters" not in sent(server, context, task)
    assert "disabled is no boolean" in logged()


def test_a_wheel_with_positional_parameters(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no named ones beside them, so the service would refuse the run."""
    installed(monkeypatch)
    wheel = {"package_name": "p", "entry_point": "e"}
    tasks = [
        {"task_key": "a", "python_wheel_task": {**wheel, "parameters": ["x"]}},
        {"task_key": "b", "python_wheel_task": wheel},
    ]
    more: dict[str, Any] = {"existing_cluster_id": None, "notebook_task": None}
    task = submit(
        tasks=tasks,
        wait_for_termination=False,
        openlineage_inject_parent_job_info=True,
        **more,
    )
    first, second = sent(server, context, task)["tasks"]
    assert first == tasks[0]
    assert list(second["python_wheel_task"]["named_parameters"]) == ["OPENLINEAGE_CONTEXT"]


def test_a_spark_submit_task(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cluster takes no Spark properties, so the service would refuse the run."""
    installed(monkeypatch)
    cluster = {name: value for name, value in CLUSTER.items() if name != "spark_conf"}
    task = submit(
        existing_cluster_id=None,
        new_cluster=cluster,
        notebook_task=None,
        spark_submit_task={"parameters": ["--class", "Main", "dbfs:/a.jar"]},
        wait_for_termination=False,
        openlineage_inject_parent_job_info=True,
        openlineage_inject_transport_info=True,
    )
    assert sent(server, context, task)["new_cluster"] == cluster


def test_a_connection_without_job_parameters(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    """Version 2.0 has none. The run is launched without them."""
    installed(monkeypatch)
    connection = {
        "conn_type": "databricks_jobs",
        "host": server.url,
        "password": TOKEN,
        "extra": {"api_version": "2.0"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    task = run_now(job_id=3, wait_for_termination=False, openlineage_inject_parent_job_info=True)
    assert "job_parameters" not in sent(server, context, task)
    assert "api_version is 2.0" in logged()


@pytest.mark.parametrize("is_option", [False, True])
@pytest.mark.parametrize("has_cluster", [False, True])
def test_the_transport_of_a_run_without_a_new_cluster(
    has_cluster: bool,
    is_option: bool,
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    """It is not sent. The log says so of the argument; the option is for all tasks."""
    installed(monkeypatch)
    cluster = {"existing_cluster_id": None, "new_cluster": CLUSTER} if has_cluster else {}
    option = {"openlineage_inject_transport_info": True}
    if is_option:
        monkeypatch.setenv("AIRFLOW__OPENLINEAGE__SPARK_INJECT_TRANSPORT_INFO", "True")
        option = {}
    body = sent(server, context, submit(wait_for_termination=False, **cluster, **option))
    assert ("transport" in json.dumps(body)) is has_cluster
    line = "openlineage_inject_transport_info has no effect: the run has no new cluster."
    assert (line in logged()) is not (has_cluster or is_option)


def test_a_task_operator(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone it submits a one-time run, with the same information."""
    installed(monkeypatch)
    task = DatabricksNotebookOperator(
        task_id="etl",
        notebook_path="/etl",
        new_cluster=CLUSTER,
        wait_for_termination=False,
        openlineage_inject_parent_job_info=True,
        openlineage_inject_transport_info=True,
    )
    body = sent(server, context, task)
    assert parent_of(body["notebook_task"]["base_parameters"])["run"] == {"runId": "run of etl"}
    assert body["new_cluster"]["spark_conf"] == {"a": "b", "parent_job": "etl", "transport": "etl"}


@pytest.mark.parametrize(
    ("params", "notebook_params"),
    [
        ({}, ["OPENLINEAGE_CONTEXT"]),
        ({"notebook_params": {"day": "1"}}, ["OPENLINEAGE_CONTEXT", "day"]),
        ({"jar_params": ["a"]}, []),
    ],
)
def test_a_group_sends_it_with_the_run(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    params: dict[str, Any],
    notebook_params: list[str],
) -> None:
    """The job is the same as without, so that it is not reset for each DAG run."""
    installed(monkeypatch)
    plain = Airflow(monkeypatch, group=params)
    airflow = Airflow(monkeypatch, group={**params, "openlineage_inject_parent_job_info": True})
    assert airflow.settings == plain.settings
    server.will(airflow.jobs, airflow.job, LAUNCHED, RUNNING)
    airflow.launch(try_number=1, max_tries=0)
    (body,) = bodies(server, "run-now")
    assert sorted(body.get("notebook_params", {})) == notebook_params
    if notebook_params:
        assert parent_of(body["notebook_params"])["run"] == {"runId": "run of etl.launch"}


def test_a_group_without_room_for_it(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parameters of a run have 10,000 bytes at most. The run is launched as it is."""
    installed(monkeypatch)
    params = {"notebook_params": {"text": "x" * 9_900}}
    airflow = Airflow(monkeypatch, group={**params, "openlineage_inject_parent_job_info": True})
    server.will(airflow.jobs, airflow.job, LAUNCHED, RUNNING)
    airflow.launch(try_number=1, max_tries=0)
    (body,) = bodies(server, "run-now")
    assert body["notebook_params"] == params["notebook_params"]


def test_credentials_of_the_transport_are_masked(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in no attribute of the task, its trigger, or the event with the ended run."""
    installed(monkeypatch)
    masked: list[str] = []
    monkeypatch.setattr("airflow.providers.common.compat.sdk.mask_secret", masked.append)
    prefix = "spark.openlineage.transport."
    properties = {
        f"{prefix}type": "composite",
        f"{prefix}transports.a.auth.type": "api_key",
        f"{prefix}transports.a.auth.apiKey": "Bearer the key",
        f"{prefix}transports.b.headers.Authorization": "the header",
        f"{prefix}transports.b.url": "http://127.0.0.1",
    }
    monkeypatch.setattr(
        f"{SPARK}.inject_transport_information_into_spark_properties",
        lambda given, _context: {**given, **properties},
    )
    task = submit(
        existing_cluster_id=None,
        new_cluster=CLUSTER,
        deferrable=True,
        openlineage_inject_transport_info=True,
    )
    server.will(LAUNCHED, RUNNING)
    deferred = deferred_by(task, context)
    cluster = server.requests[0].body["new_cluster"]
    assert cluster["spark_conf"] == {"a": "b", **properties}
    # The service shows the cluster of a run.
    ended = run("TERMINATED", "SUCCESS", cluster_spec={"new_cluster": cluster})
    server.will(answer(ended))
    stored = [deferred.trigger.serialize(), deferred.kwargs, fired(deferred.trigger).payload]
    assert "the key" not in str(stored)
    assert set(masked) == {"Bearer the key", "the key", "the header"}
    assert "the key" not in str({name: getattr(task, name) for name in task.template_fields})


def test_an_error_about_the_transport_is_not_quoted(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    """It may quote the configuration, with the API key."""

    def fail(_properties: Any, _context: Any) -> Any:
        raise ValueError("no such token provider: {'apiKey': 'the key'}")

    installed(monkeypatch)
    monkeypatch.setattr(f"{SPARK}.inject_transport_information_into_spark_properties", fail)
    task = submit(
        existing_cluster_id=None,
        new_cluster=CLUSTER,
        wait_for_termination=False,
        openlineage_inject_parent_job_info=True,
        openlineage_inject_transport_info=True,
    )
    body = sent(server, context, task)
    assert body["new_cluster"]["spark_conf"] == {"a": "b", "parent_job": "etl"}
    text = logged()
    assert "not sent with the run: ValueError" in text
    assert "the key" not in text


def test_a_retry_names_itself_and_gets_the_run_of_the_first_try(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request has another parent, but the same token, so that nothing is launched twice."""
    installed(monkeypatch, lineage_run_id=lambda ti: f"try {ti.try_number}")
    with FakeService(UNTIL_ENDED) as service:
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", service.connection)
        for try_number in (1, 2):
            ti = TaskInstance()
            ti.try_number, ti.max_tries = try_number, 1
            task = submit(wait_for_termination=False, openlineage_inject_parent_job_info=True)
            own_context: Any = {**context, "ti": ti}
            task.execute(own_context)
        ((run,), sent) = service.runs.values(), service.seen
    assert run.launches == 2
    launches = [one.parameters for one in sent if one.endpoint == "runs/submit"]
    parents = [parent_of(one["notebook_task"]["base_parameters"]) for one in launches]
    assert [parent["run"]["runId"] for parent in parents] == ["try 1", "try 2"]
    assert len({one["idempotency_token"] for one in launches}) == 1
