"""Running a notebook in a Jupyter kernel of its own."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.model import Run, task_key_of
from airflow_jobs_provider.local.engine.parameters import notebook_parameters
from airflow_jobs_provider.local.engine.runner import LiveNotebook, Outcome, Workspace
from airflow_jobs_provider.local.paths import (
    RUN_SUFFIXES,
    PathRefusedError,
    notebook_in_root,
)
from airflow_jobs_provider.local.runners.kernel_processes import ForkServer
from airflow_jobs_provider.local.runners.notebook_process import NotebookProcess
from airflow_jobs_provider.local.runners.notebook_task import Task
from airflow_jobs_provider.local.runners.prepare import TaskCode

__all__ = ["NotebookRunner"]


class NotebookRunner:
    """Runs the notebook of a ``notebook_task`` (reference: "NotebookTask").

    A process of its own executes it, so the server has nothing of Jupyter in memory.
    """

    def __init__(
        self, run: Run, workspace: Workspace, code: TaskCode, fork_server: ForkServer
    ) -> None:
        self._run = run
        self._workspace = workspace
        self._code = code
        self._fork_server = fork_server
        self._folder = Path(tempfile.mkdtemp(dir=workspace.temporary_folder))
        self._process: NotebookProcess | None = None
        self._early_outcome: Outcome | None = None

    async def setup(self) -> None:
        """Read the notebook and start its kernel."""
        path: str = self._run.task["notebook_task"]["notebook_path"]
        try:
            file = notebook_in_root(self._code.root, path, RUN_SUFFIXES)
        except PathRefusedError:
            self._early_outcome = _no_access(path, "It cannot be opened in this workspace, or")
            return
        if file is None:
            self._early_outcome = _no_access(path, "Either it does not exist, or")
            return
        live = LiveNotebook()
        self._workspace.live_notebooks[self._run.run_id] = live
        self._process = NotebookProcess(self._task(path, file), live.update)
        self._early_outcome = await self._process.start(self._fork_server)

    async def execute(self) -> Outcome:
        """Run the cells in order until one fails or exits the notebook."""
        if self._early_outcome is not None:
            return self._early_outcome
        assert self._process is not None
        return await self._process.execute()

    async def cleanup(self) -> None:
        """Kill the kernel and its descendants; save the executed notebook."""
        self._workspace.close_callback(self._run.run_id)
        self._workspace.live_notebooks.pop(self._run.run_id, None)
        if self._process is not None:
            await self._process.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _task(self, path: str, file: Path) -> Task:
        return Task(
            path=path,
            file=str(file),
            folder=str(self._folder),
            kept=str(self._workspace.kept_file(self._run.run_id, ".ipynb")),
            marker=self._workspace.run_marker(self._run.run_id),
            context={
                "root": str(self._workspace.root),
                "code_root": str(self._code.root),
                "import_path": [str(folder) for folder in self._code.import_path],
                "folder": str(file.parent),
                "parameters": notebook_parameters(self._run),
                "exit_file": str(self._folder / "exit"),
                "callback_url": f"{self._workspace.base_url}/local/",
                "secret": self._workspace.open_callback(self._run.run_id),
                "about": _about(self._run, self._workspace),
                "warehouse": str(self._workspace.warehouse),
                "spark_folder": str(self._workspace.spark_folder),
                "packages": self._packages(),
            },
        )

    def _packages(self) -> str:
        if not self._workspace.installs_packages:
            return ""
        folder = self._folder / "packages"
        folder.mkdir(exist_ok=True)
        return str(folder)


def _about(run: Run, workspace: Workspace) -> dict[str, Any]:
    """Return what the notebook's context tells of the run."""
    tags = {
        "jobId": str(run.job_id),
        "runId": str(run.run_id),
        "jobName": run.run_name,
        "taskKey": task_key_of(run),
        "user": workspace.user,
        "orgId": str(workspace.workspace_number),
        "browserHostName": workspace.base_url.partition("//")[2],
    }
    if run.job_run_id is not None:
        tags["multitaskParentRunId"] = str(run.job_run_id)
    if "existing_cluster_id" in run.cluster_spec:
        tags["clusterId"] = str(run.cluster_spec["existing_cluster_id"])
    extra = {
        "notebook_path": run.task["notebook_task"]["notebook_path"],
        "api_url": workspace.base_url,
    }
    return {"tags": tags, "extraContext": extra}


def _no_access(path: str, reason: str) -> Outcome:
    return Outcome.not_started(
        f'Unable to access the notebook "{path}". {reason} the identity used to run this job '
        "lacks the required permissions."
    )
