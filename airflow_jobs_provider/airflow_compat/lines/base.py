"""The interface of an Airflow line, with the types and the task states that it shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger
    from airflow.triggers.shared_stream import SharedStreamProducer

__all__ = [
    "BEFORE_RUNNING",
    "BEFORE_SCHEDULING",
    "DEFERRED",
    "DELETED",
    "RUNNING",
    "UP_FOR_RETRY",
    "AirflowLine",
    "DeferredTask",
    "LaterAttempt",
    "Successor",
    "is_ended_by_user",
    "successor_after_failure",
]

RUNNING = "running"
DEFERRED = "deferred"
UP_FOR_RETRY = "up_for_retry"
# A task that a user has cleared while it ran is not in these states, but "restarting".
BEFORE_SCHEDULING = (None, UP_FOR_RETRY)
BEFORE_RUNNING = (*BEFORE_SCHEDULING, "scheduled", "queued")
# No state of Airflow: the task instance does not exist any more.
DELETED = "deleted"


class Successor(Enum):
    """Who goes on with the run of a process that is told to end."""

    #: Nobody: the run is to be canceled.
    NONE = "none"
    #: The retry that Airflow begins once this attempt has failed. It reattaches to the run.
    RETRY = "retry"
    #: An attempt that Airflow has begun or will begin in any case, or the trigger.
    EXISTING = "existing"


class LaterAttempt(NamedTuple):
    """What Airflow tells of attempts of a task after a certain one.

    :ivar has_begun: whether a later attempt has begun. False where Airflow does not tell.
    :ivar was_cleared: whether the task was cleared after that attempt, as far as Airflow tells.
    """

    has_begun: bool
    was_cleared: bool


class DeferredTask(NamedTuple):
    """The task instance that a trigger belongs to.

    :ivar dag_id: DAG.
    :ivar run_id: DAG run.
    :ivar task_id: task.
    :ivar map_index: index of a mapped task, else -1.
    :ivar trigger_id: the trigger's id; None outside a triggerer, as in ``dag.test()``.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    trigger_id: int | None

    @classmethod
    def from_trigger(cls, trigger: BaseTrigger) -> Self | None:
        """Return the task instance of a trigger; None where it has none."""
        task_instance: Any = trigger.task_instance
        if task_instance is None:
            return None
        return cls(
            dag_id=task_instance.dag_id,
            run_id=task_instance.run_id,
            task_id=task_instance.task_id,
            map_index=-1 if task_instance.map_index is None else task_instance.map_index,
            trigger_id=getattr(trigger, "trigger_id", None),
        )

    @property
    def key(self) -> str:
        """Its key in the answers of Airflow's API."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}_{self.map_index}"


def is_ended_by_user(state: str | None) -> bool:
    """Return whether a task that a worker has executed is in this state because of a user."""
    return state not in (*BEFORE_RUNNING, RUNNING, DEFERRED)


def successor_after_failure(attempt: TaskAttempt) -> Successor:
    """Return who goes on with the run if this attempt fails."""
    return Successor.RETRY if attempt.has_retry_left else Successor.NONE


class AirflowLine(Protocol):
    """What is particular to a line of Airflow. The modules of the package above ask for it."""

    #: Whether Airflow calls a trigger's ``on_kill``.
    calls_on_kill: bool
    #: Whether the triggerer renders the templates of a task that starts there.
    renders_in_triggerer: bool
    #: Whether the triggerer builds Airflow's API in its own process at the first question.
    builds_api_in_triggerer: bool
    #: Whether the scheduler may fail a task that its trigger resumes soon after the deferral.
    fails_tasks_resumed_early: bool
    #: Why a task must not be ended by its trigger; None where it may.
    completion_fault: str | None
    #: Whether links of plugins work, for mapped tasks, too.
    takes_links_of_plugins: bool
    #: Whether the UI has a menu entry for a plugin's page.
    shows_plugin_pages: bool
    #: Whether an asset can be watched by a trigger.
    has_event_triggers: bool

    # -- asset events ------------------------------------------------------------------------------

    def asset_stores(self, trigger: Any) -> list[Any]:
        """Return the stores of the assets that a running trigger watches: ``aget`` and ``aset``.

        :param trigger: the trigger.
        """

    def event_producer(self, handover: Any) -> SharedStreamProducer:
        """Return Airflow's producer for the events of one trigger.

        :param handover: has the producer's ``open_stream`` and ``advance``.
        """

    # -- metrics -----------------------------------------------------------------------------------

    def initialize_stats(self) -> None:
        """Initialize ``Stats`` of Airflow's Task SDK, unless this process has done so (3.2)."""

    # -- tasks -------------------------------------------------------------------------------------

    def is_parsed_for_execution(self) -> bool:
        """Return whether this process parses the DAG file to execute one of its tasks."""

    def is_parsed_for_callbacks(self) -> bool:
        """Return whether this process parses the DAG file only to call callbacks."""

    def task_state(self, attempt: TaskAttempt) -> str | None:
        """Return a task's state; None while it is to be scheduled, ``DELETED`` if it is gone."""

    async def deferred_tasks(self, tasks: Sequence[DeferredTask]) -> set[DeferredTask]:
        """Return which of these tasks, all of one DAG, are deferred."""

    async def launched_run_id(self, task: DeferredTask) -> int | None:
        """Return the run that a deferred task waits for by its XCom; None where that is known.

        :raises ValueError: the XCom is no run's id.
        """

    def task_states(self, attempt: TaskAttempt, task_ids: Sequence[str]) -> dict[str, str | None]:
        """Return the states of tasks in the attempt's DAG run, at its map index, by task id."""

    def later_attempt(
        self,
        attempt: TaskAttempt,
        task_id: str,
        *,
        reported: int | None,
        try_number: int,
        max_tries: int | None,
        clear_number: int | None,
        pushes_xcoms: bool,
    ) -> LaterAttempt:
        """Return what is known of attempts of another task in the attempt's DAG run.

        :param attempt: the attempt that asks.
        :param task_id: the other task, at the same map index.
        :param reported: the run that its known attempt has reported, and pushed as an XCom.
        :param try_number: number of its known attempt.
        :param max_tries: ``max_tries`` in that attempt.
        :param clear_number: how often tasks of the DAG run were cleared before that attempt.
        :param pushes_xcoms: whether it pushes XComs.
        """

    def read_xcom(self, attempt: TaskAttempt, task_id: str, key: str) -> Any:
        """Return an XCom of a task in the attempt's DAG run, at its map index; None without."""

    def write_xcom(self, attempt: TaskAttempt, task_id: str, key: str, value: Any) -> None:
        """Store an XCom of another task in the attempt's DAG run, at its map index."""

    # -- successor --------------------------------------------------------------------------------

    def runs_under_supervisor(self) -> bool:
        """Return whether this process executes a task for a supervisor (Airflow 3)."""

    def is_request_in_progress(self) -> bool:
        """Return whether this thread waits for an answer of its supervisor (Airflow 3)."""

    def is_scheduled(self, attempt: TaskAttempt) -> bool:
        """Return whether a scheduler knows of the attempt; not in ``dag.test()``."""

    def find_successor(self, attempt: TaskAttempt) -> Successor:
        """Return who goes on with the run of an attempt whose process is told to end."""

    def xcoms_at_start(self, attempt: TaskAttempt) -> dict[str, int]:
        """Return the XComs that an attempt pushes for the process of an earlier attempt to see."""

    def refusal_status(self, error: BaseException) -> int | None:
        """Return the HTTP status with which Airflow's API refused a request; else None."""

    def watch_deferral(self) -> Callable[[], bool]:
        """Watch the deferral that is about to be sent.

        The result returns whether Airflow is known to have accepted it.
        """

    def is_refused_after_user_action(self, error: BaseException) -> bool:
        """Return whether Airflow refused a deferral since a user has ended the task."""

    # -- orphaned runs -----------------------------------------------------------------------------

    def can_read_xcoms(self) -> bool:
        """Return whether this process may read XComs."""

    def unmap(self, task: Any, context: Context) -> Any:
        """Return the operator that a worker executes for a mapped task."""

    # -- start and completion in the triggerer -----------------------------------------------------

    def trigger_timeout(self, trigger: BaseTrigger) -> datetime | None:
        """Return when Airflow fails the trigger's task; None for never."""

    def first_poke(self, ti: Any) -> datetime | None:
        """Return when a rescheduled sensor's attempt poked first; None before that."""

    def store_xcoms(self, task_instance: Any, xcoms: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store a task's XComs from its trigger; return those that the event has to carry."""

    def delete_output(self, task_instance: Any, *, multiple_outputs: bool) -> None:
        """Delete the output that an earlier attempt has pushed, and the ids of its task runs."""

    def read_own_xcom(self, task_instance: Any, key: str) -> Any:
        """Return an XCom of a trigger's task (Airflow 3); None without."""

    def delete_xcoms(self, task_instance: Any, keys: Sequence[str]) -> None:
        """Delete XComs of a trigger's task (Airflow 3)."""

    def pending_messages(self) -> dict[int, Any] | None:
        """Return a triggerer's messages to Airflow that are not answered, by their ids.

        The ids grow in the order of sending, which is that of the dict. None where they are not
        known.
        """

    # -- server ------------------------------------------------------------------------------------

    def stored_xcoms(self, place: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
        """Return XComs by key from the metadata database.

        :param place: the task instance: ``dag_id``, ``run_id``, ``task_id`` and ``map_index``.
        :param keys: keys of the XComs.
        """
