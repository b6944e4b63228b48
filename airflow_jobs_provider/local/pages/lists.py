"""The pages that list: runs, jobs, and a job with its latest runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from airflow_jobs_provider.local.engine.model import Job, now_millis
from airflow_jobs_provider.local.pages import snippets
from airflow_jobs_provider.local.pages.graph import lay_out
from airflow_jobs_provider.local.pages.matrix import matrix_of
from airflow_jobs_provider.local.pages.page_store import ACTIVE_RUNS, PageStore, RunFilter
from airflow_jobs_provider.local.pages.render import render
from airflow_jobs_provider.local.pages.states import StateKind

__all__ = ["render_job", "render_jobs", "render_runs", "render_settings"]

_PAGE = 50
_MATRIX_RUNS = 25
_LATEST_RUNS = 10
_MAX_TEXT = 200
_MAX_ID = 10**18
_STATES = {"": "Any state", ACTIVE_RUNS: "Active"} | {
    kind.name.lower(): kind.label for kind in StateKind
}


def render_runs(store: PageStore, query: Mapping[str, str], version: str) -> str:
    """Return the page with the runs that a query selects.

    :param query: ``job``, ``state``, ``text``, ``before`` and ``after``; what is not understood is
        ignored.
    :param version: what tells this list from a later one.
    """
    wanted = RunFilter(
        job_id=_number(query.get("job")),
        state=query.get("state", "") if query.get("state") in _STATES else "",
        text=query.get("text", "").strip()[:_MAX_TEXT],
        before=_number(query.get("before")),
        after=_number(query.get("after")),
    )
    found = store.search_runs(wanted, _PAGE + 1)
    has_more = len(found) > _PAGE
    # Of those after a run the nearest are wanted, which are the last ones.
    runs = found[-_PAGE:] if wanted.after is not None else found[:_PAGE]
    has_newer = has_more if wanted.after is not None else wanted.before is not None
    has_older = wanted.after is not None or has_more
    kept = {"job": wanted.job_id, "state": wanted.state, "text": wanted.text}
    kept = {name: value for name, value in kept.items() if value not in ("", None)}
    return render(
        "runs.html",
        runs=runs,
        wanted=wanted,
        states=_STATES,
        is_filtered=bool(kept),
        newest=_link("/", kept) if has_newer else None,
        newer=_link("/", kept | {"after": runs[0].run_id}) if runs and has_newer else None,
        older=_link("/", kept | {"before": runs[-1].run_id}) if runs and has_older else None,
        version=version,
        now=now_millis(),
    )


def render_jobs(store: PageStore, query: Mapping[str, str], version: str) -> str:
    """Return the page with the jobs whose name has a text in it."""
    text = query.get("text", "").strip()[:_MAX_TEXT]
    offset = _number(query.get("offset")) or 0
    jobs = store.search_jobs(text, limit=_PAGE + 1, offset=offset)
    kept = {"text": text} if text else {}
    return render(
        "jobs.html",
        jobs=[
            (job, store.runs(limit=_LATEST_RUNS, job_id=job.job_id)[::-1]) for job in jobs[:_PAGE]
        ],
        text=text,
        newer=_link("/jobs", kept | {"offset": max(0, offset - _PAGE)}) if offset else None,
        older=_link("/jobs", kept | {"offset": offset + _PAGE}) if len(jobs) > _PAGE else None,
        version=version,
    )


def render_job(store: PageStore, job_id: int, version: str) -> str | None:
    """Return the page of a job; None if there is no such job."""
    job = store.job(job_id)
    if job is None:
        return None
    tasks = job.settings.get("tasks") or []
    return render(
        "job.html",
        job=job,
        name=job.settings.get("name", "Untitled"),
        graph=lay_out(tasks) if len(tasks) > 1 else None,
        matrix=matrix_of(job, store, _MATRIX_RUNS),
        version=version,
    )


def render_settings(job: Job, base_url: str) -> str:
    """Return a job's settings, and how to launch a run of it, as a part of a page."""
    request = {"job_id": job.job_id}
    return render(
        "settings.html",
        settings=job.settings,
        curl=snippets.curl("POST", f"{base_url}/api/2.1/jobs/run-now", request),
        dag=snippets.dag_of("run-now", request),
    )


def _number(text: str | None) -> int | None:
    """Return an id or a position; None for what is none."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(int(text[:20]), _MAX_ID)


def _link(path: str, query: Mapping[str, Any]) -> str:
    return f"{path}?{urlencode(query)}" if query else path
