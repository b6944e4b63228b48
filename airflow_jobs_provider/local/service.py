"""The local workspace's service: store, scheduler, launcher and runners."""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from airflow_jobs_provider.api.states import RunLifeCycleState
from airflow_jobs_provider.local.engine.launches import Launcher, is_retried
from airflow_jobs_provider.local.engine.model import Output, Run, now_millis, task_key_of
from airflow_jobs_provider.local.engine.parameters import resolve
from airflow_jobs_provider.local.engine.quotas import QuotaKeeper, Quotas
from airflow_jobs_provider.local.engine.references import References
from airflow_jobs_provider.local.engine.repairs import Repairer
from airflow_jobs_provider.local.engine.runner import LiveNotebook, Runner, Workspace
from airflow_jobs_provider.local.engine.scheduler import STOPPED_MESSAGE, Scheduler
from airflow_jobs_provider.local.engine.scripted_results import ScriptedResults, ScriptedRunner
from airflow_jobs_provider.local.engine.store import Store
from airflow_jobs_provider.local.engine.uploads import PartialFiles, Uploads
from airflow_jobs_provider.local.kernel.spark_tables import remove_unused_warehouses
from airflow_jobs_provider.local.runners.checkouts import Checkouts, is_in_git
from airflow_jobs_provider.local.runners.control_flow import ConditionRunner, ForEachRunner
from airflow_jobs_provider.local.runners.dbt import DbtRunner
from airflow_jobs_provider.local.runners.kernel_processes import ForkServer
from airflow_jobs_provider.local.runners.notebook import NotebookRunner
from airflow_jobs_provider.local.runners.notebook_export import NotebookExporter
from airflow_jobs_provider.local.runners.prepare import PreparedRunner, TaskCode
from airflow_jobs_provider.local.runners.process_markers import (
    kill_marked,
    run_marker,
    workspace_id,
)
from airflow_jobs_provider.local.runners.python import PythonRunner
from airflow_jobs_provider.local.runners.spark import SparkJarRunner, SparkSubmitRunner
from airflow_jobs_provider.local.runners.sql import SqlRunner
from airflow_jobs_provider.local.runners.wheel import PythonWheelRunner
from airflow_jobs_provider.local.runners.without_process import (
    CannotRun,
    DryRunner,
    RunJobRunner,
    TasksRunner,
)

__all__ = ["Service"]

# Kinds of task that run code in processes of their own.
_OF_CODE: Mapping[str, Callable[[Run, Workspace, TaskCode], Runner]] = {
    "dbt_task": DbtRunner,
    "python_wheel_task": PythonWheelRunner,
    "spark_jar_task": SparkJarRunner,
    "spark_python_task": PythonRunner,
    "spark_submit_task": SparkSubmitRunner,
    "sql_task": SqlRunner,
}
_GIT = "git_source"
_SNAPSHOT = "git_snapshot"
_TEMPORARY_PREFIX = "local-workspace-"
# What is kept of a run: the executed notebook, the same as a page, and the log of a process.
_KEPT_SUFFIXES = (".ipynb", ".html", ".log")


class Service:
    """A running workspace.

    :param root: the folder that is the workspace's ``/``.
    :param state_dir: where jobs, runs and executed notebooks are kept.
    :param max_concurrent_runs: how many runs work at once; the others are queued.
    :param dry_run: whether runs end well at once, without doing anything.
    :param quotas: the workspace's limits.
    :param results: results that a test decides on.
    :param preload_kernels: whether the process that kernels are forked from is started at once, not
        with the first notebook.
    :param pip_install: whether ``%pip install`` of a notebook installs packages for its run.
    :param repositories: folders of clones, by the URL of the Git repository.
    """

    def __init__(
        self,
        root: Path,
        state_dir: Path,
        max_concurrent_runs: int | None,
        *,
        dry_run: bool = False,
        quotas: Quotas | None = None,
        results: ScriptedResults | None = None,
        preload_kernels: bool = False,
        pip_install: bool = False,
        repositories: Mapping[str, Path] | None = None,
    ) -> None:
        self._results = results or ScriptedResults()
        self.root = root
        self.base_url = ""
        self.user = _user_name()
        self.installs_packages = pip_install
        self._dry_run = dry_run
        self._runs_folder = state_dir / "runs"
        self._runs_folder.mkdir(parents=True, exist_ok=True)
        self.warehouse = state_dir / "warehouse.duckdb"
        self.spark_folder = state_dir / "spark"
        self._workspace_id = workspace_id(state_dir)
        # One workspace at a time has the state folder, so these are left of one that was killed.
        kill_marked(run_marker(self._workspace_id))
        remove_unused_warehouses(self.spark_folder)
        self.temporary_folder = _temporary_folder(state_dir)
        for partial in self._runs_folder.glob("*.partial"):
            partial.unlink()
        self._fork_server = ForkServer(run_marker(self._workspace_id))
        if preload_kernels and not dry_run:
            self._fork_server.start()
        self._exporter = NotebookExporter(f"{run_marker(self._workspace_id)}export:")
        self._callbacks: dict[int, str] = {}
        self.live_notebooks: dict[int, LiveNotebook] = {}
        self.partial_files = PartialFiles(state_dir / "partial-files")
        self.partial_files.discard_all()
        self.uploads = Uploads(self.partial_files)
        self._checkouts = Checkouts(root, self.temporary_folder, repositories or {})
        self._background: set[asyncio.Task[None]] = set()
        self.store = Store(state_dir / "workspace.sqlite")
        self.scheduler = Scheduler(
            self.store,
            slots=max_concurrent_runs or max(2, os.cpu_count() or 2),
            runner_of=self._runner_of,
            job_limit_of=self._job_limit_of,
            on_end=self._on_end,
        )
        keeper = QuotaKeeper(quotas or Quotas(), self.store)
        self.launcher = Launcher(self.store, self.scheduler, keeper, self.user, self.references)
        self.repairer = Repairer(self.store, self.scheduler, self.launcher)
        self._end_what_was_live()
        self.forget_old_runs()

    async def stop_runs(self) -> None:
        """End all live runs."""
        await self.scheduler.stop()
        await self._checkouts.close()
        await asyncio.gather(*self._background, return_exceptions=True)

    def close(self) -> None:
        """Close the store after the last request."""
        self._fork_server.close()
        self.uploads.discard()
        self.store.close()
        shutil.rmtree(self.temporary_folder, ignore_errors=True)

    def forget_old_runs(self) -> None:
        """Remove runs older than 60 days, and their files."""
        for run_id in self.store.forget_old_runs():
            for suffix in _KEPT_SUFFIXES:
                self.kept_file(run_id, suffix).unlink(missing_ok=True)

    async def notebook_page(self, run_id: int) -> Path | None:
        """Return the file with a run's executed notebook in HTML; None if the run has none.

        :raises ExportError: it cannot be made.
        """
        notebook = self.kept_file(run_id, ".ipynb")
        return await self._exporter.export(notebook) if notebook.exists() else None

    # Used by runners

    @property
    def workspace_number(self) -> int:
        """The id of the workspace, as the API has it."""
        return zlib.crc32(self._workspace_id.encode())

    def kept_file(self, run_id: int, suffix: str) -> Path:
        """Return where a file of a run is kept."""
        return self._runs_folder / f"{run_id}{suffix}"

    def environment_of(self, run: Run) -> Mapping[str, Any]:
        """Return the ``spec`` of the environment of a run's task; empty if it has none."""
        key = run.shown_settings.get("environment_key")
        specs = {one["environment_key"]: one.get("spec") for one in self._job_run(run).environments}
        return specs.get(key) or {}

    async def checkout_of(self, run: Run) -> Path | None:
        """Return the checkout of a repository that has the run's code; None if it has not.

        :raises CheckoutError: the repository cannot be checked out.
        """
        if not is_in_git(run.task):
            return None
        owner: Run | None = run
        while owner is not None and _GIT not in self._job_run(owner).shown_settings:
            # A notebook of a repository runs another one of it.
            owner = self.store.run(owner.started_by_run_id or 0)
        if owner is None:
            return None
        job_run = self._job_run(owner)
        await self._note_commit(job_run)
        git_source = job_run.shown_settings[_GIT]
        run.shown_settings = {**run.shown_settings, _GIT: git_source}
        return await self._checkouts.checkout(job_run.run_id, git_source)

    async def _note_commit(self, job_run: Run) -> None:
        """Set the commit of a job run that has a repository, and keep it."""
        git_source = job_run.shown_settings[_GIT]
        if _SNAPSHOT in git_source:
            return
        commit = await self._checkouts.used_commit(job_run.run_id, git_source)
        git_source = {**git_source, _SNAPSHOT: {"used_commit": commit}}
        job_run.shown_settings = {**job_run.shown_settings, _GIT: git_source}
        self.store.save_run(job_run)

    def _job_run(self, run: Run) -> Run:
        """Return the run of the job that a run belongs to; it may be the run itself."""
        if run.job_run_id is None:
            return run
        live = self.scheduler.live_run(run.job_run_id)
        return live or self.store.run(run.job_run_id) or run

    def run_marker(self, run_id: int) -> str:
        """Return the marker that the processes of a run carry in their environment."""
        return run_marker(self._workspace_id, run_id)

    def references(self, run: Run) -> References:
        """Return what replaces the references in a run's parameters."""
        return References(run, self.store, self.workspace_number, self.base_url)

    def open_callback(self, run_id: int) -> str:
        """Return a secret with which this run may start others, until it is closed."""
        return self._callbacks.setdefault(run_id, secrets.token_urlsafe(32))

    def close_callback(self, run_id: int) -> None:
        """Revoke the secret of a run."""
        self._callbacks.pop(run_id, None)

    def run_of_callback(self, secret: bytes) -> Run | None:
        """Return the live run that a secret belongs to."""
        for run_id, known in self._callbacks.items():
            if secrets.compare_digest(known.encode(), secret):
                return self.store.run(run_id)
        return None

    def nesting_of(self, run: Run) -> int:
        """Return how many runs stand above a run, each started by the one before."""
        depth = 0
        above: Run | None = run
        while above is not None and above.started_by_run_id is not None:
            depth += 1
            above = self.store.run(above.started_by_run_id)
        return depth

    def launch_job(
        self, job_id: int, parameters: Mapping[str, Any], *, started_by: Run
    ) -> Run | None:
        """Start a run of a job on behalf of another run; None if there is no such job."""
        job = self.store.job(job_id)
        return self.launcher.run_now(job, parameters, started_by=started_by) if job else None

    async def wait(self, run_id: int) -> Run:
        """Wait until a run has ended, and return it."""
        return await self.scheduler.wait(run_id)

    def cancel(self, run_id: int) -> None:
        """Cancel a run."""
        self.scheduler.cancel(run_id)

    def retry_task(self, parent: Run, task: Mapping[str, Any], failed: Run) -> Run:
        """Create the next attempt of a task, held back until it may start."""
        return self.launcher.retry_task(parent, task, failed)

    def start_iteration(self, loop: Run, given: str, failed: Run | None) -> Run:
        """Start an iteration of a for_each_task with an input, or the next attempt at it."""
        return self.launcher.start_iteration(loop, given, failed)

    def set_task_value(self, run: Run, key: str, value: Any) -> None:
        """Set a value that other tasks of the job run may read."""
        live = self.scheduler.live_run(run.run_id) or run
        live.task_values[key] = value
        self.store.save_run(live)

    def task_values(self, run: Run, task_key: str) -> dict[str, Any] | None:
        """Return the values of a task of the same job run; None if it has no such task."""
        if task_key == task_key_of(run):
            return run.task_values
        job_run = self.store.run(run.job_run_id) if run.job_run_id is not None else None
        run_id = job_run.task_run_ids.get(task_key) if job_run is not None else None
        found = self.store.run(run_id) if run_id is not None else None
        return found.task_values if found is not None else None

    def start_held(self, run_id: int) -> None:
        """Start a run that was held back."""
        self.scheduler.start_held(run_id)

    def skip_held(self, run_id: int, result_state: str, message: str) -> None:
        """Skip a run that was held back."""
        self.scheduler.skip_held(run_id, result_state, message)

    # Used by the scheduler

    def _runner_of(self, run: Run) -> Runner:
        if run.is_of_tasks:
            if _GIT in run.shown_settings and not self._dry_run:
                # The branch may move before the first task starts.
                self._do(self._note_commit(run))
            return TasksRunner(run, self)
        resolve(run, self.references(run).fill)
        if "condition_task" in run.task:
            return ConditionRunner(run)
        if "for_each_task" in run.task:
            return ForEachRunner(run, self)
        rule = self._results.take(run)
        if rule is not None:
            return ScriptedRunner(rule)
        if self._dry_run:
            return DryRunner()
        kind = next(iter(run.task))
        if kind in _OF_CODE:
            return PreparedRunner(run, self, lambda code: _OF_CODE[kind](run, self, code))
        if kind == "notebook_task":
            return PreparedRunner(
                run, self, lambda code: NotebookRunner(run, self, code, self._fork_server)
            )
        if kind == "run_job_task":
            return RunJobRunner(run, self)
        return CannotRun(kind)

    def _job_limit_of(self, run: Run) -> int | None:
        """Return how many of a job's runs may work at once, if its others are to be queued."""
        job = self.store.job(run.job_id) if run.parent_run_id is None else None
        if job is None or not run.queues:
            return None
        return int(job.settings.get("max_concurrent_runs", 1))

    def _on_end(self, run: Run) -> None:
        """Start the next attempt, where the job wants one (reference: "Create", max_retries)."""
        if _GIT in run.shown_settings and run.parent_run_id is None:
            self._do(self._checkouts.remove(run.run_id))
        # A repair is not retried: where the run had retries left, they have followed it before.
        if run.parent_run_id is not None or run.history:
            return
        job = self.store.job(run.job_id)
        if job is not None and is_retried(run, job.settings, run.attempt_number):
            self.launcher.retry(run, job)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)

        def is_done(_: asyncio.Task[None]) -> None:
            self._background.discard(task)
            # The tasks that need the repository fail for the same reason.
            if not task.cancelled():
                task.exception()

        task.add_done_callback(is_done)

    def _end_what_was_live(self) -> None:
        with self.store.transaction():
            for run in self.store.live_runs():
                run.life_cycle_state = RunLifeCycleState.INTERNAL_ERROR
                run.state_message = STOPPED_MESSAGE
                run.end_time = now_millis()
                self.store.save_run(run)
                self.store.save_output(run.run_id, Output(error=STOPPED_MESSAGE))


def _temporary_folder(state_dir: Path) -> Path:
    """Make a folder for what runs need while they run, and remove that of a killed workspace.

    It is not in the state's folder, since the path of a socket must be short.
    """
    note = state_dir / "temporary-folder"
    if note.exists():
        left = Path(note.read_text(encoding="utf-8"))
        if left.name.startswith(_TEMPORARY_PREFIX) and left.parent == Path(tempfile.gettempdir()):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.gettempdir()) / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    # First the note: a workspace that is killed in between leaves no folder that nobody knows.
    note.write_text(str(folder), encoding="utf-8")
    folder.mkdir(mode=0o700)
    return folder


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # No such user in the system's list, as in some containers.
        return "local"
