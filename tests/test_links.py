"""The link to the run's page, and the XCom that has its URL."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_jobs_provider import links
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
from airflow_jobs_provider.ui.links import DatabricksJobLink, DatabricksWorkflowRunLink
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, OUTPUT, run
from tests.helpers.tasks import deferred_by, sensor, submit

PAGE = "http://w/7"
RUNNING = answer({**run("RUNNING"), "run_page_url": PAGE})
ENDED = {**run("TERMINATED", "SUCCESS"), "run_page_url": PAGE}


class OwnLink(BaseOperatorLink):
    """The link of a user's subclass."""

    name = "Dashboard"

    def get_link(self, _operator: Any, *, ti_key: Any) -> str:
        """Return its URL."""
        return "http://dashboard"


class OwnOperator(DatabricksSubmitRunOperator):
    """A user's subclass with a link of its own."""

    operator_extra_links = (*DatabricksSubmitRunOperator.operator_extra_links, OwnLink())


def pushed_at_process_end(operator: Any) -> list[str]:
    """Return the URLs that Airflow 3 pushes at the end of a task's process."""
    return [
        link.get_link(operator, ti_key=None)
        for link in operator.operator_extra_links
        # On Airflow 2 the operators have these, too.
        if not isinstance(link, (DatabricksJobLink, DatabricksWorkflowRunLink))
    ]


def test_links_before_and_after_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The link is the XCom of that name; empty as long as there is none."""
    stored: dict[str, str] = {}
    fake = SimpleNamespace(get_value=lambda key, **_: stored.get(key))
    monkeypatch.setattr(links, "XCom", fake)
    key: Any = None
    for task in (submit(), sensor()):
        stored.clear()
        link = task.operator_extra_links[0]
        assert isinstance(link, links.DatabricksJobRunLink)
        assert link.get_link(task, ti_key=key) == ""
        stored[link.xcom_key] = PAGE
        assert link.get_link(task, ti_key=key) == PAGE


@pytest.mark.parametrize(
    ("arguments", "resumed", "pushed"),
    [
        ({}, {"attempt_index": 0}, []),
        # By whom the task was deferred is not known, and whether that one has pushed the URL.
        ({}, {}, [PAGE]),
        ({"do_xcom_push": False}, {"attempt_index": 0}, [PAGE]),
    ],
)
def test_the_process_that_resumes_pushes_the_url_at_most_once(
    context: Any,
    server: ScriptedServer,
    arguments: dict[str, Any],
    resumed: dict[str, Any],
    pushed: list[str],
) -> None:
    """Airflow is left no link whose URL the process that deferred has pushed."""
    server.will(OUTPUT)
    operator = submit(deferrable=True, **arguments)
    operator.execute_complete(context, {"run": ENDED}, **resumed)
    assert pushed_at_process_end(operator) == pushed


def test_a_process_that_waits_pushes_the_url_once(context: Any, server: ScriptedServer) -> None:
    """The operator pushes the URL when the run is launched, so Airflow need not."""
    server.will(LAUNCHED, answer(ENDED), OUTPUT)
    operator = submit()
    operator.execute(context)
    assert context["ti"].xcoms["run_page_url"] == PAGE
    assert pushed_at_process_end(operator) == []


def test_a_process_that_defers_pushes_the_url_once(context: Any, server: ScriptedServer) -> None:
    """The operator has pushed the URL before it defers."""
    server.will(LAUNCHED, RUNNING)
    operator = submit(deferrable=True)
    deferred_by(operator, context)
    assert context["ti"].xcoms["run_page_url"] == PAGE
    assert pushed_at_process_end(operator) == []


def test_airflow_pushes_the_url_of_a_task_without_xcoms(
    context: Any, server: ScriptedServer
) -> None:
    """With ``do_xcom_push=False`` the link is shown from the end of the process on."""
    server.will(LAUNCHED, answer(ENDED))
    operator = submit(do_xcom_push=False)
    operator.execute(context)
    assert "run_page_url" not in context["ti"].xcoms
    assert pushed_at_process_end(operator) == [PAGE]


def test_a_sensor_pushes_the_url_once(context: Any, server: ScriptedServer) -> None:
    """The sensor pushes the URL when the run has ended, so Airflow need not."""
    server.will(answer(ENDED), OUTPUT)
    operator = sensor()
    operator.execute(context)
    assert context["ti"].xcoms["run_page_url"] == PAGE
    assert pushed_at_process_end(operator) == []


def test_a_sensor_that_goes_on_waiting_pushes_no_url(context: Any, server: ScriptedServer) -> None:
    """At the end of a process that defers, or that waits for its next poke, there is none."""
    server.will(RUNNING)
    operator = sensor(deferrable=True)
    deferred_by(operator, context)
    assert pushed_at_process_end(operator) == []


def test_a_link_of_a_subclass_is_pushed(context: Any, server: ScriptedServer) -> None:
    """Only the link whose URL was pushed is left out."""
    server.will(LAUNCHED, answer(ENDED), OUTPUT)
    operator = OwnOperator(
        task_id="etl", existing_cluster_id="1201-my-cluster", notebook_task={"notebook_path": "/a"}
    )
    operator.execute(context)
    assert pushed_at_process_end(operator) == ["http://dashboard"]


def links_of(_operator: Any) -> Any:
    """Return the links of an operator whose links are a property, which Airflow allows."""
    return (links.DatabricksJobRunLink(), OwnLink())


ComputedLinks = type(
    "ComputedLinks", (DatabricksSubmitRunOperator,), {"operator_extra_links": property(links_of)}
)


class OwnRunLink(links.DatabricksJobRunLink):
    """A user's link in place of that to the run's page."""

    def get_link(self, _operator: Any, *, ti_key: Any) -> str:
        """Return its URL."""
        return "http://proxy/7"


class OwnRunLinkOperator(DatabricksSubmitRunOperator):
    """A user's subclass with that link."""

    operator_extra_links = (OwnRunLink(),)


@pytest.mark.parametrize(
    ("operator", "pushed"),
    [(ComputedLinks, [PAGE, "http://dashboard"]), (OwnRunLinkOperator, ["http://proxy/7"])],
)
def test_links_that_cannot_be_left_out(
    context: Any, server: ScriptedServer, operator: Any, pushed: list[str]
) -> None:
    """The run is launched and followed all the same."""
    server.will(LAUNCHED, answer(ENDED), OUTPUT)
    task = operator(
        task_id="etl", existing_cluster_id="1201-my-cluster", notebook_task={"notebook_path": "/a"}
    )
    task.execute(context)
    assert pushed_at_process_end(task) == pushed


def test_links_to_push_can_be_copied(context: Any, server: ScriptedServer) -> None:
    """A copy of an operator that was executed has the remaining links."""
    server.will(LAUNCHED, answer(ENDED), OUTPUT)
    operator = submit()
    operator.execute(context)
    assert copy.deepcopy(operator.operator_extra_links) == ()
