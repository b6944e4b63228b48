"""Rules about requests in general, tasks, and what a task runs on."""

from __future__ import annotations

import json

from airflow_jobs_provider.api.problems import Problem, describe_value
from airflow_jobs_provider.api.schema.rules.base import (
    ONLY_2_0,
    SETTINGS,
    Location,
    Node,
    Problems,
    check_forbidden_options,
    check_mutually_exclusive,
    check_size,
    get_list,
    get_mapping,
    get_string,
    join_names,
    present_fields,
    rule,
)
from airflow_jobs_provider.api.schema.task_kinds import TASK_KINDS

__all__ = [
    "MAX_REQUEST_BYTES",
    "is_unset_token",
    "request_size",
    "unset_token_problem",
]

MAX_REQUEST_BYTES = 10 * 1024 * 1024
MAX_TOKEN_CHARACTERS = 64
MAX_NAME_BYTES = 4096
MAX_TASKS = 100
MAX_TASKS_IN_2_2 = 1000


def request_size(payload: Node, text: str) -> Problems:
    """A request is at most 10 MB large (reference: "Jobs API 2.0")."""
    size = len(text)  # ASCII: a character is a byte
    if size > MAX_REQUEST_BYTES:
        largest = max(payload, key=lambda name: len(json.dumps(payload[name])))
        yield Problem(
            "the request",
            f"must have at most {MAX_REQUEST_BYTES:,} bytes as JSON",
            f"it has {size:,}, most of them in {largest}",
        )


def is_unset_token(token: str) -> bool:
    """Return whether an idempotency token is what an empty template renders to.

    All launches with such a token would share one run.

    :param token: the token.
    """
    return token.strip().lower() in ("", "none", "null")


def unset_token_problem(field: str) -> Problem:
    """Return the problem of a token that is unset.

    :param field: path of the field.
    """
    return Problem(
        field,
        "must be different for each launch",
        "it is empty, or the None or null of a template without a value",
    )


_LAUNCHED = (*SETTINGS, "TaskSettings")
_KINDS_ON_A_CLUSTER = ("spark_jar_task", "spark_python_task", "spark_submit_task")


@rule("RunNowRequest", "RunsSubmitRequest")
def idempotency_token(node: Node, location: Location) -> Problems:
    """An idempotency token has at most 64 characters (reference: "Run now", "Runs submit")."""
    token = get_string(node, "idempotency_token")
    if token is None:
        return
    if is_unset_token(token):
        yield unset_token_problem(location.field("idempotency_token"))
    yield from check_size(
        MAX_TOKEN_CHARACTERS, "characters", len(token), location, "idempotency_token"
    )


@rule(*SETTINGS)
def name_size(node: Node, location: Location) -> Problems:
    """A run's name, which may be its job's, has at most 4096 bytes (reference: "Run", run_name)."""
    for name in ("run_name", "name"):
        size = len((get_string(node, name) or "").encode(errors="replace"))
        yield from check_size(MAX_NAME_BYTES, "bytes in UTF-8", size, location, name)


@rule(*_LAUNCHED)
def one_task(node: Node, location: Location) -> Problems:
    """At most one kind of task is given, or several ``tasks`` (reference: "JobTask")."""
    yield from check_mutually_exclusive(_kinds(node), location)


@rule("RunsSubmitRequest", "TaskSettings")
def some_task(node: Node, location: Location) -> Problems:
    """A one-time run, and each of several tasks, has a task (reference: "JobTask")."""
    yield from _missing_task(node, location)


@rule("CreateRequest", "JobSettings", versions=ONLY_2_0)
def some_task_of_a_job(node: Node, location: Location) -> Problems:
    """A job has a task (reference: "JobTask")."""
    yield from _missing_task(node, location)


def _kinds(node: Node) -> list[str]:
    kinds = [name for name in node if str(name).endswith("_task") and node[name] is not None]
    return [*kinds, "tasks"] if get_list(node, "tasks") else kinds


def _missing_task(node: Node, location: Location) -> Problems:
    if not location.partial and not _kinds(node):
        here = location.field()
        yield Problem(
            f"{here}{'.' if here else ''}{TASK_KINDS[0]} (or another task)",
            f"must be given: exactly one of {join_names(TASK_KINDS, 'or')}",
            "none is given",
        )


@rule(*SETTINGS, versions=("2.0", "2.1"))
def number_of_tasks(node: Node, location: Location) -> Problems:
    """A job has at most 100 tasks (reference: "Run now", "Runs submit")."""
    yield from check_size(MAX_TASKS, "elements", len(get_list(node, "tasks")), location, "tasks")


@rule(*SETTINGS, versions=("2.2",))
def number_of_tasks_in_2_2(node: Node, location: Location) -> Problems:
    """A job has at most 1000 tasks (reference: "Create", in version 2.2)."""
    yield from check_size(
        MAX_TASKS_IN_2_2, "elements", len(get_list(node, "tasks")), location, "tasks"
    )


@rule(*_LAUNCHED)
def one_cluster(node: Node, location: Location) -> Problems:
    """``existing_cluster_id`` and ``new_cluster`` exclude each other (reference: "ClusterSpec")."""
    yield from check_mutually_exclusive(
        present_fields(node, "existing_cluster_id", "new_cluster"), location
    )


# Fields of later versions that select other compute than a cluster.
_COMPUTE_ELSEWHERE = ("job_cluster_key", "environment_key", "environments", "compute")


@rule(*_LAUNCHED)
def some_cluster(node: Node, location: Location) -> Problems:
    """A JAR, Python or spark-submit task needs ``existing_cluster_id`` or ``new_cluster``
    (reference: "Create", "Runs submit", "ClusterSpec"), or, in later versions, an environment.
    """
    yield from _missing_cluster(node, location, _KINDS_ON_A_CLUSTER)


@rule(*_LAUNCHED, versions=ONLY_2_0)
def some_cluster_for_a_notebook(node: Node, location: Location) -> Problems:
    """A notebook task needs ``existing_cluster_id`` or ``new_cluster`` (reference: "Create",
    "Runs submit", "ClusterSpec"); in later versions it is serverless without them.
    """
    yield from _missing_cluster(node, location, ("notebook_task",))


def _missing_cluster(node: Node, location: Location, on_a_cluster: tuple[str, ...]) -> Problems:
    kinds = present_fields(node, *on_a_cluster)
    if location.partial or not kinds or get_list(node, "tasks"):
        return
    if not present_fields(node, "existing_cluster_id", "new_cluster", *_COMPUTE_ELSEWHERE):
        field = join_names(
            (location.field("existing_cluster_id"), location.field("new_cluster")), "or"
        )
        yield Problem(field, f"must be given for a {kinds[0]}", "neither is")


@rule("NotebookTask")
def absolute_notebook_path(node: Node, location: Location) -> Problems:
    """A notebook's path begins with a slash (reference: "NotebookTask"), unless it is in Git."""
    path = get_string(node, "notebook_path")
    source = str(node.get("source") or "").upper()
    # A change of a job's tasks may leave out the git_source that the job has.
    is_left_out = location.partial and "tasks" in location.path
    may_be_in_git = is_left_out or (location.settings or {}).get("git_source")
    in_git = source == "GIT" or (not source and may_be_in_git)
    if path is not None and not path.startswith("/") and not in_git:
        beginning = repr(path[:1]) if path else "nothing: it is empty"
        yield Problem(
            location.field("notebook_path"),
            "must be an absolute path that begins with a slash",
            f"it begins with {beginning}",
        )


@rule(*_LAUNCHED)
def spark_submit_on_new_cluster(node: Node, location: Location) -> Problems:
    """A spark-submit task runs on a new cluster only (reference: "SparkSubmitTask")."""
    if len(present_fields(node, "spark_submit_task", "existing_cluster_id")) == 2:
        yield Problem(
            location.field("existing_cluster_id"),
            "is not possible with spark_submit_task, which runs on a new_cluster only",
            "both are given",
        )


@rule(*_LAUNCHED)
def spark_submit_without_libraries(node: Node, location: Location) -> Problems:
    """A spark-submit task takes no ``libraries`` (reference: "SparkSubmitTask")."""
    if not present_fields(node, "spark_submit_task"):
        return
    for path, holder in (((), node), (("new_cluster",), get_mapping(node, "new_cluster"))):
        if get_list(holder, "libraries"):
            yield Problem(
                location.field(*path, "libraries"),
                "is not supported with spark_submit_task, whose parameters take --jars and "
                "--py-files",
                describe_value(holder["libraries"]),
            )


@rule(*_LAUNCHED)
def spark_submit_without_spark_conf(node: Node, location: Location) -> Problems:
    """A spark-submit task takes no ``spark_conf`` (reference: "SparkSubmitTask")."""
    conf = get_mapping(get_mapping(node, "new_cluster"), "spark_conf")
    if conf and present_fields(node, "spark_submit_task"):
        yield Problem(
            location.field("new_cluster", "spark_conf"),
            "is not supported with spark_submit_task, whose parameters take --conf",
            describe_value(conf),
        )


@rule("SparkSubmitTask")
def spark_submit_options(node: Node, location: Location) -> Problems:
    """A spark-submit task's parameters set neither ``--master`` nor ``--deploy-mode`` nor
    ``--executor-cores`` (reference: "SparkSubmitTask").
    """
    yield from check_forbidden_options(node, "parameters", location)
