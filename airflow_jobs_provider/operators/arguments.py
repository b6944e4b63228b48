"""The arguments that the operators and the sensor share, for editors and type checkers.

Each argument is described once, here. An operator lists its own arguments and takes the others as
``**kwargs`` of one of these types, so that an editor completes them.

An argument that takes a structure of the reference takes also any other mapping, since a field that
the reference does not know is sent unchanged; text of one, such as a template; and what another
task returns.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Required, TypeAlias, TypedDict, TypeVar

from airflow.providers.common.compat.sdk import XComArg

__all__ = [
    "AirflowArguments",
    "AirflowSensorArguments",
    "CompletionArguments",
    "ConnectionArguments",
    "Flag",
    "HookArguments",
    "Id",
    "LaunchArguments",
    "ListOf",
    "Number",
    "OperatorArguments",
    "PayloadArguments",
    "Seconds",
    "SensorArguments",
    "StructureOf",
    "TaskArguments",
    "Text",
    "WaitArguments",
]

T = TypeVar("T")

StructureOf: TypeAlias = T | Mapping[str, Any] | str | XComArg
ListOf: TypeAlias = Sequence[T] | Sequence[Any] | str | XComArg
Text: TypeAlias = str | XComArg
# As text where a template gives them.
Number: TypeAlias = int | str | XComArg
Seconds: TypeAlias = Number | timedelta
Flag: TypeAlias = bool | str | XComArg
Id: TypeAlias = int | str | XComArg


class AirflowArguments(TypedDict, total=False):
    """The arguments of Airflow's ``BaseOperator``, in all lines of Airflow that are supported."""

    task_id: Required[str]
    allow_nested_operators: bool
    dag: Any
    default_args: dict[str, Any] | None
    depends_on_past: bool
    do_xcom_push: bool
    doc: str | None
    doc_json: str | None
    doc_md: str | None
    doc_rst: str | None
    doc_yaml: str | None
    email: str | Sequence[str] | None
    email_on_failure: bool
    email_on_retry: bool
    end_date: datetime | None
    execution_timeout: timedelta | None
    executor: str | None
    executor_config: dict[str, Any] | None
    ignore_first_depends_on_past: bool
    inlets: Any
    logger_name: str | None
    map_index_template: str | None
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    max_retry_delay: timedelta | float | None
    multiple_outputs: bool
    on_execute_callback: Any
    on_failure_callback: Any
    on_retry_callback: Any
    on_skipped_callback: Any
    on_success_callback: Any
    outlets: Any
    owner: str
    params: MutableMapping[str, Any] | None
    pool: str | None
    pool_slots: int
    post_execute: Any
    pre_execute: Any
    priority_weight: int
    queue: str
    render_template_as_native_obj: bool | None
    resources: dict[str, Any] | None
    retries: int | None
    retry_delay: timedelta | float
    retry_exponential_backoff: float
    retry_policy: Any
    run_as_user: str | None
    sla: timedelta | None
    start_date: datetime | None
    task_concurrency: int | None
    task_display_name: str | None
    task_group: Any
    trigger_rule: str
    wait_for_downstream: bool
    wait_for_past_depends_before_skipping: bool
    weight_rule: Any


class AirflowSensorArguments(AirflowArguments, total=False):
    """The arguments of Airflow's ``BaseSensorOperator``."""

    exponential_backoff: bool
    max_wait: timedelta | float | None
    mode: str
    never_fail: bool
    poke_interval: timedelta | float
    silent_fail: bool
    soft_fail: bool
    timeout: timedelta | float | None


class ConnectionArguments(TypedDict, total=False):
    """How the workspace is reached.

    :param databricks_conn_id: Airflow connection; default ``databricks_default``; templated.
    :param databricks_retry_limit: attempts of a request at the most; default no limit: the time
        decides, see :mod:`airflow_jobs_provider.api.retry`.
    :param databricks_retry_delay: seconds, or a timedelta, before the second attempt; by default it
        depends on the error.
    :param databricks_retry_args: arguments for tenacity in place of the policy's own; default none.
        With ``deferrable`` they must be JSON, since Airflow stores them.
    :param validate: validate each request before it is sent, and when the DAG is parsed if it holds
        no template; default True.
    """

    databricks_conn_id: str
    databricks_retry_limit: int | None
    databricks_retry_delay: float | timedelta | None
    databricks_retry_args: dict[str, Any] | None
    validate: bool


class WaitArguments(TypedDict, total=False):
    """How a run is waited for, and what becomes of its output.

    :param deferrable: wait in the triggerer, without a worker; default False, or Airflow's
        ``[operators] default_deferrable``.
    :param end_from_trigger: with ``deferrable``: let the triggerer read the output and end the task
        of a run that succeeded, so that no second worker process starts; default False. A run that
        failed goes back to a worker, where the task fails with its reason. So does a task with
        outlets, ``on_success_callback``, ``post_execute``, ``map_index_template`` or tasks that
        expand over its output, since Airflow would leave those out, a task where plugins have
        listeners, and every task on Airflow 3.0, which would take the DAG for deleted. Without
        ``deferrable`` it has no effect, and the task's log says so.
    :param do_xcom_push: push the XComs; default True. (Airflow's argument.)
    :param multiple_outputs: push the output of each task of the run under its task key as well, so
        that ``etl.output["load"]`` is the output of the task ``load``; default False. The
        output of a task whose key is reserved, such as ``run_id``, is in ``return_value`` only; see
        :mod:`airflow_jobs_provider.xcom`.
    :param max_output_bytes: cut off the output after so many bytes; the XCom ``output_truncated``
        is then True; default no limit.
    :param fail_on_partial_success: fail the task where the run ended ``SUCCESS_WITH_FAILURES``: its
        last tasks succeeded, an earlier one did not; default True, as the official operator does.
        With False the task succeeds with a warning that names the failed tasks, and a retry of the
        task follows such a run instead of launching a new one.
    """

    deferrable: bool | None
    end_from_trigger: bool
    max_output_bytes: int | None
    fail_on_partial_success: bool


class OperatorArguments(AirflowArguments, ConnectionArguments, total=False):
    """What every operator takes: those of Airflow's ``BaseOperator``, and how to connect."""


class PayloadArguments(OperatorArguments, total=False):
    """What the operators take that send a request which the user gives.

    :param json: the fields of the request as one dict; or as text, JSON or a Python literal, such
        as a template or a file ``...json-tpl`` gives. So can every structure, list and map be
        given. A field that is given as an argument takes precedence. Default none; templated.
    :param forward_dag_params: send the DAG's ``params`` as parameters where the request has none;
        default True. A param that is None is left out.
    """

    json: Any
    forward_dag_params: bool


class RunArguments(WaitArguments, total=False):
    """How a launched run is followed and canceled.

    :param polling_period_seconds: seconds, or a timedelta, between two reads of the run; default
        None: 10 in the triggerer. On a worker the run is read after 10 s, after 30 s, then every
        30 s; every 10 s with ``queued_timeout_seconds``.
    :param wait_for_termination: wait for the run's end; default True.
    :param reattach: let a retry of the task follow the run that an earlier try launched, where that
        is active or has succeeded; default True. False launches a new run at every try.
    :param durable: the official provider's name of ``reattach``; False launches a new run at every
        try; default None: ``reattach`` decides. It works on every line of Airflow, blocking and
        deferrable.
    :param cancel_on_kill: cancel the run when the task is cleared, marked or timed out, on the
        worker or while deferred, and where it fails for good while the run is active, as when its
        worker died and no retry is left (not on Airflow 3.0); default True. With
        ``wait_for_termination`` an ``on_failure_callback`` is added for that. Where the task's
        process is told to end by anything but a user, as at the shutdown of its machine, the run
        is left to Airflow's retry, and canceled if no retry is left.
    :param start_from_trigger: launch the run in the triggerer, so that no worker process starts
        before the run has ended; implies ``deferrable``, also where that is False. With
        ``end_from_trigger`` as well no worker process starts at all if the run succeeds. It needs
        Airflow 3.3. A task that needs a
        worker starts on one, and its log tells why. Default None: as ``[databricks_jobs]
        start_from_trigger`` says, where ``auto`` sets both for each task that can do without a
        worker.
    :param queued_timeout_seconds: seconds, or a timedelta, after which the task fails if the run
        has not started; the run is then canceled, unless ``cancel_on_kill`` is False; default no
        limit.
    """

    polling_period_seconds: float | timedelta | None
    wait_for_termination: bool
    reattach: bool
    durable: bool | None
    cancel_on_kill: bool
    start_from_trigger: bool | None
    queued_timeout_seconds: float | timedelta | None


class LaunchArguments(PayloadArguments, RunArguments, total=False):
    """What the operators take that launch a run from a request which the user gives."""


class TaskArguments(OperatorArguments, RunArguments, total=False):
    """What the operators for one Databricks task take.

    ``polling_period_seconds`` is 5 by default. ``reattach`` and ``queued_timeout_seconds`` have no
    effect in a group.

    :param databricks_task_key: key of the task in Databricks, up to 100 characters; default a hash
        of DAG and task.
    :param existing_cluster_id: cluster to run on; default none; templated.
    :param new_cluster: cluster to create for the run (reference: "NewCluster"); default none;
        templated. Without any cluster the task is serverless, in later API versions.
    :param job_cluster_key: in a group: key of one of the group's ``job_clusters``; default none;
        templated.
    :param max_retries: retries of the task by the service, -1 for no limit; default 0; templated.
        In a group a worker ends such a task.
    :param min_retry_interval_millis: milliseconds between two attempts; default 0; templated.
    :param retry_on_timeout: retry the task if it timed out; default False; templated.
    :param billing_tags: add tags for billing reports to each new cluster of a one-time run, as
        :class:`~airflow_jobs_provider.operators.submit_run.DatabricksSubmitRunOperator` does. In a
        group the group's argument decides about the job, and is this one's default. Default
        ``[databricks_jobs] billing_tags``, else False.
    :param openlineage_inject_parent_job_info: send the task's identity for OpenLineage with a
        one-time run, as ``DatabricksSubmitRunOperator`` does. A group has an argument of its own
        for its run. Default Airflow's ``[openlineage] spark_inject_parent_job_info``, else False.
    :param openlineage_inject_transport_info: with a one-time run, configure Spark on the new
        cluster to send its OpenLineage events where Airflow sends its own; default Airflow's
        ``[openlineage] spark_inject_transport_info``, else False.
    :param workflow_run_metadata: in a group: what the group's launching task returned. The group
        sets it.
    """

    databricks_task_key: str
    existing_cluster_id: Text
    new_cluster: StructureOf[Any] | None
    job_cluster_key: Text
    max_retries: Number | None
    min_retry_interval_millis: Number | None
    retry_on_timeout: Flag | None
    billing_tags: bool | None
    openlineage_inject_parent_job_info: bool | None
    openlineage_inject_transport_info: bool | None
    workflow_run_metadata: Any


class SensorArguments(AirflowSensorArguments, ConnectionArguments, WaitArguments, total=False):
    """What the sensor takes beside its own arguments.

    ``poke_interval`` (default 60) and ``timeout``, both in seconds, count in the triggerer, too.
    ``mode``, ``exponential_backoff``, ``max_wait`` and ``silent_fail`` are for the worker: with
    ``deferrable`` they have no effect, and the task's log says so.
    """


class HookArguments(TypedDict):
    """What an operator passes on to the hook, on the worker and in the triggerer."""

    retry_limit: int | None
    retry_delay: float | None
    retry_args: dict[str, Any] | None
    caller: str


class CompletionArguments(TypedDict):
    """What an operator passes on to a trigger that may end the task."""

    end_from_trigger: bool
    do_xcom_push: bool
    max_output_bytes: int | None
    fail_on_partial_success: bool
    multiple_outputs: bool
