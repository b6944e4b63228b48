"""All operators; here are those that launch a run, submitted once or of a job that is there.

Both launch once, wait for the run in the worker or, deferred, in the triggerer, and hand what the
run gave back to the next task. Nothing here touches the network or a connection when a DAG is
parsed, and nothing heavy is imported then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
)

from airflow_jobs_provider.connected import refusals_are_final
from airflow_jobs_provider.identity import TaskTry
from airflow_jobs_provider.operators.cancel_runs import DatabricksCancelRunsOperator
from airflow_jobs_provider.operators.create_job import DatabricksCreateJobsOperator
from airflow_jobs_provider.operators.delete_run import DatabricksDeleteRunOperator
from airflow_jobs_provider.operators.export_run import DatabricksExportRunOperator
from airflow_jobs_provider.operators.links import DatabricksJobRunLink
from airflow_jobs_provider.operators.parsing import (
    check_before_sending,
    check_when_parsed,
    fields_over_json,
)
from airflow_jobs_provider.waiting import WaitsForRun

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.steps import Launched

__all__ = [
    "DatabricksCancelRunsOperator",
    "DatabricksCreateJobsOperator",
    "DatabricksDeleteRunOperator",
    "DatabricksExportRunOperator",
    "DatabricksRunNowOperator",
    "DatabricksSubmitRunOperator",
]

MAX_RUN_NAME_BYTES = 4096  # reference: "Run", run_name


class _LaunchRunOperator(WaitsForRun):
    """Launch a run, wait for its end, return its output: what both operators share.

    A subclass names the fields of its endpoint in ``request_fields``, keeps each as an attribute of
    the same name, and makes the call.
    """

    request_fields: ClassVar[tuple[str, ...]] = ()
    template_fields: Sequence[str] = ("json", "databricks_conn_id")
    template_ext: Sequence[str] = (".json-tpl",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"json": "json"}
    operator_extra_links = (DatabricksJobRunLink(),)
    ui_color = "#1cb1c2"
    ui_fgcolor = "#fff"

    # Whether the service may retry the run by itself, as a job's max_retries asks.
    _service_may_retry: ClassVar[bool] = False

    def __init__(
        self,
        *,
        json: Any | None = None,
        polling_period_seconds: float = 30,
        wait_for_termination: bool = True,
        reattach: bool = True,
        cancel_on_kill: bool = True,
        queued_timeout_seconds: float | None = None,
        max_output_bytes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.json = json
        self.polling_period_seconds = polling_period_seconds
        self.wait_for_termination = wait_for_termination
        self.reattach = reattach
        self.cancel_on_kill = cancel_on_kill
        self.queued_timeout_seconds = queued_timeout_seconds
        self.max_output_bytes = max_output_bytes
        # What on_kill needs: the launch under way, and the run that it or an earlier one gave.
        self._launching: Call[int] | None = None
        self._launched_run_id: int | None = None
        self._killed = False
        # When this try began, where Airflow tells it wrongly.
        self._began: float | None = None

    def request(self) -> dict[str, Any]:
        """Return what is sent: ``json``, overridden by the fields that were given."""
        return fields_over_json(self.json, self._fields())

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.request_fields}

    def launch_call(self, context: Context) -> Call[int]:
        """Return the call that launches the run, but for its token."""
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Launch the run; wait for it unless told otherwise; return its output."""
        return self._launch_and_wait(context, first_generation=0)

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        generation: int | None = None,
        try_number: int | None = None,
    ) -> Any:
        """Resume after the trigger's event: return the run's output, or raise why it failed.

        :param event: what the trigger fired.
        :param generation: place of the run's token among the task's; None in events stored by
            versions without it.
        :param try_number: the try that deferred; None likewise.
        """
        if try_number not in (None, context["ti"].try_number):
            # Airflow 3.0 begins a retry with the event that ended the try before, and its start.
            self._began = time.time()
            return self.execute(context)
        run = self._run_of(event)
        if self._may_be_replaced(context, run, generation):
            return self._launch_and_wait(context, first_generation=(generation or 0) + 1)
        return self._conclude(context, run)

    def on_kill(self) -> None:
        """Cancel the run that the killed task was launching or waiting for."""
        self._killed = True
        if self.cancel_on_kill:
            self._cancel("the task was killed")

    def _cancel(self, reason: str) -> None:
        from airflow_jobs_provider.api.calls import cancel_run
        from airflow_jobs_provider.api.errors import JobsApiError
        from airflow_jobs_provider.api.retries import RetryPolicy

        if self._launching is None and self._launched_run_id is None:
            return
        # A client of its own, since the kill may have interrupted the other one, or Airflow's
        # answer to a look-up; and quickly, since Airflow sends SIGKILL a few seconds after this.
        quickly = RetryPolicy(limit=3, delay=0.5)
        try:
            with self.hook.client.twin() as client:
                if self._launched_run_id is None and self._launching is not None:
                    # The answer is not there yet. The same token brings the run's id.
                    self._launched_run_id = client.send(self._launching, retries=quickly)
                assert self._launched_run_id is not None
                client.send(cancel_run(self._launched_run_id), retries=quickly)
        except JobsApiError as error:
            self.log.error(
                "Run %s could not be canceled and may still run: %s",
                self._launched_run_id or "of this task",
                error,
            )
        else:
            self.log.info("Run %s was canceled, because %s.", self._launched_run_id, reason)

    def _launch_and_wait(self, context: Context, *, first_generation: int) -> Any:
        from airflow_jobs_provider.api.states import RunState

        while True:
            launched = self._launch(context, first_generation)
            if not self.wait_for_termination:
                return None
            run = launched.run
            if self.deferrable and not RunState.of(run).is_terminal:
                self._defer_until_ended(
                    run,
                    polling_period_seconds=self.polling_period_seconds,
                    kwargs={
                        "generation": launched.generation,
                        "try_number": context["ti"].try_number,
                    },
                    cancel_on_kill=self.cancel_on_kill,
                    deadline=self._deadline(context),
                    queued_timeout_seconds=self.queued_timeout_seconds,
                    follow_attempts=self._service_may_retry,
                )
            run = self._wait(launched)
            if not self._may_be_replaced(context, run, launched.generation):
                return self._conclude(context, run)
            first_generation = launched.generation + 1

    def _tokens(self, context: Context, request_token: str | None) -> list[str]:
        """Return the tokens of this try, one for each try so far."""
        if request_token:
            return [request_token]
        if not self.reattach:
            import uuid

            return [uuid.uuid4().hex]
        return TaskTry.of(context).tokens()

    def _launch(self, context: Context, first_generation: int) -> Launched:
        from airflow_jobs_provider.api.steps import launch_once

        call = self.launch_call(context)
        with refusals_are_final():
            check_before_sending(call.path, call.parameters, validate=self.validate)
        tokens = self._tokens(context, self.request().get("idempotency_token"))

        def launch(token: str) -> Call[int]:
            self._must_live()
            self._launched_run_id = None
            self._launching = call.with_parameters(idempotency_token=token)
            return self._launching

        def on_launched(run_id: int) -> None:
            self._launched_run_id = run_id
            self._push(context, run_id=run_id)

        steps = launch_once(
            launch,
            tokens,
            first_generation=min(first_generation, len(tokens) - 1),
            polling_period_seconds=self.polling_period_seconds,
            on_launched=on_launched,
        )
        with refusals_are_final():
            launched = self.hook.client.carry_out(steps)
        run = launched.run
        self._push(context, job_id=run.get("job_id"), run_page_url=run.get("run_page_url"))
        verb = "Following" if launched.generation < len(tokens) - 1 else "Launched"
        page = run.get("run_page_url") or "the workspace"
        self.log.info("%s run %s, see %s", verb, launched.run_id, page)
        return launched

    def _may_be_replaced(
        self, context: Context, run: Mapping[str, Any], generation: int | None
    ) -> bool:
        """Whether the run is an earlier try's, cancelled by the kill of that try."""
        from airflow_jobs_provider.api.states import RunState, Verdict

        if generation is None or not self.reattach or self.request().get("idempotency_token"):
            return False
        is_own = generation >= TaskTry.of(context).place
        return not is_own and RunState.of(run).verdict is Verdict.CANCELED

    def _must_live(self) -> None:
        if self._killed:
            raise AirflowException("the task was killed")

    def _deadline(self, context: Context) -> float | None:
        """Return when this try's execution_timeout is over, in seconds since the epoch."""
        if self.execution_timeout is None:
            return None
        began = self._began
        if began is None:
            start = getattr(context["ti"], "start_date", None)
            began = time.time() if start is None else start.timestamp()
        return began + self.execution_timeout.total_seconds()

    def _wait(self, launched: Launched) -> dict[str, Any]:
        from airflow_jobs_provider.api.progress import RunProgress
        from airflow_jobs_provider.api.steps import follow_run
        from airflow_jobs_provider.exceptions import DatabricksRunTimeoutError

        def on_attempt(run_id: int) -> None:
            self._launched_run_id = run_id

        ended = self.hook.client.carry_out(
            follow_run(
                launched.run_id,
                polling_period=lambda: self.polling_period_seconds,
                progress=RunProgress(launched.run_id, self.log),
                first_look=launched.run,
                queued_timeout_seconds=self.queued_timeout_seconds,
                follow_attempts=self._service_may_retry,
                on_attempt=on_attempt,
            )
        )
        if ended.queued_too_long:
            if self.cancel_on_kill:
                self._cancel("it did not begin to run in time")
            raise DatabricksRunTimeoutError(
                launched.run_id, "queued_timeout_seconds", ended.run.get("run_page_url") or ""
            )
        self._launching = self._launched_run_id = None
        return ended.run

    def _conclude(self, context: Context, run: Mapping[str, Any]) -> Any:
        from airflow_jobs_provider.outcome import conclude

        outcome = conclude(
            run,
            self.hook,
            self.log,
            want_output=self.do_xcom_push,
            max_output_bytes=self.max_output_bytes,
        )
        if outcome.truncated:
            self._push(context, output_truncated=True)
        return outcome.value

    def _push(self, context: Context, **values: Any) -> None:
        if self.do_xcom_push:
            for key, value in values.items():
                if value is not None:
                    context["ti"].xcom_push(key=key, value=value)


class DatabricksSubmitRunOperator(_LaunchRunOperator):
    """Submit a one-time run, wait for it, and return what its notebook gave back.

    ::

        DatabricksSubmitRunOperator(
            task_id="etl",
            new_cluster={"spark_version": "15.4.x-scala2.12", "num_workers": 2, ...},
            notebook_task={"notebook_path": "/Shared/etl", "base_parameters": {"day": "{{ ds }}"}},
            deferrable=True,
        )

    XComs: ``return_value`` is the text given to ``dbutils.notebook.exit()`` (a dict by task key for
    a run of several tasks, None where there is none); ``run_id``, ``job_id`` and ``run_page_url``
    are there as soon as the run is launched. Numbers and booleans among the parameters are sent as
    text. The run is launched once, however often the request is sent.

    Every field of the request can be given by its own name or in ``json``; the own name wins. All
    are templated and take XComArgs. Reference: "Runs submit".

    :param json: the request's fields as one dict.
    :param notebook_task: a notebook and its parameters (reference: "NotebookTask").
    :param spark_jar_task: a JAR's main class (reference: "SparkJarTask").
    :param spark_python_task: a Python file (reference: "SparkPythonTask").
    :param spark_submit_task: a spark-submit command line (reference: "SparkSubmitTask").
    :param pipeline_task: a Delta Live Tables pipeline (reference: "PipelineTask").
    :param run_job_task: another job (reference: "RunJobTask").
    :param tasks: tasks in the form of later API versions.
    :param existing_cluster_id: cluster to run on.
    :param new_cluster: cluster to make for the run (reference: "NewCluster").
    :param libraries: libraries to install on the cluster (reference: "Library").
    :param run_name: name of the run; by default it tells DAG, task, DAG run and try.
    :param timeout_seconds: seconds after which the service stops the run; by default the task's
        ``execution_timeout``, if it has one.
    :param idempotency_token: token of at most 64 characters; the same token launches nothing new.
    :param email_notifications: whom to tell (reference: "JobEmailNotifications").
    :param webhook_notifications: destinations to tell (reference: "WebhookNotifications").
    :param notification_settings: when to stay silent (reference: "JobNotificationSettings").
    :param access_control_list: permissions on the run, in later API versions.
    :param git_source: repository of the code, in later API versions.
    :param databricks_conn_id: Airflow connection; default ``databricks_default``.
    :param polling_period_seconds: seconds between two looks at the run; default 30.
    :param databricks_retry_limit: tries of a request at the most; by default time decides.
    :param databricks_retry_delay: seconds before the second try; by default it depends on what went
        wrong.
    :param databricks_retry_args: arguments for tenacity in place of the policy's own; not together
        with ``deferrable`` unless they are JSON.
    :param do_xcom_push: push the XComs above; default True.
    :param wait_for_termination: wait for the run's end; default True.
    :param reattach: let a retry of the task follow the run that an earlier try launched, where that
        is active or has succeeded; default True. False launches a fresh run at every try.
    :param cancel_on_kill: cancel the run when the task is killed, cleared, marked or timed out, on
        the worker or while deferred; default True.
    :param queued_timeout_seconds: seconds after which a run that has not begun to run is cancelled
        and the task fails; default none.
    :param max_output_bytes: cut the output off after so many bytes; the XCom ``output_truncated``
        then says so; default none.
    :param deferrable: wait in the triggerer, without a worker; default False, or Airflow's
        ``[operators] default_deferrable``.
    :param validate: check the request before it is sent, and when the DAG is parsed if it holds no
        template; default True.
    :raises InvalidRequest: when the DAG is parsed: the reference forbids the request.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped.
    :raises AirflowFailException: the reference forbids the rendered request, or the service refused
        it; Airflow does not retry.
    """

    request_fields: ClassVar[tuple[str, ...]] = (
        "notebook_task",
        "spark_jar_task",
        "spark_python_task",
        "spark_submit_task",
        "pipeline_task",
        "run_job_task",
        "tasks",
        "existing_cluster_id",
        "new_cluster",
        "libraries",
        "run_name",
        "timeout_seconds",
        "idempotency_token",
        "email_notifications",
        "webhook_notifications",
        "notification_settings",
        "access_control_list",
        "git_source",
    )
    template_fields: Sequence[str] = (*_LaunchRunOperator.template_fields, *request_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("json", "notebook_task", "new_cluster", "tasks"), "json"
    )

    def __init__(
        self,
        *,
        notebook_task: Mapping[str, Any] | None = None,
        spark_jar_task: Mapping[str, Any] | None = None,
        spark_python_task: Mapping[str, Any] | None = None,
        spark_submit_task: Mapping[str, Any] | None = None,
        pipeline_task: Mapping[str, Any] | None = None,
        run_job_task: Mapping[str, Any] | None = None,
        tasks: list[Any] | None = None,
        existing_cluster_id: str | None = None,
        new_cluster: Mapping[str, Any] | None = None,
        libraries: list[Any] | None = None,
        run_name: str | None = None,
        timeout_seconds: int | None = None,
        idempotency_token: str | None = None,
        email_notifications: Mapping[str, Any] | None = None,
        webhook_notifications: Mapping[str, Any] | None = None,
        notification_settings: Mapping[str, Any] | None = None,
        access_control_list: list[Any] | None = None,
        git_source: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.notebook_task = notebook_task
        self.spark_jar_task = spark_jar_task
        self.spark_python_task = spark_python_task
        self.spark_submit_task = spark_submit_task
        self.pipeline_task = pipeline_task
        self.run_job_task = run_job_task
        self.tasks = tasks
        self.existing_cluster_id = existing_cluster_id
        self.new_cluster = new_cluster
        self.libraries = libraries
        self.run_name = run_name
        self.timeout_seconds = timeout_seconds
        self.idempotency_token = idempotency_token
        self.email_notifications = email_notifications
        self.webhook_notifications = webhook_notifications
        self.notification_settings = notification_settings
        self.access_control_list = access_control_list
        self.git_source = git_source
        check_when_parsed("runs/submit", self.json, self._fields(), validate=self.validate)

    def launch_call(self, context: Context) -> Call[int]:
        """Return the ``runs/submit`` call, named after the task unless it has a name."""
        from airflow_jobs_provider.api.calls import submit_run

        request = self.request()
        if not request.get("run_name"):
            request["run_name"] = default_run_name(context)
        if request.get("timeout_seconds") is None and self.execution_timeout is not None:
            # Should this task be gone by then, the service stops the run all the same.
            request["timeout_seconds"] = math.ceil(self.execution_timeout.total_seconds())
        return submit_run(request)


class DatabricksRunNowOperator(_LaunchRunOperator):
    """Run a job now, wait for the run, and return what its notebook gave back.

    ::

        DatabricksRunNowOperator(
            task_id="train", job_name="Nightly model training", notebook_params={"day": "{{ ds }}"}
        )

    XComs, launching, waiting and ``json`` are those of :class:`DatabricksSubmitRunOperator`. The
    DAG's ``params`` are not sent along. Reference: "Run now".

    :param json: the request's fields as one dict.
    :param job_id: the job to run.
    :param job_name: the job's name, in place of its id; exactly one job must have it.
    :param notebook_params: parameters of a notebook job, merged over its base parameters.
    :param jar_params: parameters of a JAR job.
    :param python_params: parameters of a Python job, in place of the job's own.
    :param spark_submit_params: parameters of a spark-submit job, in place of the job's own.
    :param python_named_params: parameters of a wheel job, in later API versions.
    :param job_parameters: parameters of the job, in later API versions.
    :param idempotency_token: token of at most 64 characters; the same token launches nothing new.
    :param databricks_conn_id: Airflow connection; default ``databricks_default``.
    :param polling_period_seconds: seconds between two looks at the run; default 30.
    :param databricks_retry_limit: as for :class:`DatabricksSubmitRunOperator`.
    :param databricks_retry_delay: likewise.
    :param databricks_retry_args: likewise.
    :param do_xcom_push: likewise.
    :param wait_for_termination: likewise.
    :param reattach: likewise.
    :param cancel_on_kill: likewise.
    :param queued_timeout_seconds: likewise.
    :param max_output_bytes: likewise.
    :param deferrable: likewise.
    :param validate: likewise.
    :raises InvalidRequest: when the DAG is parsed: the reference forbids the request.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped.
    :raises AirflowFailException: the reference forbids the rendered request, the service refused
        it, or no job has the name.
    """

    request_fields: ClassVar[tuple[str, ...]] = (
        "job_id",
        "job_name",
        "notebook_params",
        "jar_params",
        "python_params",
        "spark_submit_params",
        "python_named_params",
        "job_parameters",
        "idempotency_token",
    )
    _service_may_retry: ClassVar[bool] = True
    template_fields: Sequence[str] = (*_LaunchRunOperator.template_fields, *request_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("json", "notebook_params", "job_parameters"), "json"
    )

    def __init__(
        self,
        *,
        job_id: int | str | None = None,
        job_name: str | None = None,
        notebook_params: Mapping[str, Any] | None = None,
        jar_params: list[Any] | None = None,
        python_params: list[Any] | None = None,
        spark_submit_params: list[Any] | None = None,
        python_named_params: Mapping[str, Any] | None = None,
        job_parameters: Mapping[str, Any] | None = None,
        idempotency_token: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.job_name = job_name
        self.notebook_params = notebook_params
        self.jar_params = jar_params
        self.python_params = python_params
        self.spark_submit_params = spark_submit_params
        self.python_named_params = python_named_params
        self.job_parameters = job_parameters
        self.idempotency_token = idempotency_token
        fields = self._fields()
        in_json = self.json if isinstance(self.json, Mapping) else {}
        if fields.pop("job_name") is not None or in_json.get("job_name") is not None:
            fields["job_id"] = fields["job_id"] or 0  # not known yet, but there
        check_when_parsed("run-now", self.json, fields, validate=self.validate)

    def launch_call(self, context: Context) -> Call[int]:
        """Return the ``run-now`` call, with the job's id where its name was given."""
        from airflow_jobs_provider.api.calls import run_now

        request = self.request()
        job_name = request.pop("job_name", None)
        if (job_name is None) == (request.get("job_id") is None):
            raise AirflowFailException("give either job_id or job_name, and not both")
        if job_name is not None:
            try:
                request["job_id"] = self.hook.find_job_id_by_name(job_name)
            except ValueError as error:  # several have the name
                raise AirflowFailException(str(error)) from error
            if request["job_id"] is None:
                raise AirflowFailException(f"no job has the name {job_name!r}")
        # A rendered template is text; the API wants a number.
        request["job_id"] = int(request["job_id"])
        return run_now(request)


def default_run_name(context: Context) -> str:
    """Name a run after the DAG, task, DAG run and try that it comes from."""
    ti = context["ti"]
    mapped = f"[{ti.map_index}]" if ti.map_index is not None and ti.map_index >= 0 else ""
    name = f"{ti.dag_id}.{ti.task_id}{mapped} {ti.run_id} try {ti.try_number}"
    return name.encode()[:MAX_RUN_NAME_BYTES].decode(errors="ignore")
