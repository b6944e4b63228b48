"""Prepares what the code of a task needs: its libraries and the folder that holds the code."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_jobs_provider.local.engine.model import Run
from airflow_jobs_provider.local.engine.runner import Outcome, Runner, Workspace
from airflow_jobs_provider.local.runners.checkouts import CheckoutError
from airflow_jobs_provider.local.runners.libraries import Libraries, LibraryError, load_libraries

__all__ = ["PreparedRunner", "TaskCode"]


@dataclass(frozen=True, slots=True)
class TaskCode:
    """Where the code of a task is.

    :ivar root: the folder that the paths of its files begin at: the workspace's root, or the
        checkout of a repository.
    :ivar import_path: folders that the run can import from, in their order.
    """

    root: Path
    import_path: Sequence[Path]


class PreparedRunner:
    """Prepares the code of a task, then runs it.

    :param make: returns the runner of the task.
    """

    def __init__(self, run: Run, workspace: Workspace, make: Callable[[TaskCode], Runner]) -> None:
        self._run = run
        self._workspace = workspace
        self._make = make
        self._folder: Path | None = None
        self._libraries = Libraries()
        self._runner: Runner | None = None
        self._failure: Outcome | None = None

    async def setup(self) -> None:
        """Unpack the wheels and set up the task's runner."""
        root = self._workspace.root
        libraries = self._run.cluster_spec.get("libraries") or []
        environment = self._workspace.environment_of(self._run)
        if libraries or environment:
            self._folder = Path(tempfile.mkdtemp(dir=self._workspace.temporary_folder))
            try:
                self._libraries = await asyncio.to_thread(
                    load_libraries, libraries, environment, root, self._folder
                )
            except LibraryError as error:
                self._failure = error.outcome
                return
        try:
            checkout = await self._workspace.checkout_of(self._run)
        except CheckoutError as error:
            self._failure = error.outcome
            return
        folders = [*self._libraries.folders, *([checkout] if checkout else []), root]
        self._runner = self._make(TaskCode(checkout or root, folders))
        await self._runner.setup()

    async def execute(self) -> Outcome:
        """Run the task."""
        if self._runner is None:
            assert self._failure is not None
            return self._failure
        return self._libraries.add_to(await self._runner.execute())

    async def cleanup(self) -> None:
        """End the task, and remove what was unpacked."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
