"""The data structures of responses; :mod:`.types` exports them."""

# No "from __future__ import annotations": Required[...] is read when a class is made.

from typing import Annotated

from airflow_jobs_provider.api.schema.request_types import (
    LATER,
    Bool,
    ClusterSpec,
    CronSchedule,
    ForEachTask,
    Int32,
    Int64,
    JobSettings,
    JobTask,
    RunLifeCycleState,
    RunParameters,
    RunResultState,
    String,
    Structure,
    TriggerType,
    ViewType,
)


class ClusterInstance(Structure, total=False):
    """The cluster and Spark context that a run used (reference: "ClusterInstance")."""

    cluster_id: String
    spark_context_id: String


class Job(Structure, total=False):
    """A job with its settings (reference: "Job")."""

    job_id: Int64
    creator_user_name: String
    run_as: String
    settings: JobSettings
    created_time: Int64


class RunState(Structure, total=False):
    """The state and result of a run (reference: "RunState")."""

    life_cycle_state: RunLifeCycleState
    result_state: RunResultState
    user_cancelled_or_timedout: Bool
    state_message: String


class RunTask(ClusterSpec, JobTask, total=False):
    """A task of a run, or an iteration of a for-each task, in the form of API 2.1 and later."""

    run_id: Annotated[Int64, LATER]
    task_key: Annotated[String, LATER]
    state: Annotated[RunState, LATER]
    start_time: Annotated[Int64, LATER]
    end_time: Annotated[Int64, LATER]
    attempt_number: Annotated[Int32, LATER]
    original_attempt_run_id: Annotated[Int64, LATER]
    run_page_url: Annotated[String, LATER]


class RepairHistoryItem(Structure, total=False):
    """The original run or a repair of it, in the form of API 2.1 and later."""

    id: Annotated[Int64, LATER]
    type: Annotated[String, LATER]
    state: Annotated[RunState, LATER]
    start_time: Annotated[Int64, LATER]
    end_time: Annotated[Int64, LATER]


class JobParameter(Structure, total=False):
    """A parameter of a job and its value in a run, in the form of API 2.1 and later."""

    name: Annotated[String, LATER]
    default: Annotated[String, LATER]
    value: Annotated[String, LATER]


class Run(Structure, total=False):
    """A run without its output (reference: "Run")."""

    job_id: Int64
    run_id: Int64
    creator_user_name: String
    number_in_job: Int64
    original_attempt_run_id: Int64
    state: RunState
    schedule: CronSchedule
    task: JobTask
    cluster_spec: ClusterSpec
    cluster_instance: ClusterInstance
    overriding_parameters: RunParameters
    start_time: Int64
    setup_duration: Int64
    execution_duration: Int64
    cleanup_duration: Int64
    end_time: Int64
    trigger: TriggerType
    run_name: String
    run_page_url: String
    run_type: String
    attempt_number: Int32
    format: Annotated[String, LATER]
    task_key: Annotated[String, LATER]
    tasks: Annotated[list[RunTask], LATER]
    for_each_task: Annotated[ForEachTask, LATER]
    iterations: Annotated[list[RunTask], LATER]
    repair_history: Annotated[list[RepairHistoryItem], LATER]
    job_parameters: Annotated[list[JobParameter], LATER]
    has_more: Annotated[Bool, LATER]
    next_page_token: Annotated[String, LATER]


class NotebookOutput(Structure, total=False):
    """The exit value of a notebook (reference: "NotebookOutput")."""

    result: String
    truncated: Bool


class ViewItem(Structure, total=False):
    """One exported view of a run, as HTML (reference: "ViewItem")."""

    content: String
    name: String
    type: ViewType


class CreateResponse(Structure, total=False):
    """The new job (reference: "Create")."""

    job_id: Int64


class ListResponse(Structure, total=False):
    """The jobs (reference: "List")."""

    jobs: list[Job]


class GetResponse(Structure, total=False):
    """A job and its settings (reference: "Get")."""

    job_id: Int64
    creator_user_name: String
    settings: JobSettings
    created_time: Int64


class RunNowResponse(Structure, total=False):
    """The run that was started (reference: "Run now")."""

    run_id: Int64
    number_in_job: Int64


class RunsSubmitResponse(Structure, total=False):
    """The run that was started (reference: "Runs submit")."""

    run_id: Int64


class RunsListResponse(Structure, total=False):
    """A page of runs (reference: "Runs list")."""

    runs: list[Run]
    has_more: Bool
    next_page_token: Annotated[String, LATER]


class RunsGetResponse(Run, total=False):
    """A run (reference: "Runs get")."""

    run_duration: Int64


class RunsExportResponse(Structure, total=False):
    """The views of a run (reference: "Runs export")."""

    views: list[ViewItem]


class RunsGetOutputResponse(Structure, total=False):
    """Output or error of a run, and the run (reference: "Runs get output")."""

    notebook_output: NotebookOutput
    error: String
    error_trace: Annotated[String, LATER]
    metadata: Run


# -- the Pipelines API ----------------------------------------------------------------------------


class PipelineStateInfo(Structure, total=False):
    """A pipeline in the list of pipelines (Pipelines API: "List pipelines")."""

    pipeline_id: String
    name: String
    state: String
    creator_user_name: String
    cluster_id: String


#: The responses of the endpoints by path. Others answer with an empty object.
RESPONSES = {
    "create": CreateResponse,
    "list": ListResponse,
    "get": GetResponse,
    "run-now": RunNowResponse,
    "runs/submit": RunsSubmitResponse,
    "runs/list": RunsListResponse,
    "runs/get": RunsGetResponse,
    "runs/export": RunsExportResponse,
    "runs/get-output": RunsGetOutputResponse,
}
