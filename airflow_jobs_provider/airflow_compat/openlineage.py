"""What the OpenLineage provider of Airflow knows about a task, if it is installed and enabled.

Its modules are imported only when an operator is told to send this information.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.text import is_lineage_credential

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = [
    "parent_run_context",
    "why_unavailable",
    "with_parent_spark_properties",
    "with_transport_spark_properties",
]

_TASK = {"processingType": "BATCH", "integration": "AIRFLOW", "jobType": "TASK"}
_DAG = {"processingType": "BATCH", "integration": "AIRFLOW", "jobType": "DAG"}
# The fields of ``conf["openlineage"]`` of a DAG run that another run has triggered.
_INHERITED_ROOTS = (
    ("rootParentRunId", "rootParentJobNamespace", "rootParentJobName"),
    ("parentRunId", "parentJobNamespace", "parentJobName"),
)


def why_unavailable() -> str | None:
    """Return why OpenLineage cannot be used; None if it can."""
    try:
        from airflow.providers.openlineage.conf import is_disabled
        from airflow.providers.openlineage.plugins.listener import get_openlineage_listener
        from airflow.providers.openlineage.plugins.macros import lineage_root_job_name  # noqa: F401
    except ImportError as error:
        return f"Airflow's OpenLineage provider is not installed, or too old ({error})"
    if is_disabled():
        return "OpenLineage is disabled, or has no transport"
    if not get_openlineage_listener():
        return "OpenLineage's listener is not active"
    return None


def with_parent_spark_properties(properties: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Return Spark properties with the task as the parent of Spark's lineage events.

    :param properties: the properties; those about a parent that they have are kept.
    :param context: the task's context.
    """
    from airflow.providers.common.compat.openlineage.utils.spark import (
        inject_parent_job_information_into_spark_properties,
    )

    return dict(inject_parent_job_information_into_spark_properties(dict(properties), context))


def with_transport_spark_properties(
    properties: Mapping[str, Any], context: Context
) -> dict[str, Any]:
    """Return Spark properties with which Spark sends its lineage events where Airflow does.

    The transport's credentials are masked in Airflow's logs from then on.

    :param properties: the properties; those about a transport that they have are kept.
    :param context: the task's context.
    """
    from airflow.providers.common.compat.openlineage.utils.spark import (
        inject_transport_information_into_spark_properties,
    )
    from airflow.providers.common.compat.sdk import mask_secret

    result = dict(inject_transport_information_into_spark_properties(dict(properties), context))
    for name in result.keys() - properties.keys():
        if is_lineage_credential(name):
            credential = str(result[name])
            mask_secret(credential)
            mask_secret(credential.removeprefix("Bearer "))
    return result


def parent_run_context(context: Context) -> dict[str, Any]:
    """Return the task and the DAG run as OpenLineage's parent and root of a run.

    :param context: the task's context.
    """
    from airflow.providers.openlineage.plugins import macros

    ti = context["ti"]
    root: dict[str, Any] = {
        "namespace": macros.lineage_root_job_namespace(ti),
        "name": macros.lineage_root_job_name(ti),
    }
    if job_type := _root_job_type(context):
        root["facets"] = {"jobType": job_type}
    return {
        "parent": {
            "run": {"runId": macros.lineage_run_id(ti)},
            "job": {
                "namespace": macros.lineage_job_namespace(),
                "name": macros.lineage_job_name(ti),
                "facets": {"jobType": dict(_TASK)},
            },
            "root": {"run": {"runId": macros.lineage_root_run_id(ti)}, "job": root},
        }
    }


def _root_job_type(context: Context) -> dict[str, Any] | None:
    """Return the kind of the root job; None if it is inherited and its kind is unknown."""
    conf = getattr(context.get("dag_run"), "conf", None) or {}
    inherited = conf.get("openlineage") if isinstance(conf, Mapping) else None
    if isinstance(inherited, Mapping) and any(
        _is_job_run(inherited, names) for names in _INHERITED_ROOTS
    ):
        job_type = inherited.get("rootParentJobType")
        return dict(job_type) if isinstance(job_type, Mapping) else None
    return dict(_DAG)


def _is_job_run(inherited: Mapping[str, Any], names: tuple[str, str, str]) -> bool:
    values = [inherited.get(name) for name in names]
    if not all(values):
        return False
    try:
        uuid.UUID(str(values[0]))
    except ValueError:
        return False
    return True
