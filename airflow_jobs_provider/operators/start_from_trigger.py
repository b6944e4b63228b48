"""The part of a launching operator that starts its task in the triggerer (Airflow 3.3)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from airflow_jobs_provider.airflow_compat.completion_reasons import worker_launch_reasons
from airflow_jobs_provider.airflow_compat.default_arguments import applies_defaults_once
from airflow_jobs_provider.airflow_compat.mapped_start import (
    is_prototype,
    is_unmapped,
    mapped_start_reasons,
    with_mapped_start,
)
from airflow_jobs_provider.airflow_compat.orphaned_runs import recorded_run_id
from airflow_jobs_provider.airflow_compat.start_in_triggerer import (
    StartFromTrigger,
    StartTriggerArguments,
    check_renders_in_triggerer,
    renders_in_triggerer,
)
from airflow_jobs_provider.airflow_compat.stored_arguments import as_text, text_size
from airflow_jobs_provider.airflow_compat.task_serialization import SerializedFields
from airflow_jobs_provider.airflow_compat.trigger_timeout import is_timed_out
from airflow_jobs_provider.airflow_compat.triggerer_values import (
    MAX_STORED_BYTES,
    UnreadableValueError,
    plain_text_reasons,
    rendering_reasons,
    storable_field,
)
from airflow_jobs_provider.api.workflows.launched_run import latest_launch_of_recorded_run
from airflow_jobs_provider.operators.argument_checks import check_flags, check_json_serializable
from airflow_jobs_provider.operators.cancel_on_kill import CancelOnKillOperator
from airflow_jobs_provider.operators.dag_options import text_option
from airflow_jobs_provider.operators.execution_state import ExecutionState
from airflow_jobs_provider.operators.payload import PayloadOperator
from airflow_jobs_provider.operators.templates import has_unrendered
from airflow_jobs_provider.triggers.arguments import TriggerArguments

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import StartTriggerArgs

__all__ = ["StartFromTriggerOperator", "StoredRequest"]

# Of the arguments with which the trigger makes the operator; None of all others.
_DEFAULTS = {
    "databricks_task_key": "",
    "forward_dag_params": True,
    "reattach": True,
    "validate": True,
}
# No character takes more than 14 bytes in the text that is stored, as two escape sequences. To make
# the text takes longer than to make this sure.
_SURELY_STORED_LENGTH = MAX_STORED_BYTES // 14


class StoredRequest(NamedTuple):
    """The request of a task, as Airflow stores it for the triggerer.

    :ivar reasons: why the triggerer cannot send it; none if it can.
    :ivar fields: its template fields that are given.
    :ivar others: arguments of the trigger beside them.
    """

    reasons: Sequence[str]
    fields: Mapping[str, Any] = MappingProxyType({})
    others: Mapping[str, str] = MappingProxyType({})


@applies_defaults_once
class StartFromTriggerOperator(PayloadOperator, CancelOnKillOperator):
    """Base class of the operators that launch a run, as far as a start in the triggerer goes.

    :param start_from_trigger: launch the run in the triggerer; see
        :class:`~.arguments.RunArguments`.
    """

    # True in each class whose request the triggerer can make. A subclass has to say so again.
    _starts_in_triggerer: ClassVar[bool] = False
    # Import path of the trigger that the task starts with.
    _start_trigger: ClassVar[str] = (
        "airflow_jobs_provider.operators.launch_trigger.DatabricksLaunchTrigger"
    )
    polling_period_seconds: float
    queued_timeout_seconds: float | None
    reattach: bool
    # Whether the service may retry the run by itself, as a job's max_retries asks.
    _service_may_retry: ClassVar[bool] = False
    # Whether a start in the triggerer is asked for. False while the constructor runs: Airflow reads
    # start_from_trigger in the middle of it.
    _start_requested: bool = False
    # Whether this process goes on with an attempt that has started in the triggerer.
    _started_in_triggerer: bool = False
    # Airflow asks the class for these of a mapped task, before it is mapped; see mapped_start.
    start_trigger_args: Any = StartTriggerArguments()
    start_from_trigger: Any = StartFromTrigger()
    get_serialized_fields: Any = SerializedFields()

    def __init__(self, *, start_from_trigger: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._start_is_optional = start_from_trigger is None
        if start_from_trigger is None:
            option = text_option(self, "databricks_jobs", "start_from_trigger")
            start_from_trigger = option == "auto" and renders_in_triggerer()
        check_flags(start_from_trigger=start_from_trigger)
        self._given_start = start_from_trigger
        if start_from_trigger and not self._start_is_optional:
            check_renders_in_triggerer()
            self.deferrable = True

    if not TYPE_CHECKING:  # It has the type that Airflow gives it.

        @classmethod
        def partial(cls, **kwargs: Any) -> Any:
            """Map the operator over arguments; see Airflow's ``BaseOperator.partial``."""
            if kwargs.get("start_from_trigger"):
                check_renders_in_triggerer()
            partial = super().partial(**kwargs)
            is_wanted = kwargs.get("start_from_trigger") is not False
            return with_mapped_start(partial) if is_wanted and renders_in_triggerer() else partial

    def _check_when_parsed(self) -> None:
        if not is_prototype():  # It lacks what is mapped.
            super()._check_when_parsed()
        self._check_start()

    def _check_start(self) -> None:
        """Settle at the end of the constructor what a start in the triggerer implies."""
        self._start_requested = self._given_start
        if not self._start_requested:
            return
        if self._start_is_optional and (is_prototype() or not self.worker_start_reasons()):
            self.deferrable = self._end_from_trigger = True
        if self.deferrable:
            check_json_serializable(self.databricks_retry_args)

    def _validate_start_from_trigger_kwargs(self) -> None:
        """Do nothing; Airflow calls this eight times, at the end of each class's constructor.

        It would refuse a callable among the trigger's arguments. They have none: a template field
        with one is not :func:`~.triggerer_values.storable`, so that a worker starts the task.
        """

    @property
    def must_start_in_triggerer(self) -> bool:
        """Whether ``start_from_trigger=True`` was given, rather than Airflow's option for all."""
        return self._given_start and not self._start_is_optional

    def starts_in_triggerer(self) -> bool:
        """Return whether Airflow starts the task in the triggerer, once the DAG is complete.

        False for an instance of a mapped task: Airflow has asked the mapped task.
        """
        return self._start_requested and not is_unmapped(self) and not self.worker_start_reasons()

    def find_start(self) -> StartTriggerArgs | None:
        """Return the arguments with which Airflow starts the task; None if a worker starts it."""
        if not self._start_requested or is_unmapped(self):
            return None
        return self.start_or_reasons()[0]

    def start_or_reasons(self, more_bytes: int = 0) -> tuple[StartTriggerArgs | None, list[str]]:
        """Return the arguments with which Airflow starts the task, or why a worker has to.

        :param more_bytes: size of what is stored beside the request; default 0.
        """
        request = self._stored_request(more_bytes)
        reasons = self._worker_start_reasons(request)
        return (None, reasons) if reasons else (self._start_arguments(request), [])

    def worker_start_reasons(self) -> list[str]:
        """Return the reasons why a worker has to start the task; empty if the triggerer can."""
        if is_unmapped(self):
            return mapped_start_reasons(self)
        return self._worker_start_reasons(self._stored_request())

    def _worker_start_reasons(self, request: StoredRequest) -> list[str]:
        reasons = [*worker_launch_reasons(self), *self._request_reasons()]
        if not self.wait_for_termination:
            reasons.append("wait_for_termination=False")
        return [*reasons, *request.reasons]

    def _stored_request(self, more_bytes: int = 0) -> StoredRequest:
        """Return the request as Airflow stores it for the triggerer, and what is wrong with it.

        :param more_bytes: size of what is stored beside it; default 0.
        """
        reasons = list(plain_text_reasons(self))
        try:
            fields = self._stored_fields()
        except UnreadableValueError as reason:
            return StoredRequest([*reasons, str(reason)])
        if len(repr(fields)) + more_bytes > _SURELY_STORED_LENGTH:
            size = text_size(fields) + more_bytes
            if size > MAX_STORED_BYTES:
                reasons.append(f"a request of {size} bytes")
        if (unlike := list(rendering_reasons(self))) and has_unrendered(fields):
            reasons += unlike
        return StoredRequest(reasons, fields)

    def _request_reasons(self) -> list[str]:
        """Return the reasons that are particular to the operator."""
        if "_starts_in_triggerer" in vars(type(self)):
            return []
        # It may do more than the trigger does.
        is_subclass = getattr(type(self), "_starts_in_triggerer", False)
        return ["a subclass of the operator" if is_subclass else "the kind of the operator"]

    def _start_arguments(self, request: StoredRequest) -> StartTriggerArgs:
        """Return the arguments with which Airflow starts the task in the triggerer.

        :param request: the request, which the triggerer can read.
        """
        from airflow.triggers.base import StartTriggerArgs

        cls = type(self)
        arguments = {
            # Airflow reads them with the whole DAG, in the scheduler, the triggerer and the API
            # server, for each task that starts in the triggerer.
            **TriggerArguments.without_defaults(
                {
                    "polling_period_seconds": self.polling_period_seconds,
                    "cancel_on_kill": self.cancel_on_kill,
                    "queued_timeout_seconds": self.queued_timeout_seconds,
                    "follow_attempts": self._service_may_retry,
                    **self._hook_arguments(),
                    **self._completion_arguments(),
                }
            ),
            **request.fields,
            "operator": f"{cls.__module__}.{cls.__qualname__}",
            "operator_arguments": {
                name: value
                for name, value in self._operator_arguments().items()
                if value != _DEFAULTS.get(name)
            },
        }
        return StartTriggerArgs(
            trigger_cls=self._start_trigger,
            trigger_kwargs={**as_text(arguments), **request.others},
            next_method="execute_complete",
        )

    def _stored_fields(self) -> dict[str, Any]:
        """Return the template fields that are given, as Airflow stores them for the triggerer.

        :raises UnreadableValueError: the triggerer cannot read one.
        """
        values = {name: getattr(self, name) for name in self.template_fields}
        return {
            name: storable_field(name, value) for name, value in values.items() if value is not None
        }

    def _operator_arguments(self) -> dict[str, Any]:
        """Return the arguments with which the trigger makes the operator, besides its fields."""
        timeout = self.execution_timeout
        return {
            "databricks_retry_limit": self.databricks_retry_limit,
            "databricks_retry_delay": self.databricks_retry_delay,
            "databricks_retry_args": self.databricks_retry_args,
            "validate": self.validate,
            "forward_dag_params": self.forward_dag_params,
            "reattach": self.reattach,
            "execution_timeout_seconds": None if timeout is None else timeout.total_seconds(),
        }

    # -- on a worker ---------------------------------------------------------------------------

    def _log_start_on_worker(self) -> None:
        """Log why a worker starts the task in spite of start_from_trigger."""
        if self._start_requested and (reasons := self.worker_start_reasons()):
            self.log.info(
                "A worker starts this task in spite of start_from_trigger, because of: %s",
                ", ".join(reasons),
            )

    def _continue_on_worker(self, context: Context, event: dict[str, Any]) -> None:
        """Go on with an attempt that has started in the triggerer, if this one has.

        A worker ends it, which records the success. Otherwise a clear could look like a retry, and
        the task would succeed with the old run.
        """
        if self._start_requested:
            self._started_in_triggerer, self._end_from_trigger = True, False
        # Those that the triggerer could not store.
        self._push(context, event.get("xcoms", {}))

    def _record_success(self, context: Context) -> None:
        """Record that an attempt that has started in the triggerer succeeds on this worker."""
        if self._started_in_triggerer:
            from airflow_jobs_provider.airflow_compat.launch_record import record_success

            record_success(context["ti"])

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Resume on a worker; see Airflow's ``BaseOperator``.

        Where Airflow has failed the trigger, no trigger has canceled the run or left it to a retry.

        :param next_method: the method with which Airflow resumes the task.
        :param next_kwargs: its arguments.
        :param context: the task's context.
        """
        if self._start_requested and next_method == "__fail__":
            from airflow_jobs_provider.airflow_compat.launch_record import record_handover
            from airflow_jobs_provider.exceptions import DatabricksRunTimeoutError

            record_handover(context["ti"])
            run_id = recorded_run_id(self, context)
            if run_id is not None and is_timed_out(next_method, next_kwargs):
                self._state = ExecutionState()
                self._state.run.answered(run_id, latest_launch_of_recorded_run(time.time()))
                if self.cancel_on_kill:
                    self._cancel("execution_timeout is over")
                    self._state.run.ended()
                raise DatabricksRunTimeoutError(run_id, "execution_timeout")
        return super().resume_execution(next_method, next_kwargs, context)
