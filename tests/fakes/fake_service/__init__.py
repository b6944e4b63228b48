"""A Jobs API over real HTTP that executes nothing.

``service`` answers what ``server`` reads, ``runs`` has its runs, ``lists`` the pages of its lists,
and ``faults`` what goes wrong with requests.
"""

from __future__ import annotations

from tests.fakes.fake_service.answers import TRACE
from tests.fakes.fake_service.faults import FAULTS, NOT_SHOWN_YET, Fault
from tests.fakes.fake_service.lists import Lists, Seen
from tests.fakes.fake_service.runs import UNTIL_ENDED, JobRun, Plan, Run, TaskRun
from tests.fakes.fake_service.service import LAUNCHES, TOKEN, FakeService, Hook

__all__ = [
    "FAULTS",
    "LAUNCHES",
    "NOT_SHOWN_YET",
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
