"""The methods of the hook that stand for one endpoint each: blocking, and with ``a_`` for asyncio.

Each method sends a call of :mod:`airflow_jobs_provider.api.endpoints`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.workflows.follow import whole_run
from airflow_jobs_provider.api.workflows.permissions import (
    create_with_permissions,
    reset_with_permissions,
    update_with_permissions,
)
from airflow_jobs_provider.hooks.base import DatabricksJobsBaseHook

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import (
        CreateRequest,
        Job,
        JobSettings,
        PipelineStateInfo,
        Run,
        RunNowRequest,
        RunsGetOutputResponse,
        RunsSubmitRequest,
        ViewItem,
    )

__all__ = ["DatabricksJobsEndpointsHook"]


class DatabricksJobsEndpointsHook(DatabricksJobsBaseHook):
    """The hook's methods for the endpoints of the Jobs API."""

    # -- endpoints, blocking -----------------------------------------------------------------------

    def create_job(self, json: CreateRequest | Mapping[str, Any]) -> int:
        """Create a job and return its job_id (reference: "Create").

        :param json: the settings of the job, and optionally its ``access_control_list``.
        """
        return self._send(create_with_permissions, json)

    def list_jobs(
        self,
        limit: int | None = None,
        expand_tasks: bool = False,
        job_name: str | None = None,
        page_token: str | None = None,
        include_user_names: bool = False,
        *,
        offset: int | None = None,
    ) -> list[Job]:
        """Return all jobs of the workspace (reference: "List").

        :meth:`iter_jobs` reads no more pages than are needed.

        :param limit: jobs on a page, not jobs in all; default that of the service.
        :param expand_tasks: whether the tasks and clusters of each job are included; default
            False.
        :param job_name: only jobs with exactly this name; default all.
        :param page_token: ``next_page_token`` of an earlier response, to begin there; default the
            first page.
        :param include_user_names: whether names of users are included; default False.
        :param offset: jobs to skip; default 0.
        """
        jobs = self.iter_jobs(
            limit,
            expand_tasks,
            job_name,
            page_token,
            include_user_names,
            offset=offset,
        )
        return list(jobs)

    def iter_jobs(
        self,
        limit: int | None = None,
        expand_tasks: bool = False,
        job_name: str | None = None,
        page_token: str | None = None,
        include_user_names: bool = False,
        *,
        offset: int | None = None,
    ) -> Iterator[Job]:
        """Yield the jobs of the workspace; pages are read as needed (reference: "List").

        :param limit: jobs on a page, not jobs in all; default that of the service.
        :param expand_tasks: whether the tasks and clusters of each job are included; default
            False.
        :param job_name: only jobs with exactly this name; default all.
        :param page_token: ``next_page_token`` of an earlier response, to begin there; default the
            first page.
        :param include_user_names: whether names of users are included; default False.
        :param offset: jobs to skip; default 0.
        """
        jobs = self._iterate(
            endpoints.list_jobs,
            limit=limit,
            offset=offset,
            name=job_name,
            expand_tasks=expand_tasks,
            include_user_names=include_user_names,
            page_token=page_token,
        )
        from airflow_jobs_provider.api.workflows.find import has_name

        return (job for job in jobs if not job_name or has_name(job, job_name))

    def get_job(self, job_id: int) -> Job:
        """Return a job with its settings (reference: "Get").

        :param job_id: the job.
        """
        return self._send(endpoints.get_job, job_id)

    def reset_job(self, job_id: int, json: JobSettings | Mapping[str, Any]) -> None:
        """Overwrite all settings of a job (reference: "Reset").

        :param job_id: the job.
        :param json: the settings. An ``access_control_list`` among them is added to the job's
            permissions before the reset.
        """
        self._send_all(reset_with_permissions, job_id, json)

    def update_job(
        self,
        job_id: int,
        json: JobSettings | Mapping[str, Any] | None = None,
        fields_to_remove: Iterable[str] | None = None,
    ) -> None:
        """Replace or remove some settings of a job (reference: "Update").

        :param job_id: the job.
        :param json: the settings to replace; default none. An ``access_control_list`` among them is
            added to the job's permissions before the update.
        :param fields_to_remove: names of the top-level settings to remove; default none.
        """
        self._send_all(update_with_permissions, job_id, json, fields_to_remove)

    def update_job_permission(self, job_id: int, json: Mapping[str, Any]) -> dict[str, Any]:
        """Add permissions of a job and return all of them (Permissions API).

        :param job_id: the job.
        :param json: ``access_control_list``; permissions of others stay.
        """
        return self._send(endpoints.update_job_permission, job_id, json)

    def delete_job(self, job_id: int) -> None:
        """Delete a job (reference: "Delete").

        :param job_id: the job.
        """
        self._send(endpoints.delete_job, job_id)

    def run_now(self, json: RunNowRequest | Mapping[str, Any]) -> int:
        """Run a job now and return the run_id (reference: "Run now").

        Retries start no second run.

        :param json: ``job_id``, at most one kind of parameters, and ``idempotency_token``; default
            a random token.
        """
        return self._send(endpoints.run_now, json)

    def submit_run(self, json: RunsSubmitRequest | Mapping[str, Any]) -> int:
        """Submit a one-time run and return its run_id (reference: "Runs submit").

        Retries start no second run.

        :param json: the run, and ``idempotency_token``; default a random token.
        """
        return self._send(endpoints.submit_run, json)

    def list_runs(
        self,
        active_only: bool | None = None,
        completed_only: bool | None = None,
        job_id: int | None = None,
        offset: int | None = None,
        limit: int | None = None,
        run_type: str | None = None,
    ) -> Iterator[Run]:
        """Yield runs, latest start first; pages are read as needed (reference: "Runs list").

        :param active_only: only runs that have not ended; excludes ``completed_only``; default
            False.
        :param completed_only: only runs that have ended; default False.
        :param job_id: only runs of this job; default all.
        :param offset: runs to skip; default 0.
        :param limit: runs on a page, not runs in all; default 20; 0 for the service's maximum.
        :param run_type: ``JOB_RUN``, ``WORKFLOW_RUN`` or ``SUBMIT_RUN``; default all.
        """
        return self._iterate(
            endpoints.list_runs,
            active_only=active_only,
            completed_only=completed_only,
            job_id=job_id,
            offset=offset,
            limit=limit,
            run_type=run_type,
        )

    def get_run(self, run_id: int) -> Run:
        """Return a run: state, all tasks, times, page (reference: "Runs get").

        :param run_id: the run.
        """
        return self._run(whole_run(run_id), endpoints.get_run(run_id))

    def export_run(self, run_id: int, views_to_export: str | None = None) -> list[ViewItem]:
        """Return the HTML views of a notebook run (reference: "Runs export").

        :param run_id: the run of the notebook task.
        :param views_to_export: ``CODE``, ``DASHBOARDS`` or ``ALL``; default ``CODE``.
        """
        return self._send(endpoints.export_run, run_id, views_to_export)

    def cancel_run(self, run_id: int) -> None:
        """Cancel a run asynchronously (reference: "Runs cancel").

        :param run_id: the run.
        """
        self._send(endpoints.cancel_run, run_id)

    def cancel_all_runs(self, job_id: int) -> None:
        """Cancel all active runs of a job asynchronously (reference: "Runs cancel all").

        :param job_id: the job.
        """
        self._send(endpoints.cancel_all_runs, job_id)

    def get_run_output(self, run_id: int) -> RunsGetOutputResponse:
        """Return output, error and metadata of a task run (reference: "Runs get output").

        :param run_id: the run of the task.
        """
        return self._send(endpoints.get_run_output, run_id)

    def delete_run(self, run_id: int) -> None:
        """Delete a run that is not active (reference: "Runs delete").

        :param run_id: the run.
        """
        self._send(endpoints.delete_run, run_id)

    def repair_run(self, json: Mapping[str, Any]) -> int:
        """Repair a run that has ended and return the repair's id (API 2.1 and later).

        :param json: ``run_id``, ``rerun_all_failed_tasks`` or ``rerun_tasks``, the parameters, and
            ``latest_repair_id`` if the run was repaired before.
        """
        return self._send(endpoints.repair_run, json)

    def list_pipelines(
        self,
        batch_size: int | None = None,
        pipeline_name: str | None = None,
        notebook_path: str | None = None,
    ) -> list[PipelineStateInfo]:
        """Return the pipelines of the workspace (Pipelines API).

        :param batch_size: pipelines on a page, not pipelines in all; default that of the service.
        :param pipeline_name: only pipelines with a name like this; ``%`` stands for any text;
            default all.
        :param notebook_path: only pipelines with this notebook; excludes ``pipeline_name``; default
            all.
        """
        pipelines = self._iterate(
            endpoints.list_pipelines,
            max_results=batch_size,
            name=pipeline_name,
            notebook_path=notebook_path,
        )
        return list(pipelines)

    # -- endpoints, asyncio ------------------------------------------------------------------------

    async def a_create_job(self, json: CreateRequest | Mapping[str, Any]) -> int:
        """Do what :meth:`create_job` does, from asyncio."""
        return await self._a_send(create_with_permissions, json)

    async def a_list_jobs(
        self,
        limit: int | None = None,
        expand_tasks: bool = False,
        job_name: str | None = None,
        page_token: str | None = None,
        include_user_names: bool = False,
        *,
        offset: int | None = None,
    ) -> list[Job]:
        """Do what :meth:`list_jobs` does, from asyncio."""
        jobs = self.a_iter_jobs(
            limit,
            expand_tasks,
            job_name,
            page_token,
            include_user_names,
            offset=offset,
        )
        return [job async for job in jobs]

    def a_iter_jobs(
        self,
        limit: int | None = None,
        expand_tasks: bool = False,
        job_name: str | None = None,
        page_token: str | None = None,
        include_user_names: bool = False,
        *,
        offset: int | None = None,
    ) -> AsyncIterator[Job]:
        """Do what :meth:`iter_jobs` does, from asyncio."""
        jobs = self._a_iterate(
            endpoints.list_jobs,
            limit=limit,
            offset=offset,
            name=job_name,
            expand_tasks=expand_tasks,
            include_user_names=include_user_names,
            page_token=page_token,
        )
        from airflow_jobs_provider.api.workflows.find import has_name

        return (job async for job in jobs if not job_name or has_name(job, job_name))

    async def a_get_job(self, job_id: int) -> Job:
        """Do what :meth:`get_job` does, from asyncio."""
        return await self._a_send(endpoints.get_job, job_id)

    async def a_reset_job(self, job_id: int, json: JobSettings | Mapping[str, Any]) -> None:
        """Do what :meth:`reset_job` does, from asyncio."""
        await self._a_send_all(reset_with_permissions, job_id, json)

    async def a_update_job(
        self,
        job_id: int,
        json: JobSettings | Mapping[str, Any] | None = None,
        fields_to_remove: Iterable[str] | None = None,
    ) -> None:
        """Do what :meth:`update_job` does, from asyncio."""
        await self._a_send_all(update_with_permissions, job_id, json, fields_to_remove)

    async def a_update_job_permission(self, job_id: int, json: Mapping[str, Any]) -> dict[str, Any]:
        """Do what :meth:`update_job_permission` does, from asyncio."""
        return await self._a_send(endpoints.update_job_permission, job_id, json)

    async def a_delete_job(self, job_id: int) -> None:
        """Do what :meth:`delete_job` does, from asyncio."""
        await self._a_send(endpoints.delete_job, job_id)

    async def a_run_now(self, json: RunNowRequest | Mapping[str, Any]) -> int:
        """Do what :meth:`run_now` does, from asyncio."""
        return await self._a_send(endpoints.run_now, json)

    async def a_submit_run(self, json: RunsSubmitRequest | Mapping[str, Any]) -> int:
        """Do what :meth:`submit_run` does, from asyncio."""
        return await self._a_send(endpoints.submit_run, json)

    def a_list_runs(
        self,
        active_only: bool | None = None,
        completed_only: bool | None = None,
        job_id: int | None = None,
        offset: int | None = None,
        limit: int | None = None,
        run_type: str | None = None,
    ) -> AsyncIterator[Run]:
        """Do what :meth:`list_runs` does, from asyncio."""
        return self._a_iterate(
            endpoints.list_runs,
            active_only=active_only,
            completed_only=completed_only,
            job_id=job_id,
            offset=offset,
            limit=limit,
            run_type=run_type,
        )

    async def a_get_run(self, run_id: int) -> Run:
        """Do what :meth:`get_run` does, from asyncio."""
        return await self._a_run(whole_run(run_id), endpoints.get_run(run_id))

    async def a_export_run(self, run_id: int, views_to_export: str | None = None) -> list[ViewItem]:
        """Do what :meth:`export_run` does, from asyncio."""
        return await self._a_send(endpoints.export_run, run_id, views_to_export)

    async def a_cancel_run(self, run_id: int) -> None:
        """Do what :meth:`cancel_run` does, from asyncio."""
        await self._a_send(endpoints.cancel_run, run_id)

    async def a_cancel_all_runs(self, job_id: int) -> None:
        """Do what :meth:`cancel_all_runs` does, from asyncio."""
        await self._a_send(endpoints.cancel_all_runs, job_id)

    async def a_get_run_output(self, run_id: int) -> RunsGetOutputResponse:
        """Do what :meth:`get_run_output` does, from asyncio."""
        return await self._a_send(endpoints.get_run_output, run_id)

    async def a_delete_run(self, run_id: int) -> None:
        """Do what :meth:`delete_run` does, from asyncio."""
        await self._a_send(endpoints.delete_run, run_id)

    async def a_repair_run(self, json: Mapping[str, Any]) -> int:
        """Do what :meth:`repair_run` does, from asyncio."""
        return await self._a_send(endpoints.repair_run, json)

    async def a_list_pipelines(
        self,
        batch_size: int | None = None,
        pipeline_name: str | None = None,
        notebook_path: str | None = None,
    ) -> list[PipelineStateInfo]:
        """Do what :meth:`list_pipelines` does, from asyncio."""
        pipelines = self._a_iterate(
            endpoints.list_pipelines,
            max_results=batch_size,
            name=pipeline_name,
            notebook_path=notebook_path,
        )
        return [pipeline async for pipeline in pipelines]
