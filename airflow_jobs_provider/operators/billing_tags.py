"""Tags that tell in billing reports which DAG and task a cluster or job belongs to.

They are added to the ``custom_tags`` of each new cluster, and to the ``tags`` of a job that is
created. A tag that the request has already is kept. A job's tags do not depend on the DAG run, so
that its definition stays the same.

==========================  =============================  =========  ======  ================
Tag                         Value                          One-time   Job of  Job of
                                                           run        a task  a workflow group
==========================  =============================  =========  ======  ================
``airflow_dag_id``          the DAG                        yes        yes     yes
``airflow_task_id``         the task                       yes        yes     its own clusters
``airflow_task_group_id``   the workflow group                                yes
``airflow_owner``           the task's ``owner``           yes        yes     yes
``airflow_run_id``          the DAG run                    yes
``airflow_map_index``       index of a mapped task         yes
``airflow_try_number``      the try that launched the run  yes
==========================  =============================  =========  ======  ================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_jobs_provider.operators.payload_clusters import mapped, with_each_cluster

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.workflows.progress import Log

__all__ = [
    "TagRules",
    "group_tags",
    "run_tags",
    "task_tags",
    "with_cluster_tags",
    "with_job_tags",
]

_GCP_DOMAIN = ".gcp.databricks.com"
MAX_CLUSTER_TAGS = 45  # reference: "NewCluster", custom_tags
MAX_JOB_TAGS = 25  # API 2.2: "tags" of a job


@dataclass(frozen=True, slots=True)
class TagRules:
    """Which values of tags a workspace takes.

    Azure's rules for values are wider than those of AWS. A value that AWS takes is valid there.

    :ivar is_on_gcp: whether the workspace is on Google Cloud, where tags are labels.
    """

    is_on_gcp: bool = False

    @classmethod
    def for_workspace(cls, url: str) -> TagRules:
        """Return the rules of a workspace.

        :param url: the workspace's URL.
        """
        return cls(is_on_gcp=(urlsplit(url).hostname or "").endswith(_GCP_DOMAIN))

    def valid_value(self, value: Any) -> str:
        """Return a value as the workspace takes it; empty if nothing is left of it.

        :param value: the value. Each character that is not allowed becomes ``_``, and a long value
            is cut off.
        """
        if self.is_on_gcp:
            # Letters and digits at both ends.
            valid = re.sub(r"[^A-Za-z0-9_.-]", "_", str(value))
            return valid.lstrip("_.-")[:63].rstrip("_.-")
        return re.sub(r"[^A-Za-z0-9 _.:/=+@-]", "_", str(value)).strip()[:255]


def run_tags(context: Context, operator: Any) -> dict[str, Any]:
    """Return the tags of a one-time run.

    :param context: the task's context.
    :param operator: the operator.
    """
    ti = context["ti"]
    is_mapped = ti.map_index is not None and ti.map_index >= 0
    return {
        **task_tags(context, operator),
        "airflow_run_id": ti.run_id,
        **({"airflow_map_index": ti.map_index} if is_mapped else {}),
        "airflow_try_number": ti.try_number,
    }


def task_tags(context: Context, operator: Any) -> dict[str, Any]:
    """Return the tags of a job that a task creates. They do not depend on the DAG run.

    :param context: the task's context.
    :param operator: the operator, which another operator may execute.
    """
    ti, task = context["ti"], context.get("task")
    return {
        "airflow_dag_id": ti.dag_id,
        "airflow_task_id": ti.task_id,
        "airflow_owner": (operator if task is None else task).owner,
    }


def group_tags(launch_task: Any, group_id: str) -> dict[str, Any]:
    """Return the tags of a workflow group's job. They do not depend on the DAG run.

    :param launch_task: the group's launching task.
    :param group_id: the group.
    """
    return {
        "airflow_dag_id": launch_task.dag_id,
        "airflow_task_group_id": group_id,
        "airflow_owner": launch_task.owner,
    }


def with_cluster_tags(
    request: Mapping[str, Any], tags: Mapping[str, Any], rules: TagRules, log: Log
) -> dict[str, Any]:
    """Return a request with tags of each new cluster.

    :param request: the request of ``runs/submit`` or ``create``; it is not changed.
    :param tags: the tags, the most important first.
    :param rules: what the workspace takes.
    :param log: the task's logger.
    """

    def cluster_with(cluster: Mapping[str, Any]) -> dict[str, Any]:
        own = cluster.get("custom_tags")
        if own is not None and not isinstance(own, Mapping):
            return dict(cluster)  # The validation tells that it is wrong.
        merged = _merged(own or {}, tags, MAX_CLUSTER_TAGS, rules, log)
        return {**cluster, "custom_tags": merged}

    return with_each_cluster(request, cluster_with)


def with_job_tags(
    settings: Mapping[str, Any],
    tags: Mapping[str, Any],
    rules: TagRules,
    log: Log,
    *,
    task_ids: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a job's settings with tags of the job and of each new cluster.

    :param settings: the settings; they are not changed.
    :param tags: the tags, the most important first.
    :param rules: what the workspace takes.
    :param log: the task's logger.
    :param task_ids: Airflow's tasks by task key, for the tags of their own clusters; default none.
    """
    result = dict(settings)
    if task_ids and isinstance(settings.get("tasks"), (list, tuple)):

        def task_with(task: Mapping[str, Any]) -> dict[str, Any]:
            own = {**tags, "airflow_task_id": task_ids.get(str(task.get("task_key")), "")}
            (changed,) = with_cluster_tags({"tasks": [task]}, own, rules, log)["tasks"]
            return dict(changed)

        result["tasks"] = list(mapped(settings["tasks"], task_with))
    result = with_cluster_tags(result, tags, rules, log)
    own = settings.get("tags")
    if own is None or isinstance(own, Mapping):
        result["tags"] = _merged(own or {}, tags, MAX_JOB_TAGS, rules, log)
    return result


def _merged(
    own: Mapping[str, Any], tags: Mapping[str, Any], limit: int, rules: TagRules, log: Log
) -> dict[str, Any]:
    """Return the tags of a request with others beside them, as far as the limit allows."""
    # Azure's keys are the same in upper and lower case.
    given = {str(key).lower() for key in own}
    values = {key: rules.valid_value(value) for key, value in tags.items() if key not in given}
    missing = {key: value for key, value in values.items() if value}
    added = dict(islice(missing.items(), max(0, limit - len(own))))
    if left_out := missing.keys() - added:
        log.warning(
            "Tags are left out, since %d are the most and the request has %d: %s.",
            limit,
            len(own),
            ", ".join(key for key in missing if key in left_out),
        )
    return {**own, **added}
