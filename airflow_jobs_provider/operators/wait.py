"""The base class of the operators and the sensor that wait for a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_jobs_provider.airflow_compat.completion_reasons import worker_completion_reasons
from airflow_jobs_provider.airflow_compat.default_arguments import applies_defaults_once
from airflow_jobs_provider.links import LinksToPush
from airflow_jobs_provider.operators.argument_checks import check_flags, check_whole_number
from airflow_jobs_provider.operators.base import DatabricksJobsBaseOperator
from airflow_jobs_provider.operators.dag_options import flag_option
from airflow_jobs_provider.xcom import (
    RETURN_VALUE_KEY,
    RUN_PAGE_URL_KEY,
    TASK_RUN_IDS_KEY,
    push_xcoms,
)

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.operators.arguments import CompletionArguments
    from airflow_jobs_provider.run_result import RunResult

__all__ = ["WaitForRunOperator"]


@applies_defaults_once
class WaitForRunOperator(DatabricksJobsBaseOperator):
    """Base class of the operators and the sensor that wait for a run.

    It has what they share: the deferral, reading the trigger's event, and the run's result. Its
    arguments are those of :class:`~.arguments.WaitArguments`.
    """

    # The run as last read, for OpenLineage.
    _last_run: Mapping[str, Any] | None = None
    # What the trigger's event has of the answers of runs/get-output, by run id.
    _output_answers: Mapping[int, Mapping[str, Any]] | None = None
    # Whether a worker reads the run less often the longer it takes.
    _grows_period: bool = False
    # Whether the run's job is the user's, not that of a one-time run.
    _has_job: ClassVar[bool] = False
    polling_period_seconds: float

    def __init__(
        self,
        *,
        deferrable: bool | None = None,
        end_from_trigger: bool = False,
        max_output_bytes: int | None = None,
        fail_on_partial_success: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._given_deferrable = deferrable
        if deferrable is None:
            deferrable = flag_option(self, "operators", "default_deferrable")
        check_flags(
            deferrable=deferrable,
            end_from_trigger=end_from_trigger,
            fail_on_partial_success=fail_on_partial_success,
        )
        check_whole_number("max_output_bytes", max_output_bytes, least=1)
        self.deferrable = deferrable
        # Without the underscore Airflow would refuse the DAG where plugins have listeners. Here a
        # worker ends the task instead, and calls them.
        self._end_from_trigger = end_from_trigger
        self.max_output_bytes = max_output_bytes
        self.fail_on_partial_success = fail_on_partial_success
        # _result_or_raise changes the attribute itself.
        self._push_task_outputs = self.multiple_outputs

    @property
    def log(self) -> Any:
        """The task's logger. In a structured log its lines carry the ids of the task's run."""
        run_id, job_id = self._logged_ids()
        if run_id is None:
            return super().log
        from airflow_jobs_provider.api.workflows.progress import run_log

        return run_log(super().log, run_id, job_id)

    def _logged_ids(self) -> tuple[int | None, int | None]:
        """Return the ids of the task's run and of its job, as far as they are known."""
        return None, None

    def arguments_without_effect(self) -> dict[str, str]:
        """Return the arguments that were given and have no effect, each with the reason."""
        found = super().arguments_without_effect()
        if self._end_from_trigger and not self.deferrable:
            found["end_from_trigger"] = "it needs deferrable=True"
        if self.deferrable and self._given_deferrable is False:
            found["deferrable=False"] = "start_from_trigger waits in the triggerer"
        if not self.do_xcom_push:
            found |= dict.fromkeys(self._given_for_output(), "do_xcom_push is False")
        return found

    def _given_for_output(self) -> list[str]:
        given = {
            "multiple_outputs": self._push_task_outputs,
            "max_output_bytes": self.max_output_bytes is not None,
        }
        return [name for name, is_given in given.items() if is_given]

    def _may_defer(self, context: Context) -> bool:
        """Whether the task waits in the triggerer."""
        if not self.deferrable:
            return False
        from airflow_jobs_provider.airflow_compat.nested_operators import is_nested

        if is_nested(self, context):
            self.log.info(
                "Waiting on the worker in spite of deferrable: another operator executes this one, "
                "and Airflow would resume only that one."
            )
            return False
        return True

    def _defer_to(
        self,
        trigger: BaseTrigger,
        kwargs: dict[str, Any],
        timeout: timedelta | None = None,
        *,
        method_name: str = "execute_complete",
    ) -> NoReturn:
        """Defer. The log tells why a worker will end the task in spite of end_from_trigger."""
        reasons = self._worker_completion_reasons() if self._end_from_trigger else []
        if reasons:
            self.log.info(
                "A worker will end this task in spite of end_from_trigger, because of: %s",
                ", ".join(reasons),
            )
        self.defer(trigger=trigger, method_name=method_name, kwargs=kwargs, timeout=timeout)

    def _completion_arguments(self) -> CompletionArguments:
        """Return the trigger's arguments for ending the task."""
        return {
            "end_from_trigger": self._end_from_trigger and not self._worker_completion_reasons(),
            "do_xcom_push": self.do_xcom_push,
            "max_output_bytes": self.max_output_bytes,
            "fail_on_partial_success": self.fail_on_partial_success,
            "multiple_outputs": self._push_task_outputs,
        }

    def _wants_output_in_event(self) -> bool:
        """Whether the trigger's event may have the output, for this process to push it."""
        from airflow_jobs_provider.airflow_compat.xcom_backend import stores_xcoms_in_database

        # Airflow stores events in its database.
        return self.do_xcom_push and stores_xcoms_in_database()

    def _worker_completion_reasons(self) -> list[str]:
        return worker_completion_reasons(self)

    def _worker_period(self) -> Callable[[], float]:
        """Return what gives the seconds between two reads of a run, for a wait that begins now."""
        if not self._grows_period:
            return lambda: self.polling_period_seconds
        from airflow_jobs_provider.operators.worker_polling import growing_period

        return growing_period()

    def _result_or_raise(self, context: Context, run: Run) -> Any:
        """Return the output of a run that succeeded; raise where it did not succeed."""
        from airflow_jobs_provider.api.errors import CredentialsError
        from airflow_jobs_provider.api.workflows.base import run_workflow
        from airflow_jobs_provider.exceptions import DatabricksRunFailedError
        from airflow_jobs_provider.run_result import read_result, task_run_ids

        self._last_run = run
        steps = read_result(
            run,
            self.log,
            want_output=self.do_xcom_push,
            max_output_bytes=self.max_output_bytes,
            fail_on_partial_success=self.fail_on_partial_success,
        )

        # The connection is read only if there is something to send.
        def send(call: Call[Any]) -> Any:
            if call.path == "runs/get-output":
                answer = (self._output_answers or {}).get(call.parameters["run_id"])
                if answer is not None:
                    return answer
            try:
                client = self.hook.client
            except AirflowException as error:
                # It was deleted meanwhile. The run has ended as it has, without its output.
                raise CredentialsError(str(error)) from error
            # Not without a deadline: the service may be unable to return a run's output.
            return client.send(call)

        def wait(seconds: float) -> None:
            self.hook.client.sleep(seconds)

        try:
            result = run_workflow(steps, send=send, wait=wait)
        except DatabricksRunFailedError as error:
            # For the links to the pages of the tasks that failed.
            self._push(context, {TASK_RUN_IDS_KEY: task_run_ids(run, error.outputs) or None})
            raise
        if self.do_xcom_push:
            xcoms = result.xcoms(self.log, multiple_outputs=self._push_task_outputs)
            # Airflow itself pushes what is returned.
            xcoms.pop(RETURN_VALUE_KEY, None)
            push_xcoms(context, xcoms)
        # Airflow pushes what is returned, and with this flag each key of it: a task's output would
        # replace the XCom run_id, and a run of one task, whose output is no dict, would fail.
        self.multiple_outputs = False
        return self._value_of(context, result)

    # -- OpenLineage -----------------------------------------------------------------------------

    def get_openlineage_facets_on_start(self) -> Any:
        """Return the facets of OpenLineage's event about the start of the task.

        Airflow's OpenLineage provider calls this and the next two methods, where it is installed.
        """
        return self._openlineage_facets(self._run_of_arguments())

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the facets of OpenLineage's event about a task that succeeded.

        :param task_instance: the task instance.
        """
        return self._openlineage_facets(self._known_run())

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """Return the facets of OpenLineage's event about a task that failed.

        :param task_instance: the task instance.
        """
        return self._openlineage_facets(self._known_run())

    def _openlineage_facets(self, run: Mapping[str, Any]) -> Any:
        from airflow_jobs_provider.airflow_compat.openlineage_facets import lineage_of

        # Not from the connection: this may be a fork of the task's process, which must not send
        # requests to Airflow.
        hook, job_run_id = vars(self).get("hook"), self._job_run_id()
        return lineage_of(
            run,
            workspace_url=None if hook is None else hook.connected_to,
            job_run_id=job_run_id,
            has_job=self._has_job or job_run_id is not None,
        )

    def _run_of_arguments(self) -> Mapping[str, Any]:
        """Return what the arguments say of the run: ``run_id`` and ``job_id``, if they do."""
        return {}

    def _known_run(self) -> Mapping[str, Any]:
        """Return the run as far as this process knows it."""
        return self._last_run or self._run_of_arguments()

    def _job_run_id(self) -> int | None:
        """Return the run of the whole job, where the task follows one task of it."""
        return None

    def _value_of(self, context: Context, result: RunResult) -> Any:
        """Return what the task returns; here the run's output.

        :param context: the task's context.
        :param result: the output of a run that succeeded.
        """
        return result.value

    def _push(self, context: Context, values: Mapping[str, Any]) -> None:
        """Push XComs by key, unless the task is not to push any; None is left out."""
        if self.do_xcom_push:
            given = {key: one for key, one in values.items() if one is not None}
            push_xcoms(context, given)
            if RUN_PAGE_URL_KEY in given:
                self._leave_out_run_link()

    def _delete_earlier_output(self, context: Context) -> None:
        """Delete the output of an earlier attempt where this one begins as the end of a deferral.

        Airflow has deleted no XComs then.
        """
        if self.do_xcom_push:
            from airflow_jobs_provider.airflow_compat.completion_event import delete_output

            delete_output(context["ti"], multiple_outputs=self._push_task_outputs)

    def _leave_out_run_link(self) -> None:
        """Let Airflow not push the XCom of the link to the run's page at the process's end."""
        links = self.operator_extra_links
        if not isinstance(links, LinksToPush):
            # In a subclass it may be a property, which cannot be set.
            with suppress(AttributeError):
                self.operator_extra_links = LinksToPush(links, self._at_process_end)

    def _at_process_end(self) -> None:
        """Do what is to be done at the end of the task's process on Airflow 3; here nothing."""

    def _run_from_event(self, event: Mapping[str, Any]) -> Run:
        """Return the run of a trigger's event; raise where the event has no ended run.

        Its outputs, if the event has them, are used in place of requests for them.
        """
        from airflow_jobs_provider.exceptions import DatabricksRunTimeoutError

        if event.get("error"):
            subject = "The run" if event.get("run_id") is None else f"Run {event['run_id']}"
            kind = AirflowFailException if event.get("is_final") else AirflowException
            if event.get("is_launch"):
                raise kind(f"The run was not launched: {event['error']}")
            raise kind(f"{subject} cannot be followed: {event['error']}")
        run = cast("Run", dict(event["run"]))
        if event.get("timed_out"):
            raise DatabricksRunTimeoutError(
                run["run_id"], event["timed_out"], run.get("run_page_url") or ""
            )
        if event.get("outputs"):
            from airflow_jobs_provider.triggers.events import output_answers

            self._output_answers = output_answers(event)
        return run
