"""The links that Airflow's server computes, on a DAG as the server reads it from its database."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import airflow
import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.links import DatabricksJobRunLink
from airflow_jobs_provider.operators import jobs
from airflow_jobs_provider.plugin import DatabricksJobsPlugin
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from airflow_jobs_provider.ui.job_page import job_page_url, task_run_page_url
from airflow_jobs_provider.ui.links import (
    PAGE_LINKS,
    UI_LINKS,
    DatabricksJobLink,
    DatabricksWorkflowRunLink,
)
from tests.helpers.metadata import Metadata, make_database, metadata_database

AIRFLOW_2 = airflow.__version__.startswith("2.")
HAS_PAGE = not airflow.__version__.startswith(("2.", "3.0"))
PLACE = {"dag_id": "d", "run_id": "r", "map_index": -1}
JOB, RUN, WORKFLOW = "See Databricks Job", "See Databricks Job Run", "See Databricks Workflow Run"
# Of a run of one task.
TASKS = {"See Databricks Task Runs": None} if HAS_PAGE else {}


@pytest.mark.parametrize(
    ("page", "job_id", "expected"),
    [
        ("https://h/?o=1#job/12/run/7", None, "https://h/?o=1#job/12"),
        ("https://h/?o=1#job/12/run/7", 13, "https://h/?o=1#job/12"),
        ("https://h/#jobs/12/runs/7/details", None, "https://h/#jobs/12"),
        ("https://h/jobs/12/runs/7?o=1", None, "https://h/jobs/12?o=1"),
        ("https://h/jobs/12/runs/7?o=1#task", None, "https://h/jobs/12?o=1"),
        # The local workspace.
        ("http://127.0.0.1:8421/runs/7", 12, "http://127.0.0.1:8421/jobs/12"),
        ("http://127.0.0.1:8421/runs/7", "12", "http://127.0.0.1:8421/jobs/12"),
        ("http://127.0.0.1:8421/runs/7", None, None),
        ("http://127.0.0.1:8421/runs/7", "12/../..", None),
        ("https://h/elsewhere", 12, None),
        ("javascript:alert(1)#job/12/run/7", 12, None),
        ("", 12, None),
        (None, 12, None),
        ({"a": 1}, 12, None),
    ],
)
def test_a_jobs_page_by_that_of_its_run(page: Any, job_id: Any, expected: str | None) -> None:
    """By the URL; by the job's id only where the URL does not name the job."""
    assert job_page_url(page, job_id) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("https://h/?o=1#job/12/run/7", "https://h/?o=1#job/12/run/71"),
        ("https://h/jobs/12/runs/7?o=1", "https://h/jobs/12/runs/71?o=1"),
        ("http://127.0.0.1:8421/runs/7", "http://127.0.0.1:8421/runs/71"),
        ("https://h/elsewhere", None),
        ("javascript:alert(1)#job/12/run/7", None),
        (None, None),
    ],
)
def test_a_tasks_page_by_that_of_its_run(page: Any, expected: str | None) -> None:
    """It differs from the page of the whole run in the id only."""
    assert task_run_page_url(page, 71) == expected


def test_the_operators_of_the_links_exist() -> None:
    """Airflow compares modules and names, so a renamed operator would lose its link."""
    for link in (*UI_LINKS, *PAGE_LINKS):
        for name in link.operators:
            operator = getattr(import_module(name.__module__), name.__name__)
            links = inspect.getattr_static(operator, "operator_extra_links")
            assert any(isinstance(one, DatabricksJobRunLink) for one in links)


@pytest.fixture(scope="module")
def plugin_links() -> Iterator[None]:
    """Let Airflow have the links of the plugin, whatever this environment has installed."""
    plugins_manager: Any = import_module("airflow.plugins_manager")
    links = DatabricksJobsPlugin().operator_extra_links
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(plugins_manager, "get_operator_extra_links"):
            patch.setattr(plugins_manager, "get_operator_extra_links", lambda: links)
        else:  # before Airflow 3.2
            plugins_manager.initialize_extra_operators_links_plugins()
            patch.setattr(plugins_manager, "operator_extra_links", links)
        yield


@pytest.fixture(scope="module")
def dag(plugin_links: None) -> Any:
    """A DAG with each kind of task, as the server has it."""
    serialized_objects: Any = import_module("airflow.serialization.serialized_objects")
    with DAG("d", schedule=None) as made:
        jobs.DatabricksRunNowOperator(task_id="run_now", job_id=12)
        jobs.DatabricksRunNowOperator.partial(task_id="mapped").expand(job_id=[1, 2])
        jobs.DatabricksSubmitRunOperator(
            task_id="submit", existing_cluster_id="c", notebook_task={"notebook_path": "/n"}
        )
        task: Any = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/n"}}
        for several, more in (("tasks", {}), ("ended_tasks", {"json": None})):
            keys = ("load", "report", "{{ ds }}")
            tasks: Any = [{"task_key": key, **task} for key in keys]
            given: Any = {"json": {"tasks": tasks}} if more else {"tasks": tasks}
            jobs.DatabricksSubmitRunOperator(task_id=several, **given)
        DatabricksJobRunSensor(task_id="wait", run_id=7)
        notebook: Any = {"notebook_path": "/n", "existing_cluster_id": "c", "source": "WORKSPACE"}
        jobs.DatabricksNotebookOperator(task_id="alone", **notebook)
        parameters = [{"a": "1"}, {"a": "2"}]
        jobs.DatabricksNotebookOperator.partial(task_id="mapped_alone", **notebook).expand(
            notebook_params=parameters
        )
        with jobs.DatabricksWorkflowTaskGroup(group_id="group"):
            jobs.DatabricksNotebookOperator(task_id="member", **notebook)
    # Before Airflow 3.2 the DAG that is read has the methods itself.
    serialization = getattr(
        serialized_objects, "DagSerialization", serialized_objects.SerializedDAG
    )
    return serialization.from_dict(serialization.to_dict(made))


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metadata]:
    """A metadata database with the XComs of the tasks of one DAG run."""
    file = tmp_path_factory.mktemp("metadata") / "airflow.db"
    make_database(file, "dag_run", "xcom")
    with metadata_database(file) as made:
        for number, run_id in enumerate(("r", "evil", "triggerer"), 1):
            row = {"id": number, "dag_id": "d", "run_id": run_id, "run_type": "manual"}
            # Airflow has a function for the default of each of these; of run_after since 3.0.
            row |= {"log_template_id": None, "run_after": datetime.now(UTC)}
            made.add("dag_run", row)
        for number, task_id in enumerate(
            ("run_now", "mapped", "submit", "wait", "alone", "group.launch", "group.member")
        ):
            page = f"https://h/?o=1#job/12/run/{number}"
            for key, value in {"job_id": 12, "run_page_url": page, "other": 1}.items():
                made.add("xcom", _xcom(task_id, key, value))
        made.add("xcom", _xcom("mapped", "run_page_url", "https://h/#job/13/run/9", map_index=1))
        ended = {"run_id": 7, "run_page_url": "https://h/#job/13/run/7"}
        ended["task_run_ids"] = {"load": 71, "report": 72, "x": 73}
        for key, value in ended.items():
            made.add("xcom", _xcom("ended_tasks", key, value))
        yield made


def _xcom(task_id: str, key: str, value: Any, **place: Any) -> dict[str, Any]:
    if AIRFLOW_2:
        from airflow.models.xcom import XCom

        value = XCom.serialize_value(value)
    return {"dag_run_id": 1, **PLACE, **place, "task_id": task_id, "key": key, "value": value}


def links_of(dag: Any, task_id: str, **place: Any) -> dict[str, str | None]:
    """Return the links of a task instance by name, as the server does."""
    from types import SimpleNamespace

    task = dag.get_task(task_id)
    key = SimpleNamespace(**PLACE | {"task_id": task_id} | place)
    ti: Any = SimpleNamespace(**vars(key), key=key)
    return {name: task.get_extra_links(ti, name) or None for name in task.extra_links}


@pytest.mark.parametrize(
    ("task_id", "place", "expected"),
    [
        (
            "run_now",
            {},
            {RUN: "https://h/?o=1#job/12/run/0", JOB: "https://h/?o=1#job/12", **TASKS},
        ),
        (
            "mapped",
            {"map_index": 1},
            {RUN: "https://h/#job/13/run/9", JOB: "https://h/#job/13", **TASKS},
        ),
        ("submit", {}, {RUN: "https://h/?o=1#job/12/run/2", **TASKS}),
        ("wait", {}, {RUN: "https://h/?o=1#job/12/run/3", JOB: "https://h/?o=1#job/12", **TASKS}),
        ("alone", {}, {RUN: "https://h/?o=1#job/12/run/4", JOB: None, WORKFLOW: None}),
        ("mapped_alone", {"map_index": 0}, {RUN: None, JOB: None, WORKFLOW: None}),
        ("group.launch", {}, {RUN: "https://h/?o=1#job/12/run/5", JOB: "https://h/?o=1#job/12"}),
        (
            "group.member",
            {},
            {
                RUN: "https://h/?o=1#job/12/run/6",
                JOB: "https://h/?o=1#job/12",
                WORKFLOW: "https://h/?o=1#job/12/run/5",
            },
        ),
        ("run_now", {"run_id": "not yet launched"}, {RUN: None, JOB: None, **TASKS}),
        ("group.member", {"run_id": "not yet launched"}, {RUN: None, JOB: None, WORKFLOW: None}),
    ],
)
def test_the_links_of_a_task(
    dag: Any,
    metadata: Metadata,
    task_id: str,
    place: dict[str, Any],
    expected: dict[str, str | None],
) -> None:
    """Its run; its job, but not that of a one-time run; the run of its group."""
    assert links_of(dag, task_id, **place) == expected


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2 has no page")
def test_the_tasks_of_a_run_are_on_the_page(
    dag: Any, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, since on Airflow 3 each link of an operator is an XCom. A run of one has none."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow/team/")
    name = "See Databricks Task Runs"
    url = "https://airflow/team/databricks-jobs/?text=7&days=60"
    assert links_of(dag, "ended_tasks").get(name) == (url if HAS_PAGE else None)
    assert links_of(dag, "tasks").get(name) is None
    assert links_of(dag, "submit").get(name) is None


@pytest.mark.skipif(not AIRFLOW_2, reason="Airflow 2")
def test_each_task_that_the_dag_names_has_a_link(dag: Any, metadata: Metadata) -> None:
    """Once the run has ended; the web server computes them from one XCom."""
    load, report = "See Databricks Task load", "See Databricks Task report"
    links = links_of(dag, "ended_tasks")
    assert links == {
        RUN: "https://h/#job/13/run/7",
        load: "https://h/#job/13/run/71",
        report: "https://h/#job/13/run/72",
    }
    assert links_of(dag, "tasks") == {RUN: None, load: None, report: None}


@pytest.mark.skipif(not AIRFLOW_2, reason="Airflow 2")
def test_a_subclass_whose_links_are_a_property() -> None:
    """It keeps its own links, and can be made."""

    class Mine(jobs.DatabricksSubmitRunOperator):
        @property
        def operator_extra_links(self) -> tuple[Any, ...]:  # type: ignore[override]
            return (DatabricksJobRunLink(),)

    task: Any = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/n"}}
    mine = Mine(task_id="mine", tasks=[{"task_key": key, **task} for key in ("load", "report")])
    assert [link.name for link in mine.operator_extra_links] == [RUN]


@pytest.mark.skipif(AIRFLOW_2, reason="on Airflow 2 a task pushes no XComs for links")
def test_a_task_pushes_no_xcom_for_them() -> None:
    """Airflow pushes one for each link that an operator itself has: that is the run's only."""
    operator = jobs.DatabricksRunNowOperator(task_id="t", job_id=12)
    (link,) = operator.operator_extra_links
    assert isinstance(link, DatabricksJobRunLink)


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2 ends no task in the triggerer")
def test_a_task_that_has_ended_in_the_triggerer(dag: Any, metadata: Metadata) -> None:
    """Airflow stores what the trigger's event pushes as text that is JSON."""
    place = {"run_id": "triggerer", "dag_run_id": 3}
    url = '"https://h/?o=1#job/12/run/3"'
    metadata.add("xcom", _xcom("wait", "run_page_url", url, **place))
    links = links_of(dag, "wait", run_id="triggerer")
    expected = {RUN: "https://h/?o=1#job/12/run/3", JOB: "https://h/?o=1#job/12", **TASKS}
    assert links == expected


def test_an_unsafe_url_is_no_link(dag: Any, metadata: Metadata) -> None:
    """A user may have pushed another XCom in its place."""
    for task_id in ("group.launch", "group.member"):
        place = {"run_id": "evil", "dag_run_id": 2}
        metadata.add("xcom", _xcom(task_id, "run_page_url", "javascript:alert(1)", **place))
    links = links_of(dag, "group.member", run_id="evil")
    assert (links[JOB], links[WORKFLOW]) == (None, None)
    assert {type(link) for link in UI_LINKS} == {DatabricksJobLink, DatabricksWorkflowRunLink}
