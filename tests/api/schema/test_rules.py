"""The reference's rules, on both sides of each bound."""

from __future__ import annotations

import random
from typing import Any

import pytest

from airflow_jobs_provider.api.problems import Problem, describe_value, field_path
from airflow_jobs_provider.api.schema import rules
from airflow_jobs_provider.api.schema.rules import RULES
from airflow_jobs_provider.api.schema.validation import find_problems
from airflow_jobs_provider.api.schema.version_selection import choose_api_version
from airflow_jobs_provider.api.versions import API_VERSIONS
from tests.helpers.random_payloads import STRUCTURES, Case, Payloads
from tests.helpers.rule_cases import CASES

TRIES = 20
each_rule = pytest.mark.parametrize(
    "tries", [4, pytest.param(TRIES, marks=pytest.mark.exhaustive)], ids=["few", "many"]
)


def names(case: Case) -> str:
    """Name a case in pytest's output."""
    return f"{case.rule}-{case.structure}"


def test_each_rule_has_its_cases() -> None:
    """No rule goes without a test of both its sides."""
    assert {case.rule for case in CASES} == {rule.name for rule in RULES}
    for rule in RULES:
        tested = {case.structure for case in CASES if case.rule == rule.name}
        assert tested & set(rule.structures)


@each_rule
@pytest.mark.parametrize("case", CASES, ids=names)
def test_what_just_obeys(case: Case, tries: int) -> None:
    """At the bound, nothing is wrong, in each version that the rule binds."""
    for version in case.versions:
        for seed in range(tries):
            payloads = Payloads(random.Random(seed), version)
            call, request = payloads.around(case.structure, case.make(payloads, False))
            assert find_problems(call, request, api_version=version, is_azure=True) == []


@each_rule
@pytest.mark.parametrize("case", CASES, ids=names)
def test_what_just_breaks(case: Case, tries: int) -> None:
    """Past the bound, the one rule is told, with the field, in each version that it binds."""
    assert case.versions
    for version in case.versions:
        for seed in range(tries):
            payloads = Payloads(random.Random(seed), version)
            part = case.make(payloads, True)
            call, request = payloads.around(case.structure, part)
            problems = find_problems(call, request, api_version=version, is_azure=True)
            assert problems, (case, request)
            assert all(case.field in problem.field for problem in problems), problems
            told = {(p.rule, p.found) for p in case.of_rule.check(part, rules.Location())}
            assert {(p.rule, p.found.partition(". Version 2.2")[0]) for p in problems} == told


@pytest.mark.parametrize(
    "case", [case for case in CASES if "2.2" not in case.of_rule.versions], ids=names
)
def test_a_rule_of_2_0_sends_the_request_to_2_2(case: Case) -> None:
    """What only an earlier version refuses is no problem where none is pinned: 2.2 takes it."""
    for seed in range(TRIES):
        payloads = Payloads(random.Random(seed), "2.0")
        if case.field == "tasks":
            payloads = Payloads(random.Random(seed))
        call, request = payloads.around(case.structure, case.make(payloads, True))
        assert find_problems(call, request) == []
        assert find_problems(call, request, api_version="2.2", is_azure=True) == []
        assert choose_api_version(call, request) == "2.2"


@pytest.mark.parametrize("case", [case for case in CASES if case.of_rule.only_azure], ids=names)
def test_a_rule_of_azure_binds_there_only(case: Case) -> None:
    """On a workspace that is not known to be on Azure the service decides."""
    payloads = Payloads(random.Random(1))
    call, request = payloads.around(case.structure, case.make(payloads, True))
    for version in (None, *API_VERSIONS[1:]):
        assert find_problems(call, request, api_version=version) == []
        assert find_problems(call, request, api_version=version, is_azure=True) != []


def test_each_rule_names_its_section() -> None:
    """The words of each rule say which section of the reference they are from."""
    for rule in RULES:
        assert "(reference: " in rule.text, rule.name
        assert set(rule.structures) <= set(STRUCTURES)


def test_request_size() -> None:
    """A request has at most 10 MB; the largest field is named."""
    request: dict[str, Any] = {"pipeline_task": {"pipeline_id": "p"}, "git_source": ""}
    room = rules.MAX_REQUEST_BYTES - len(
        '{"pipeline_task": {"pipeline_id": "p"}, "git_source": ""}'
    )
    assert find_problems("runs/submit", {**request, "git_source": "x" * room}) == []
    (problem,) = find_problems("runs/submit", {**request, "git_source": "x" * (room + 1)})
    assert "10,485,760" in problem.rule
    assert problem.found == "it has 10,485,761, most of them in git_source"


def task(**more: Any) -> dict[str, Any]:
    """Make one of several tasks."""
    return {"task_key": "a", **more}


NOTEBOOK = {"notebook_path": "/a"}


@pytest.mark.parametrize(
    "request_",
    [
        {"tasks": [task(notebook_task=NOTEBOOK)]},
        {"tasks": [task(spark_python_task={"python_file": "a.py"}, environment_key="e")]},
        {"tasks": [task(spark_jar_task={}, job_cluster_key="c")], "job_clusters": []},
        {"tasks": [task(dbt_task={"commands": ["dbt run"]})]},
        {"tasks": [task(condition_task={"op": "EQUAL_TO", "left": "1", "right": "2"})]},
        {"tasks": [task(for_each_task={"inputs": "[1]", "task": task(notebook_task=NOTEBOOK)})]},
        {
            "git_source": {"git_url": "u", "git_provider": "gitHub", "git_branch": "main"},
            "tasks": [task(notebook_task={"notebook_path": "etl"})],
        },
        {"tasks": [task(notebook_task={"notebook_path": "etl", "source": "GIT"})]},
        {"notebook_task": NOTEBOOK, "environments": [{"environment_key": "e"}]},
        {
            "python_wheel_task": {"package_name": "p", "entry_point": "e"},
            "existing_cluster_id": "c",
        },
        {
            "notebook_task": NOTEBOOK,
            "new_cluster": {"policy_id": "p", "apply_policy_default_values": True},
        },
        {
            "notebook_task": NOTEBOOK,
            "new_cluster": {
                "spark_version": "v",
                "kind": "CLASSIC_PREVIEW",
                "is_single_node": True,
            },
        },
        {
            "run_job_task": {"job_id": 123456789012345},
            "queue": {"enabled": True},
            "run_as": {"user_name": "u"},
            "access_control_list": [{"user_name": "u", "permission_level": "CAN_VIEW"}],
        },
    ],
)
def test_what_later_versions_allow(request_: dict[str, Any]) -> None:
    """Several tasks, serverless compute, Git, policies and new kinds of task pass."""
    assert find_problems("runs/submit", request_) == []


def test_run_now_in_later_versions() -> None:
    """Job parameters, named parameters and queueing pass, whatever their characters."""
    request = {"job_id": 1, "job_parameters": {"a": "é"}, "queue": {"enabled": False}, "only": []}
    assert find_problems("run-now", request) == []
    assert find_problems("runs/repair", {"whatever": 1}) == []


def test_an_inner_task_is_checked_like_any() -> None:
    """The task of a for-each task, and each of several, is told by its place."""
    inner = task(notebook_task={"notebook_path": "etl"})
    request = {"tasks": [task(notebook_task=NOTEBOOK), task(for_each_task={"task": inner})]}
    (problem,) = find_problems("create", request)
    assert problem.field == "tasks[1].for_each_task.task.notebook_task.notebook_path"


def test_update_asks_for_nothing() -> None:
    """An update may change any one setting; what it gives is checked."""
    assert find_problems("update", {"job_id": 1, "new_settings": {"timeout_seconds": 5}}) == []
    settings = {"notebook_task": {"notebook_path": "a"}}
    (problem,) = find_problems("update", {"job_id": 1, "new_settings": settings})
    assert problem.field == "new_settings.notebook_task.notebook_path"


def test_update_leaves_out_the_git_source_that_the_job_has() -> None:
    """So a notebook's path may be relative there, unless it is said to be in the workspace."""
    notebook = {"notebook_path": "etl/load"}

    def problems(task: dict[str, Any]) -> list[Problem]:
        request = {"job_id": 1, "new_settings": {"tasks": [{"task_key": "a", **task}]}}
        return find_problems("update", request)

    assert problems({"notebook_task": notebook}) == []
    (problem,) = problems({"notebook_task": {**notebook, "source": "WORKSPACE"}})
    assert problem.rule == "must be an absolute path that begins with a slash"


def test_a_problem_is_a_sentence() -> None:
    """Field, rule and what was found."""
    problem = Problem("limit", "must be from 0 to 1000", "it is 1001")
    assert str(problem) == "limit must be from 0 to 1000; it is 1001"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "it is null"),
        (True, "it is true"),
        (5, "it is the number 5"),
        (0.5, "it is the number 0.5"),
        (10**100, "it is a very long number"),
        ("secret", "it is text of 6 characters"),
        ({"a": 1}, "it is a map of 1 entry"),
        ([1, 2], "it is a list of 2 elements"),
        (b"x", "it is a bytes"),
    ],
)
def test_what_was_found(value: Any, words: str) -> None:
    """A value is told by kind and size; text, which may be secret, is not quoted."""
    assert describe_value(value) == words


def test_paths() -> None:
    """A path reads as in Python; a key that is no name is quoted."""
    assert (
        field_path(("tasks", 3, "custom_tags", "cost center"))
        == "tasks[3].custom_tags['cost center']"
    )
