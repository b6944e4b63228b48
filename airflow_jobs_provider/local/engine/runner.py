"""Interface of the runners, which execute the tasks of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from airflow_jobs_provider.api.states import RunResultState
from airflow_jobs_provider.local.engine.model import Output, Run

__all__ = [
    "FAILED_MESSAGE",
    "CannotRunError",
    "LiveNotebook",
    "Outcome",
    "Runner",
    "Workspace",
]

FAILED_MESSAGE = "Workload failed, see run output for details"


class CannotRunError(Exception):
    """The run cannot be done on this machine; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a run.

    :ivar millis: the execution_duration that the API returns; None for the time that passed.
    :ivar is_deleted: whether the run is deleted at its end.
    :ivar termination_code: the ``code`` of ``termination_details``; None for that of the result.
    """

    result_state: RunResultState = RunResultState.SUCCESS
    message: str = ""
    output: Output = field(default_factory=Output)
    millis: int | None = None
    is_deleted: bool = False
    termination_code: str | None = None

    @classmethod
    def failure(
        cls, error: str, trace: str | None = None, *, millis: int | None = None, **output: Any
    ) -> Outcome:
        """Return the outcome of a failed task."""
        return cls(
            RunResultState.FAILED,
            FAILED_MESSAGE,
            Output(error=error, error_trace=trace, **output),
            millis,
        )

    @classmethod
    def not_started(cls, message: str, *, termination_code: str | None = None) -> Outcome:
        """Return the outcome of a run whose work could not begin: its state has the reason, too."""
        return cls(
            RunResultState.FAILED,
            message,
            Output(error=message),
            termination_code=termination_code,
        )


class LiveNotebook:
    """The cells of a notebook that is executed, as the page of its run shows them.

    :ivar version: how often cells have changed.
    """

    def __init__(self) -> None:
        self.version = 0
        self._cells: dict[int, tuple[int, dict[str, Any]]] = {}

    def update(self, cells: Iterable[dict[str, Any]]) -> None:
        """Replace cells, each of which has its ``index`` in the notebook."""
        self.version += 1
        for cell in cells:
            self._cells[cell["index"]] = (self.version, cell)

    def changed_since(self, version: int) -> list[dict[str, Any]]:
        """Return the cells that were replaced after a version, in their order."""
        return [cell for _, (changed, cell) in sorted(self._cells.items()) if changed > version]


class Runner(Protocol):
    """Executes one run in three steps, which set the run's states and durations.

    ``cleanup`` is always called, also when a step before it was interrupted by a cancellation; when
    it returns, nothing of the run is left running.
    """

    async def setup(self) -> None:
        """Prepare (PENDING). May raise :class:`CannotRunError`."""

    async def execute(self) -> Outcome:
        """Do the work (RUNNING)."""

    async def cleanup(self) -> None:
        """End everything (TERMINATING)."""


class Workspace(Protocol):
    """What a runner uses of the workspace."""

    @property
    def root(self) -> Path:
        """The folder that is the workspace's ``/``."""

    @property
    def temporary_folder(self) -> Path:
        """The folder for what is needed only while a run runs."""

    @property
    def warehouse(self) -> Path:
        """The file of the database that SQL tasks share."""

    @property
    def spark_folder(self) -> Path:
        """The folder of the tables that notebooks save with Spark."""

    @property
    def base_url(self) -> str:
        """The workspace's URL."""

    @property
    def live_notebooks(self) -> dict[int, LiveNotebook]:
        """The notebooks that are executed, by their runs."""

    @property
    def installs_packages(self) -> bool:
        """Whether ``%pip install`` installs packages for its run."""

    @property
    def user(self) -> str:
        """The name of the workspace's user."""

    @property
    def workspace_number(self) -> int:
        """The id of the workspace, as the API has it."""

    def kept_file(self, run_id: int, suffix: str) -> Path:
        """Return where a file of a run is kept."""

    def environment_of(self, run: Run) -> Mapping[str, Any]:
        """Return the ``spec`` of the environment of a run's task; empty if it has none."""

    async def checkout_of(self, run: Run) -> Path | None:
        """Return the checkout of a repository that has the run's code; None if it has not.

        :raises CheckoutError: the repository cannot be checked out.
        """

    def run_marker(self, run_id: int) -> str:
        """Return the marker that the processes of a run carry in their environment."""

    def open_callback(self, run_id: int) -> str:
        """Return a secret with which this run may start others, until it is closed."""

    def close_callback(self, run_id: int) -> None:
        """Revoke the secret of a run."""

    def launch_job(
        self, job_id: int, parameters: Mapping[str, Any], *, started_by: Run
    ) -> Run | None:
        """Start a run of a job on behalf of another run; None if there is no such job."""

    async def wait(self, run_id: int) -> Run:
        """Wait until a run has ended, and return it."""

    def cancel(self, run_id: int) -> None:
        """Cancel a run."""

    def retry_task(self, parent: Run, task: Mapping[str, Any], failed: Run) -> Run:
        """Create the next attempt of a task, held back until it may start."""

    def start_iteration(self, loop: Run, given: str, failed: Run | None) -> Run:
        """Start an iteration of a for_each_task with an input, or the next attempt at it."""

    def start_held(self, run_id: int) -> None:
        """Start a run that was held back."""

    def skip_held(self, run_id: int, result_state: str, message: str) -> None:
        """Skip a run that was held back."""
