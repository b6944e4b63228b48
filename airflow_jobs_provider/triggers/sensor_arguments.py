"""The arguments of the sensor's trigger; see :mod:`.arguments`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from airflow_jobs_provider.triggers.arguments import TriggerArguments

__all__ = ["SensorTriggerArguments"]


@dataclass(eq=False, repr=False)
class SensorTriggerArguments(TriggerArguments):
    """The arguments of ``triggers.sensor.DatabricksJobRunSensorTrigger``.

    Exactly one of ``run_id``, ``job_id`` and ``job_name`` is given. Where the task starts in the
    triggerer, they may be templates, which Airflow renders there.

    :param run_id: the run to wait for.
    :param job_id: the job whose run to wait for.
    :param job_name: the exact name of that job, in place of its id.
    :param started_since: earliest start of the job's run, as ISO 8601 text.
    :param began: when the sensor began to wait, in seconds since the epoch; None if the task starts
        in the triggerer.
    :param task_key: wait for this task of the run, in place of the whole run.
    :param timeout_seconds: how long Airflow lets the task wait, where it starts in the triggerer.
    :param without_effect: arguments of the sensor that have no effect, each with the reason, for
        the log, where the task starts in the triggerer; default none.
    """

    run_id: int | str | None = None
    _: KW_ONLY
    job_id: int | str | None = None
    job_name: str | None = None
    started_since: str | None = None
    began: float | None = None
    task_key: str | None = None
    timeout_seconds: float | None = None
    without_effect: dict[str, str] | None = None
