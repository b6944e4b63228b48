"""DatabricksRunNowOperator: runs an existing job and returns its output."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.api.ids import require_exactly_one
from airflow_jobs_provider.operators.argument_checks import (
    check_flags,
    check_id,
    check_text,
    check_whole_number,
    openlineage_flag,
)
from airflow_jobs_provider.operators.extra_links import extra_links
from airflow_jobs_provider.operators.launch import LaunchRunOperator
from airflow_jobs_provider.operators.payload import GivenFields, JsonRenderers
from airflow_jobs_provider.operators.payload_validation import check_new_settings, has_unrendered

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.api.workflows.base import Workflow
    from airflow_jobs_provider.api.workflows.launch import LaunchResult
    from airflow_jobs_provider.operators.arguments import (
        Id,
        LaunchArguments,
        ListOf,
        StructureOf,
        Text,
    )

__all__ = ["DatabricksRunNowOperator"]

# Longest time between two reads of the previous runs, until they have ended.
LONGEST_CANCEL_POLLING_SECONDS = 5.0


class DatabricksRunNowOperator(LaunchRunOperator):
    """Run a job now, wait for the run, and return its output.

    ::

        DatabricksRunNowOperator(
            task_id="train", job_name="Nightly model training", notebook_params={"day": "{{ ds }}"}
        )

    XComs, launching and waiting are those of :class:`.DatabricksSubmitRunOperator`. Every field of
    the request can be given as an argument or in ``json``. The argument takes precedence. All are
    templated, take XComArgs, and are not sent by default. Reference: "Run now".

    :param job_id: the job to run.
    :param job_name: the job's name, in place of its id; exactly one job must have it.
    :param notebook_params: parameters of a notebook job, merged over its base parameters.
    :param jar_params: parameters of a JAR job.
    :param python_params: parameters of a Python job, in place of the job's own.
    :param spark_submit_params: parameters of a spark-submit job, in place of the job's own.
    :param python_named_params: parameters of a wheel job, in later API versions.
    :param dbt_commands: commands of a dbt job, in place of the job's own, in later API versions.
    :param job_parameters: parameters of the job, in later API versions.
    :param idempotency_token: as for :class:`.DatabricksSubmitRunOperator`.
    :param performance_target: ``PERFORMANCE_OPTIMIZED`` or ``STANDARD``, in place of the job's own,
        for serverless tasks in later API versions. The service ignores any other value.
    :param cancel_previous_runs: cancel the active runs of the job and wait until they have ended,
        before a run is launched; default False. A retry that finds the run of an earlier try does
        not cancel that run. A run that another task launched with the same ``idempotency_token`` is
        canceled.
    :param repair_run: repair a run that failed: its failed tasks run again, in the same run and
        with the same parameters; default False. The task succeeds if a repair succeeds. A run that
        was canceled or skipped is not repaired. A run that ended ``SUCCESS_WITH_FAILURES`` is
        repaired unless ``fail_on_partial_success`` is False. Without ``wait_for_termination`` the
        task does not notice a failure, and repairs nothing.
    :param max_repairs: repairs of a run at the most; default 1.
    :param databricks_repair_reason_new_settings: with ``repair_run``: repair the run only if its
        state message contains one of the keys, and before that update the job with the key's value,
        a map of settings to replace (reference: "Update"). The first such key counts. The job keeps
        these settings. Default none: repair after every failure, with the job's settings as they
        are. Not templated.
    :param openlineage_inject_parent_job_info: send the task's identity for OpenLineage as the job
        parameter ``OPENLINEAGE_CONTEXT``, where the request has no other kind of parameters; as for
        :class:`.DatabricksSubmitRunOperator`.
    :param kwargs: the shared arguments; see
        :class:`~airflow_jobs_provider.operators.arguments.LaunchArguments`. The DAG's ``params``
        become ``job_parameters``, if the request has neither those nor another kind of parameters.
        Such a request goes to API 2.2.
    :raises InvalidRequestError: when the DAG is parsed: the reference forbids the request, or both
        ``job_id`` and ``job_name`` are given.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped.
    :raises DatabricksRunTimeoutError: ``queued_timeout_seconds`` passed, or ``execution_timeout``
        while deferred.
    :raises AirflowFailException: the reference forbids the rendered request, the service says that
        it is wrong, not exactly one of ``job_id`` and ``job_name`` was given, or ``repair_run`` is
        used with a connection whose ``api_version`` is 2.0. Airflow does not retry.
    :raises AirflowException: the service refused the request for another reason, or no job or
        several jobs have the name. The DAG's ``retries`` decide.
    """

    _starts_in_triggerer: ClassVar[bool] = True
    operator_extra_links = extra_links("DatabricksJobLink")
    call_name: ClassVar[str] = "run-now"
    request_fields: ClassVar[tuple[str, ...]] = (
        "job_id",
        "job_name",
        "notebook_params",
        "jar_params",
        "python_params",
        "spark_submit_params",
        "python_named_params",
        "dbt_commands",
        "job_parameters",
        "idempotency_token",
        "performance_target",
    )
    _service_may_retry: ClassVar[bool] = True
    _has_job: ClassVar[bool] = True
    template_fields: Any = GivenFields(*LaunchRunOperator.template_fields, *request_fields)
    template_fields_renderers: ClassVar[Any] = JsonRenderers(
        "json", "notebook_params", "job_parameters"
    )

    def __init__(
        self,
        *,
        job_id: Id | None = None,
        job_name: Text | None = None,
        notebook_params: StructureOf[Mapping[str, Any]] | None = None,
        jar_params: ListOf[str] | None = None,
        python_params: ListOf[str] | None = None,
        spark_submit_params: ListOf[str] | None = None,
        python_named_params: StructureOf[Mapping[str, Any]] | None = None,
        dbt_commands: ListOf[str] | None = None,
        job_parameters: StructureOf[Mapping[str, Any]] | None = None,
        idempotency_token: Text | None = None,
        performance_target: Text | None = None,
        cancel_previous_runs: bool = False,
        repair_run: bool = False,
        max_repairs: int = 1,
        databricks_repair_reason_new_settings: Mapping[str, Mapping[str, Any]] | None = None,
        openlineage_inject_parent_job_info: bool | None = None,
        **kwargs: Unpack[LaunchArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_flags(cancel_previous_runs=cancel_previous_runs, repair_run=repair_run)
        check_whole_number("max_repairs", max_repairs, least=0)
        check_new_settings(databricks_repair_reason_new_settings, validate=self.validate)
        self.job_id = job_id
        self.job_name = job_name
        self.notebook_params = notebook_params
        self.jar_params = jar_params
        self.python_params = python_params
        self.spark_submit_params = spark_submit_params
        self.python_named_params = python_named_params
        self.dbt_commands = dbt_commands
        self.job_parameters = job_parameters
        self.idempotency_token = idempotency_token
        self.performance_target = performance_target
        self.cancel_previous_runs = cancel_previous_runs
        self.repair_run = repair_run
        self.max_repairs = max_repairs
        self.databricks_repair_reason_new_settings = dict(
            databricks_repair_reason_new_settings or {}
        )
        self.openlineage_inject_parent_job_info = openlineage_flag(
            self, "inject_parent_job_info", openlineage_inject_parent_job_info
        )
        self._check_when_parsed()

    def _request_reasons(self) -> list[str]:
        reasons = super()._request_reasons()
        reasons += [name for name in ("cancel_previous_runs", "repair_run") if getattr(self, name)]
        return reasons

    def _operator_arguments(self) -> dict[str, Any]:
        return {**super()._operator_arguments(), "openlineage_inject_parent_job_info": False}

    def _fields_when_parsed(self, fields: dict[str, Any]) -> dict[str, Any]:
        in_json: Mapping[str, Any] = {}
        if self.json is not None and not has_unrendered(self.json):
            from airflow_jobs_provider.api.schema.payload_text import read_payload

            in_json = read_payload("json", self.json)
        job_id = in_json.get("job_id") if self.job_id is None else self.job_id
        job_name = in_json.get("job_name") if self.job_name is None else self.job_name
        check_id("job_id", job_id)
        # A template or an XCom may turn out to be None, and a subclass may set either one later.
        if None not in (job_id, job_name) and not has_unrendered((job_id, job_name)):
            require_exactly_one(job_id=job_id, job_name=job_name)
        if fields.pop("job_name", None) is not None or in_json.get("job_name") is not None:
            fields.setdefault("job_id", 0)  # it is known after the name was looked up
        return fields

    def launch_call(self, context: Context) -> Call[int]:
        """Return the ``run-now`` call, with the job's id where its name was given."""
        from airflow_jobs_provider.api.endpoints import run_now
        from airflow_jobs_provider.api.ids import require_id

        request = self.request_with_dag_params(context)
        job_name = request.pop("job_name", None)
        require_exactly_one(job_id=request.get("job_id"), job_name=job_name)
        if job_name not in (None, ""):
            check_text("job_name", job_name)
            request["job_id"] = self.hook.find_job_id_by_name(job_name)
            if request["job_id"] is None:
                raise AirflowException(f"no job has the name {job_name!r}")
        request["job_id"] = require_id("job_id", request["job_id"])
        if self.openlineage_inject_parent_job_info:
            from airflow_jobs_provider.operators.openlineage import inject_into_run_now

            version = self.hook.client.api_version
            request = inject_into_run_now(request, context, self.log, api_version=version)
        return run_now(request)

    def _run_of_arguments(self) -> Mapping[str, Any]:
        return {"job_id": self.job_id}

    def arguments_without_effect(self) -> dict[str, str]:
        """Return the arguments that were given and have no effect, each with the reason."""
        found = super().arguments_without_effect()
        if not self.repair_run:
            given = {
                "max_repairs": self.max_repairs != 1,
                "databricks_repair_reason_new_settings": bool(
                    self.databricks_repair_reason_new_settings
                ),
            }
            names = [name for name, is_given in given.items() if is_given]
            found |= dict.fromkeys(names, "repair_run is False")
        elif not self.wait_for_termination:
            found["repair_run"] = "the task does not wait for the run's end"
        return found

    def _launch(self, context: Context, first_attempt_index: int) -> LaunchResult:
        if self.repair_run and self.wait_for_termination:
            from airflow_jobs_provider.api.endpoints import repair_run

            # Raises where the connection pins a version without repairs, before a run is launched.
            self.hook.client.version_of(repair_run({}))
            check_new_settings(
                self.databricks_repair_reason_new_settings,
                validate=self.validate,
                client=self.hook.client,
            )
        launched = super()._launch(context, first_attempt_index)
        job_id = launched.run.get("job_id")
        waited = launched.is_own and not self._own_run_may_exist()
        if self.cancel_previous_runs and not waited and job_id:
            self._cancel_runs_before(launched.run_id, job_id)
        if self.repair_run and launched.attempt_index < self._attempt.attempt_index:
            # It may be under repair, and a repaired run keeps its start_time.
            return launched._replace(queued_since=time.time())
        return launched

    def _cancel_runs_before(self, run_id: int, job_id: int) -> None:
        """Cancel the runs before the run of an earlier try, which may have died before that."""
        from airflow_jobs_provider.api.errors import APIStatusError

        try:
            self._run_workflow(self._cancel_previous_runs(job_id, run_id), stop_after_any_kill=True)
        except APIStatusError as error:
            # The run is active all the same, and has to be followed.
            self.log.warning("Not all runs before run %s could be canceled: %s", run_id, error)

    def _own_run_may_exist(self) -> bool:
        """Whether an earlier try may have launched a run with the token of this one."""
        return self._attempt.attempt_index > 0 and self._user_token() is not None

    def _before_own_launch(self, call: Call[int]) -> Workflow[None] | None:
        from airflow_jobs_provider.api.workflows.base import within_deadline

        if self.cancel_previous_runs and not self._own_run_may_exist():
            return within_deadline(self._cancel_previous_runs(call.parameters["job_id"]))
        return None

    def _cancel_previous_runs(
        self, job_id: int, before_run_id: int | None = None
    ) -> Workflow[None]:
        from airflow_jobs_provider.api.workflows.cancel_previous import cancel_previous_runs

        canceled = yield from cancel_previous_runs(
            job_id,
            before_run_id=before_run_id,
            polling_period_seconds=min(self.polling_period_seconds, LONGEST_CANCEL_POLLING_SECONDS),
        )
        if canceled:
            ids = ", ".join(map(str, canceled))
            self.log.info("Canceled the previous runs of job %s: %s.", job_id, ids)

    def _next_run(
        self, context: Context, run: Run, attempt_index: int | None
    ) -> LaunchResult | None:
        next_run = super()._next_run(context, run, attempt_index)
        if next_run is None and self.repair_run:
            return self._repair(run, attempt_index or 0)
        return next_run

    def _repair(self, run: Run, attempt_index: int) -> LaunchResult | None:
        """Repair a run that has failed, and return it; None where it is not to be repaired."""
        from airflow_jobs_provider.api.errors import APIStatusError
        from airflow_jobs_provider.api.states import RunState
        from airflow_jobs_provider.api.workflows.launch import LaunchResult
        from airflow_jobs_provider.api.workflows.repair import (
            is_repairable,
            repair_once,
            repair_reason,
            repaired_at,
        )

        if not is_repairable(run, fail_on_partial_success=self.fail_on_partial_success):
            return None
        new_settings = self.databricks_repair_reason_new_settings
        if new_settings and repair_reason(run, new_settings) is None:
            self.log.info(
                "Run %s is not repaired: its state message contains none of the texts of "
                "databricks_repair_reason_new_settings.",
                run["run_id"],
            )
            return None
        run_id, started = int(run["run_id"]), run.get("start_time")
        steps = repair_once(
            run_id,
            max_repairs=self.max_repairs,
            polling_period_seconds=self.polling_period_seconds,
            fail_on_partial_success=self.fail_on_partial_success,
            new_settings_by_reason=new_settings,
            launched_at=None if started is None else float(started) / 1000,
        )
        # Before the first request: a kill during the repair must cancel the run.
        self._state.run.answered(run_id)
        repaired = None
        try:
            repaired = self._run_workflow(steps, stop_after_any_kill=True)
        except APIStatusError as error:
            self.log.warning("Run %s is not repaired: %s", run_id, error)
        except AirflowException:
            # The kill came during the request, perhaps before the repair had started.
            self._cancel_for_kill()
            raise
        if repaired is None:
            self._state.run.ended()
            return None
        self.log.info(
            "Run %s ended %s. Its failed tasks run again.", run_id, RunState.from_run(run)
        )
        return LaunchResult(run_id, repaired, attempt_index, repaired_at(repaired))
