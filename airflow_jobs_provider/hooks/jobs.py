"""DatabricksJobsHook: the Jobs API for the workspace of an Airflow connection.

Each method has a blocking form, and one with the prefix ``a_`` for asyncio.

* :mod:`airflow_jobs_provider.hooks.base` makes the clients and sends calls.
* :mod:`airflow_jobs_provider.hooks.endpoints` has a method for each endpoint.
* This module has what takes several requests, or reads a part of an endpoint's response. Workflows
  are imported in the methods that need them: a task that launches a run needs none of these.

The names, parameters and results are those of the official provider's ``DatabricksHook``, as far as
they concern jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.states import RunLifeCycleState, RunState
from airflow_jobs_provider.api.versions import LATEST_API_VERSION
from airflow_jobs_provider.api.workflows.follow import whole_run
from airflow_jobs_provider.hooks.endpoints import DatabricksJobsEndpointsHook
from airflow_jobs_provider.official_names import missing_name

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run, RunTask
    from airflow_jobs_provider.api.workflows.base import Workflow
    from airflow_jobs_provider.api.workflows.outputs import TaskOutput

__all__ = ["DatabricksHook", "DatabricksJobsHook", "RunLifeCycleState", "RunState"]


class DatabricksJobsHook(DatabricksJobsEndpointsHook):
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
        from airflow_jobs_provider.hooks.form import connection_form_widgets

        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the connection form (Airflow before 3.2)."""
        from airflow_jobs_provider.hooks.form import ui_field_behaviour

        return ui_field_behaviour()

    # -- a run -----------------------------------------------------------------------------------

    def get_job_id(self, run_id: int) -> int:
        """Return the job of a run.

        :param run_id: the run.
        :raises UnexpectedResponseError: the service names no job.
        """
        return self._send(endpoints.get_job_id_of_run, run_id)

    async def a_get_job_id(self, run_id: int) -> int:
        """Do what :meth:`get_job_id` does, from asyncio."""
        return await self._a_send(endpoints.get_job_id_of_run, run_id)

    def get_run_state(self, run_id: int) -> RunState:
        """Return the state of a run (reference: "RunState").

        :param run_id: the run.
        """
        run = self._send(endpoints.get_run, run_id)
        return RunState.from_run(run)

    async def a_get_run_state(self, run_id: int) -> RunState:
        """Do what :meth:`get_run_state` does, from asyncio."""
        run = await self._a_send(endpoints.get_run, run_id)
        return RunState.from_run(run)

    def get_run_state_str(self, run_id: int) -> str:
        """Return the state of a run as one line of text.

        :param run_id: the run.
        """
        return _state_text(self.get_run_state(run_id))

    async def a_get_run_state_str(self, run_id: int) -> str:
        """Do what :meth:`get_run_state_str` does, from asyncio."""
        return _state_text(await self.a_get_run_state(run_id))

    def get_run_state_lifecycle(self, run_id: int) -> str:
        """Return the life cycle state of a run, such as ``RUNNING``.

        :param run_id: the run.
        """
        return self.get_run_state(run_id).life_cycle_state

    async def a_get_run_state_lifecycle(self, run_id: int) -> str:
        """Do what :meth:`get_run_state_lifecycle` does, from asyncio."""
        return (await self.a_get_run_state(run_id)).life_cycle_state

    def get_run_state_result(self, run_id: int) -> str:
        """Return the result state of a run, such as ``SUCCESS``; empty while it is active.

        :param run_id: the run.
        """
        return self.get_run_state(run_id).result_state

    async def a_get_run_state_result(self, run_id: int) -> str:
        """Do what :meth:`get_run_state_result` does, from asyncio."""
        return (await self.a_get_run_state(run_id)).result_state

    def get_run_state_message(self, run_id: int) -> str:
        """Return the service's description of a run's state; may be empty.

        :param run_id: the run.
        """
        return self.get_run_state(run_id).state_message

    async def a_get_run_state_message(self, run_id: int) -> str:
        """Do what :meth:`get_run_state_message` does, from asyncio."""
        return (await self.a_get_run_state(run_id)).state_message

    def get_run_page_url(self, run_id: int) -> str:
        """Return the URL of a run's page; empty if the service gives none.

        :param run_id: the run.
        """
        return _page_url(self._send(endpoints.get_run, run_id))

    async def a_get_run_page_url(self, run_id: int) -> str:
        """Do what :meth:`get_run_page_url` does, from asyncio."""
        return _page_url(await self._a_send(endpoints.get_run, run_id))

    def get_run_tasks(self, run_id: int) -> list[RunTask]:
        """Return the tasks of a run, one entry for each attempt of a task.

        Version 2.0 of the API does not list the only task of a run, so a later version is asked.

        :param run_id: the run.
        """
        return _tasks(self._run(_run_with_tasks(run_id), endpoints.get_run(run_id)))

    async def a_get_run_tasks(self, run_id: int) -> list[RunTask]:
        """Do what :meth:`get_run_tasks` does, from asyncio."""
        return _tasks(await self._a_run(_run_with_tasks(run_id), endpoints.get_run(run_id)))

    def get_latest_repair_id(self, run_id: int) -> int | None:
        """Return the id of a run's latest repair; None if it was not repaired.

        :param run_id: the run.
        """
        from airflow_jobs_provider.api.workflows.repair import latest_repair_id

        return latest_repair_id(self._send(endpoints.get_run, run_id, include_history=True))

    async def a_get_latest_repair_id(self, run_id: int) -> int | None:
        """Do what :meth:`get_latest_repair_id` does, from asyncio."""
        from airflow_jobs_provider.api.workflows.repair import latest_repair_id

        run = await self._a_send(endpoints.get_run, run_id, include_history=True)
        return latest_repair_id(run)

    def get_outputs(self, run: Run | Mapping[str, Any]) -> list[TaskOutput]:
        """Return the outputs of a run that has ended, one for each task.

        :param run: the run, from :meth:`get_run`.
        """
        from airflow_jobs_provider.api.workflows.outputs import read_outputs

        return self._run(read_outputs(run))

    async def a_get_outputs(self, run: Run | Mapping[str, Any]) -> list[TaskOutput]:
        """Do what :meth:`get_outputs` does, from asyncio."""
        from airflow_jobs_provider.api.workflows.outputs import read_outputs

        return await self._a_run(read_outputs(run))

    # -- ids by name -----------------------------------------------------------------------------

    def find_job_id_by_name(self, job_name: str) -> int | None:
        """Return the id of the job with exactly this name; None if there is none.

        It takes one request if the service filters by name, else all pages of the list.

        :param job_name: the name.
        :raises DuplicateNameError: several jobs have the name; the message has their ids.
        """
        from airflow_jobs_provider.api.workflows.find import find_job_id

        return self._run(find_job_id(job_name))

    async def a_find_job_id_by_name(self, job_name: str) -> int | None:
        """Do what :meth:`find_job_id_by_name` does, from asyncio."""
        from airflow_jobs_provider.api.workflows.find import find_job_id

        return await self._a_run(find_job_id(job_name))

    def find_pipeline_id_by_name(self, pipeline_name: str) -> str | None:
        """Return the id of the pipeline with exactly this name; None if there is none.

        :param pipeline_name: the name.
        :raises DuplicateNameError: several pipelines have the name; the message has their ids.
        """
        from airflow_jobs_provider.api.workflows.find import find_pipeline_id

        return self._run(find_pipeline_id(pipeline_name))

    async def a_find_pipeline_id_by_name(self, pipeline_name: str) -> str | None:
        """Do what :meth:`find_pipeline_id_by_name` does, from asyncio."""
        from airflow_jobs_provider.api.workflows.find import find_pipeline_id

        return await self._a_run(find_pipeline_id(pipeline_name))

    # -- the connection --------------------------------------------------------------------------

    def test_connection(self) -> tuple[bool, str]:
        """Check host and credentials by listing one run, which any user may do.

        :return: whether it worked, and a message for the user. It names the authentication method,
            and the user or service principal.
        """
        from airflow_jobs_provider.api.errors import JobsAPIError
        from airflow_jobs_provider.api.retry import RetryPolicy
        from airflow_jobs_provider.api.text import printable
        from airflow_jobs_provider.api.workflows.current_user import current_user

        once = RetryPolicy(max_attempts=1)
        try:
            client = self.client
        except (JobsAPIError, ValueError) as error:
            return False, str(error)
        try:
            client.send(endpoints.list_runs(limit=1), retries=once)
        except (JobsAPIError, ValueError) as error:
            return False, f"{error} (authentication: {client.authentication})"
        try:
            name = printable(client.send(current_user(), retries=once), 200)
        except JobsAPIError:  # what a run needs works all the same
            name = ""
        caller = f" as {name}" if name else ""
        return True, (
            f"Connected to {client.base_url}{caller}: the Jobs API answers "
            f"(authentication: {client.authentication})."
        )


DatabricksHook = DatabricksJobsHook
"""The hook under its name in the official provider."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        raise missing_name(__name__, name)


def _state_text(state: RunState) -> str:
    return f"State: {state.life_cycle_state}. Result: {state.result_state}. {state.state_message}"


def _page_url(run: Run) -> str:
    return str(run.get("run_page_url") or "")


def _run_with_tasks(run_id: int) -> Workflow[Run]:
    return whole_run(run_id, api_version=LATEST_API_VERSION)


def _tasks(run: Run) -> list[RunTask]:
    return run.get("tasks") or []
