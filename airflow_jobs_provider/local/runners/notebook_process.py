"""The process that executes a notebook, as the server sees it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.model import Output
from airflow_jobs_provider.local.engine.runner import CannotRunError, Outcome
from airflow_jobs_provider.local.runners.kernel_processes import (
    MAX_LINE_BYTES,
    ForkedProcess,
    ForkServer,
    reader_of,
)
from airflow_jobs_provider.local.runners.notebook_task import (
    EXECUTE,
    KERNEL_DIED,
    Task,
    last_line,
    start_failure,
)
from airflow_jobs_provider.local.runners.process_markers import kill_marked
from airflow_jobs_provider.local.runners.processes import environment_of_runs, supervised

__all__ = ["NotebookProcess"]

_log = logging.getLogger(__name__)
_PROGRAM = str(Path(__file__).with_name("notebook_program.py"))
# Longer than the end of a kernel takes at most, with a notebook of 20 MB to write.
_END_SECONDS = 20.0


class NotebookProcess:
    """A process that executes a notebook (``notebook_program.py``).

    :param task: what it executes.
    :param on_cells: gets the cells that have changed.
    """

    def __init__(self, task: Task, on_cells: Callable[[list[dict[str, Any]]], None]) -> None:
        self._task = task
        self._on_cells = on_cells
        self._commands: int | None = None
        self._process: ForkedProcess | asyncio.subprocess.Process | None = None
        self._messages = asyncio.StreamReader()
        # What a program writes whose modules cannot be imported.
        self._errors = Path(task.folder) / "client.log"

    async def start(self, fork_server: ForkServer) -> Outcome | None:
        """Start the process; return when the kernel has started, or how the run ends without it.

        :raises CannotRunError: the kernel did not start.
        """
        file = Path(self._task.folder) / "task.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(asdict(self._task)), encoding="utf-8")
        commands, self._commands = os.pipe()
        try:
            if not await self._fork(fork_server, file, commands):
                self._process = await self._start_program(file, commands)
        finally:
            os.close(commands)
        name, value = await self._next_message()
        if name == "ready":
            return None
        if name != "outcome":
            raise CannotRunError(start_failure(last_line(self._errors)))
        return _outcome_of(value)

    async def execute(self) -> Outcome:
        """Execute the notebook; return how the run ends."""
        assert self._commands is not None
        with suppress(BrokenPipeError):  # the process has died: no message comes
            os.write(self._commands, EXECUTE)
        name, value = await self._next_message()
        return _outcome_of(value) if name == "outcome" else Outcome.failure(KERNEL_DIED)

    async def end(self) -> None:
        """End the kernel, and then the process, which writes the executed notebook."""
        if self._commands is None:
            return
        os.close(self._commands)
        self._commands = None
        has_ended = False
        if self._process is not None:
            # ValueError: a line that is longer than any message.
            with suppress(TimeoutError, ValueError):
                async with asyncio.timeout(_END_SECONDS):
                    has_ended = await self._reads_end()
        if not has_ended:
            if self._process is not None:
                with suppress(ProcessLookupError):
                    self._process.kill()
            await asyncio.to_thread(kill_marked, self._task.marker)
        if isinstance(self._process, asyncio.subprocess.Process):
            await self._process.wait()

    async def _reads_end(self) -> bool:
        """Read all messages; return whether the last one tells a proper end."""
        name = ""
        while line := await self._read_line():
            name, value = _message_of(line)
            if name == "crash":
                _log.error("Cannot end the notebook %s: %s", self._task.path, value)
        return name == "end"

    async def _fork(self, fork_server: ForkServer, file: Path, commands: int) -> bool:
        read_end, write_end = os.pipe()
        try:
            self._messages, transport = await reader_of(read_end)
            try:
                self._process = await fork_server.fork_client(
                    file, marker=self._task.marker, commands=commands, messages=write_end
                )
            finally:
                if self._process is None:
                    transport.close()
        finally:
            os.close(write_end)
        return self._process is not None

    async def _start_program(self, file: Path, commands: int) -> asyncio.subprocess.Process:
        with self._errors.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *supervised([sys.executable, "-P", _PROGRAM, str(file)]),
                env=environment_of_runs(self._task.marker),
                stdin=commands,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                limit=MAX_LINE_BYTES,
            )
        assert process.stdout is not None
        self._messages = process.stdout
        return process

    async def _next_message(self) -> tuple[str, Any]:
        """Return a message that is not about cells; an empty name if the process has died."""
        while line := await self._read_line():
            name, value = _message_of(line)
            match name:
                case "cells":
                    self._on_cells(value)
                case "cannot_run":
                    raise CannotRunError(value)
                case "crash":
                    raise RuntimeError(value)
                case _:
                    return name, value
        return "", None

    async def _read_line(self) -> bytes:
        """Return the next message; empty at the end, and for a part of one.

        A process that is killed while it writes leaves a part of a message.
        """
        line = await self._messages.readline()
        return line if line.endswith(b"\n") else b""


def _message_of(line: bytes) -> tuple[str, Any]:
    [message] = json.loads(line).items()
    found: tuple[str, Any] = message
    return found


def _outcome_of(value: dict[str, Any]) -> Outcome:
    if value.get("error") is None:
        return Outcome(output=Output(**value))
    return Outcome.failure(
        value["error"], value.get("trace"), truncated=value.get("truncated", False)
    )
