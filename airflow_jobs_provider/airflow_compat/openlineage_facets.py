"""The facets by which OpenLineage's events of a task name its Databricks run.

Only Airflow's OpenLineage provider asks for them. It is installed then, so the imports are at the
top; nothing else imports this module.

================================  ===========  ================================================
Facet                             Of the       Content
================================  ===========  ================================================
``databricks_jobRun``             task's run   ids and page of the run, its result, its tasks
``externalQuery``                 task's run   the run's id and the workspace, as a facet that
                                               other tools know
``databricks_job``                task         the job that the task runs, if it runs one
================================  ===========  ================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.openlineage.extractors import OperatorLineage
from attrs import define, field
from openlineage.client.facet_v2 import JobFacet, RunFacet, external_query_run

__all__ = ["DatabricksJobFacet", "DatabricksJobRunFacet", "lineage_of"]


@define
class DatabricksJobRunFacet(RunFacet):  # type: ignore[misc]
    """The Databricks run of an Airflow task.

    :ivar workspaceUrl: the workspace.
    :ivar runId: the run; for a task of a workflow group its task run.
    :ivar jobId: the run's job.
    :ivar jobRunId: for a task of a workflow group the group's run.
    :ivar runPageUrl: page of the run.
    :ivar lifeCycleState: the run's state as last read.
    :ivar resultState: its result, once it has ended.
    :ivar tasks: the run's tasks, each with ``taskKey``, ``runId`` and states; the latest attempts.
    """

    workspaceUrl: str | None
    runId: int
    jobId: int | None = None
    jobRunId: int | None = None
    runPageUrl: str | None = None
    lifeCycleState: str | None = None
    resultState: str | None = None
    tasks: list[dict[str, Any]] = field(factory=list)


@define
class DatabricksJobFacet(JobFacet):  # type: ignore[misc]
    """The Databricks job that an Airflow task runs.

    :ivar workspaceUrl: the workspace.
    :ivar jobId: the job.
    """

    workspaceUrl: str | None
    jobId: int


def lineage_of(
    run: Mapping[str, Any],
    *,
    workspace_url: str | None,
    job_run_id: int | None = None,
    has_job: bool = False,
) -> Any:
    """Return the facets of a task, as Airflow's OpenLineage provider takes them.

    :param run: the run as far as it is known: an id at least, or nothing.
    :param workspace_url: the workspace's URL; None if it is unknown.
    :param job_run_id: the run of the whole job; default None: it is the same run.
    :param has_job: whether the run's job is the user's, not that of a one-time run.
    """
    run_id, job_id = _id(run.get("run_id")), _id(run.get("job_id"))
    page_url = run.get("run_page_url")
    workspace_url = workspace_url or _workspace_of(page_url)
    run_facets: dict[str, Any] = {}
    if run_id is not None:
        run_facets["databricks_jobRun"] = DatabricksJobRunFacet(
            workspaceUrl=workspace_url,
            runId=run_id,
            jobId=job_id,
            jobRunId=job_run_id,
            runPageUrl=page_url,
            **_states(run),
            tasks=_tasks(run),
        )
        host = urlsplit(workspace_url or "").netloc
        run_facets["externalQuery"] = external_query_run.ExternalQueryRunFacet(
            externalQueryId=str(run_id), source=f"databricks://{host}" if host else "databricks"
        )
    job_facets: dict[str, Any] = {}
    if has_job and job_id is not None:
        job_facets["databricks_job"] = DatabricksJobFacet(workspaceUrl=workspace_url, jobId=job_id)
    return OperatorLineage(run_facets=run_facets, job_facets=job_facets)


def _tasks(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    from airflow_jobs_provider.api.run_summary import latest_attempts

    if not run.get("tasks"):
        return []
    return [
        {"taskKey": key, "runId": _id(task.get("run_id")), **_states(task)}
        for key, task in latest_attempts(run).items()
    ]


def _states(run: Mapping[str, Any]) -> dict[str, str | None]:
    state = run.get("state") or {}
    return {
        "lifeCycleState": state.get("life_cycle_state"),
        "resultState": state.get("result_state"),
    }


def _id(value: Any) -> int | None:
    """Return an id as a number; None for what is none, such as a template."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else None


def _workspace_of(page_url: Any) -> str | None:
    parts = urlsplit(str(page_url or ""))
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else None
