"""DatabricksJobsHook: an Airflow connection turned into a client of the Jobs API.

Every endpoint has a blocking method and one of the same name with the prefix ``a_`` for asyncio.
Each is a line: what the call is stands in :mod:`airflow_jobs_provider.api.endpoints`, how it is
sent and tried again in the client. Making a hook reads no connection and touches no network.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import BaseHook

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
from airflow_jobs_provider.hooks.form import connection_form_widgets, ui_field_behaviour

if TYPE_CHECKING:
    from airflow_jobs_provider.api.auth import Credentials
    from airflow_jobs_provider.api.base_client import BaseClient
    from airflow_jobs_provider.api.client import AsyncJobsClient, JobsClient
    from airflow_jobs_provider.api.endpoints import Call, Page
    from airflow_jobs_provider.api.retry import RetryPolicy
    from airflow_jobs_provider.hooks.connection import WorkspaceAccess

__all__ = ["DatabricksJobsHook"]

T = TypeVar("T")
Json = dict[str, Any]
DEFAULT_TIMEOUT_SECONDS = 60.0


class DatabricksJobsHook(BaseHook):
    """Talk to the Jobs API of the workspace that an Airflow connection names.

    ::

        hook = DatabricksJobsHook("my_workspace")
        run_id = hook.submit_run({"existing_cluster_id": "...", "notebook_task": {...}})
        hook.get_run_state(run_id)

    Every method that asks the service raises a
    :class:`~airflow_jobs_provider.api.errors.JobsAPIError` where that does not work, after trying
    again as :mod:`airflow_jobs_provider.api.retry` says.

    :param databricks_conn_id: connection of type ``databricks_jobs`` or ``databricks``; see
        :mod:`airflow_jobs_provider.hooks.connection` for its fields.
    :param timeout_seconds: longest wait in seconds for the next bytes of an answer; 60, or what
        the connection's extra says, if None.
    :param retry_limit: tries of a call at the most; by default time decides, not number.
    :param retry_delay: seconds before the second try; by default it depends on what went wrong.
    :param retry_args: arguments for tenacity that replace the policy's own.
    :param caller: what the hook is used for, told to the service in the User-Agent.
    :param validate: check each request against the API's reference before it is sent; default True.
        A request that cannot succeed raises
        :class:`~airflow_jobs_provider.api.errors.InvalidRequestError` with all that is wrong with
            it.
    """

    conn_name_attr = "databricks_conn_id"
    default_conn_name = "databricks_default"
    conn_type = "databricks_jobs"
    hook_name = "Databricks Jobs"

    def __init__(
        self,
        databricks_conn_id: str = default_conn_name,
        timeout_seconds: float | None = None,
        retry_limit: int | None = None,
        retry_delay: float | None = None,
        retry_args: Mapping[str, Any] | None = None,
        caller: str = "",
        validate: bool = True,
    ) -> None:
        super().__init__()
        self.databricks_conn_id = databricks_conn_id
        self.timeout_seconds = timeout_seconds
        self.retry_limit = retry_limit
        self.retry_delay = retry_delay
        self.retry_args = dict(retry_args or {})
        self.caller = caller
        self.validate = validate
        self._blocking_client: JobsClient | None = None

    # Airflow does not look for these two in a base class.
    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Add the extra's fields to the connection form (Airflow before 3.2)."""
        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Shape the connection form (Airflow before 3.2)."""
        return ui_field_behaviour()

    # -- clients -------------------------------------------------------------------------------

    @property
    def client(self) -> JobsClient:
        """The blocking client of the connection's workspace, made at first use."""
        if self._blocking_client is None:
            from airflow_jobs_provider.api.client import JobsClient
            from airflow_jobs_provider.hooks.connection import WorkspaceAccess

            def read_connection() -> WorkspaceAccess:
                return WorkspaceAccess.from_connection(self.get_connection(self.databricks_conn_id))

            self._blocking_client = JobsClient(
                **self._client_arguments(read_connection()),
                renew_credentials=lambda: read_connection().credentials,
            )
        return self._blocking_client

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[AsyncJobsClient]:
        """Lend an asyncio client of the connection's workspace, for as many calls as wanted.

        The connection is looked up without blocking the event loop, on every Airflow version.
        """
        import asyncio

        # In a thread, the first time: importing an HTTP library would hold up the event loop.
        await asyncio.to_thread(_import_what_async_clients_need)
        from airflow.providers.common.compat.connection import get_async_connection
        from asgiref.sync import sync_to_async

        from airflow_jobs_provider.api.client import AsyncJobsClient
        from airflow_jobs_provider.hooks.connection import WorkspaceAccess

        async def read_connection() -> WorkspaceAccess:
            connection = await get_async_connection(self.databricks_conn_id)
            # In a thread: reading the extra masks its secrets, which may ask Airflow and block.
            # asgiref's, since Airflow's way back to the event loop goes through it.
            return await sync_to_async(WorkspaceAccess.from_connection)(connection)

        async def renew_credentials() -> Credentials:
            return (await read_connection()).credentials

        arguments = self._client_arguments(await read_connection())
        async with AsyncJobsClient(**arguments, renew_credentials=renew_credentials) as client:
            yield client

    def retry_policy(self) -> RetryPolicy:
        """Return when this hook tries a call again."""
        from airflow_jobs_provider.api.retry import RetryPolicy

        return RetryPolicy(
            max_attempts=self.retry_limit,
            initial_wait=self.retry_delay,
            tenacity_args=self.retry_args,
        )

    def _client_arguments(self, access: WorkspaceAccess) -> dict[str, Any]:
        return {
            "base_url": access.base_url,
            "credentials": access.credentials,
            "allow_http": access.allow_http,
            "verify": access.verify,
            "proxies": access.proxies,
            "api_version": access.api_version,
            "timeout_seconds": (
                self.timeout_seconds or access.timeout_seconds or DEFAULT_TIMEOUT_SECONDS
            ),
            "retries": self.retry_policy(),
            "user_agent_suffix": self.caller,
        }

    def send(self, call: Call[T], *, retries: RetryPolicy | None = None) -> T:
        """Send any call of :mod:`airflow_jobs_provider.api.endpoints`.

        :param call: what to ask.
        :param retries: a policy for this call only.
        """
        client = self.client
        return client.send(self._checked(call, client), retries=retries)

    async def a_send(self, call: Call[T], *, retries: RetryPolicy | None = None) -> T:
        """Send any call, as :meth:`send` does."""
        async with self.async_client() as client:
            return await client.send(self._checked(call, client), retries=retries)

    def _checked(self, call: Call[T], client: BaseClient) -> Call[T]:
        if self.validate:
            client.validate(call.name, call.parameters)
        return call

    def _all_checked(self, steps: Iterable[Call[T]], client: BaseClient) -> list[Call[T]]:
        """Check calls that belong together: none is sent where one of them cannot be."""
        checked = [self._checked(call, client) for call in steps]
        for call in checked:
            client.version_of(call)
        return checked

    def _iterate(self, call: Call[Page[T]]) -> Iterator[T]:
        client = self.client
        return client.iterate(self._checked(call, client))

    async def _a_iterate(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        async with self.async_client() as client:
            async for item in client.iterate(self._checked(call, client)):
                yield item

    def close(self) -> None:
        """Close the connections that the hook keeps open; the next call opens new ones."""
        if self._blocking_client is not None:
            self._blocking_client.close()
            self._blocking_client = None

    # -- the endpoints, blocking ---------------------------------------------------------------

    def create_job(self, json: Json) -> int:
        """Create a job with these settings and return its job_id (reference: "Create").

        :param json: the settings, and the job's ``access_control_list``.
        """
        return self.send(create_with_permissions(json))

    def list_jobs(
        self, limit: int | None = None, offset: int | None = None, name: str | None = None
    ) -> Iterator[Json]:
        """Yield the jobs of the workspace, page after page as needed (reference: "List")."""
        return self._iterate(endpoints.list_jobs(limit=limit, offset=offset, name=name))

    def get_job(self, job_id: int) -> Json:
        """Return a job with its settings (reference: "Get")."""
        return self.send(endpoints.get_job(job_id))

    def reset_job(self, job_id: int, json: Json) -> None:
        """Overwrite all settings of a job (reference: "Reset").

        :param json: the settings. An ``access_control_list`` among them is no setting: before the
            reset it is added to the job's permissions.
        """
        client = self.client
        for call in self._all_checked(reset_with_permissions(job_id, json), client):
            client.send(call)

    def update_job(
        self,
        job_id: int,
        json: Json | None = None,
        fields_to_remove: Iterable[str] | None = None,
    ) -> None:
        """Replace or remove some settings of a job (reference: "Update").

        :param json: the settings. An ``access_control_list`` among them is no setting: it is added
            to the job's permissions before.
        """
        client = self.client
        steps = update_with_permissions(job_id, json, fields_to_remove)
        for call in self._all_checked(steps, client):
            client.send(call)

    def update_job_permission(self, job_id: int, json: Json) -> Json:
        """Add to the permissions of a job and return all of them (the Permissions API).

        :param json: ``access_control_list``; who is not in it keeps what permissions there are.
        """
        return self.send(endpoints.update_job_permission(job_id, json))

    def delete_job(self, job_id: int) -> None:
        """Delete a job (reference: "Delete")."""
        self.send(endpoints.delete_job(job_id))

    def run_now(self, json: Json) -> int:
        """Run a job now and return the run_id; started once, however often it is tried.

        :param json: ``job_id``, one kind of parameters, ``idempotency_token`` (reference:
            "Run now"). Without a token a random one is sent.
        """
        return self.send(endpoints.run_now(json))

    def submit_run(self, json: Json) -> int:
        """Submit a one-time run and return its run_id; started once, however often it is tried.

        :param json: the run (reference: "Runs submit"). Without an ``idempotency_token`` a random
            one is sent.
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
    ) -> Iterator[Json]:
        """Yield runs, latest start first, page after page as needed (reference: "Runs list").

        :param limit: runs fetched at once, not runs in all; 20 if None, the maximum if 0.
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

    def get_run(self, run_id: int) -> Json:
        """Return a run: state, all tasks, times, page (reference: "Runs get")."""
        client = self.client
        self._checked(endpoints.get_run(run_id), client)
        return client.run(whole_run(run_id), without_deadline=False)

    def export_run(self, run_id: int, views_to_export: str | None = None) -> list[Json]:
        """Return the HTML views of a notebook run (reference: "Runs export")."""
        return self.send(endpoints.export_run(run_id, views_to_export))

    def cancel_run(self, run_id: int) -> None:
        """Cancel a run; it ends a little later (reference: "Runs cancel")."""
        self.send(endpoints.cancel_run(run_id))

    def cancel_all_runs(self, job_id: int) -> None:
        """Cancel all active runs of a job (reference: "Runs cancel all")."""
        self.send(endpoints.cancel_all_runs(job_id))

    def get_run_output(self, run_id: int) -> Json:
        """Return output or error of a task run, and its metadata (reference: "Runs get output")."""
        return self.send(endpoints.get_run_output(run_id))

    def delete_run(self, run_id: int) -> None:
        """Delete a run that is not active (reference: "Runs delete")."""
        self.send(endpoints.delete_run(run_id))

    def repair_run(self, json: Json) -> int:
        """Run tasks of a run that has ended again and return the repair's id (API 2.1 and later).

        :param json: ``run_id``, ``rerun_all_failed_tasks`` or ``rerun_tasks``, the parameters, and
            ``latest_repair_id`` where the run was repaired before.
        """
        return self.send(endpoints.repair_run(json))

    # -- the endpoints, asyncio ----------------------------------------------------------------

    async def a_create_job(self, json: Json) -> int:
        """Do what :meth:`create_job` does."""
        return await self.a_send(create_with_permissions(json))

    def a_list_jobs(
        self, limit: int | None = None, offset: int | None = None, name: str | None = None
    ) -> AsyncIterator[Json]:
        """Yield what :meth:`list_jobs` yields."""
        return self._a_iterate(endpoints.list_jobs(limit=limit, offset=offset, name=name))

    async def a_get_job(self, job_id: int) -> Json:
        """Do what :meth:`get_job` does."""
        return await self.a_send(endpoints.get_job(job_id))

    async def a_reset_job(self, job_id: int, json: Json) -> None:
        """Do what :meth:`reset_job` does."""
        async with self.async_client() as client:
            for call in self._all_checked(reset_with_permissions(job_id, json), client):
                await client.send(call)

    async def a_update_job(
        self,
        job_id: int,
        json: Json | None = None,
        fields_to_remove: Iterable[str] | None = None,
    ) -> None:
        """Do what :meth:`update_job` does."""
        steps = update_with_permissions(job_id, json, fields_to_remove)
        async with self.async_client() as client:
            for call in self._all_checked(steps, client):
                await client.send(call)

    async def a_update_job_permission(self, job_id: int, json: Json) -> Json:
        """Do what :meth:`update_job_permission` does."""
        return await self.a_send(endpoints.update_job_permission(job_id, json))

    async def a_delete_job(self, job_id: int) -> None:
        """Do what :meth:`delete_job` does."""
        await self.a_send(endpoints.delete_job(job_id))

    async def a_run_now(self, json: Json) -> int:
        """Do what :meth:`run_now` does."""
        return await self.a_send(endpoints.run_now(json))

    async def a_submit_run(self, json: Json) -> int:
        """Do what :meth:`submit_run` does."""
        return await self.a_send(endpoints.submit_run(json))

    def a_list_runs(
        self,
        active_only: bool | None = None,
        completed_only: bool | None = None,
        job_id: int | None = None,
        offset: int | None = None,
        limit: int | None = None,
        run_type: str | None = None,
    ) -> AsyncIterator[Json]:
        """Yield what :meth:`list_runs` yields."""
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

    async def a_get_run(self, run_id: int) -> Json:
        """Do what :meth:`get_run` does."""
        async with self.async_client() as client:
            self._checked(endpoints.get_run(run_id), client)
            return await client.run(whole_run(run_id), without_deadline=False)

    async def a_export_run(self, run_id: int, views_to_export: str | None = None) -> list[Json]:
        """Do what :meth:`export_run` does."""
        return await self.a_send(endpoints.export_run(run_id, views_to_export))

    async def a_cancel_run(self, run_id: int) -> None:
        """Do what :meth:`cancel_run` does."""
        await self.a_send(endpoints.cancel_run(run_id))

    async def a_cancel_all_runs(self, job_id: int) -> None:
        """Do what :meth:`cancel_all_runs` does."""
        await self.a_send(endpoints.cancel_all_runs(job_id))

    async def a_get_run_output(self, run_id: int) -> Json:
        """Do what :meth:`get_run_output` does."""
        return await self.a_send(endpoints.get_run_output(run_id))

    async def a_delete_run(self, run_id: int) -> None:
        """Do what :meth:`delete_run` does."""
        await self.a_send(endpoints.delete_run(run_id))

    async def a_repair_run(self, json: Json) -> int:
        """Do what :meth:`repair_run` does."""
        return await self.a_send(endpoints.repair_run(json))

    # -- beyond the endpoints ------------------------------------------------------------------

    def get_run_state(self, run_id: int) -> RunState:
        """Return the state of a run (reference: "RunState")."""
        return RunState.from_run(self.get_run(run_id))

    async def a_get_run_state(self, run_id: int) -> RunState:
        """Do what :meth:`get_run_state` does."""
        return RunState.from_run(await self.a_get_run(run_id))

    def get_run_page_url(self, run_id: int) -> str:
        """Return the URL of a run's page; empty where the service does not give one."""
        return str(self.get_run(run_id).get("run_page_url") or "")

    async def a_get_run_page_url(self, run_id: int) -> str:
        """Do what :meth:`get_run_page_url` does."""
        return str((await self.a_get_run(run_id)).get("run_page_url") or "")

    def find_job_id_by_name(self, job_name: str) -> int | None:
        """Return the id of the job of exactly this name; None if there is none.

        One request where the service filters by name, all pages of the list where it does not.

        :raises ValueError: several jobs have the name; the message has their ids.
        """
        return self.client.run(find_job_id(job_name), without_deadline=False)

    async def a_find_job_id_by_name(self, job_name: str) -> int | None:
        """Do what :meth:`find_job_id_by_name` does."""
        async with self.async_client() as client:
            return await client.run(find_job_id(job_name), without_deadline=False)

    def get_outputs(self, run: Mapping[str, Any]) -> list[TaskOutput]:
        """Return the outputs of a run that has ended, one for each of its tasks.

        :param run: the run as :meth:`get_run` returned it.
        """
        return self.client.run(read_outputs(run), without_deadline=False)

    async def a_get_outputs(self, run: Mapping[str, Any]) -> list[TaskOutput]:
        """Do what :meth:`get_outputs` does."""
        async with self.async_client() as client:
            return await client.run(read_outputs(run), without_deadline=False)

    def test_connection(self) -> tuple[bool, str]:
        """Check address and credentials by listing one run, which any user may do."""
        from airflow_jobs_provider.api.errors import JobsAPIError
        from airflow_jobs_provider.api.retry import RetryPolicy

        try:
            client = self.client
            client.send(endpoints.list_runs(limit=1), retries=RetryPolicy(max_attempts=1))
        except (JobsAPIError, ValueError) as error:
            return False, str(error)
        return True, f"Connected to {client.base_url}: the Jobs API answers."


def _import_what_async_clients_need() -> None:
    from importlib import import_module

    for module in (
        "aiohttp",
        "asgiref.sync",
        "airflow.providers.common.compat.connection",
        "airflow_jobs_provider.api.client",
        "airflow_jobs_provider.hooks.connection",
    ):
        import_module(module)
