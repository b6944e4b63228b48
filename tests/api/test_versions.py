"""Which version of the API a request is sent to, and what a pinned one does not know."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.pagination import Paginator
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS
from airflow_jobs_provider.api.schema.validation import find_problems
from airflow_jobs_provider.api.schema.version_selection import (
    choose_api_version,
    find_version_problems,
)

NOTEBOOK: dict[str, Any] = {"notebook_task": {"notebook_path": "/n"}}
ON_CLUSTER: dict[str, Any] = {**NOTEBOOK, "existing_cluster_id": "c"}
NEW = {"spark_version": "v", "node_type_id": "n", "num_workers": 1}
TASK = {"task_key": "a", **ON_CLUSTER}

GOES_TO_2_0: list[tuple[str, dict[str, Any]]] = [
    ("runs/submit", ON_CLUSTER),
    ("runs/submit", {**NOTEBOOK, "new_cluster": {**NEW, "spark_conf": {"a": True}}}),
    ("runs/submit", {"run_job_task": {"job_id": 1}, "timeout_seconds": 5, "queue": None}),
    ("run-now", {"job_id": 1, "notebook_params": {"a": "b"}, "idempotency_token": "t"}),
    ("update", {"job_id": 1, "new_settings": ON_CLUSTER, "fields_to_remove": ["schedule"]}),
    ("list", {}),
    ("runs/list", {"limit": 1000, "offset": 5, "active_only": True, "run_type": "JOB_RUN"}),
    ("runs/get", {"run_id": 1}),
    ("runs/get-output", {"run_id": 1}),
    ("runs/cancel", {"run_id": 1}),
    ("runs/cancel-all", {"job_id": 1}),
    ("runs/delete", {"run_id": 1}),
    ("runs/export", {"run_id": 1, "views_to_export": "ALL"}),
    ("get", {"job_id": 1}),
    ("delete", {"job_id": 1}),
]
# The request, and the field that version 2.0 does not know.
LATER: list[tuple[str, dict[str, Any], str]] = [
    ("runs/submit", {"tasks": [{**TASK, "depends_on": [{"task_key": "b"}]}]}, "tasks"),
    ("runs/submit", {**ON_CLUSTER, "git_source": {"git_url": "u"}}, "git_source"),
    ("runs/submit", {**NOTEBOOK, "environments": []}, "environments"),
    ("runs/submit", {**ON_CLUSTER, "queue": {"enabled": True}}, "queue"),
    ("runs/submit", {**ON_CLUSTER, "access_control_list": []}, "access_control_list"),
    ("runs/submit", {**ON_CLUSTER, "performance_target": "STANDARD"}, "performance_target"),
    ("runs/submit", {**ON_CLUSTER, "email_notifications": {}}, "email_notifications"),
    *(
        ("runs/submit", {name: {}, "existing_cluster_id": "c"}, name)
        for name in (
            "for_each_task",
            "condition_task",
            "sql_task",
            "python_wheel_task",
            "dbt_task",
            "a_new_task",
        )
    ),
    (
        "runs/submit",
        {"notebook_task": {"notebook_path": "n", "source": "GIT"}, "existing_cluster_id": "c"},
        "notebook_task.source",
    ),
    (
        "runs/submit",
        {"run_job_task": {"job_id": 1, "job_parameters": {"a": "b"}}},
        "run_job_task.job_parameters",
    ),
    (
        "update",
        {"job_id": 1, "new_settings": {"job_clusters": []}},
        "new_settings.job_clusters",
    ),
    (
        "update",
        {"job_id": 1, "new_settings": {"health": {"rules": [{"metric": "m", "unit": "s"}]}}},
        "new_settings.health.rules[0].unit",
    ),
    *(
        ("run-now", {"job_id": 1, name: value}, name)
        for name, value in (
            ("job_parameters", {"a": "b"}),
            ("python_named_params", {"a": "b"}),
            ("pipeline_params", {"full_refresh": True}),
            ("only", ["a"]),
            ("queue", {"enabled": True}),
            ("performance_target", "STANDARD"),
        )
    ),
    ("runs/list", {"expand_tasks": True}, "expand_tasks"),
    ("runs/list", {"start_time_from": 5}, "start_time_from"),
    ("runs/get", {"run_id": 1, "include_history": True}, "include_history"),
    ("runs/get", {"run_id": 1, "page_token": "t"}, "page_token"),
]
# What only a rule of 2.0 forbids.
FORBIDDEN_BY_2_0: list[tuple[str, dict[str, Any]]] = [
    ("runs/submit", NOTEBOOK),
    (
        "runs/submit",
        {
            "notebook_task": {"notebook_path": "/n", "base_parameters": {"a": "é"}},
            "existing_cluster_id": "c",
        },
    ),
    ("run-now", {"job_id": 1, "notebook_params": {"a": "é"}}),
    ("run-now", {"job_id": 1, "notebook_params": {"a": "b"}, "python_params": ["x"]}),
]


def name(case: Any) -> str:
    """Name a case in pytest's output."""
    return case if isinstance(case, str) else ""


@pytest.mark.parametrize(("call", "request_"), GOES_TO_2_0, ids=name)
def test_what_the_reference_knows_goes_to_2_0(call: str, request_: dict[str, Any]) -> None:
    """Nulls count as not given; no endpoint that works by an id needs a later version."""
    assert choose_api_version(call, request_) == "2.0"
    assert find_version_problems(call, request_, "2.0") == []


def test_the_name_of_a_list_of_jobs() -> None:
    """It takes the list to 2.2. A pinned 2.0 is not refused: it returns all jobs."""
    assert choose_api_version("list", {"name": "train"}) == "2.2"
    assert find_version_problems("list", {"name": "train"}, "2.0") == []


@pytest.mark.parametrize(("call", "request_", "field"), LATER, ids=name)
def test_a_field_that_the_reference_does_not_know(
    call: str, request_: dict[str, Any], field: str
) -> None:
    """At any depth it takes the request to 2.2; a lower pinned version is refused by the field."""
    assert choose_api_version(call, request_) == "2.2"
    (problem,) = find_version_problems(call, request_, "2.0")
    assert problem.field == field
    assert "2.1" in problem.rule
    assert '"api_version": "2.2"' in problem.found
    assert problem in find_problems(call, request_, api_version="2.0")
    assert find_version_problems(call, request_, "2.1") == []
    sent = Call(ENDPOINTS[call].verb, call, request_, True, lambda answer: answer)
    assert sent.api_version() == "2.2"
    assert sent.api_version("2.1") == "2.1"
    with pytest.raises(InvalidRequestError):
        sent.api_version("2.0")


@pytest.mark.parametrize(("call", "request_"), FORBIDDEN_BY_2_0, ids=name)
def test_what_only_a_rule_of_2_0_forbids(call: str, request_: dict[str, Any]) -> None:
    """It goes to 2.2; where 2.0 is pinned, the problem says that 2.2 allows it."""
    assert choose_api_version(call, request_) == "2.2"
    assert find_problems(call, request_) == []
    assert find_problems(call, request_, api_version="2.1") == []
    (problem,) = find_problems(call, request_, api_version="2.0")
    assert '"api_version": "2.2"' in problem.found


@pytest.mark.parametrize("queue", [{}, {"queue": {"enabled": False}}])
def test_jobs_are_created_and_reset_through_2_2(queue: dict[str, Any]) -> None:
    """Through 2.0 queueing would be off; where 2.0 is pinned, its user has said so."""
    settings = {**ON_CLUSTER, **queue}
    for call in (endpoints.create_job(settings), endpoints.reset_job(1, settings)):
        assert call.api_version() == "2.2"
        assert call.api_version("2.1") == "2.1"
    assert endpoints.create_job(ON_CLUSTER).api_version("2.0") == "2.0"


def test_repair_needs_2_1() -> None:
    """The endpoint came later; the problem names it."""
    call = endpoints.repair_run({"run_id": 1})
    assert (call.api_version(), call.api_version("2.1")) == ("2.2", "2.1")
    with pytest.raises(InvalidRequestError, match=r"^runs/repair.* needs version 2\.1 or later"):
        call.api_version("2.0")


def test_all_fields_that_are_too_new_are_named() -> None:
    """The user changes one thing: the version. What is below such a field is not told again."""
    request = {"tasks": [TASK], "queue": {"enabled": True}, "git_source": {}}
    fields = [p.field for p in find_version_problems("runs/submit", request, "2.0")]
    assert fields == ["tasks", "queue", "git_source"]


@pytest.mark.parametrize("field", ["aws_attributes", "data_security_mode", "policy_id"])
def test_a_cluster_is_described_alike_in_all_versions(field: str) -> None:
    """The reference is Azure's and lists a part; the Jobs API of no version reads a cluster."""
    request = {**NOTEBOOK, "new_cluster": {**NEW, field: "x"}}
    assert choose_api_version("runs/submit", request) == "2.2"
    assert find_problems("runs/submit", request, api_version="2.0") == []


@pytest.mark.parametrize(
    ("count", "refused_by"), [(100, []), (101, ["2.1"]), (1000, ["2.1"]), (1001, ["2.1", "2.2"])]
)
def test_the_number_of_tasks(count: int, refused_by: list[str]) -> None:
    """2.1 takes 100, 2.2 a thousand."""
    request = {"tasks": [{**TASK, "task_key": str(number)} for number in range(count)]}
    assert choose_api_version("runs/submit", request) == "2.2"
    refusals = [
        version
        for version in ("2.1", "2.2")
        if find_problems("runs/submit", request, api_version=version)
    ]
    assert refusals == refused_by
    assert bool(find_problems("runs/submit", request)) == ("2.2" in refused_by)


@pytest.mark.parametrize("answer", [{"next_page_token": "t"}, {"has_more": True}])
def test_the_pages_of_a_list_are_of_one_version(answer: dict[str, Any]) -> None:
    """Whatever a page is asked for with, it is read from where the first one came."""
    lists: list[tuple[Call[Any], str]] = [
        (endpoints.list_jobs(name="train"), "2.2"),
        (endpoints.list_runs(limit=1000), "2.0"),
        (endpoints.list_jobs(), "2.0"),
    ]
    for call, version in lists:
        pages = Paginator(call)
        items = {"runs": [{"run_id": 1}]} if call.path == "runs/list" else {"jobs": [{"job_id": 1}]}
        pages.add_page(call.parse({**items, **answer}))
        following = pages.call()
        assert following.api_version() == call.api_version() == version
        assert following.api_version("2.0") == "2.0"
        assert following.parameters.items() >= call.parameters.items()
        assert following.parameters.keys() - call.parameters.keys() in ({"page_token"}, {"offset"})
