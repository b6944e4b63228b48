"""The template engine of the page: escaping, and how times and states are written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_jobs_provider.ui.job_page import task_run_page_url

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["PAGE_HEADERS", "STATES", "STATIC_FILES", "STATIC_HEADERS", "read_static", "render"]

# All values are escaped by the template engine. Should that fail somewhere, these headers still
# forbid inline scripts and styles, foreign content and framing.
_COMMON_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PAGE_HEADERS = {
    **_COMMON_HEADERS,
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}
STATIC_HEADERS = {
    **_COMMON_HEADERS,
    # A newer version of the package has other files under the same names.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
STATIC_FILES = {"page.css": "text/css", "theme.js": "text/javascript", "icon.svg": "image/svg+xml"}

# Airflow's states of a task: the word, a sign for those who do not see the colour, and the colour.
_STATES = {
    None: ("no status", "…", "none"),
    "scheduled": ("scheduled", "…", "wait"),
    "queued": ("queued", "…", "wait"),
    "running": ("running", "▶", "work"),
    "deferred": ("deferred", "▶", "work"),
    "restarting": ("restarting", "▶", "work"),
    "up_for_retry": ("up for retry", "…", "wait"),
    "up_for_reschedule": ("up for reschedule", "…", "wait"),
    "success": ("success", "✓", "good"),
    "failed": ("failed", "✕", "bad"),
    "upstream_failed": ("upstream failed", "✕", "bad"),
    "skipped": ("skipped", "–", "none"),  # noqa: RUF001  (a dash is what it shows)
    "removed": ("removed", "–", "none"),  # noqa: RUF001
}
# The choices of the filter, and the states that each one means.
STATES: dict[str, tuple[str, tuple[str | None, ...]]] = {
    "": ("Any state", ()),
    "active": (
        "Active",
        ("scheduled", "queued", "running", "deferred", "restarting", "up_for_reschedule"),
    ),
    **{
        state: (label.capitalize(), (state,))
        for state, (label, _, _) in _STATES.items()
        if state is not None
    },
    "no_status": ("No status", (None,)),
}


def render(template: str, **values: Any) -> str:
    """Return a page.

    :param template: file name of the template.
    :param values: its values.
    """
    return _templates().get_template(template).render(now=datetime.now(UTC), **values)


@cache
def read_static(name: str) -> bytes:
    """Return a file that pages refer to.

    :param name: its name, one of :data:`STATIC_FILES`.
    """
    return (Path(__file__).parent / "static" / name).read_bytes()


def moment(time: datetime) -> str:
    """Return a time in UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration(since: datetime, until: datetime) -> str:
    """Return a duration in its two largest units."""
    seconds = max(0.0, (until - since).total_seconds())
    whole = int(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if seconds < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def state_of(state: str | None) -> dict[str, str]:
    """Return how a task's state is shown; a state of a later Airflow by its name."""
    label, sign, colour = _STATES.get(state, (state or "", "?", "none"))
    return {"label": label, "sign": sign, "colour": colour}


def dag_path(dag_id: str) -> str:
    """Return the path of a DAG's page in Airflow's UI, from the page's own."""
    return f"../dags/{quote(dag_id, safe='')}"


def task_path(row: Any) -> str:
    """Return the path of a task instance's page in Airflow's UI, from the page's own."""
    path = f"{dag_path(row.dag_id)}/runs/{quote(row.dag_run, safe='')}"
    path += f"/tasks/{quote(row.task_id, safe='')}"
    return path if row.map_index < 0 else f"{path}/mapped/{row.map_index}"


def waits_for(kind: str, target: Mapping[str, int | str]) -> str:
    """Return in words what a trigger waits for.

    :param kind: name of the trigger's class.
    :param target: what is known of it, see ``SHOWN_ARGUMENTS`` of ``wait_list``.
    """
    run = target.get("workflow_run_id") or target.get("run_id")
    if run is not None:
        task = target.get("task_key")
        return f"run {run}" if task is None else f"task {task} of run {run}"
    if kind == "DatabricksLaunchTrigger":
        return "its run to be launched"
    job = target.get("job_id") or target.get("job_name")
    if kind == "DatabricksJobRunEventTrigger":
        return "runs of several jobs" if job is None else f"each run of job {job}"
    if job is not None:
        return f"a run of job {job}"
    return "unknown"


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": moment, "state": state_of}
    functions = (dag_path, duration, task_path, task_run_page_url, waits_for)
    environment.globals |= {function.__name__: function for function in functions}
    return environment
