"""DatabricksJobsHook: the Jobs API for the workspace of an Airflow connection.

Every endpoint has a blocking method, and one with the prefix ``a_`` for asyncio. Each method only
sends a call of :mod:`airflow_jobs_provider.api.endpoints`, or runs a workflow of
:mod:`airflow_jobs_provider.api.workflows`. :mod:`airflow_jobs_provider.hooks.base` makes the
clients.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.find import find_job_id
from airflow_jobs_provider.api.workflows.follow import whole_run
from airflow_jobs_provider.api.workflows.outputs import TaskOutput, read_outputs
from airflow_jobs_provider.api.workflows.permissions import (
    create_with_permissions,
    reset_with_permissions,
    update_with_permissions,
)
from airflow_jobs_provider.hooks.base import DatabricksJobsBaseHook
from airflow_jobs_provider.hooks.form import connection_form_widgets, ui_field_behaviour

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import (
        CreateRequest,
        Job,
        JobSettings,
        Run,
        RunNowRequest,
        RunsGetOutputResponse,
        RunsSubmitRequest,
        ViewItem,
    )

__all__ = ["DatabricksJobsHook"]


class DatabricksJobsHook(DatabricksJobsBaseHook):
    """Client of the Jobs API for the workspace of an Airflow connection.

    ::

        hook = DatabricksJobsHook("my_workspace")
        run_id = hook.submit_run({"existing_cluster_id": "...", "notebook_task": {...}})
        hook.get_run_state(run_id)

    Every method that sends a request raises a
    :class:`~airflow_jobs_provider.api.errors.JobsAPIError` if the request fails, after the retries
    of :mod:`airflow_jobs_provider.api.retry`.

    :param databricks_conn_id: connection of type ``databricks_jobs`` or ``databricks``; see
        :mod:`airflow_jobs_provider.hooks.connection` for its fields. Default
        ``databricks_default``.
    :param timeout_seconds: longest wait in seconds for the next bytes of a response; default: the
        connection's, else 60.
    :param retry_limit: attempts of a call at most; default None: the retry policy limits the time.
    :param retry_delay: seconds before the second attempt; default: it depends on the error.
    :param retry_args: arguments for tenacity that replace the policy's own; default none.
    :param caller: what uses the hook; appended to the User-Agent. Default empty.
    :param validate: whether each request is checked against the API's reference before it is sent;
        default True. A request that cannot succeed then raises
        :class:`~airflow_jobs_provider.api.errors.InvalidRequestError` with all problems.
    """

    # Airflow does not look for these two in a base class.
    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the connection's extra for the form (Airflow before 3.2)."""
        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the connection form (Airflow before 3.2)."""
        return ui_field_behaviour()

    # -- endpoints, blocking -----------------------------------------------------------------------

    def create_job(self, json: CreateRequest | Mapping[str, Any]) -> int:
        """Create a job and return its job_id (reference: "Create").

        :param json: the settings of the job, and optionally its ``access_control_list``.
        """
        return self.send(create_with_permissions(json))

    def list_jobs(
        self, limit: int | None = None, offset: int | None = None, name: str | None = None
    ) -> Iterator[Job]:
        """Yield the jobs of the workspace; pages are read as needed (reference: "List").

        :param limit: jobs on a page; default that of the service.
        :param offset: jobs to skip; default 0.
        :param name: only jobs with this name (API 2.1 and later; others ignore it); default all.
        """
        return self._iterate(endpoints.list_jobs(limit=limit, offset=offset, name=name))

    def get_job(self, job_id: int) -> Job:
        """Return a job with its settings (reference: "Get").

        :param job_id: the job.
        """
        return self.send(endpoints.get_job(job_id))

    def reset_job(self, job_id: int, json: JobSettings | Mapping[str, Any]) -> None:
        """Overwrite all settings of a job (reference: "Reset").

        :param job_id: the job.
        :param json: the settings. An ``access_control_list`` among them is added to the job's
            permissions before the reset.
        """
        client = self.client
        for call in self._all_checked(reset_with_permissions(job_id, json), client):
            client.send(call)

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
        client = self.client
        calls = update_with_permissions(job_id, json, fields_to_remove)
        for call in self._all_checked(calls, client):
            client.send(call)

    def update_job_permission(self, job_id: int, json: Mapping[str, Any]) -> dict[str, Any]:
        """Add permissions of a job and return all of them (Permissions API).

        :param job_id: the job.
        :param json: ``access_control_list``; permissions of others stay.
        """
        return self.send(endpoints.update_job_permission(job_id, json))

    def delete_job(self, job_id: int) -> None:
        """Delete a job (reference: "Delete").

        :param job_id: the job.
        """
        self.send(endpoints.delete_job(job_id))

    def run_now(self, json: RunNowRequest | Mapping[str, Any]) -> int:
        """Run a job now and return the run_id (reference: "Run now").

        Retries start no second run.

        :param json: ``job_id``, at most one kind of parameters, and ``idempotency_token``; default
            a random token.
        """
        return self.send(endpoints.run_now(json))

    def submit_run(self, json: RunsSubmitRequest | Mapping[str, Any]) -> int:
        """Submit a one-time run and return its run_id (reference: "Runs submit").

        Retries start no second run.

        :param json: the run, and ``idempotency_token``; default a random token.
        """
        return self.send(endpoints.submit_run(json))

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
            endpoints.list_runs(
                active_only=active_only,
                completed_only=completed_only,
                job_id=job_id,
                offset=offset,
                limit=limit,
                run_type=run_type,
            )
        )

    def get_run(self, run_id: int) -> Run:
        """Return a run: state, all tasks, times, page (reference: "Runs get").

        :param run_id: the run.
        """
        client = self.client
        self._checked(endpoints.get_run(run_id), client)
        return client.run(whole_run(run_id), without_deadline=False)

    def export_run(self, run_id: int, views_to_export: str | None = None) -> list[ViewItem]:
        """Return the HTML views of a notebook run (reference: "Runs export").

        :param run_id: the run of the notebook task.
        :param views_to_export: ``CODE``, ``DASHBOARDS`` or ``ALL``; default ``CODE``.
        """
        return self.send(endpoints.export_run(run_id, views_to_export))

    def cancel_run(self, run_id: int) -> None:
        """Cancel a run asynchronously (reference: "Runs cancel").

        :param run_id: the run.
        """
        self.send(endpoints.cancel_run(run_id))

    def cancel_all_runs(self, job_id: int) -> None:
        """Cancel all active runs of a job asynchronously (reference: "Runs cancel all").

        :param job_id: the job.
        """
        self.send(endpoints.cancel_all_runs(job_id))

    def get_run_output(self, run_id: int) -> RunsGetOutputResponse:
        """Return output, error and metadata of a task run (reference: "Runs get output").

        :param run_id: the run of the task.
        """
        return self.send(endpoints.get_run_output(run_id))

    def delete_run(self, run_id: int) -> None:
        """Delete a run that is not active (reference: "Runs delete").

        :param run_id: the run.
        """
        self.send(endpoints.delete_run(run_id))

    def repair_run(self, json: Mapping[str, Any]) -> int:
        """Repair a run that has ended and return the repair's id (API 2.1 and later).

        :param json: ``run_id``, ``rerun_all_failed_tasks`` or ``rerun_tasks``, the parameters, and
            ``latest_repair_id`` if the run was repaired before.
        """
        return self.send(endpoints.repair_run(json))

    # -- endpoints, asyncio ------------------------------------------------------------------------

    async def a_create_job(self, json: CreateRequest | Mapping[str, Any]) -> int:
        """Do what :meth:`create_job` does, from asyncio."""
        return await self.a_send(create_with_permissions(json))

    def a_list_jobs(
        self, limit: int | None = None, offset: int | None = None, name: str | None = None
    ) -> AsyncIterator[Job]:
        """Do what :meth:`list_jobs` does, from asyncio."""
        return self._a_iterate(endpoints.list_jobs(limit=limit, offset=offset, name=name))

    async def a_get_job(self, job_id: int) -> Job:
        """Do what :meth:`get_job` does, from asyncio."""
        return await self.a_send(endpoints.get_job(job_id))

    async def a_reset_job(self, job_id: int, json: JobSettings | Mapping[str, Any]) -> None:
        """Do what :meth:`reset_job` does, from asyncio."""
        async with self.async_client() as client:
            for call in self._all_checked(reset_with_permissions(job_id, json), client):
                await client.send(call)

    async def a_update_job(
        self,
        job_id: int,
        json: JobSettings | Mapping[str, Any] | None = None,
        fields_to_remove: Iterable[str] | None = None,
    ) -> None:
        """Do what :meth:`update_job` does, from asyncio."""
        calls = update_with_permissions(job_id, json, fields_to_remove)
        async with self.async_client() as client:
            for call in self._all_checked(calls, client):
                await client.send(call)

    async def a_update_job_permission(self, job_id: int, json: Mapping[str, Any]) -> dict[str, Any]:
        """Do what :meth:`update_job_permission` does, from asyncio."""
        return await self.a_send(endpoints.update_job_permission(job_id, json))

    async def a_delete_job(self, job_id: int) -> None:
        """Do what :meth:`delete_job` does, from asyncio."""
        await self.a_send(endpoints.delete_job(job_id))

    async def a_run_now(self, json: RunNowRequest | Mapping[str, Any]) -> int:
        """Do what :meth:`run_now` does, from asyncio."""
        return await self.a_send(endpoints.run_now(json))

    async def a_submit_run(self, json: RunsSubmitRequest | Mapping[str, Any]) -> int:
        """Do what :meth:`submit_run` does, from asyncio."""
        return await self.a_send(endpoints.submit_run(json))

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
            endpoints.list_runs(
                active_only=active_only,
                completed_only=completed_only,
                job_id=job_id,
                offset=offset,
                limit=limit,
                run_type=run_type,
            )
        )

    async def a_get_run(self, run_id: int) -> Run:
        """Do what :meth:`get_run` does, from asyncio."""
        async with self.async_client() as client:
            self._checked(endpoints.get_run(run_id), client)
            return await client.run(whole_run(run_id), without_deadline=False)

    async def a_export_run(self, run_id: int, views_to_export: str | None = None) -> list[ViewItem]:
        """Do what :meth:`export_run` does, from asyncio."""
        return await self.a_send(endpoints.export_run(run_id, views_to_export))

    async def a_cancel_run(self, run_id: int) -> None:
        """Do what :meth:`cancel_run` does, from asyncio."""
        await self.a_send(endpoints.cancel_run(run_id))

    async def a_cancel_all_runs(self, job_id: int) -> None:
        """Do what :meth:`cancel_all_runs` does, from asyncio."""
        await self.a_send(endpoints.cancel_all_runs(job_id))

    async def a_get_run_output(self, run_id: int) -> RunsGetOutputResponse:
        """Do what :meth:`get_run_output` does, from asyncio."""
        return await self.a_send(endpoints.get_run_output(run_id))

    async def a_delete_run(self, run_id: int) -> None:
        """Do what :meth:`delete_run` does, from asyncio."""
        await self.a_send(endpoints.delete_run(run_id))

    async def a_repair_run(self, json: Mapping[str, Any]) -> int:
        """Do what :meth:`repair_run` does, from asyncio."""
        return await self.a_send(endpoints.repair_run(json))

    # -- beyond the endpoints ------------------------------------------------------------------

    def get_run_state(self, run_id: int) -> RunState:
        """Return the state of a run (reference: "RunState").

        :param run_id: the run.
        """
        return RunState.from_run(self.get_run(run_id))

    async def a_get_run_state(self, run_id: int) -> RunState:
        """Do what :meth:`get_run_state` does, from asyncio."""
        return RunState.from_run(await self.a_get_run(run_id))

    def get_run_page_url(self, run_id: int) -> str:
        """Return the URL of a run's page; empty if the service gives none.

        :param run_id: the run.
        """
        return str(self.get_run(run_id).get("run_page_url") or "")

    async def a_get_run_page_url(self, run_id: int) -> str:
        """Do what :meth:`get_run_page_url` does, from asyncio."""
        return str((await self.a_get_run(run_id)).get("run_page_url") or "")

    def find_job_id_by_name(self, job_name: str) -> int | None:
        """Return the id of the job with exactly this name; None if there is none.

        It takes one request if the service filters by name, else all pages of the list.

        :param job_name: the name.
        :raises ValueError: several jobs have the name; the message has their ids.
        """
        return self.client.run(find_job_id(job_name), without_deadline=False)

    async def a_find_job_id_by_name(self, job_name: str) -> int | None:
        """Do what :meth:`find_job_id_by_name` does, from asyncio."""
        async with self.async_client() as client:
            return await client.run(find_job_id(job_name), without_deadline=False)

    def get_outputs(self, run: Run | Mapping[str, Any]) -> list[TaskOutput]:
        """Return the outputs of a run that has ended, one for each task.

        :param run: the run, from :meth:`get_run`.
        """
        return self.client.run(read_outputs(run), without_deadline=False)

    async def a_get_outputs(self, run: Run | Mapping[str, Any]) -> list[TaskOutput]:
        """Do what :meth:`get_outputs` does, from asyncio."""
        async with self.async_client() as client:
            return await client.run(read_outputs(run), without_deadline=False)

    def test_connection(self) -> tuple[bool, str]:
        """Check host and credentials by listing one run, which any user may do.

        :return: whether it worked, and a message for the user.
        """
        from airflow_jobs_provider.api.errors import JobsAPIError
        from airflow_jobs_provider.api.retry import RetryPolicy

        try:
            client = self.client
            client.send(endpoints.list_runs(limit=1), retries=RetryPolicy(max_attempts=1))
        except (JobsAPIError, ValueError) as error:
            return False, str(error)
        return True, f"Connected to {client.base_url}: the Jobs API answers."
