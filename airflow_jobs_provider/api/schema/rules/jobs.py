"""Rules about jobs, their schedules and notifications, and about lists of runs."""

from __future__ import annotations

import re

from airflow_jobs_provider.api.problems import Problem, what_it_is
from airflow_jobs_provider.api.schema.rules.base import (
    MAX_INT32,
    ONLY_2_0,
    Node,
    Place,
    Problems,
    ascii_list,
    at_most,
    between,
    is_true,
    list_of,
    rule,
    text_of,
    words,
)

MAX_CONCURRENT_RUNS = 1000
MAX_DESTINATIONS = 3
MAX_RUNS_ON_A_PAGE = 1000


@rule("JobSettings", "CreateRequest", "TaskSettings")
def max_retries(node: Node, place: Place) -> Problems:
    """``max_retries`` is -1 (without end), 0 (never) or more (reference: "Create")."""
    yield from between(node, "max_retries", place, -1, MAX_INT32)


@rule("JobSettings", "CreateRequest")
def max_concurrent_runs(node: Node, place: Place) -> Problems:
    """``max_concurrent_runs`` is 0 to 1000 (reference: "Create")."""
    yield from between(node, "max_concurrent_runs", place, 0, MAX_CONCURRENT_RUNS)


@rule("CronSchedule")
def quartz_fields(node: Node, place: Place) -> Problems:
    """A schedule is in Quartz syntax, which begins with seconds: 6 fields, or 7 with the year
    (reference: "CronSchedule").
    """
    expression = text_of(node, "quartz_cron_expression")
    if expression is not None and len(expression.split()) not in (6, 7):
        yield Problem(
            place.at("quartz_cron_expression"),
            "must have the 6 fields of Quartz (seconds first), or 7 with the year",
            f"it has {len(expression.split())}",
        )


@rule("JobsHealthRule", versions=ONLY_2_0)
def health_metric(node: Node, place: Place) -> Problems:
    """A health rule's metric is ``RUN_DURATION_SECONDS`` (reference: "JobsHealthRule")."""
    metric = text_of(node, "metric")
    if metric is not None and metric != "RUN_DURATION_SECONDS":
        yield Problem(place.at("metric"), "must be RUN_DURATION_SECONDS", what_it_is(metric))


@rule("JobEmailNotifications", versions=ONLY_2_0)
def ascii_addresses(node: Node, place: Place) -> Problems:
    """The addresses of ``on_start``, ``on_success`` and ``on_failure`` are ASCII only
    (reference: "JobEmailNotifications").
    """
    for name in ("on_start", "on_success", "on_failure"):
        yield from ascii_list(node, name, place)


@rule("WebhookNotifications")
def number_of_destinations(node: Node, place: Place) -> Problems:
    """Each event is told to at most 3 destinations (reference: "WebhookNotifications")."""
    for name in ("on_start", "on_success", "on_failure", "on_duration_warning_threshold_exceeded"):
        size = len(list_of(node, name))
        yield from at_most(MAX_DESTINATIONS, "destinations", size, place, name)


_REMOVABLE = re.compile(r"\w+|(tasks|job_clusters)/.+", re.DOTALL)


@rule("UpdateRequest")
def fields_to_remove(node: Node, place: Place) -> Problems:
    """``fields_to_remove`` names top-level fields, or entries of ``tasks`` and ``job_clusters``
    (reference: "Update").
    """
    for index, name in enumerate(list_of(node, "fields_to_remove")):
        if isinstance(name, str) and not _REMOVABLE.fullmatch(name):
            yield Problem(
                place.at("fields_to_remove", index),
                "must be a top-level field, tasks/<task_key> or job_clusters/<job_cluster_key>",
                what_it_is(name),
            )


@rule("RunsListRequest")
def active_or_completed(node: Node, place: Place) -> Problems:
    """``active_only`` and ``completed_only`` are not both true (reference: "Runs list")."""
    if is_true(node.get("active_only")) and is_true(node.get("completed_only")):
        field = words((place.at("active_only"), place.at("completed_only")))
        yield Problem(field, "cannot both be true", "both are")


@rule("RunsListRequest")
def runs_on_a_page(node: Node, place: Place) -> Problems:
    """``limit`` is 0 (for the maximum) to 1000 (reference: "Runs list")."""
    yield from between(node, "limit", place, 0, MAX_RUNS_ON_A_PAGE)


@rule("RunsListRequest")
def runs_to_skip(node: Node, place: Place) -> Problems:
    """``offset`` counts from the most recent run, so it is 0 or more (reference: "Runs list")."""
    yield from between(node, "offset", place, 0, MAX_INT32)
