"""The kinds of task that versions after 2.0 add, and ``git_source``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_jobs_provider.local.checks.field_types import at
from airflow_jobs_provider.local.errors import invalid

__all__ = ["check_git_source", "check_later_kind"]

_MAX_DBT_COMMANDS = 10
_SQL_SOURCES = ("query", "dashboard", "alert", "file")
_GIT_REFERENCES = ("git_branch", "git_tag", "git_commit")
# Upper and lower case are the same.
_GIT_PROVIDERS = (
    "gitHub",
    "bitbucketCloud",
    "azureDevOpsServices",
    "gitHubEnterprise",
    "bitbucketServer",
    "gitLab",
    "gitLabEnterpriseEdition",
    "awsCodeCommit",
)


def check_later_kind(kind: str | None, settings: Mapping[str, Any], where: str) -> None:
    """Check a task of a kind that has rules of its own; others pass.

    :param settings: the task, or the settings of a job of one task.
    :param where: the path of ``settings`` in the request.
    """
    check = _CHECKS.get(kind or "")
    if check is not None and kind is not None:
        check(settings[kind], at(where, kind))


def check_git_source(git_source: Mapping[str, Any]) -> dict[str, Any]:
    """Check the repository of a job: a known provider, and one reference at most.

    Returns it without ``git_snapshot``, which clients send back from a run's answer: the workspace
    sets it.
    """
    provider: str = git_source["git_provider"]
    if provider.lower() not in {one.lower() for one in _GIT_PROVIDERS}:
        known = ", ".join(_GIT_PROVIDERS)
        raise invalid(f"git_source.git_provider must be one of {known}: {provider[:100]!r}")
    given = [name for name in _GIT_REFERENCES if git_source.get(name)]
    if len(given) > 1:
        raise invalid(f"git_source must have only one of {', '.join(given)}")
    return {name: value for name, value in git_source.items() if name != "git_snapshot"}


def _check_wheel(task: Mapping[str, Any], where: str) -> None:
    if task.get("parameters") and task.get("named_parameters"):
        raise invalid(f"Only one of {where}.parameters and {where}.named_parameters may be set")


def _check_sql(task: Mapping[str, Any], where: str) -> None:
    if sum(name in task for name in _SQL_SOURCES) != 1:
        names = ", ".join(f"{where}.{name}" for name in _SQL_SOURCES)
        raise invalid(f"Exactly one of {names} is required")


def _check_dbt(task: Mapping[str, Any], where: str) -> None:
    commands: list[str] = task["commands"]
    if not 1 <= len(commands) <= _MAX_DBT_COMMANDS:
        raise invalid(f"{where}.commands must have 1 to {_MAX_DBT_COMMANDS} commands")
    for index, command in enumerate(commands):
        if command.split()[:1] != ["dbt"]:
            raise invalid(f"{where}.commands[{index}] must start with dbt: {command[:100]!r}")


_CHECKS: Mapping[str, Callable[[Mapping[str, Any], str], None]] = {
    "dbt_task": _check_dbt,
    "python_wheel_task": _check_wheel,
    "sql_task": _check_sql,
}
