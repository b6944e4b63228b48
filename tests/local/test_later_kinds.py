"""What the workspace refuses of git_source, and of the kinds of tasks that came after 2.0."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.api import CLUSTER, Api

NOTEBOOK = {"notebook_task": {"notebook_path": "/n"}, **CLUSTER}
WHEEL = {"package_name": "p", "entry_point": "e"}
FILE = {"path": "/a.sql"}
DBT = {"commands": ["dbt run"]}
GIT = {"git_url": "https://example.com/r", "git_provider": "GITHUB"}


@pytest.mark.parametrize(
    ("kind", "good", "bad", "words"),
    [
        ("python_wheel_task", WHEEL, {"entry_point": "e"}, ".package_name"),
        ("python_wheel_task", WHEEL, {"package_name": "p"}, ".entry_point"),
        ("python_wheel_task", {**WHEEL, "parameters": []}, {**WHEEL, "parameters": "a"}, "array"),
        (
            "python_wheel_task",
            {**WHEEL, "named_parameters": {"a": "1"}},
            {**WHEEL, "named_parameters": {"a": "1"}, "parameters": ["b"]},
            "Only one of",
        ),
        ("sql_task", {"warehouse_id": "w", "file": FILE}, {"file": FILE}, ".warehouse_id"),
        (
            "sql_task",
            {"warehouse_id": "w", "query": {"query_id": "q"}},
            {"warehouse_id": "w", "query": {}},
            ".query.query_id",
        ),
        (
            "sql_task",
            {"warehouse_id": "w", "alert": {"alert_id": "a"}},
            {"warehouse_id": "w", "file": FILE, "query": {"query_id": "q"}},
            "Exactly one of",
        ),
        ("dbt_task", DBT, {}, ".commands"),
        ("dbt_task", {"commands": ["dbt run"] * 10}, {"commands": ["dbt run"] * 11}, "1 to 10"),
        ("dbt_task", {"commands": ["dbt  run -s a"]}, {"commands": ["dbtf run"]}, "commands[0]"),
    ],
)
def test_later_kinds(dry: Api, kind: str, good: Any, bad: Any, words: str) -> None:
    """What a kind of task needs is refused by name, also in tasks and in loops."""
    for task in ({kind: good}, {"tasks": [{"task_key": "t", kind: good}]}):
        assert dry.post("runs/submit", {**CLUSTER, **task}, version="2.2").status_code == 200
    each = {"task_key": "each", **CLUSTER, kind: bad}
    for task, where in (
        ({**CLUSTER, kind: bad}, kind),
        ({"tasks": [each]}, f"tasks[0].{kind}"),
        ({"for_each_task": {"inputs": "[]", "task": each}}, f"for_each_task.task.{kind}"),
    ):
        message = dry.refusal("runs/submit", task)
        assert where in message
        assert words in message


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        (GIT, {"git_url": "u"}, "git_source.git_provider"),
        (GIT, {"git_provider": "gitHub"}, "git_source.git_url"),
        ({**GIT, "git_provider": "gitlab"}, {**GIT, "git_provider": "svn"}, "must be one of"),
        (
            {**GIT, "git_branch": "main"},
            {**GIT, "git_branch": "main", "git_tag": "v1"},
            "only one of git_branch, git_tag",
        ),
    ],
)
def test_git_source(dry: Api, good: Any, bad: Any, words: str) -> None:
    """A repository has a provider that is known, and one reference at most."""
    job_id = dry.create(**NOTEBOOK, git_source=good, version="2.2")
    assert words in dry.refusal("create", {**NOTEBOOK, "git_source": bad})
    assert words in dry.refusal("update", {"job_id": job_id, "new_settings": {"git_source": bad}})


def test_commit_of_a_git_source(dry: Api) -> None:
    """The commit is the workspace's to choose: that of another run, or any text, is left out."""
    given = {**GIT, "git_snapshot": {"used_commit": "--help"}}
    job_id = dry.create(**NOTEBOOK, git_source=given, version="2.2")
    job = dry.get("get", version="2.2", job_id=job_id).json()
    assert job["settings"]["git_source"] == GIT
