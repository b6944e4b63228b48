"""Where the versions of the Jobs API differ; everything else is common to them.

2.0 shows a job of one task without an array, and pages by offset. From 2.1 on tasks always come as
an array, pages are small and have tokens. 2.2 no longer says ``has_more``, has pages of tasks,
takes more of them, and lets a job's runs queue unless the job says otherwise.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace

from airflow_jobs_provider.local.errors import invalid

__all__ = ["LATEST", "VERSIONS", "Version", "page_token", "position_of"]

# More than there can be, and few enough for the database to count.
_MAX_POSITION = 2**31


@dataclass(frozen=True, slots=True)
class Version:
    """What a version of the API does its own way.

    :param has_tasks: whether tasks are given and answered as an array, and other fields taken that
        the reference of 2.0 does not list.
    :param max_runs: how many runs one page of ``runs/list`` holds at most.
    :param max_jobs: how many jobs one page of ``jobs/list`` holds at most; None for all of them.
    :param says_has_more: whether list answers have ``has_more``.
    :param has_repair: whether runs can be repaired.
    :param max_tasks: how many tasks ``runs/get`` answers at once; None for all of them.
    :param max_job_tasks: how many tasks a job has at most.
    :param queues: whether the runs of a job queue that does not say ``queue``.
    """

    name: str
    has_tasks: bool
    max_runs: int
    max_jobs: int | None
    says_has_more: bool
    has_repair: bool
    max_tasks: int | None = None
    max_job_tasks: int = 100
    queues: bool = False


_LATER = Version(
    "2.1", has_tasks=True, max_runs=25, max_jobs=100, says_has_more=True, has_repair=True
)
VERSIONS = {
    "2.0": Version(
        "2.0", has_tasks=False, max_runs=1000, max_jobs=None, says_has_more=True, has_repair=False
    ),
    "2.1": _LATER,
    "2.2": replace(
        _LATER,
        name="2.2",
        says_has_more=False,
        max_tasks=100,
        max_job_tasks=1000,
        queues=True,
    ),
}
LATEST = VERSIONS["2.2"]


def page_token(kind: str, position: int) -> str:
    """Return the token of a page that begins at a position; nobody is to read anything into it."""
    return base64.urlsafe_b64encode(f"{kind}:{position}".encode()).decode().rstrip("=")


def position_of(token: str, kind: str) -> int:
    """Return the position that a page token stands for."""
    try:
        padded = token + "=" * (-len(token) % 4)
        found, _, position = base64.urlsafe_b64decode(padded).decode().partition(":")
        if found == kind and 0 <= int(position) < _MAX_POSITION:
            return int(position)
    except (ValueError, binascii.Error):
        pass
    raise invalid(f"Invalid value for page_token: {token[:100]!r}")
