"""DatabricksSubmitRunOperator: a one-time run, and what it gave back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobs_provider.operators.launch import LaunchRunOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.endpoints import Call
    from airflow_jobs_provider.api.schema.types import (
        JobEmailNotifications,
        JobNotificationSettings,
        JobTask,
        Library,
        NewCluster,
        NotebookTask,
        PipelineTask,
        RunJobTask,
        SparkJarTask,
        SparkPythonTask,
        SparkSubmitTask,
        WebhookNotifications,
    )
    from airflow_jobs_provider.operators.arguments import ListOf, Seconds, StructureOf, Text

__all__ = ["DatabricksSubmitRunOperator"]

MAX_RUN_NAME_BYTES = 4096  # reference: "Run", run_name


class DatabricksSubmitRunOperator(LaunchRunOperator):
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

    :param json: the request's fields as one dict; or as text, JSON or a Python literal, such as a
        template or a file ``...json-tpl`` gives. So can every structure, list and map be given.
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
    :param timeout_seconds: seconds, or a timedelta, after which the service stops the run; by
        default the task's ``execution_timeout``, if it has one.
    :param idempotency_token: token of at most 64 characters; the same token launches nothing new.
        Let it be the same for all tries of the task, or a try may leave a run that no other finds.
    :param email_notifications: whom to tell (reference: "JobEmailNotifications").
    :param webhook_notifications: destinations to tell (reference: "WebhookNotifications").
    :param notification_settings: when to stay silent (reference: "JobNotificationSettings").
    :param access_control_list: permissions on the run, in later API versions.
    :param git_source: repository of the code, in later API versions.
    :param forward_dag_params: send the DAG's ``params`` as the parameters of each notebook, Python
        wheel, SQL and run-job task that has none of its own; default True. A param that is None is
        left out.
    :param databricks_conn_id: Airflow connection; default ``databricks_default``.
    :param polling_period_seconds: seconds, or a timedelta, between two looks at the run; default
        10.
    :param databricks_retry_limit: tries of a request at the most; by default time decides.
    :param databricks_retry_delay: seconds, or a timedelta, before the second try; by default it
        depends on what went wrong.
    :param databricks_retry_args: arguments for tenacity in place of the policy's own; with
        ``deferrable`` they must be JSON, since Airflow stores them.
    :param do_xcom_push: push the XComs above; default True.
    :param wait_for_termination: wait for the run's end; default True.
    :param reattach: let a retry of the task follow the run that an earlier try launched, where that
        is active or has succeeded; default True. False launches a fresh run at every try.
    :param cancel_on_kill: cancel the run when the task is cleared, marked or timed out, on the
        worker or while deferred, and where it fails for good while the run goes on, as when its
        worker died and no retry is left (not on Airflow 3.0); default True. With
        ``wait_for_termination`` an ``on_failure_callback`` is added for that. Where the task's
        process is told to end by anything but a user, as at the shutdown of its machine, the run
        is left to Airflow's retry, and cancelled if no retry is left.
    :param queued_timeout_seconds: seconds, or a timedelta, after which the task fails if the run
        has not begun to run; the run is then cancelled, unless ``cancel_on_kill`` is False; default
        none.
    :param max_output_bytes: cut the output off after so many bytes; the XCom ``output_truncated``
        then says so; default none.
    :param fail_on_partial_success: let the task fail where the run ended ``SUCCESS_WITH_FAILURES``:
        its last tasks succeeded, an earlier one did not; default True, as the official operator
        does. With False the task succeeds with a warning that names the failed tasks, and a retry
        of the task follows such a run instead of launching a new one.
    :param multiple_outputs: push the output of each task of the run under its task key as well, so
        that ``etl.output["load"]`` is the output of the task ``load``; default False. A task whose
        key is that of another XCom (``run_id``, ``job_id``, ``run_page_url``, ``return_value``,
        ``output_truncated``) is found in ``return_value`` only.
    :param deferrable: wait in the triggerer, without a worker; default False, or Airflow's
        ``[operators] default_deferrable``.
    :param end_from_trigger: with ``deferrable``: let the triggerer read the output and end the task
        when the run has ended well, so that no second worker process starts; default False. A run
        that ended badly goes back to a worker, where the task fails with its reason. So does a
        task with outlets, ``on_success_callback``, ``post_execute``, ``map_index_template`` or
        tasks that expand over its output, since Airflow would leave those out, and every task on
        Airflow 3.0, which would lose sight of its DAG file. Airflow refuses
        the DAG where plugins have listeners.
    :param validate: check the request before it is sent, and when the DAG is parsed if it holds no
        template; default True.
    :raises InvalidRequestError: when the DAG is parsed: the reference forbids the request.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped.
    :raises DatabricksRunTimeoutError: ``queued_timeout_seconds`` were over, or while deferred
        ``execution_timeout``.
    :raises AirflowFailException: the reference forbids the rendered request, or the service says
        that it is wrong; Airflow does not retry.
    :raises AirflowException: the service refused for another reason; the DAG's ``retries`` decide.
    """

    call_name: ClassVar[str] = "runs/submit"
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
    template_fields: Sequence[str] = (*LaunchRunOperator.template_fields, *request_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("json", "notebook_task", "new_cluster", "tasks"), "json"
    )

    def __init__(
        self,
        *,
        notebook_task: StructureOf[NotebookTask] | None = None,
        spark_jar_task: StructureOf[SparkJarTask] | None = None,
        spark_python_task: StructureOf[SparkPythonTask] | None = None,
        spark_submit_task: StructureOf[SparkSubmitTask] | None = None,
        pipeline_task: StructureOf[PipelineTask] | None = None,
        run_job_task: StructureOf[RunJobTask] | None = None,
        tasks: ListOf[JobTask] | None = None,
        existing_cluster_id: Text | None = None,
        new_cluster: StructureOf[NewCluster] | None = None,
        libraries: ListOf[Library] | None = None,
        run_name: Text | None = None,
        timeout_seconds: Seconds | None = None,
        idempotency_token: Text | None = None,
        email_notifications: StructureOf[JobEmailNotifications] | None = None,
        webhook_notifications: StructureOf[WebhookNotifications] | None = None,
        notification_settings: StructureOf[JobNotificationSettings] | None = None,
        access_control_list: ListOf[Mapping[str, Any]] | None = None,
        git_source: StructureOf[Mapping[str, Any]] | None = None,
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
        self._check_when_parsed()

    def launch_call(self, context: Context) -> Call[int]:
        """Return the ``runs/submit`` call, named after the task unless it has a name."""
        from airflow_jobs_provider.api.endpoints import submit_run

        request = self.request_with_dag_params(context)
        if not request.get("run_name"):
            request["run_name"] = default_run_name(context)
        if request.get("timeout_seconds") is None and self.execution_timeout is not None:
            # Should this task be gone by then, the service stops the run all the same.
            request["timeout_seconds"] = math.ceil(self.execution_timeout.total_seconds())
        return submit_run(request)


def default_run_name(context: Context) -> str:
    """Name a run after the DAG, task, DAG run and try that it comes from."""
    ti = context["ti"]
    mapped = f"[{ti.map_index}]" if ti.map_index is not None and ti.map_index >= 0 else ""
    name = f"{ti.dag_id}.{ti.task_id}{mapped} {ti.run_id} try {ti.try_number}"
    return name.encode()[:MAX_RUN_NAME_BYTES].decode(errors="ignore")
