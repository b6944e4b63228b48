"""The process that executes a notebook, as the server sees it: what it says last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.runners import notebook_process
from airflow_jobs_provider.local.runners.notebook_process import NotebookProcess
from airflow_jobs_provider.local.runners.notebook_task import KERNEL_DIED, Task


class Killed:
    """A process, and the markers of which all processes were killed."""

    def __init__(self) -> None:
        self.is_killed = False
        self.markers: list[str] = []

    def kill(self) -> None:
        """Note it."""
        self.is_killed = True


@pytest.fixture
async def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process whose kernel has started. The test writes its messages."""
    folder = str(tmp_path)
    one: Any = NotebookProcess(Task("/n", "n.ipynb", folder, folder, "marker", {}), print)
    one._process = Killed()
    monkeypatch.setattr(notebook_process, "kill_marked", one._process.markers.append)
    return one


@pytest.fixture
def commands(started: Any) -> Iterator[int]:
    """The pipe of the process's commands."""
    read_end, started._commands = os.pipe()
    yield read_end
    os.close(read_end)


async def test_killed_while_it_writes_a_message(started: Any, commands: int) -> None:
    """A part of a message counts as none: the run fails as after any other kill."""
    started._messages.feed_data(b'{"cells": []}\n{"outcome": {"error": "Value')
    started._messages.feed_eof()
    outcome = await started.execute()
    assert outcome.output.error == KERNEL_DIED
    assert os.read(commands, 100)


@pytest.mark.parametrize(
    ("last", "is_proper"),
    [
        (b'{"cells": []}\n{"end": true}\n', True),
        (b'{"cells": []}\n', False),
        (b'{"cells": []}\n{"cells": [{"ind', False),
        (b'{"cells": "' + b"x" * 300_000, False),
    ],
    ids=["told", "no word", "half a word", "endless"],
)
async def test_what_is_left_of_it_is_killed(
    started: Any, commands: int, last: bytes, is_proper: bool
) -> None:
    """Unless it says that its kernel has ended."""
    started._messages.feed_data(last)
    if len(last) < 1000:
        started._messages.feed_eof()
    await started.end()
    assert started._process.is_killed is not is_proper
    assert started._process.markers == ([] if is_proper else ["marker"])
