"""When a job runs by itself, and who is told ("CronSchedule" and the notifications)."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from functools import cache
from typing import Any

from airflow_jobs_provider.local.checks.cron import cron_problem
from airflow_jobs_provider.local.checks.field_types import at
from airflow_jobs_provider.local.checks.parameters import check_ascii
from airflow_jobs_provider.local.errors import invalid
from airflow_jobs_provider.local.versions import Version

__all__ = ["check_notices", "check_schedule"]

_MAX_DESTINATIONS = 3
_ASCII_EVENTS = ("on_start", "on_success", "on_failure")
_EVENTS = (*_ASCII_EVENTS, "on_duration_warning_threshold_exceeded")
# Java's own forms, beside the names of the time zone database.
_OFFSET = re.compile(r"(GMT|UTC|UT)?[+-]([01]?[0-9]|2[0-3])(:?[0-5][0-9])?")
# fmt: off
_JAVA_ZONES = frozenset({
    "ACT", "AET", "AGT", "ART", "AST", "BET", "BST", "CAT", "CNT", "CST", "CTT", "EAT", "ECT",
    "IET", "IST", "JST", "MIT", "NET", "NST", "PLT", "PNT", "PRT", "PST", "SST", "VST",
})
# fmt: on


def check_notices(settings: Mapping[str, Any], where: str, version: Version) -> None:
    """Check whom a job's runs are told to, and at what health."""
    mails = settings.get("email_notifications") or {}
    for event in () if version.has_tasks else _ASCII_EVENTS:
        for index, address in enumerate(mails.get(event) or []):
            check_ascii(at(where, f"email_notifications.{event}[{index}]"), address)
    hooks = settings.get("webhook_notifications") or {}
    for event in _EVENTS:
        count = len(hooks.get(event) or [])
        if count > _MAX_DESTINATIONS:
            raise invalid(
                f"{at(where, f'webhook_notifications.{event}')} must have at most "
                f"{_MAX_DESTINATIONS} destinations; it has {count}"
            )
    for index, rule in enumerate((settings.get("health") or {}).get("rules") or []):
        metric = rule.get("metric", "RUN_DURATION_SECONDS")
        if metric != "RUN_DURATION_SECONDS" and not version.has_tasks:
            raise invalid(
                f"{at(where, f'health.rules[{index}].metric')} must be RUN_DURATION_SECONDS"
            )


def check_schedule(schedule: Mapping[str, Any]) -> None:
    """Check a Quartz expression and a Java time zone."""
    problem = cron_problem(schedule["quartz_cron_expression"])
    if problem is not None:
        raise invalid(f"schedule.quartz_cron_expression is not valid: {problem}")
    zone = schedule["timezone_id"]
    if _zones() and not (zone in _zones() or zone in _JAVA_ZONES or _OFFSET.fullmatch(zone)):
        raise invalid(f"schedule.timezone_id is not a Java time zone: {zone[:100]!r}")


@cache
def _zones() -> frozenset[str]:
    # Empty where this machine has no such database; then any will do.
    return frozenset(zoneinfo.available_timezones())
