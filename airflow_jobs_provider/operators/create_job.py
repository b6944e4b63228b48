"""DatabricksCreateJobsOperator: creates a job, or resets it to these settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.operators.argument_checks import (
    check_optional_flags,
    flag_or_option,
    to_seconds,
)
from airflow_jobs_provider.operators.payload import GivenFields, JsonRenderers, PayloadOperator
from airflow_jobs_provider.operators.payload_validation import check_before_sending

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_jobs_provider.api.schema.types import (
        CronSchedule,
        JobCluster,
        JobEmailNotifications,
        JobNotificationSettings,
        JobsHealthRules,
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
        Flag,
        ListOf,
        Number,
        PayloadArguments,
        Seconds,
        StructureOf,
        Text,
    )

__all__ = ["DatabricksCreateJobsOperator"]


class DatabricksCreateJobsOperator(PayloadOperator):
    """Create a job, or reset the job of that name to these settings, and return its job_id.

    ::

        DatabricksCreateJobsOperator(
            task_id="define",
            name="Nightly model training",
            existing_cluster_id="0923-164208-meows279",
            notebook_task={"notebook_path": "/Shared/train"},
        )

    XCom ``return_value`` is the job_id. The job is found by its name, so a name must be given;
    running the task again changes the same job. Creating is not repeated when its response was
    lost; the task's next try finds the job.

    Every setting can be given as an argument or in ``json``, also those of later API versions that
    have no argument here. The argument takes precedence. All are templated, take XComArgs, and are
    not sent by default. Reference: "Create", "Reset", "JobSettings".

    :param name: name of the job.
    :param description: description of the job, in later API versions.
    :param tags: tags of the job, in later API versions.
    :param notebook_task: a notebook and its parameters (reference: "NotebookTask").
    :param spark_jar_task: the main class of a JAR (reference: "SparkJarTask").
    :param spark_python_task: a Python file (reference: "SparkPythonTask").
    :param spark_submit_task: a spark-submit command line (reference: "SparkSubmitTask").
    :param pipeline_task: a Delta Live Tables pipeline (reference: "PipelineTask").
    :param run_job_task: another job (reference: "RunJobTask").
    :param tasks: several tasks, in the form of later API versions.
    :param job_clusters: clusters that tasks share, in later API versions.
    :param environments: environments of the serverless tasks, in later API versions.
    :param existing_cluster_id: cluster to run on.
    :param new_cluster: cluster to create for each run (reference: "NewCluster").
    :param libraries: libraries to install on the cluster (reference: "Library").
    :param email_notifications: who is notified by e-mail (reference: "JobEmailNotifications").
    :param webhook_notifications: webhooks that are notified (reference: "WebhookNotifications").
    :param notification_settings: which notifications are left out (reference:
        "JobNotificationSettings").
    :param timeout_seconds: seconds, or a timedelta, after which the service stops a run; default no
        limit.
    :param max_retries: retries of a run by the service, -1 for no limit; default 0.
    :param min_retry_interval_millis: milliseconds between two attempts of a run; default 0.
    :param retry_on_timeout: retry a run that timed out; default False.
    :param schedule: when the service runs the job (reference: "CronSchedule").
    :param trigger: what makes the service run the job, such as a file that arrives, in later API
        versions.
    :param max_concurrent_runs: runs at a time, 0 to 1000; default 1.
    :param health: health rules (reference: "JobsHealthRules").
    :param git_source: repository of the code, in later API versions.
    :param performance_target: ``PERFORMANCE_OPTIMIZED`` or ``STANDARD``, for serverless tasks in
        later API versions. The service ignores any other value.
    :param access_control_list: permissions on the job. A new job is created with them. To those of
        an existing job they are added before it is reset: somebody who is not in the list keeps
        the permissions. An empty list changes nothing.
    :param polling_period_seconds: without effect, as in the official provider: this task waits for
        nothing. Default None.
    :param billing_tags: add tags with the DAG, the task and its owner to the job's ``tags`` and to
        the ``custom_tags`` of each new cluster, for billing reports; see
        :mod:`airflow_jobs_provider.operators.billing_tags`. Default ``[databricks_jobs]
        billing_tags``, else False.
    :param kwargs: the shared arguments; see
        :class:`~airflow_jobs_provider.operators.arguments.PayloadArguments`. The DAG's ``params``
        become the job's ``parameters``, with the DAG run's values as defaults.
    :raises InvalidRequestError: when the DAG is parsed: the reference forbids the settings.
    :raises AirflowFailException: the reference forbids the rendered settings, the service says that
        they are wrong, or no name was given. Airflow does not retry.
    :raises AirflowException: the service refused the request for another reason, or several jobs
        have the name. The DAG's ``retries`` decide.
    """

    call_name: ClassVar[str] = "create"
    request_fields: ClassVar[tuple[str, ...]] = (
        "name",
        "description",
        "tags",
        "notebook_task",
        "spark_jar_task",
        "spark_python_task",
        "spark_submit_task",
        "pipeline_task",
        "run_job_task",
        "tasks",
        "job_clusters",
        "environments",
        "existing_cluster_id",
        "new_cluster",
        "libraries",
        "email_notifications",
        "webhook_notifications",
        "notification_settings",
        "timeout_seconds",
        "max_retries",
        "min_retry_interval_millis",
        "retry_on_timeout",
        "schedule",
        "trigger",
        "max_concurrent_runs",
        "health",
        "git_source",
        "performance_target",
        "access_control_list",
    )
    template_fields: Any = GivenFields(*PayloadOperator.template_fields, *request_fields)
    template_fields_renderers: ClassVar[Any] = JsonRenderers(
        "json", "notebook_task", "new_cluster", "tasks", "job_clusters", "environments"
    )

    def __init__(
        self,
        *,
        name: Text | None = None,
        description: Text | None = None,
        tags: StructureOf[Mapping[str, str]] | None = None,
        notebook_task: StructureOf[NotebookTask] | None = None,
        spark_jar_task: StructureOf[SparkJarTask] | None = None,
        spark_python_task: StructureOf[SparkPythonTask] | None = None,
        spark_submit_task: StructureOf[SparkSubmitTask] | None = None,
        pipeline_task: StructureOf[PipelineTask] | None = None,
        run_job_task: StructureOf[RunJobTask] | None = None,
        tasks: ListOf[JobTask] | None = None,
        job_clusters: ListOf[JobCluster] | None = None,
        environments: ListOf[Mapping[str, Any]] | None = None,
        existing_cluster_id: Text | None = None,
        new_cluster: StructureOf[NewCluster] | None = None,
        libraries: ListOf[Library] | None = None,
        email_notifications: StructureOf[JobEmailNotifications] | None = None,
        webhook_notifications: StructureOf[WebhookNotifications] | None = None,
        notification_settings: StructureOf[JobNotificationSettings] | None = None,
        timeout_seconds: Seconds | None = None,
        max_retries: Number | None = None,
        min_retry_interval_millis: Number | None = None,
        retry_on_timeout: Flag | None = None,
        schedule: StructureOf[CronSchedule] | None = None,
        trigger: StructureOf[Mapping[str, Any]] | None = None,
        max_concurrent_runs: Number | None = None,
        health: StructureOf[JobsHealthRules] | None = None,
        git_source: StructureOf[Mapping[str, Any]] | None = None,
        performance_target: Text | None = None,
        access_control_list: ListOf[Mapping[str, Any]] | None = None,
        polling_period_seconds: float | timedelta | None = None,
        billing_tags: bool | None = None,
        **kwargs: Unpack[PayloadArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.description = description
        self.tags = tags
        self.notebook_task = notebook_task
        self.spark_jar_task = spark_jar_task
        self.spark_python_task = spark_python_task
        self.spark_submit_task = spark_submit_task
        self.pipeline_task = pipeline_task
        self.run_job_task = run_job_task
        self.tasks = tasks
        self.job_clusters = job_clusters
        self.environments = environments
        self.existing_cluster_id = existing_cluster_id
        self.new_cluster = new_cluster
        self.libraries = libraries
        self.email_notifications = email_notifications
        self.webhook_notifications = webhook_notifications
        self.notification_settings = notification_settings
        self.timeout_seconds = timeout_seconds
        self.max_retries = max_retries
        self.min_retry_interval_millis = min_retry_interval_millis
        self.retry_on_timeout = retry_on_timeout
        self.schedule = schedule
        self.trigger = trigger
        self.max_concurrent_runs = max_concurrent_runs
        self.health = health
        self.git_source = git_source
        self.performance_target = performance_target
        self.access_control_list = access_control_list
        self.polling_period_seconds = to_seconds(
            "polling_period_seconds", polling_period_seconds, optional=True
        )
        check_optional_flags(billing_tags=billing_tags)
        self.billing_tags = billing_tags
        self._check_when_parsed()

    def arguments_without_effect(self) -> dict[str, str]:
        """Return the arguments that were given and have no effect, each with the reason."""
        found = super().arguments_without_effect()
        if self.polling_period_seconds is not None:
            found["polling_period_seconds"] = "this task waits for nothing"
        return found

    def execute(self, context: Context) -> int:
        """Find the job by its name; reset it, or create it if there is none."""
        from airflow_jobs_provider.api.workflows.permissions import (
            create_with_permissions,
            reset_with_permissions,
            without_permissions,
        )

        self._log_arguments_without_effect()
        with airflow_exceptions():
            settings = self.request_with_dag_params(context)
            name = settings.get("name")
            if not name:
                raise AirflowFailException("name must be given: it is what the job is found by")
            settings = self._with_billing_tags(settings, context)
            client = self.hook.client
            checked = without_permissions(settings)
            check_before_sending("create", checked, validate=self.validate, client=client)
            # The hook checks the permissions with the request that they are sent in.
            hook = self.hook if settings.get("access_control_list") else None
            job_id = self.hook.find_job_id_by_name(str(name))
            if job_id is None:
                call = create_with_permissions(checked)
                job_id = hook.create_job(settings) if hook else client.send(call)
                self.log.info("Created job %s, %r.", job_id, name)
                return job_id
            if hook:
                hook.reset_job(job_id, settings)
            else:
                for call_of_reset in reset_with_permissions(job_id, checked):
                    client.send(call_of_reset)
            self.log.info("Reset job %s, %r, to the settings given.", job_id, name)
            return job_id

    def _with_billing_tags(self, settings: dict[str, Any], context: Context) -> dict[str, Any]:
        """Return the job's settings with billing tags, if they are asked for."""
        if not flag_or_option("billing_tags", self.billing_tags, "databricks_jobs", "billing_tags"):
            return settings
        from airflow_jobs_provider.api.versions import OLDEST_API_VERSION
        from airflow_jobs_provider.operators.billing_tags import (
            TagRules,
            task_tags,
            with_cluster_tags,
            with_job_tags,
        )

        tags = task_tags(context, self)
        rules = TagRules.for_workspace(self.workspace_url)
        if self.hook.client.api_version == OLDEST_API_VERSION:  # A job has no tags there.
            return with_cluster_tags(settings, tags, rules, self.log)
        return with_job_tags(settings, tags, rules, self.log)
