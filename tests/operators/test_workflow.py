"""DatabricksWorkflowTaskGroup: what it makes of a DAG file, and what it refuses there."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, TaskGroup, XComArg

from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator, DatabricksTaskOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup

CLUSTERS = [{"job_cluster_key": "small", "new_cluster": {"spark_version": "15", "num_workers": 1}}]


@contextmanager
def group_of(group_id: str = "etl", **arguments: Any) -> Iterator[DatabricksWorkflowTaskGroup]:
    """Make a group in a DAG of its own."""
    with (
        DAG("sales", schedule=None),
        DatabricksWorkflowTaskGroup(group_id=group_id, **arguments) as group,
    ):
        yield group


def notebook(task_id: str, **arguments: Any) -> DatabricksNotebookOperator:
    """Make a notebook."""
    return DatabricksNotebookOperator(
        task_id=task_id, notebook_path=f"/{task_id}", databricks_task_key=task_id, **arguments
    )


def definition(group: DatabricksWorkflowTaskGroup) -> dict[str, Any]:
    """Return the settings of the group's job, for templates without values of a DAG run."""
    context: Any = {"ds": "2026-01-01"}
    settings: dict[str, Any] = group.launch_task.definition(context)[0]
    return settings


def test_the_group_becomes_one_job() -> None:
    """Dependencies, trigger rules, nested groups, clusters, parameters and packages of all."""
    package, other = {"pypi": {"package": "a"}}, {"pypi": {"package": "b"}}
    with group_of(
        job_clusters=CLUSTERS,
        notebook_packages=[package],
        notebook_params={"run": "of the group: sent with the run"},
        extra_job_params={"timeout_seconds": 60, "queue": {"enabled": False}},
        max_concurrent_runs=3,
    ) as group:
        load = notebook(
            "load",
            job_cluster_key="small",
            notebook_params={"day": "{{ ds }}", "limit": 5},
            notebook_packages=[other, package],
            max_retries="2",
        )
        with TaskGroup("inner"):
            report = DatabricksTaskOperator(
                task_id="report",
                databricks_task_key="report",
                task_config={"sql_task": {"warehouse_id": "w"}},
                trigger_rule="all_done",
            )
        load >> report
    assert definition(group) == {
        "name": "sales.etl",
        "job_clusters": CLUSTERS,
        "max_concurrent_runs": 3,
        "queue": {"enabled": False},
        "timeout_seconds": 60,
        "tasks": [
            {
                "task_key": "load",
                "job_cluster_key": "small",
                "libraries": [other, package],
                "max_retries": 2,
                "notebook_task": {
                    "notebook_path": "/load",
                    "base_parameters": {"day": "2026-01-01", "limit": 5},
                },
            },
            {
                "task_key": "report",
                "depends_on": [{"task_key": "load"}],
                "run_if": "ALL_DONE",
                "sql_task": {"warehouse_id": "w"},
            },
        ],
    }


@pytest.mark.parametrize("shared", ["existing_cluster_id", "job_cluster_key"])
def test_a_shared_cluster_precedes_a_new_one(shared: str) -> None:
    """As in the official group, so that such DAGs move unchanged."""
    with group_of() as group:
        notebook("load", new_cluster={"spark_version": "x", "num_workers": 1}, **{shared: "small"})
    (task,) = definition(group)["tasks"]
    assert (task.get(shared), task.get("new_cluster")) == ("small", None)


def test_the_launching_task_comes_first() -> None:
    """Before the roots, after what the group or its tasks need, with its own arguments."""
    with DAG("sales", schedule=None):
        before, after, given = (BaseOperator(task_id=name) for name in ("before", "after", "given"))
        group = DatabricksWorkflowTaskGroup(
            group_id="etl",
            launch_task_args={"queue": "small", "pool": "launches", "retries": 4},
            default_args={"owner": "sales"},
        )
        before >> group >> after
        with group:
            load, report = notebook("load"), notebook("report", notebook_params={"x": given.output})
            load >> report
    launch = group.launch_task
    assert launch.task_id == "etl.launch"
    assert (launch.queue, launch.pool, launch.retries) == ("small", "launches", 4)
    assert launch.owner == "sales"
    assert launch.upstream_task_ids == {"before", "given"}
    assert load.upstream_task_ids == {"etl.launch"}
    assert report.upstream_task_ids == {"etl.load", "given"}
    assert report.downstream_task_ids == {"after"}


def test_default_arguments_apply_to_the_launching_task() -> None:
    """Those of the DAG, unless the group has arguments of its own."""
    flags = ("billing_tags", "openlineage_inject_parent_job_info")
    without: dict[str, Any] = dict.fromkeys(flags, False)
    with DAG("sales", schedule=None, default_args=dict.fromkeys(flags, True)):
        with DatabricksWorkflowTaskGroup(group_id="a") as first:
            notebook("x")
        with DatabricksWorkflowTaskGroup(group_id="b", **without) as second:
            notebook("y")
    assert [getattr(first.launch_task, flag) for flag in flags] == [True, True]
    assert [getattr(second.launch_task, flag) for flag in flags] == [False, False]


def test_what_a_template_renders_to_is_not_rendered_again() -> None:
    """Such as a reference to a secret of Databricks, or text of a DAG run's conf."""
    reference = "{{secrets/sales/key}}"
    cluster = {"new_cluster": {"spark_env_vars": {"KEY": "{{ conf }}"}}}
    with group_of(job_clusters=[cluster], notebook_params={"id": "{{ conf }}"}) as group:
        notebook("load", notebook_params={"key": "{{ conf }}"})
    context: Any = {"conf": reference}
    launch = group.launch_task.prepare_for_execution()
    launch.render_template_fields(context)
    settings, digest = launch.definition(context)
    (rendered,) = settings["job_clusters"]
    assert rendered["new_cluster"]["spark_env_vars"] == {"KEY": reference}
    assert settings["tasks"][0]["notebook_task"]["base_parameters"] == {"key": reference}
    # The tasks of the group must find the same definition, or they would not repair the run.
    assert group.launch_task.definition(context)[1] == digest


def test_a_task_that_always_runs_does_not_start_before_the_run() -> None:
    """Airflow starts a task with the rule ``always`` at once."""
    with group_of() as group:
        last = notebook("last", trigger_rule="always")
    assert last.trigger_rule_name() == "all_done"
    assert definition(group)["tasks"][0]["run_if"] == "ALL_DONE"


def test_the_launching_task_pushes_its_xcoms() -> None:
    """Although the DAG's default arguments say that tasks push none: the group needs them."""
    with (
        DAG("sales", schedule=None, default_args={"do_xcom_push": False}),
        DatabricksWorkflowTaskGroup(group_id="etl") as group,
    ):
        load = notebook("load")
    assert (group.launch_task.do_xcom_push, load.do_xcom_push) == (True, False)


def test_two_groups_and_two_hundred_tasks() -> None:
    """Each group has a job of its own; a task of one may follow the other."""
    with DAG("sales", schedule=None):
        with DatabricksWorkflowTaskGroup(group_id="a") as first:
            for number in range(200):
                notebook(f"n{number}")
        with DatabricksWorkflowTaskGroup(group_id="b") as second:
            notebook("x")
        first >> second
    assert len(definition(first)["tasks"]) == 200
    assert definition(second)["name"] == "sales.b"
    assert second.launch_task.upstream_task_ids == {f"a.n{number}" for number in range(200)}


@pytest.mark.parametrize(
    "rule", ["one_done", "none_skipped", "all_skipped", "all_done_setup_success"]
)
def test_a_trigger_rule_without_counterpart_is_refused(rule: str) -> None:
    """In words, with those that are possible; it does not become ALL_SUCCESS."""
    words = rf"'etl.load' has the trigger_rule '{rule}'.*none_failed"
    with pytest.raises(ValueError, match=words), group_of():
        notebook("load", trigger_rule=rule)


def test_what_is_no_task_of_a_job_is_refused() -> None:
    """Another operator, an expanded task, a task that takes the output of its own group, a key."""
    with pytest.raises(ValueError, match=r"'etl\.other' is a BaseOperator"), group_of():
        BaseOperator(task_id="other")
    with pytest.raises(ValueError, match="cannot be expanded"), group_of():
        DatabricksNotebookOperator.partial(task_id="each", notebook_path="/n").expand(
            notebook_params=[{"x": 1}]
        )
    with pytest.raises(ValueError, match=r"takes the output of the task 'etl\.load'"), group_of():
        notebook("report", notebook_params={"x": notebook("load").output})
    with pytest.raises(ValueError, match=r"'etl\.b' has the .*_key of 'etl\.a', 'x'"), group_of():
        [DatabricksTaskOperator(task_id=t, task_config={}, databricks_task_key="x") for t in "ab"]
    with pytest.raises(ValueError, match="existing_cluster_id and job_cluster_key"), group_of():
        notebook("load", existing_cluster_id="c", job_cluster_key="small")


def edges(define: Callable[[Any, Any, Any, Any], object]) -> list[str]:
    """Define dependencies of a group of the tasks a and b on others; return what is warned of."""
    with DAG("sales", schedule=None) as dag:
        outside, before = BaseOperator(task_id="outside"), BaseOperator(task_id="before")
        before >> outside
        with DatabricksWorkflowTaskGroup(group_id="etl") as group:
            one, two = notebook("a"), notebook("b")
        define(group, one, two, outside)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dag.resolve_template_files()
    told = [str(one.message) for one in caught if "Databricks does not know" in str(one.message)]
    return [" ".join(re.findall(r"'([a-z.]+)'", text)) for text in told]


@pytest.mark.parametrize(
    ("define", "told"),
    [
        pytest.param(lambda _g, a, b, _x: a >> b, [], id="inside"),
        pytest.param(lambda g, _a, _b, x: x >> g, [], id="the whole group"),
        pytest.param(lambda g, a, _b, x: [x >> g, x >> a], [], id="both"),
        pytest.param(
            lambda g, a, _b, x: [x >> g, x.dag.get_task("before") >> a], [], id="before that"
        ),
        pytest.param(lambda _g, a, _b, x: a >> x, [], id="a task after it"),
        pytest.param(lambda _g, a, _b, x: x >> a, ["sales etl.a outside"], id="one task"),
        pytest.param(
            lambda _g, a, b, x: [a >> x, x >> b], ["sales etl.b outside"], id="around the group"
        ),
        pytest.param(
            lambda _g, a, b, x: x >> [a, b],
            ["sales etl.a outside", "sales etl.b outside"],
            id="all tasks, but not the launch",
        ),
    ],
)
def test_dependencies_that_do_not_hold_in_databricks(
    define: Callable[[Any, Any, Any, Any], object], told: list[str]
) -> None:
    """A warning names each of them when the DAG is parsed."""
    assert edges(define) == told


def test_the_output_of_a_task_outside_holds_in_databricks() -> None:
    """The launching task waits for it, too."""
    with DAG("sales", schedule=None):
        outside = BaseOperator(task_id="outside")
        with DatabricksWorkflowTaskGroup(group_id="etl") as group:
            notebook("a", notebook_params={"day": XComArg(outside)})
    assert group.launch_task.unknown_dependencies() == []


def test_an_error_in_the_block_is_not_replaced() -> None:
    """The group adds no task where its block has failed."""
    with pytest.raises(KeyError, match="in the block"), group_of():
        raise KeyError("in the block")
