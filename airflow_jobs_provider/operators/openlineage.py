"""Sends the task's identity for OpenLineage with a launch, as the official provider's operators do.

The parameters of the run get ``OPENLINEAGE_CONTEXT``, and new clusters get Spark properties. What
the request has about OpenLineage already is kept. An error changes nothing but the log: lineage
never keeps a run from being launched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.versions import OLDEST_API_VERSION
from airflow_jobs_provider.operators.dag_params import (
    NOT_WITH_JOB_PARAMETERS,
    parameter_maps_of,
)
from airflow_jobs_provider.operators.payload_clusters import mapped, with_each_cluster

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.workflows.progress import Log

__all__ = ["inject_into_notebook_params", "inject_into_run_now", "inject_into_submit"]

CONTEXT_PARAMETER = "OPENLINEAGE_CONTEXT"
# The parameters that say the same.
CONTEXT_PARAMETERS = (CONTEXT_PARAMETER, "spark.openlineage.context")


def inject_into_submit(
    request: Mapping[str, Any], context: Context, log: Log, *, parent: bool, transport: bool
) -> dict[str, Any]:
    """Return a ``runs/submit`` request with OpenLineage's information.

    :param request: the request; it is not changed.
    :param context: the task's context.
    :param log: the task's logger.
    :param parent: send the task's identity, to tasks whose parameters are a map and to new
        clusters.
    :param transport: send the transport's configuration to new clusters.
    """
    result = dict(request)
    if not _is_available(log):
        return result
    from airflow_jobs_provider.airflow_compat.openlineage import (
        with_parent_spark_properties,
        with_transport_spark_properties,
    )

    def in_parameters(request: dict[str, Any]) -> dict[str, Any]:
        value = _context_value(context)
        return _each_task(request, lambda task: _with_parameter(task, value))

    def in_clusters(
        inject: Callable[[Mapping[str, Any], Context], dict[str, Any]],
    ) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def cluster_with(cluster: Mapping[str, Any]) -> dict[str, Any]:
            return {**cluster, "spark_conf": inject(cluster.get("spark_conf") or {}, context)}

        # The service refuses a spark-submit task whose cluster has Spark properties.
        return lambda request: with_each_cluster(request, cluster_with, but_of="spark_submit_task")

    if parent:
        result = _unless_it_fails(in_parameters, result, log)
        result = _unless_it_fails(in_clusters(with_parent_spark_properties), result, log)
    if transport:
        # The error's text may quote the transport's configuration, with its API key.
        change = in_clusters(with_transport_spark_properties)
        result = _unless_it_fails(change, result, log, may_quote_secrets=True)
    return result


def inject_into_run_now(
    request: Mapping[str, Any], context: Context, log: Log, *, api_version: str | None
) -> dict[str, Any]:
    """Return a ``run-now`` request with the task's identity among its job parameters.

    :param request: the request; it is not changed.
    :param context: the task's context.
    :param log: the task's logger.
    :param api_version: the connection's ``api_version``. Version 2.0 has no job parameters.
    """
    if api_version == OLDEST_API_VERSION:
        log.info(
            "OpenLineage's parent job is not sent: the connection's api_version is %s, which has "
            "no job_parameters.",
            api_version,
        )
        return dict(request)
    return _inject_into_run(request, "job_parameters", NOT_WITH_JOB_PARAMETERS, context, log)


def inject_into_notebook_params(
    request: Mapping[str, Any], context: Context, log: Log
) -> dict[str, Any]:
    """Return a ``run-now`` request with the task's identity among its notebooks' parameters.

    :param request: the request; it is not changed.
    :param context: the task's context.
    :param log: the task's logger.
    """
    return _inject_into_run(request, "notebook_params", ("jar_params",), context, log)


def _inject_into_run(
    request: Mapping[str, Any],
    field: str,
    not_with: tuple[str, ...],
    context: Context,
    log: Log,
) -> dict[str, Any]:
    result = dict(request)
    others = [name for name in not_with if request.get(name) is not None]
    if others:
        log.info(
            "OpenLineage's parent job is not sent: run-now takes no %s beside %s.",
            field,
            ", ".join(others),
        )
        return result
    if not _is_available(log):
        return result

    def inject(request: dict[str, Any]) -> dict[str, Any]:
        from airflow_jobs_provider.api.schema.rules.parameters import (
            MAX_PARAMETER_BYTES,
            parameter_bytes,
        )

        parameters = _with_context(request.get(field) or {}, _context_value(context))
        size = parameter_bytes(field, parameters)
        if field == "notebook_params" and size > MAX_PARAMETER_BYTES:
            raise ValueError(f"{field} would have {size} bytes, the limit is {MAX_PARAMETER_BYTES}")
        return {**request, field: parameters}

    return _unless_it_fails(inject, result, log)


def _is_available(log: Log) -> bool:
    from airflow_jobs_provider.airflow_compat.openlineage import why_unavailable

    try:
        reason = why_unavailable()
    except Exception as error:  # noqa: BLE001  (such as a setting that is invalid)
        reason = repr(error)
    if reason is not None:
        log.warning("OpenLineage's information is not sent with the run: %s.", reason)
    return reason is None


def _unless_it_fails(
    change: Callable[[dict[str, Any]], dict[str, Any]],
    request: dict[str, Any],
    log: Log,
    *,
    may_quote_secrets: bool = False,
) -> dict[str, Any]:
    try:
        return change(request)
    except Exception as error:  # noqa: BLE001  (whatever the other provider raises)
        reason = type(error).__name__ if may_quote_secrets else repr(error)
        log.warning("OpenLineage's information is not sent with the run: %s", reason)
        return request


def _context_value(context: Context) -> str:
    from airflow_jobs_provider.airflow_compat.openlineage import parent_run_context

    return json.dumps(parent_run_context(context), separators=(",", ":"))


def _with_context(parameters: Mapping[str, Any], value: str) -> dict[str, Any]:
    if any(name in parameters for name in CONTEXT_PARAMETERS):
        return dict(parameters)
    return {**parameters, CONTEXT_PARAMETER: value}


def _with_parameter(task: Mapping[str, Any], value: str) -> dict[str, Any]:
    result = dict(task)
    for kind, field in parameter_maps_of(task).items():
        parameters = task[kind].get(field) or {}
        result[kind] = {**task[kind], field: _with_context(parameters, value)}
    return result


def _each_task(
    request: dict[str, Any], change: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    tasks = request.get("tasks")
    if not isinstance(tasks, (list, tuple)):
        return change(request)
    return {**request, "tasks": list(mapped(tasks, change))}
