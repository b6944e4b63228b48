"""DatabricksSubmitRunOperator: submits a one-time run and returns its output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow_jobs_provider.operators.argument_checks import (
    check_optional_flags,
    openlineage_flag,
)
from airflow_jobs_provider.operators.extra_links import task_run_links
from airflow_jobs_provider.operators.launch import LaunchRunOperator
from airflow_jobs_provider.operators.payload import GivenFields, JsonRenderers
from airflow_jobs_provider.operators.payload_validation import has_unrendered
from airflow_jobs_provider.operators.pipelines import check_pipeline_names, with_pipeline_ids

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.calls import Call
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
    from airflow_jobs_provider.operators.arguments import (
        LaunchArguments,
        ListOf,
        Seconds,
        StructureOf,
        Text,
    )

__all__ = ["DatabricksSubmitRunOperator"]


class DatabricksSubmitRunOperator(LaunchRunOperator):
    """Submit a one-time run, wait for it, and return its output.

    ::

        DatabricksSubmitRunOperator(
            task_id="etl",
            existing_cluster_id="0923-164208-meows279",
            notebook_task={"notebook_path": "/Shared/etl", "base_parameters": {"day": "{{ ds }}"}},
            deferrable=True,
        )

    XComs: ``return_value`` is the text given to ``dbutils.notebook.exit()``: a dict by task key for
    a run of several tasks, None where there is none. ``run_id``, ``job_id`` and ``run_page_url``
    are pushed as soon as the run is launched. The run is launched once, however often the request
    is sent.

    Every field of the request can be given as an argument or in ``json``. The argument takes
    precedence. All are templated, take XComArgs, and are not sent by default. Numbers and booleans
    among the parameters are sent as text. Reference: "Runs submit".

    :param notebook_task: a notebook and its parameters (reference: "NotebookTask").
    :param spark_jar_task: the main class of a JAR (reference: "SparkJarTask").
    :param spark_python_task: a Python file (reference: "SparkPythonTask").
    :param spark_submit_task: a spark-submit command line (reference: "SparkSubmitTask").
    :param pipeline_task: a Delta Live Tables pipeline (reference: "PipelineTask"). It may have
        ``pipeline_name`` in place of ``pipeline_id``, also among ``tasks``.
    :param run_job_task: another job (reference: "RunJobTask").
    :param dbt_task: dbt commands, in later API versions.
    :param tasks: several tasks, in the form of later API versions.
    :param existing_cluster_id: cluster to run on.
    :param new_cluster: cluster to create for the run (reference: "NewCluster").
    :param libraries: libraries to install on the cluster (reference: "Library").
    :param environments: environments of the serverless tasks, in later API versions.
    :param run_name: name of the run; default DAG, task, DAG run and try, or as ``[databricks_jobs]
        run_name_template`` says.
    :param timeout_seconds: seconds, or a timedelta, after which the service stops the run; default
        the task's ``execution_timeout``, if it has one.
    :param idempotency_token: token of at most 64 characters. The same token launches no second run.
        Use the same for all tries of the task; otherwise a retry does not find the run of the try
        before. Default a token made from the task's identity.
    :param email_notifications: who is notified by e-mail (reference: "JobEmailNotifications").
    :param webhook_notifications: webhooks that are notified (reference: "WebhookNotifications").
    :param notification_settings: which notifications are left out (reference:
        "JobNotificationSettings").
    :param access_control_list: permissions on the run, in later API versions.
    :param git_source: repository of the code, in later API versions.
    :param performance_target: ``PERFORMANCE_OPTIMIZED`` or ``STANDARD``, for serverless tasks in
        later API versions. The service ignores any other value.
    :param billing_tags: add tags with the DAG, the task, its owner, the DAG run and the try to the
        ``custom_tags`` of each new cluster, for billing reports; see
        :mod:`airflow_jobs_provider.operators.billing_tags`. Default ``[databricks_jobs]
        billing_tags``, else False.
    :param openlineage_inject_parent_job_info: send the task's identity for OpenLineage with the
        request, so that the lineage events of the run name the task as their parent: as the
        parameter ``OPENLINEAGE_CONTEXT`` of each task whose parameters are a map, and in the
        ``spark_conf`` of each new cluster. Default Airflow's ``[openlineage]
        spark_inject_parent_job_info``, else False. Needs Airflow's OpenLineage provider; without it
        the log has a warning, and the request is sent as it is.
    :param openlineage_inject_transport_info: configure Spark on each new cluster to send its
        OpenLineage events where Airflow sends its own; default Airflow's ``[openlineage]
        spark_inject_transport_info``, else False. Needs the OpenLineage provider, as
        ``openlineage_inject_parent_job_info`` does.
    :param kwargs: the shared arguments; see
        :class:`~airflow_jobs_provider.operators.arguments.LaunchArguments`. The DAG's ``params``
        become the parameters of each notebook, Python wheel, SQL and run-job task that has none.
    :raises InvalidRequestError: when the DAG is parsed: the reference forbids the request.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped.
    :raises DatabricksRunTimeoutError: ``queued_timeout_seconds`` passed, or ``execution_timeout``
        while deferred.
    :raises AirflowFailException: the reference forbids the rendered request, or the service says
        that it is wrong. Airflow does not retry.
    :raises AirflowException: the service refused the request for another reason. The DAG's
        ``retries`` decide.
    """

    _starts_in_triggerer: ClassVar[bool] = True
    call_name: ClassVar[str] = "runs/submit"
    request_fields: ClassVar[tuple[str, ...]] = (
        "notebook_task",
        "spark_jar_task",
        "spark_python_task",
        "spark_submit_task",
        "pipeline_task",
        "run_job_task",
        "dbt_task",
        "tasks",
        "existing_cluster_id",
        "new_cluster",
        "libraries",
        "environments",
        "run_name",
        "timeout_seconds",
        "idempotency_token",
        "email_notifications",
        "webhook_notifications",
        "notification_settings",
        "access_control_list",
        "git_source",
        "performance_target",
    )
    template_fields: Any = GivenFields(*LaunchRunOperator.template_fields, *request_fields)
    template_fields_renderers: ClassVar[Any] = JsonRenderers(
        "json", "notebook_task", "new_cluster", "tasks", "environments"
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
        dbt_task: StructureOf[Mapping[str, Any]] | None = None,
        tasks: ListOf[JobTask] | None = None,
        existing_cluster_id: Text | None = None,
        new_cluster: StructureOf[NewCluster] | None = None,
        libraries: ListOf[Library] | None = None,
        environments: ListOf[Mapping[str, Any]] | None = None,
        run_name: Text | None = None,
        timeout_seconds: Seconds | None = None,
        idempotency_token: Text | None = None,
        email_notifications: StructureOf[JobEmailNotifications] | None = None,
        webhook_notifications: StructureOf[WebhookNotifications] | None = None,
        notification_settings: StructureOf[JobNotificationSettings] | None = None,
        access_control_list: ListOf[Mapping[str, Any]] | None = None,
        git_source: StructureOf[Mapping[str, Any]] | None = None,
        performance_target: Text | None = None,
        billing_tags: bool | None = None,
        openlineage_inject_parent_job_info: bool | None = None,
        openlineage_inject_transport_info: bool | None = None,
        **kwargs: Unpack[LaunchArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.notebook_task = notebook_task
        self.spark_jar_task = spark_jar_task
        self.spark_python_task = spark_python_task
        self.spark_submit_task = spark_submit_task
        self.pipeline_task = pipeline_task
        self.run_job_task = run_job_task
        self.dbt_task = dbt_task
        self.tasks = tasks
        self.existing_cluster_id = existing_cluster_id
        self.new_cluster = new_cluster
        self.libraries = libraries
        self.environments = environments
        self.run_name = run_name
        self.timeout_seconds = timeout_seconds
        self.idempotency_token = idempotency_token
        self.email_notifications = email_notifications
        self.webhook_notifications = webhook_notifications
        self.notification_settings = notification_settings
        self.access_control_list = access_control_list
        self.git_source = git_source
        self.performance_target = performance_target
        check_optional_flags(billing_tags=billing_tags)
        self.billing_tags = billing_tags
        self.openlineage_inject_parent_job_info = openlineage_flag(
            self, "inject_parent_job_info", openlineage_inject_parent_job_info
        )
        self.openlineage_inject_transport_info = openlineage_flag(
            self, "inject_transport_info", openlineage_inject_transport_info
        )
        self._check_when_parsed()
        json = self.json if isinstance(self.json, Mapping) else {}
        if links := task_run_links(json.get("tasks") if tasks is None else tasks):
            # In a subclass it may be a property, which cannot be set.
            with suppress(AttributeError):
                self.operator_extra_links = (*self.operator_extra_links, *links)

    def _operator_arguments(self) -> dict[str, Any]:
        return {
            **super()._operator_arguments(),
            "billing_tags": self.billing_tags,
            "openlineage_inject_parent_job_info": False,
            "openlineage_inject_transport_info": False,
        }

    def _fields_when_parsed(self, fields: dict[str, Any]) -> dict[str, Any]:
        json = self.json if isinstance(self.json, Mapping) else {}
        request = {**json, **fields}
        if ("pipeline_task" in request or "tasks" in request) and not has_unrendered(request):
            check_pipeline_names(request)
        return fields

    def launch_call(self, context: Context) -> Call[int]:
        """Return the ``runs/submit`` call, named after the task unless it has a name."""
        from airflow_jobs_provider.api.endpoints import submit_run
        from airflow_jobs_provider.operators.run_name import default_run_name

        request = self.request_with_dag_params(context)
        if not request.get("run_name"):
            request["run_name"] = default_run_name(context)
        if request.get("timeout_seconds") is None and self.execution_timeout is not None:
            # The service stops the run even if this task does not exist any more by then.
            request["timeout_seconds"] = math.ceil(self.execution_timeout.total_seconds())
        request = with_pipeline_ids(request, self.hook.find_pipeline_id_by_name)
        request = self._with_billing_tags(request, context, self.billing_tags)
        return submit_run(self._with_openlineage(request, context))
