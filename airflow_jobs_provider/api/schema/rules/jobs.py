"""Rules about jobs, their schedules and notifications, and about lists of runs."""

from __future__ import annotations

import re

from airflow_jobs_provider.api.problems import Problem, describe_value
from airflow_jobs_provider.api.schema.rules.base import (
    MAX_INT32,
    ONLY_2_0,
    Location,
    Node,
    Problems,
    check_ascii_list,
    check_range,
    check_size,
    get_list,
    get_string,
    is_true,
    join_names,
    rule,
)

__all__: list[str] = []  # each rule registers itself

MAX_CONCURRENT_RUNS = 1000
MAX_DESTINATIONS = 3
MAX_RUNS_ON_A_PAGE = 1000


@rule("JobSettings", "CreateRequest", "TaskSettings")
def max_retries(node: Node, location: Location) -> Problems:
    """``max_retries`` is -1 (without end), 0 (never) or more (reference: "Create")."""
    yield from check_range(node, "max_retries", location, -1, MAX_INT32)


@rule("JobSettings", "CreateRequest")
def max_concurrent_runs(node: Node, location: Location) -> Problems:
    """``max_concurrent_runs`` is 0 to 1000 (reference: "Create")."""
    yield from check_range(node, "max_concurrent_runs", location, 0, MAX_CONCURRENT_RUNS)


@rule("CronSchedule")
def quartz_fields(node: Node, location: Location) -> Problems:
    """A schedule is in Quartz syntax, which begins with seconds: 6 fields, or 7 with the year
    (reference: "CronSchedule").
    """
    expression = get_string(node, "quartz_cron_expression")
    if expression is not None and len(expression.split()) not in (6, 7):
        yield Problem(
            location.field("quartz_cron_expression"),
            "must have the 6 fields of Quartz (seconds first), or 7 with the year",
            f"it has {len(expression.split())}",
        )


@rule("JobsHealthRule", versions=ONLY_2_0)
def health_metric(node: Node, location: Location) -> Problems:
    """A health rule's metric is ``RUN_DURATION_SECONDS`` (reference: "JobsHealthRule")."""
    metric = get_string(node, "metric")
    if metric is not None and metric != "RUN_DURATION_SECONDS":
        yield Problem(
            location.field("metric"), "must be RUN_DURATION_SECONDS", describe_value(metric)
        )


@rule("JobEmailNotifications", versions=ONLY_2_0)
def ascii_addresses(node: Node, location: Location) -> Problems:
    """The addresses of ``on_start``, ``on_success`` and ``on_failure`` are ASCII only
    (reference: "JobEmailNotifications").
    """
    for name in ("on_start", "on_success", "on_failure"):
        yield from check_ascii_list(node, name, location)


@rule("WebhookNotifications")
def number_of_destinations(node: Node, location: Location) -> Problems:
    """Each event is told to at most 3 destinations (reference: "WebhookNotifications")."""
    for name in ("on_start", "on_success", "on_failure", "on_duration_warning_threshold_exceeded"):
        size = len(get_list(node, name))
        yield from check_size(MAX_DESTINATIONS, "destinations", size, location, name)


# Compiled at first use: most requests remove nothing.
_REMOVABLE = r"(?s)\w+|(tasks|job_clusters)/.+"


@rule("UpdateRequest")
def fields_to_remove(node: Node, location: Location) -> Problems:
    """``fields_to_remove`` names top-level fields, or entries of ``tasks`` and ``job_clusters``
    (reference: "Update").
    """
    for index, name in enumerate(get_list(node, "fields_to_remove")):
        if isinstance(name, str) and not re.fullmatch(_REMOVABLE, name):
            yield Problem(
                location.field("fields_to_remove", index),
                "must be a top-level field, tasks/<task_key> or job_clusters/<job_cluster_key>",
                describe_value(name),
            )


@rule("RunsListRequest")
def active_or_completed(node: Node, location: Location) -> Problems:
    """``active_only`` and ``completed_only`` are not both true (reference: "Runs list")."""
    if is_true(node.get("active_only")) and is_true(node.get("completed_only")):
        field = join_names((location.field("active_only"), location.field("completed_only")))
        yield Problem(field, "cannot both be true", "both are")


@rule("RunsListRequest")
def runs_on_a_page(node: Node, location: Location) -> Problems:
    """``limit`` is 0 (for the maximum) to 1000 (reference: "Runs list")."""
    yield from check_range(node, "limit", location, 0, MAX_RUNS_ON_A_PAGE)


@rule("RunsListRequest")
def runs_to_skip(node: Node, location: Location) -> Problems:
    """``offset`` counts from the most recent run, so it is 0 or more (reference: "Runs list")."""
    yield from check_range(node, "offset", location, 0, MAX_INT32)
