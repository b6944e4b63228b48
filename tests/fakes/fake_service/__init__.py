"""A Jobs API over real HTTP that executes nothing: ``service`` answers, ``runs`` has its runs."""

from __future__ import annotations

from tests.fakes.fake_service.runs import UNTIL_ENDED, JobRun, Plan, Run, TaskRun
from tests.fakes.fake_service.service import (
    FAULTS,
    LAUNCHES,
    TOKEN,
    TRACE,
    FakeService,
    Fault,
    Hook,
    Lists,
    Seen,
)

__all__ = [
    "FAULTS",
    "LAUNCHES",
    "TOKEN",
    "TRACE",
    "UNTIL_ENDED",
    "FakeService",
    "Fault",
    "Hook",
    "JobRun",
    "Lists",
    "Plan",
    "Run",
    "Seen",
    "TaskRun",
]
