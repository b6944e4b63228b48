"""DatabricksCreateJobsOperator: a job of this name, with these settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.operators.payload import PayloadOperator
from airflow_jobs_provider.operators.validation import check_before_sending

if TYPE_CHECKING:
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
            new_cluster={"spark_version": "15.4.x-scala2.12", "num_workers": 2, ...},
            notebook_task={"notebook_path": "/Shared/train"},
        )

    XCom ``return_value`` is the job_id. A name must be given, since it is what the job is found by:
    running the task again changes the same job. Creating is not repeated when its answer got lost;
    the task's next try finds the job.

    Every setting can be given by its own name or in ``json``; the own name wins. All are templated
    and take XComArgs. Reference: "Create", "Reset", "JobSettings".

    :param json: the settings as one dict or as text, JSON or a Python literal; also those of later
        API versions that have no parameter here.
    :param name: name of the job.
    :param description: what the job is for, in later API versions.
    :param tags: tags of the job, in later API versions.
    :param notebook_task: a notebook and its parameters (reference: "NotebookTask").
    :param spark_jar_task: a JAR's main class (reference: "SparkJarTask").
    :param spark_python_task: a Python file (reference: "SparkPythonTask").
    :param spark_submit_task: a spark-submit command line (reference: "SparkSubmitTask").
    :param pipeline_task: a Delta Live Tables pipeline (reference: "PipelineTask").
    :param run_job_task: another job (reference: "RunJobTask").
    :param tasks: tasks in the form of later API versions.
    :param job_clusters: clusters that tasks share, in later API versions.
    :param existing_cluster_id: cluster to run on.
    :param new_cluster: cluster to make for each run (reference: "NewCluster").
    :param libraries: libraries to install on the cluster (reference: "Library").
    :param email_notifications: whom to tell (reference: "JobEmailNotifications").
    :param webhook_notifications: destinations to tell (reference: "WebhookNotifications").
    :param notification_settings: when to stay silent (reference: "JobNotificationSettings").
    :param timeout_seconds: seconds, or a timedelta, after which the service stops a run; default
        none.
    :param max_retries: retries of a run by the service, -1 for no end; default none.
    :param min_retry_interval_millis: milliseconds between two tries; default none.
    :param retry_on_timeout: whether a run that timed out is retried; default not.
    :param schedule: when the job runs by itself (reference: "CronSchedule").
    :param max_concurrent_runs: runs at a time, 0 to 1000; default 1.
    :param health: health rules (reference: "JobsHealthRules").
    :param git_source: repository of the code, in later API versions.
    :param access_control_list: permissions on the job. A new job is created with them. To those of
        an existing job they are added before it is reset: who is not in the list keeps what
        permissions there are. An empty list changes nothing.
    :param forward_dag_params: keep the DAG's ``params`` as the job's ``parameters``, with the DAG
        run's values as defaults, if the settings have no ``parameters``; default True. A param that
        is None is left out.
    :param databricks_conn_id: Airflow connection; default ``databricks_default``.
    :param databricks_retry_limit: tries of a request at the most; by default time decides.
    :param databricks_retry_delay: seconds, or a timedelta, before the second try; by default it
        depends on what went wrong.
    :param databricks_retry_args: arguments for tenacity in place of the policy's own.
    :param validate: check the settings before they are sent, and when the DAG is parsed if they
        hold no template; default True.
    :raises InvalidRequestError: when the DAG is parsed: the reference forbids the settings.
    :raises AirflowFailException: the same after rendering; the service says that the settings are
        wrong; or no name was given.
    :raises AirflowException: the service refused for another reason, or several jobs have the name.
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
        "max_concurrent_runs",
        "health",
        "git_source",
        "access_control_list",
    )
    template_fields: Sequence[str] = (*PayloadOperator.template_fields, *request_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("json", "notebook_task", "new_cluster", "tasks", "job_clusters"), "json"
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
        max_concurrent_runs: Number | None = None,
        health: StructureOf[JobsHealthRules] | None = None,
        git_source: StructureOf[Mapping[str, Any]] | None = None,
        access_control_list: ListOf[Mapping[str, Any]] | None = None,
        **kwargs: Any,
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
        self.max_concurrent_runs = max_concurrent_runs
        self.health = health
        self.git_source = git_source
        self.access_control_list = access_control_list
        self._check_when_parsed()

    def execute(self, context: Context) -> int:
        """Find the job by its name; reset it, or create it if there is none."""
        from airflow_jobs_provider.api.workflows.permissions import without_permissions

        with airflow_exceptions():
            settings = self.request_with_dag_params(context)
            name = settings.get("name")
            if not name:
                raise AirflowFailException("name must be given: it is what the job is found by")
            # The hook checks permissions with the request that they go into.
            check_before_sending(
                "create",
                without_permissions(settings),
                validate=self.validate,
                client=self.hook.client,
            )
            try:
                job_id = self.hook.find_job_id_by_name(str(name))
            except ValueError as error:  # several jobs have the name
                raise AirflowException(str(error)) from error
            if job_id is None:
                job_id = self.hook.create_job(settings)
                self.log.info("Created job %s, %r.", job_id, name)
                return job_id
            self.hook.reset_job(job_id, settings)
            self.log.info("Reset job %s, %r, to the settings given.", job_id, name)
            return job_id
