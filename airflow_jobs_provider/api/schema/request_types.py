"""The data structures of requests, their parts, and the endpoints; :mod:`.types` exports them.

They are apart from those of responses, since a process that launches a run needs these only.
"""

# No "from __future__ import annotations": Required[...] is read when a class is made.

import re
from typing import Annotated, Any, Literal, Required

# Python before 3.12 has a TypedDict that pydantic cannot read.
from typing_extensions import TypedDict

from airflow_jobs_provider.api import states

# -- checks of single values ----------------------------------------------------------------------


class Check:
    """A check of one value, as pydantic metadata.

    A subclass sets ``rule``, the message such as ``must be text``, and implements :meth:`allows`.
    """

    rule = ""

    def allows(self, value: Any) -> bool:
        """Return whether a value is valid."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        allows, rule = self.allows, self.rule

        def check(value: Any) -> Any:
            if allows(value):
                return value
            raise PydanticCustomError("rule", "{rule}", {"rule": rule})

        return core_schema.no_info_plain_validator_function(check)


class StringCheck(Check):
    """The value is text."""

    rule = "must be text"

    def allows(self, value: Any) -> bool:
        """Return whether a value is text."""
        return isinstance(value, str)

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> Any:
        # Pydantic's own check is equal and faster, and a payload is mostly text.
        from pydantic_core import core_schema

        return core_schema.str_schema(strict=True)


class BooleanCheck(Check):
    """The value is true or false, or that as text."""

    rule = "must be true or false"

    def allows(self, value: Any) -> bool:
        """Return whether a value is true or false."""
        return isinstance(value, bool) or value in ("true", "false", "True", "False")


_DIGITS = re.compile(r"\s*[+-]?[0-9]{1,20}\s*", re.ASCII)


class IntegerCheck(Check):
    """The value is a whole number in a range, or that as text.

    :param low: lowest number.
    :param high: highest number.
    """

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.rule = f"must be a whole number from {low} to {high}"

    def allows(self, value: Any) -> bool:
        """Return whether a value is such a number; a boolean is not."""
        if isinstance(value, str):
            return bool(_DIGITS.fullmatch(value)) and self.low <= int(value) <= self.high
        if isinstance(value, float):
            return value.is_integer() and self.low <= value <= self.high
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
        )


class NumberCheck(Check):
    """The value is a number, or that as text."""

    rule = "must be a number"

    def allows(self, value: Any) -> bool:
        """Return whether a value is a number; a boolean is not."""
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return False
        try:
            float(value)
        except (ValueError, OverflowError):
            return False
        return True


class ScalarCheck(Check):
    """The value is text, a number or a boolean, which is sent as text."""

    rule = "must be text, a number, or true or false"

    def allows(self, value: Any) -> bool:
        """Return whether a value is text, a number or a boolean."""
        return isinstance(value, (str, int, float))


class ReferenceName:
    """The reference's name of a map or an enumeration.

    :ivar name: the name.
    :ivar values: the known values of an open enumeration, which accepts any text because the
        service may add values; empty (default) for a map or a closed enumeration.
    """

    def __init__(self, name: str, values: tuple[str, ...] = ()) -> None:
        self.name = name
        self.values = values


class NotIn20:
    """Marks a field that the 2.0 reference does not list.

    :ivar min_version: lowest version that is known to take it; default 2.1.
    """

    def __init__(self, min_version: str = "2.1") -> None:
        self.min_version = min_version


LATER = NotIn20()
# The reference does not list the field, but version 2.0 takes it.
UNDOCUMENTED_IN_2_0 = NotIn20("2.0")
_TWO_31, _TWO_63 = 2**31, 2**63
String = Annotated[str, StringCheck()]
Bool = Annotated[bool, BooleanCheck()]
Int32 = Annotated[int, IntegerCheck(-_TWO_31, _TWO_31 - 1)]
Int64 = Annotated[int, IntegerCheck(-_TWO_63, _TWO_63 - 1)]
Double = Annotated[float, NumberCheck()]
Scalar = Annotated[str | int | float | bool, ScalarCheck()]


class Structure(TypedDict, total=False):
    """Base of all structures; fields that are not listed pass unchecked."""

    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012


# -- enumerations ---------------------------------------------------------------------------------

AzureAvailability = Annotated[
    Literal["SPOT_AZURE", "ON_DEMAND_AZURE", "SPOT_WITH_FALLBACK_AZURE"],
    ReferenceName("AzureAvailability"),
]
PauseStatus = Literal["PAUSED", "UNPAUSED"]
ViewsToExport = Annotated[Literal["CODE", "DASHBOARDS", "ALL"], ReferenceName("ViewsToExport")]
RunType = Literal["JOB_RUN", "WORKFLOW_RUN", "SUBMIT_RUN"]
RunLifeCycleState = Annotated[
    String, ReferenceName("RunLifeCycleState", tuple(map(str, states.RunLifeCycleState)))
]
RunResultState = Annotated[
    String, ReferenceName("RunResultState", tuple(map(str, states.RunResultState)))
]
TriggerType = Annotated[String, ReferenceName("TriggerType", ("PERIODIC", "ONE_TIME", "RETRY"))]
ViewType = Annotated[String, ReferenceName("ViewType", ("NOTEBOOK", "DASHBOARD"))]

# -- maps -----------------------------------------------------------------------------------------

ParamPair = Annotated[dict[String, String], ReferenceName("ParamPair")]
ClusterTag = Annotated[dict[String, String], ReferenceName("ClusterTag")]
# The reference says STRING; its own example has a number and a boolean.
SparkConfPair = Annotated[dict[String, Scalar], ReferenceName("SparkConfPair")]
SparkEnvPair = Annotated[dict[String, String], ReferenceName("SparkEnvPair")]

# -- clusters -------------------------------------------------------------------------------------


class WorkspaceStorageInfo(Structure, total=False):
    """A file in the workspace (reference: "WorkspaceStorageInfo")."""

    destination: Required[String]


class DbfsStorageInfo(Structure, total=False):
    """A place in DBFS (reference: "DbfsStorageInfo")."""

    destination: Required[String]


class FileStorageInfo(Structure, total=False):
    """A file on the cluster's machines, with container services (reference: "FileStorageInfo")."""

    destination: Required[String]


class ABFSSStorageInfo(Structure, total=False):
    """A place in Azure Data Lake Storage (reference: "ABFSSStorageInfo")."""

    destination: Required[String]


class InitScriptInfo(Structure, total=False):
    """Where an init script is; exactly one place (reference: "InitScriptInfo")."""

    workspace: WorkspaceStorageInfo
    dbfs: DbfsStorageInfo
    abfss: ABFSSStorageInfo
    file: FileStorageInfo


class ClusterLogConf(Structure, total=False):
    """Where the cluster's logs go; exactly one place (reference: "ClusterLogConf")."""

    dbfs: DbfsStorageInfo


class AutoScale(Structure, total=False):
    """Minimum and maximum number of workers (reference: "AutoScale")."""

    min_workers: Int32
    max_workers: Int32


class AzureAttributes(Structure, total=False):
    """Azure attributes of a cluster (reference: "AzureAttributes")."""

    first_on_demand: Int32
    availability: AzureAvailability
    spot_bid_max_price: Double


class NewCluster(Structure, total=False):
    """A cluster that is created for a run (reference: "NewCluster")."""

    num_workers: Int32
    autoscale: AutoScale
    spark_version: String
    spark_conf: SparkConfPair
    node_type_id: String
    driver_node_type_id: String
    custom_tags: ClusterTag
    cluster_log_conf: ClusterLogConf
    init_scripts: list[InitScriptInfo]
    spark_env_vars: SparkEnvPair
    enable_elastic_disk: Bool
    driver_instance_pool_id: String
    instance_pool_id: String
    azure_attributes: Annotated[AzureAttributes, UNDOCUMENTED_IN_2_0]
    policy_id: Annotated[String, UNDOCUMENTED_IN_2_0]


class MavenLibrary(Structure, total=False):
    """A library from Maven (reference: "MavenLibrary")."""

    coordinates: Required[String]
    repo: String
    exclusions: list[String]


class PythonPyPiLibrary(Structure, total=False):
    """A library from PyPI (reference: "PythonPyPiLibrary")."""

    package: Required[String]
    repo: String


class RCranLibrary(Structure, total=False):
    """A library from CRAN (reference: "RCranLibrary")."""

    package: Required[String]
    repo: String


class Library(Structure, total=False):
    """A library to install; exactly one kind (reference: "Library")."""

    jar: String
    egg: String
    whl: String
    pypi: PythonPyPiLibrary
    maven: MavenLibrary
    cran: RCranLibrary


class ClusterSpec(Structure, total=False):
    """The cluster and libraries of a run (reference: "ClusterSpec")."""

    existing_cluster_id: String
    new_cluster: NewCluster
    libraries: list[Library]


# -- tasks ----------------------------------------------------------------------------------------


class NotebookTask(Structure, total=False):
    """A notebook and its parameters (reference: "NotebookTask")."""

    notebook_path: Required[String]
    revision_timestamp: Int64
    base_parameters: ParamPair


class SparkJarTask(Structure, total=False):
    """A JAR's main class (reference: "SparkJarTask")."""

    jar_uri: String
    main_class_name: String
    parameters: list[String]


class SparkPythonTask(Structure, total=False):
    """A Python file (reference: "SparkPythonTask")."""

    python_file: Required[String]
    parameters: list[String]


class SparkSubmitTask(Structure, total=False):
    """A spark-submit command line (reference: "SparkSubmitTask")."""

    parameters: list[String]


class PipelineTask(Structure, total=False):
    """A Delta Live Tables pipeline (reference: "PipelineTask")."""

    pipeline_id: String


class RunJobTask(Structure, total=False):
    """Another job (reference: "RunJobTask"). The ids of jobs outgrew the INT32 named there."""

    job_id: Required[Int64]


class JobTask(Structure, total=False):
    """A task; exactly one kind (reference: "JobTask")."""

    notebook_task: NotebookTask
    spark_jar_task: SparkJarTask
    spark_python_task: SparkPythonTask
    spark_submit_task: SparkSubmitTask
    pipeline_task: PipelineTask
    run_job_task: RunJobTask
    for_each_task: Annotated["ForEachTask", LATER]


# -- notifications, health, schedule --------------------------------------------------------------


class JobEmailNotifications(Structure, total=False):
    """Email addresses by event (reference: "JobEmailNotifications")."""

    on_start: list[String]
    on_success: list[String]
    on_failure: list[String]
    on_duration_warning_threshold_exceeded: list[String]
    no_alert_for_skipped_runs: Bool


class Webhook(Structure, total=False):
    """A notification destination of the workspace (reference: "Webhook")."""

    id: Required[String]


class WebhookNotifications(Structure, total=False):
    """Notification destinations by event (reference: "WebhookNotifications")."""

    on_start: list[Webhook]
    on_success: list[Webhook]
    on_failure: list[Webhook]
    on_duration_warning_threshold_exceeded: list[Webhook]


class JobNotificationSettings(Structure, total=False):
    """Settings of the notifications (reference: "JobNotificationSettings")."""

    no_alert_for_skipped_runs: Bool
    no_alert_for_canceled_runs: Bool
    alert_on_last_attempt: Bool


class JobsHealthRule(Structure, total=False):
    """A metric of a run's health and its threshold (reference: "JobsHealthRule").

    Later versions measure bytes, which outgrow the INT32 named there.
    """

    metric: String
    operator: Literal["GREATER_THAN"]
    value: Int64


class JobsHealthRules(Structure, total=False):
    """The health rules of a job (reference: "JobsHealthRules")."""

    rules: list[JobsHealthRule]


class CronSchedule(Structure, total=False):
    """The schedule of a job (reference: "CronSchedule")."""

    quartz_cron_expression: Required[String]
    timezone_id: Required[String]
    pause_status: PauseStatus


# -- jobs -----------------------------------------------------------------------------------------


class TaskSettings(ClusterSpec, JobTask, total=False):
    """One of several tasks, in the form of API 2.1 and later."""

    task_key: Annotated[String, LATER]
    job_cluster_key: Annotated[String, LATER]
    timeout_seconds: Annotated[Int32, LATER]
    max_retries: Annotated[Int32, LATER]
    min_retry_interval_millis: Annotated[Int32, LATER]
    retry_on_timeout: Annotated[Bool, LATER]
    email_notifications: Annotated[JobEmailNotifications, LATER]
    webhook_notifications: Annotated[WebhookNotifications, LATER]
    health: Annotated[JobsHealthRules, LATER]


class ForEachTaskRunStats(Structure, total=False):
    """How many iterations a for-each task has, in the form of API 2.1 and later."""

    total_iterations: Annotated[Int32, LATER]


class ForEachStats(Structure, total=False):
    """The counts of a for-each task, in the form of API 2.1 and later."""

    task_run_stats: Annotated[ForEachTaskRunStats, LATER]


class ForEachTask(Structure, total=False):
    """A task run once for each input, in the form of API 2.1 and later."""

    task: Annotated[TaskSettings, LATER]
    stats: Annotated[ForEachStats, LATER]


class JobCluster(Structure, total=False):
    """A cluster that several tasks share, in the form of API 2.1 and later."""

    job_cluster_key: Annotated[String, LATER]
    new_cluster: Annotated[NewCluster, LATER]


class JobSettings(ClusterSpec, JobTask, total=False):
    """The settings of a job (reference: "JobSettings")."""

    name: String
    email_notifications: JobEmailNotifications
    webhook_notifications: WebhookNotifications
    notification_settings: JobNotificationSettings
    timeout_seconds: Int32
    max_retries: Int32
    min_retry_interval_millis: Int32
    retry_on_timeout: Bool
    schedule: CronSchedule
    max_concurrent_runs: Int32
    health: JobsHealthRules
    tasks: Annotated[list[TaskSettings], LATER]
    job_clusters: Annotated[list[JobCluster], LATER]


# -- runs -----------------------------------------------------------------------------------------


class RunParameters(Structure, total=False):
    """The parameters of one run; one kind only (reference: "RunParameters")."""

    jar_params: list[String]
    notebook_params: ParamPair
    python_params: list[String]
    spark_submit_params: list[String]


# -- requests -------------------------------------------------------------------------------------


class CreateRequest(JobSettings, total=False):
    """Create a job (reference: "Create")."""


class ListRequest(Structure, total=False):
    """List jobs (reference: "List"); in later versions by pages and by name."""

    # Version 2.0 ignores these, and returns all jobs with all settings.
    limit: Annotated[Int32, UNDOCUMENTED_IN_2_0]
    name: Annotated[String, UNDOCUMENTED_IN_2_0]
    expand_tasks: Annotated[Bool, UNDOCUMENTED_IN_2_0]
    offset: Annotated[Int32, LATER]
    page_token: Annotated[String, LATER]
    include_user_names: Annotated[Bool, LATER]


class DeleteRequest(Structure, total=False):
    """Delete a job (reference: "Delete")."""

    job_id: Required[Int64]


class GetRequest(Structure, total=False):
    """Read a job (reference: "Get")."""

    job_id: Required[Int64]


class ResetRequest(Structure, total=False):
    """Overwrite all settings of a job (reference: "Reset")."""

    job_id: Required[Int64]
    new_settings: Required[JobSettings]


class UpdateRequest(Structure, total=False):
    """Change or remove some settings of a job (reference: "Update")."""

    job_id: Required[Int64]
    new_settings: JobSettings
    fields_to_remove: list[String]


class RunNowRequest(RunParameters, total=False):
    """Run a job now (reference: "Run now")."""

    job_id: Required[Int64]
    idempotency_token: String


class RunsSubmitRequest(ClusterSpec, JobTask, total=False):
    """Submit a one-time run (reference: "Runs submit")."""

    run_name: String
    webhook_notifications: WebhookNotifications
    notification_settings: JobNotificationSettings
    timeout_seconds: Int32
    idempotency_token: String
    email_notifications: Annotated[JobEmailNotifications, LATER]
    health: Annotated[JobsHealthRules, LATER]
    tasks: Annotated[list[TaskSettings], LATER]
    job_clusters: Annotated[list[JobCluster], LATER]


class RunsListRequest(Structure, total=False):
    """List runs, latest start first (reference: "Runs list")."""

    active_only: Bool
    completed_only: Bool
    job_id: Int64
    offset: Int32
    limit: Int32
    run_type: RunType
    page_token: Annotated[String, LATER]


class RunsGetRequest(Structure, total=False):
    """Read a run (reference: "Runs get")."""

    run_id: Required[Int64]


class RunsExportRequest(Structure, total=False):
    """Export a notebook run as HTML (reference: "Runs export")."""

    run_id: Required[Int64]
    views_to_export: ViewsToExport


class RunsCancelRequest(Structure, total=False):
    """Cancel a run (reference: "Runs cancel")."""

    run_id: Required[Int64]


class RunsCancelAllRequest(Structure, total=False):
    """Cancel all runs of a job (reference: "Runs cancel all")."""

    job_id: Required[Int64]


class RunsGetOutputRequest(Structure, total=False):
    """Read the output of a run (reference: "Runs get output")."""

    run_id: Required[Int64]


class RunsDeleteRequest(Structure, total=False):
    """Delete a run that has ended (reference: "Runs delete")."""

    run_id: Required[Int64]


class Endpoint:
    """One endpoint of the reference.

    :ivar section: heading in the reference.
    :ivar verb: HTTP verb.
    :ivar path: path below ``/api/2.0/jobs/``; the name of the call.
    :ivar request: structure of the request.
    """

    def __init__(self, section: str, verb: Literal["GET", "POST"], path: str, request: Any) -> None:
        self.section = section
        self.verb = verb
        self.path = path
        self.request = request


ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("Create", "POST", "create", CreateRequest),
        Endpoint("List", "GET", "list", ListRequest),
        Endpoint("Delete", "POST", "delete", DeleteRequest),
        Endpoint("Get", "GET", "get", GetRequest),
        Endpoint("Reset", "POST", "reset", ResetRequest),
        Endpoint("Update", "POST", "update", UpdateRequest),
        Endpoint("Run now", "POST", "run-now", RunNowRequest),
        Endpoint("Runs submit", "POST", "runs/submit", RunsSubmitRequest),
        Endpoint("Runs list", "GET", "runs/list", RunsListRequest),
        Endpoint("Runs get", "GET", "runs/get", RunsGetRequest),
        Endpoint("Runs export", "GET", "runs/export", RunsExportRequest),
        Endpoint("Runs cancel", "POST", "runs/cancel", RunsCancelRequest),
        Endpoint("Runs cancel all", "POST", "runs/cancel-all", RunsCancelAllRequest),
        Endpoint("Runs get output", "GET", "runs/get-output", RunsGetOutputRequest),
        Endpoint("Runs delete", "POST", "runs/delete", RunsDeleteRequest),
    )
}
