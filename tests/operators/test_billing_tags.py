"""Tags for billing reports: ``billing_tags`` of operators, ``[databricks_jobs] billing_tags``."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.operators.billing_tags import TagRules
from airflow_jobs_provider.operators.jobs import (
    DatabricksCreateJobsOperator,
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
)
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup
from tests.fakes.scripted_server import TOKEN, ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, OUTPUT, RUNNING, run
from tests.helpers.tasks import submit
from tests.helpers.workflow_group import CLUSTER, Airflow, sent

OPTION = "AIRFLOW__DATABRICKS_JOBS__BILLING_TAGS"
NOTEBOOK: dict[str, Any] = {"notebook_task": {"notebook_path": "/etl"}}
TAGS = {
    "airflow_dag_id": "sales",
    "airflow_task_id": "etl",
    "airflow_owner": "airflow",
    "airflow_run_id": "scheduled__2026-01-01",
    "airflow_try_number": "2",
}
STABLE = {key: TAGS[key] for key in ("airflow_dag_id", "airflow_task_id", "airflow_owner")}


def submitted(server: ScriptedServer, context: Any, **arguments: Any) -> Any:
    """Return the request with which a task submits its run, in a process of its own."""
    server.will(LAUNCHED, RUNNING)
    context = {**context, "ti": copy.copy(context["ti"])}
    arguments = {"existing_cluster_id": None, "wait_for_termination": False, **arguments}
    submit(**arguments).execute(context)
    return server.requests[-2].body


@pytest.mark.parametrize("is_option", [False, True])
@pytest.mark.parametrize(
    ("arguments", "is_untagged"),
    [
        ({"existing_cluster_id": "c"}, True),
        ({"json": {"tasks": [{"task_key": "a", **NOTEBOOK}]}, "notebook_task": None}, True),
        ({"new_cluster": CLUSTER}, False),
    ],
)
def test_a_run_without_a_new_cluster_gets_no_tags(
    arguments: dict[str, Any],
    is_untagged: bool,
    is_option: bool,
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    """The log says so of the argument, not of the option, which is for all tasks."""
    if is_option:
        monkeypatch.setenv(OPTION, "True")
    else:
        arguments = {**arguments, "billing_tags": True}
    body = submitted(server, context, **arguments)
    assert ("custom_tags" in json.dumps(body)) is not is_untagged
    line = "billing_tags has no effect: the run has no new cluster."
    assert (line in logged()) is (is_untagged and not is_option)


def test_each_new_cluster_of_a_run_is_tagged(context: Any, server: ScriptedServer) -> None:
    """Of tasks, loops and job clusters; the operator's arguments are unchanged."""
    loop = {"inputs": "[1]", "task": {"task_key": "one", "new_cluster": CLUSTER, **NOTEBOOK}}
    tasks = [
        {"task_key": "own", "new_cluster": CLUSTER, **NOTEBOOK},
        {"task_key": "shared", "job_cluster_key": "small", **NOTEBOOK},
        {"task_key": "existing", "existing_cluster_id": "c", **NOTEBOOK},
        {"task_key": "loop", "for_each_task": loop},
    ]
    given = {"tasks": tasks, "job_clusters": [{"job_cluster_key": "small", "new_cluster": CLUSTER}]}
    before = copy.deepcopy(given)
    context["ti"].map_index = 3
    body = submitted(server, context, notebook_task=None, json=given, billing_tags=True)
    own, shared, existing, loops = body["tasks"]
    expected = {**TAGS, "airflow_map_index": "3"}
    for holder in (own, body["job_clusters"][0], loops["for_each_task"]["task"]):
        assert holder["new_cluster"] == {**CLUSTER, "custom_tags": expected}
    assert "new_cluster" not in shared
    assert "new_cluster" not in existing
    assert given == before


def test_the_users_own_tags_win(context: Any, server: ScriptedServer) -> None:
    """Also in another case: Azure's keys are the same in upper and lower case."""
    own = {"team": "sales", "airflow_owner": "me", "Airflow_Run_Id": "mine"}
    cluster = {**CLUSTER, "custom_tags": own}
    body = submitted(server, context, new_cluster=cluster, billing_tags=True)
    found = body["new_cluster"]["custom_tags"]
    assert found == {
        **{key: value for key, value in TAGS.items() if key != "airflow_run_id"},
        **own,
    }


def test_without_it_the_request_is_the_same(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off by default; an operator's False wins over the option. The token is the same with tags."""
    default = submitted(server, context, new_cluster=CLUSTER)
    assert default["new_cluster"] == CLUSTER
    monkeypatch.setenv(OPTION, "True")
    assert submitted(server, context, new_cluster=CLUSTER, billing_tags=False) == default
    tagged = submitted(server, context, new_cluster=CLUSTER)
    assert tagged["new_cluster"] == {**CLUSTER, "custom_tags": TAGS}
    assert tagged["idempotency_token"] == default["idempotency_token"]


def test_a_flag_that_is_text() -> None:
    """``"False"`` is true in Python."""
    wrong: Any = "False"
    with pytest.raises(InvalidRequestError, match="billing_tags"):
        submit(billing_tags=wrong)
    with pytest.raises(InvalidRequestError, match="billing_tags"):
        DatabricksNotebookOperator(task_id="n", notebook_path="/n", billing_tags=wrong)
    with pytest.raises(InvalidRequestError, match="billing_tags"):
        DatabricksCreateJobsOperator(task_id="c", billing_tags=wrong)


def test_run_now_has_no_clusters_to_tag() -> None:
    """So it does not take the argument."""
    given: Any = {"billing_tags": True}
    with pytest.raises(Exception, match="billing_tags"):
        DatabricksRunNowOperator(task_id="r", job_id=3, **given)


@pytest.mark.parametrize(
    ("value", "valid", "on_gcp"),
    [
        ("scheduled__2026-01-01T00:00:00+00:00",) * 2 + ("scheduled__2026-01-01T00_00_00_00_00",),
        ("Ann Ölander <ann@example.com>", "Ann _lander _ann@example.com_",
         "Ann__lander__ann_example.com"),
        ("a/b=c", "a/b=c", "a_b_c"),
        ("_x_", "_x_", "x"),
        ("x" * 300, "x" * 255, "x" * 63),
        ("x" * 62 + "..", "x" * 62 + "..", "x" * 62),
        (7, "7", "7"),
        (" \n", "_", ""),
        ("", "", ""),
    ],
)  # fmt: skip
def test_values_are_made_valid(value: Any, valid: str, on_gcp: str) -> None:
    """By the rules of AWS, which hold on Azure, too; on Google Cloud by those of its labels."""
    assert TagRules().valid_value(value) == valid
    assert TagRules(is_on_gcp=True).valid_value(value) == on_gcp


@pytest.mark.parametrize(
    ("host", "is_on_gcp"),
    [
        ("https://1234567890123456.7.gcp.databricks.com", True),
        ("https://dbc-1.cloud.databricks.com", False),
        ("https://gcp.databricks.com.example.com", False),
    ],
)
def test_google_cloud_is_known_by_the_host_name(host: str, is_on_gcp: bool) -> None:
    """As Azure is."""
    assert TagRules.for_workspace(host) == TagRules(is_on_gcp=is_on_gcp)


def test_tags_beyond_the_limit_are_left_out(
    context: Any, server: ScriptedServer, logged: Callable[[], str]
) -> None:
    """The most important come first; the log names the others."""
    own = {f"own_{number}": "x" for number in range(43)}
    cluster = {**CLUSTER, "custom_tags": own}
    body = submitted(server, context, new_cluster=cluster, billing_tags=True)
    tags = body["new_cluster"]["custom_tags"]
    assert tags == {**own, "airflow_dag_id": "sales", "airflow_task_id": "etl"}
    assert "45 are the most" in logged()


def test_the_tags_are_validated(context: Any, server: ScriptedServer) -> None:
    """The user's own are too many without any other."""
    cluster = {**CLUSTER, "custom_tags": {f"own_{number}": "x" for number in range(46)}}
    task = submit(existing_cluster_id=None, new_cluster="{{ cluster }}", billing_tags=True)
    values: Any = {"cluster": json.dumps(cluster)}
    task.render_template_fields(values)
    with pytest.raises(AirflowFailException, match="custom_tags must have at most 45"):
        task.execute(context)
    assert server.requests == []


def test_a_task_operator(context: Any, server: ScriptedServer) -> None:
    """Alone it submits a one-time run."""
    server.will(LAUNCHED, RUNNING)
    DatabricksNotebookOperator(
        task_id="etl",
        owner="Ann",
        notebook_path="/etl",
        new_cluster=CLUSTER,
        wait_for_termination=False,
        billing_tags=True,
    ).execute(context)
    tags = server.requests[0].body["new_cluster"]["custom_tags"]
    assert tags == {**TAGS, "airflow_owner": "Ann"}


def test_an_operator_that_another_one_executes(context: Any, server: ScriptedServer) -> None:
    """The owner is the task's, as the other values are."""
    context["task"] = SimpleNamespace(owner="Ann")
    body = submitted(server, context, new_cluster=CLUSTER, billing_tags=True)
    assert body["new_cluster"]["custom_tags"] == {**TAGS, "airflow_owner": "Ann"}


def created(server: ScriptedServer, context: Any, **arguments: Any) -> Any:
    """Return the settings with which a task creates its job."""
    server.will(answer({"jobs": []}), answer({"job_id": 3}))
    settings = {"name": "train", "new_cluster": CLUSTER, **NOTEBOOK, **arguments}
    DatabricksCreateJobsOperator(task_id="etl", billing_tags=True, **settings).execute(context)
    return server.requests[-1].body


def test_a_job_has_tags_that_stay_the_same(context: Any, server: ScriptedServer) -> None:
    """The job and its clusters; nothing of the DAG run, so that the next one changes nothing."""
    settings = created(server, context, tags={"team": "sales"})
    assert settings["tags"] == {"team": "sales", **STABLE}
    assert settings["new_cluster"]["custom_tags"] == STABLE
    context["ti"].run_id, context["ti"].try_number = "another", 1
    assert created(server, context, tags={"team": "sales"}) == settings


def test_a_job_of_version_2_0_has_no_tags(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that pins it gets the tags of clusters only."""
    connection = {
        "conn_type": "databricks_jobs",
        "host": server.url,
        "password": TOKEN,
        "extra": {"api_version": "2.0"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    settings = created(server, context)
    assert "tags" not in settings
    assert settings["new_cluster"]["custom_tags"] == STABLE


def test_a_job_has_25_tags_at_most(context: Any, server: ScriptedServer) -> None:
    """The service's limit for jobs is lower than that for clusters."""
    own = {f"own_{number}": "x" for number in range(24)}
    assert created(server, context, tags=own)["tags"] == {**own, "airflow_dag_id": "sales"}


def definition(context: Any, **arguments: Any) -> tuple[dict[str, Any], str]:
    """Return the settings of a workflow group's job, and their digest."""
    with (
        DAG("sales", schedule=None),
        DatabricksWorkflowTaskGroup(
            group_id="nightly",
            default_args={"owner": "Ann"},
            job_clusters=[{"job_cluster_key": "small", "new_cluster": CLUSTER}],
            **arguments,
        ) as group,
    ):
        DatabricksNotebookOperator(
            task_id="a", notebook_path="/a", databricks_task_key="a", new_cluster=CLUSTER
        )
        DatabricksNotebookOperator(
            task_id="b", notebook_path="/b", databricks_task_key="b", job_cluster_key="small"
        )
    settings: dict[str, Any]
    settings, digest = group.launch_task.definition(context)
    return settings, digest


def test_a_groups_job(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """DAG, group and owner; a task's own cluster also has the task. It is the same in each run."""
    plain, plain_digest = definition(context)
    assert "airflow_" not in str(plain)
    tags = {"airflow_dag_id": "sales", "airflow_task_group_id": "nightly", "airflow_owner": "Ann"}
    extra = {"tags": {"team": "sales", "airflow_owner": "sales team"}}
    settings, digest = definition(context, billing_tags=True, extra_job_params=extra)
    assert settings["tags"] == {**tags, **extra["tags"]}
    (shared,) = settings["job_clusters"]
    assert shared["new_cluster"]["custom_tags"] == tags
    first, second = settings["tasks"]
    assert first["new_cluster"]["custom_tags"] == {**tags, "airflow_task_id": "nightly.a"}
    assert "new_cluster" not in second
    context["ti"].run_id, context["ti"].try_number = "another", 1
    assert definition(context, billing_tags=True, extra_job_params=extra)[1] == digest
    monkeypatch.setenv(OPTION, "True")
    assert definition(context, extra_job_params=extra)[1] == digest
    assert definition(context, billing_tags=False)[1] == plain_digest


def test_a_task_of_a_group_that_runs_alone(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """Its one-time run has the tags of one; the group's argument is the default."""
    airflow = Airflow(monkeypatch, group={"billing_tags": True})
    airflow.record("a", reported=100, is_alone=True)
    ended_alone = answer({**run("TERMINATED", "SUCCESS"), "run_id": 9})
    server.will(answer({"run_id": 9}), ended_alone, OUTPUT)
    airflow.execute(try_number=2, max_tries=1)
    ((task,),) = [body["tasks"] for body in sent(server, "runs/submit")]
    tags = task["new_cluster"]["custom_tags"]
    assert tags["airflow_task_id"] == "etl.a"
    assert tags["airflow_run_id"] == "a_run"
