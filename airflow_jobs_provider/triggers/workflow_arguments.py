"""The arguments of the triggers for a task of a workflow group; see :mod:`.arguments`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from airflow_jobs_provider.triggers.arguments import TriggerArguments

__all__ = ["WorkflowMemberTriggerArguments", "WorkflowTaskTriggerArguments"]


@dataclass(eq=False, repr=False)
class WorkflowTaskTriggerArguments(TriggerArguments):
    """The arguments of ``triggers.workflow.DatabricksWorkflowTaskTrigger``.

    :param run_id: the task's own run, at the attempt that the task has pushed as its XCom.
    :param workflow_run_id: the run that the task belongs to.
    :param task_key: the task.
    :param task_max_retries: retries of the task by the service, -1 for no limit; default 0.
    :param attempts_before: attempts of the task that do not count as such, since a repair ran the
        task again; default 0.
    """

    run_id: int
    _: KW_ONLY
    workflow_run_id: int = 0
    task_key: str = ""
    task_max_retries: int = 0
    attempts_before: int = 0


@dataclass(eq=False, repr=False, kw_only=True)
class WorkflowMemberTriggerArguments(TriggerArguments):
    """The arguments of ``operators.workflow_member_trigger.DatabricksWorkflowMemberTrigger``.

    :param launch_task_id: the Airflow task that launches the group's run.
    :param task_key: the task in Databricks.
    :param task_max_retries: retries of the task by the service, -1 for no limit; default 0.
    :param arguments_without_effect: the operator's arguments that were given and have no effect,
        each with the reason; default None for none.
    """

    launch_task_id: str
    task_key: str
    task_max_retries: int = 0
    arguments_without_effect: dict[str, str] | None = None
