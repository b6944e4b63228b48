"""The addresses of the pages of jobs and task runs, from the address of a run's page."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.api.text import safe_url

__all__ = ["job_page_url", "task_run_page_url"]

# https://HOST/?o=WORKSPACE#job/JOB/run/RUN
_IN_FRAGMENT = re.compile(r"(?P<job>/?jobs?/[0-9]+)/runs?/.*")
# https://HOST/jobs/JOB/runs/RUN?o=WORKSPACE
_IN_PATH = re.compile(r"(?P<job>.*/jobs/[0-9]+)/runs/.*")
# http://HOST/runs/RUN, as the local workspace writes it.
# Each of these.
_RUN_AT_END = re.compile(r"(?P<before>(?:.*/)?runs?/)[0-9]+/?")
_RUN_ONLY = re.compile(r"(?P<before>.*)/runs/[0-9]+/?")


def job_page_url(run_page_url: object, job_id: object = None) -> str | None:
    """Return the URL of the page of a run's job; None if it cannot be told.

    :param run_page_url: URL of the run's page, or what an XCom has in its place.
    :param job_id: the job, used where the URL does not name it; default None, not known.
    """
    url = safe_url(run_page_url) if isinstance(run_page_url, str) else None
    if url is None:
        return None
    parts = urlsplit(url)
    if found := _IN_FRAGMENT.fullmatch(parts.fragment):
        return parts._replace(fragment=found["job"]).geturl()
    if found := _IN_PATH.fullmatch(parts.path):
        return parts._replace(path=found["job"], fragment="").geturl()
    job = parse_id(job_id)
    if job is not None and (found := _RUN_ONLY.fullmatch(parts.path)):
        return parts._replace(path=f"{found['before']}/jobs/{job}", fragment="").geturl()
    return None


def task_run_page_url(run_page_url: object, task_run_id: int) -> str | None:
    """Return the URL of the page of one task's run; None if it cannot be told.

    :param run_page_url: URL of the page of the whole run, or what an XCom has in its place.
    :param task_run_id: the task's run.
    """
    url = safe_url(run_page_url) if isinstance(run_page_url, str) else None
    if url is None:
        return None
    parts = urlsplit(url)
    name = "fragment" if parts.fragment else "path"
    if found := _RUN_AT_END.fullmatch(getattr(parts, name)):
        return parts._replace(**{name: f"{found['before']}{task_run_id}"}).geturl()
    return None
