"""The arguments of the trigger for asset events; see :mod:`.arguments`."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_jobs_provider.triggers.arguments import StoredArguments

__all__ = ["RunEventTriggerArguments"]


@dataclass(eq=False, repr=False, kw_only=True)
class RunEventTriggerArguments(StoredArguments):
    """The arguments of ``triggers.jobs.DatabricksJobRunEventTrigger``.

    Exactly one of ``job_id``, ``job_name``, ``tags`` and ``all_runs`` is given. Airflow renders no
    templates in them.

    :param job_id: report the runs of this job.
    :param job_name: report the runs of all jobs with exactly this name.
    :param tags: report the runs of jobs with all of these tags: a dict of tags and their values, or
        tags that the job must have with any value.
    :param all_runs: report all runs that the connection's user can see, those of ``runs/submit``
        included; default False.
    :param states: report only runs that ended in one of these states: result states such as
        ``SUCCESS`` and ``FAILED``, or the life cycle states ``SKIPPED``, ``INTERNAL_ERROR`` and
        ``TERMINATED``. Default: all runs that have ended.
    :param databricks_conn_id: Airflow connection to the workspace; default ``databricks_default``.
    :param polling_period_seconds: seconds between two reads of the workspace's lists, at most;
        default 30. Of the watchers of one connection the shortest period counts.
    :param look_back_seconds: where no position is stored, report runs that have ended within so
        many seconds before the trigger starts; default 600. On Airflow 3.3 that is the first start
        only. On Airflow 3.0, 3.1 and 3.2 it is each start, so that these runs are reported again.
    """

    job_id: int | str | None = None
    job_name: str | None = None
    tags: dict[str, str] | list[str] | None = None
    all_runs: bool = False
    states: list[str] | None = None
    databricks_conn_id: str = "databricks_default"
    polling_period_seconds: float = 30
    look_back_seconds: float = 600

    def __post_init__(self) -> None:
        """Do nothing here. A dataclass calls this only if it is there when the class is made."""
