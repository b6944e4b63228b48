"""DatabricksWorkflowLaunchTrigger: launch the run of a workflow group, without a worker."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import AirflowException, TaskGroup

from airflow_jobs_provider.airflow_compat.task_state import read_own_xcom
from airflow_jobs_provider.airflow_compat.threads import in_thread
from airflow_jobs_provider.api.workflows.base import run_workflow_async, within_deadline
from airflow_jobs_provider.api.workflows.job_definitions import (
    CLAIM_SECONDS,
    ensure_job,
    has_definition,
)
from airflow_jobs_provider.api.workflows.permissions import without_permissions
from airflow_jobs_provider.operators.attempt_trigger import NeedsWorkerError
from airflow_jobs_provider.operators.launch_trigger import DatabricksLaunchTrigger
from airflow_jobs_provider.operators.payload_validation import check_before_sending
from airflow_jobs_provider.operators.stored_group import read_group
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup
from airflow_jobs_provider.operators.workflow_launch import (
    DEFINITION_KEY,
    DatabricksWorkflowLaunchOperator,
    is_skipped_run,
    metadata_of,
)
from airflow_jobs_provider.run_result import RunResult
from airflow_jobs_provider.triggers.events import run_payload
from airflow_jobs_provider.triggers.polling.registry import get_poller
from airflow_jobs_provider.xcom import RETURN_VALUE_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.airflow_compat.launch_record import LaunchAttempt
    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.api.workflows.launch import LaunchResult
    from airflow_jobs_provider.operators.launch import LaunchRunOperator

__all__ = ["DatabricksWorkflowLaunchTrigger"]

_MEMBERS = "members"


class DatabricksWorkflowLaunchTrigger(DatabricksLaunchTrigger):
    """Define the job of a workflow group, launch its run and fire one event.

    Airflow starts the group's launching task with this trigger. The event ends the task, with the
    XComs that the group's tasks read. Each attempt after the first one is left to a worker: it
    deletes what the tasks have recorded of the run before.

    :param group: the group with the template fields of all its tasks; see
        :mod:`airflow_jobs_provider.operators.stored_group`.
    :param kwargs: the arguments of
        :class:`~airflow_jobs_provider.operators.launch_trigger.DatabricksLaunchTrigger`.
    """

    def __init__(self, *, group: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.group = group
        self._group: dict[str, Any] = {}
        # When the job was last known to have the group's definition, on the monotonic clock.
        self._ensured_at = 0.0
        self._settings: dict[str, Any] = {}

    def as_kwargs(self) -> dict[str, Any]:
        """Return the arguments by name, as Airflow stores them."""
        return {**super().as_kwargs(), "group": self.group}

    # -- the group -----------------------------------------------------------------------------

    def _take_stored_values(self, map_index: int | None) -> None:
        super()._take_stored_values(map_index)
        self._group = read_group(self.group)
        setattr(self, _MEMBERS, self._group.pop("fields"))
        self._request_names = sorted({*self._request_names, _MEMBERS})
        self.template_fields = (*self.template_fields, _MEMBERS)

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if not self._group:  # The task was changed, and Airflow renders nothing for it.
            raise NeedsWorkerError("a task that does not start in the triggerer any more")

    def _make_operator(
        self, context: Context, request: Mapping[str, Any]
    ) -> DatabricksWorkflowLaunchOperator:
        fields = dict(request)
        dag = self._make_dag(context)
        group = self._make_group(dag)
        members = self._make_members(group, dag, fields.pop(_MEMBERS))
        arguments = {"dag": dag, "task_group": group}
        operator = cast(
            "DatabricksWorkflowLaunchOperator",
            super()._make_operator(context, {**fields, **arguments}),
        )
        operator.members = members
        group.launch_task = operator
        return operator

    def _make_group(self, dag: Any) -> DatabricksWorkflowTaskGroup:
        *outer, label = self._group["group_id"].split(".")
        parent: TaskGroup | None = None
        for name in outer:
            parent = TaskGroup(group_id=name, parent_group=parent, dag=dag)
        return DatabricksWorkflowTaskGroup(
            group_id=label,
            parent_group=parent,
            dag=dag,
            # The ids of the tasks are whole already.
            prefix_group_id=False,
            notebook_packages=self._group["notebook_packages"],
        )

    def _make_members(
        self, group: DatabricksWorkflowTaskGroup, dag: Any, fields: Mapping[str, Any]
    ) -> list[Any]:
        """Return the group's tasks with their rendered fields; they are not executed."""
        members = []
        for path, task_id, stored, upstream in self._group["members"]:
            arguments = dict(stored)
            seconds = arguments.pop("execution_timeout_seconds", None)
            # Also None: otherwise Airflow takes the one of its configuration.
            arguments["execution_timeout"] = None if seconds is None else timedelta(seconds=seconds)
            module, _, name = path.rpartition(".")
            member = getattr(import_module(module), name)(
                task_id=task_id,
                dag=dag,
                task_group=group,
                start_from_trigger=False,
                **arguments,
                **fields[task_id],
            )
            member.upstream_task_ids.update(upstream)
            members.append(member)
        return members

    # -- the launch ----------------------------------------------------------------------------

    async def _start(self, begun: LaunchAttempt) -> dict[str, Any]:
        if begun.attempt.try_number > 1:
            raise NeedsWorkerError("it is not the task's first attempt")
        return await super()._start(begun)

    async def _cancel_orphan(self, run_id: int | None) -> None:
        """Cancel the run of an attempt before a clear, unless that attempt has ended.

        After its end each task of the group is responsible for its own run.
        """
        if run_id is None:
            return
        metadata = await in_thread(read_own_xcom, self.task_instance, RETURN_VALUE_KEY)
        if not isinstance(metadata, Mapping) or metadata.get("run_id") != run_id:
            await super()._cancel_orphan(run_id)

    async def _make_call(self, begun: LaunchAttempt) -> tuple[LaunchRunOperator, Call[int]]:
        """Define the job; return the operator and its launch, validated."""
        request = await self._resolved_request(begun.attempt)
        client = await get_poller(self._hook).client()
        task_instance: Any = self.task_instance
        context = task_instance.get_template_context()

        def define() -> tuple[DatabricksWorkflowLaunchOperator, str]:
            operator = self._make_operator(context, request)
            operator.workspace_url = client.base_url
            self._settings, digest = operator.rendered_definition()
            check_before_sending(
                "create",
                without_permissions(self._settings),
                validate=operator.validate,
                client=client,
            )
            return operator, digest

        # In a thread: it validates the request.
        operator, digest = await asyncio.to_thread(define)
        defining = ensure_job(self._settings, nonce=uuid.uuid4().hex, log=self.log)
        job_id = await run_workflow_async(
            within_deadline(defining), send=self._send_definition, wait=asyncio.sleep
        )
        self._ensured_at = time.monotonic()
        # Without it no task of the group could run again in the group's run.
        if not await self._push({DEFINITION_KEY: digest}):
            raise NeedsWorkerError("its XComs cannot be stored")
        call = operator.run_call(job_id, self._settings, context)
        check_before_sending(call.path, call.parameters, validate=operator.validate, client=client)
        return operator, call

    async def _send_definition(self, call: Call[Any]) -> Any:
        if call.verb != "GET":
            await self._stop_if_outdated()
        return await get_poller(self._hook).send(call)

    async def _launch(
        self,
        operator: LaunchRunOperator,
        call: Call[int],
        begun: LaunchAttempt,
        first_attempt_index: int,
    ) -> LaunchResult:
        launched = await super()._launch(operator, call, begun, first_attempt_index)
        if time.monotonic() - self._ensured_at > CLAIM_SECONDS:
            has_own = await run_workflow_async(
                has_definition(launched.run, self._settings),
                send=self._send_definition,
                wait=asyncio.sleep,
            )
            if not has_own:
                await self._cancel("the job was reset for another DAG run before it was launched")
                raise AirflowException(
                    f"Run {launched.run_id} has the definition of another DAG run, and was canceled"
                )
        return launched

    async def _read_launched_run(self, call: Call[Run]) -> Run:
        # With its tasks, which a list may leave out.
        return await get_poller(self._hook).send(call)

    # -- the end of the task -------------------------------------------------------------------

    async def _follow(self, launched: LaunchResult) -> dict[str, Any]:
        """Return the event's payload: each task of the group follows its own run."""
        return run_payload(launched.run)

    def _succeeded(self, payload: Mapping[str, Any]) -> bool:
        if payload.get("timed_out") or "run" not in payload:
            return False
        return not is_skipped_run(payload["run"])

    async def _read_result(self, run: Run) -> RunResult:
        await self._stop_if_outdated()
        # The task returns this in place of an output.
        return RunResult(cast("Any", metadata_of(run, self.databricks_conn_id)))
