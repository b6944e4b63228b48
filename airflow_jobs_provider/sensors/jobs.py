"""DatabricksJobRunSensor: wait for a run that something else launched."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

from airflow_jobs_provider.airflow_compat.start_in_triggerer import (
    StartTriggerArguments,
    check_start_in_triggerer,
)
from airflow_jobs_provider.airflow_compat.task_serialization import SerializedFields
from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.ids import require_exactly_one
from airflow_jobs_provider.api.problems import Problem
from airflow_jobs_provider.official_names import missing_name
from airflow_jobs_provider.operators.argument_checks import (
    check_flags,
    check_id,
    check_json_serializable,
    check_text,
)
from airflow_jobs_provider.operators.extra_links import extra_links
from airflow_jobs_provider.operators.templates import has_unrendered
from airflow_jobs_provider.sensors.modes import RunSensorModes

if TYPE_CHECKING:
    from airflow_jobs_provider.operators.arguments import SensorArguments

__all__ = ["DatabricksJobRunSensor"]

# A DAG run that was triggered by hand or by an asset may have no data interval in Airflow 3.
INTERVAL_BEGAN = "{{ dag_run.data_interval_start or dag_run.run_after or dag_run.start_date }}"


class DatabricksJobRunSensor(RunSensorModes):
    """Wait until a run, or a task of it, has ended, and return its output.

    ::

        DatabricksJobRunSensor(task_id="wait", run_id=launch.output["run_id"], deferrable=True)
        DatabricksJobRunSensor(task_id="nightly", job_name="Nightly load", deferrable=True)

    The run is given by its id or by its job. Of a job's runs, the newest counts that has started
    since ``started_since`` when the sensor begins to wait; if there is none, the first that starts
    after that. A run that starts later does not replace it. A run that the service skipped does not
    count. A retry of the sensor chooses again. If the job has ``max_retries``, the last attempt of
    its run decides; with ``run_id`` or ``task_key`` the given run or task alone decides.

    XComs: ``return_value`` is the text given to ``dbutils.notebook.exit()`` (a dict by task key for
    a run of several tasks; None if there is none). ``run_id`` and ``run_page_url`` are those of the
    run, or of the task's own run, that was waited for.

    The sensor cancels no run, also when it is killed or times out. The modes are described in
    :mod:`airflow_jobs_provider.sensors.modes`.

    :param run_id: the run to wait for. Give exactly one of ``run_id``, ``job_id`` and ``job_name``.
        All are templated and take XComArgs.
    :param job_id: the job of the run.
    :param job_name: the exact name of that job, in place of its id.
    :param started_since: the earliest start of a job's run that counts: a datetime, or text in ISO
        8601 (UTC if it names no zone); templated. Default: the start of the DAG run's data
        interval, or the DAG run's own time if it has none.
    :param task_key: wait for this task of the run only, at its latest attempt; templated.
    :param start_from_trigger: start in the triggerer, so that no worker process starts before the
        run has ended; implies ``deferrable``; default False. Airflow 3.3 and later render templates
        and other tasks' outputs there, except ``xcom_pull``; before 3.3 they are refused, so a
        job's sensor needs a fixed ``started_since``. Airflow starts mapped tasks on a worker. With
        ``end_from_trigger`` as well, no worker process starts if the run succeeds.
    :param kwargs: the shared arguments; see
        :class:`~airflow_jobs_provider.operators.arguments.SensorArguments`.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped. In every
        mode, ``soft_fail`` skips the task after a failure or a timeout, and ``never_fail`` also
        after an error, such as a task that the run does not have.
    :raises ValueError: when the DAG is parsed: the arguments do not fit together.
    """

    template_fields: Sequence[str] = (
        "run_id",
        "job_id",
        "job_name",
        "started_since",
        "task_key",
        "databricks_conn_id",
    )
    operator_extra_links = extra_links("DatabricksJobLink")
    ui_color = "#1cb1c2"
    ui_fgcolor = "#fff"
    # A mapped task, for which Airflow asks the class, starts on a worker.
    start_trigger_args = StartTriggerArguments()
    get_serialized_fields: Any = SerializedFields()

    def __init__(
        self,
        *,
        run_id: int | str | None = None,
        job_id: int | str | None = None,
        job_name: str | None = None,
        started_since: datetime | str | None = None,
        task_key: str | None = None,
        start_from_trigger: bool = False,
        **kwargs: Unpack[SensorArguments],
    ) -> None:
        super().__init__(**kwargs)
        require_exactly_one(run_id=run_id, job_id=job_id, job_name=job_name)
        if started_since is not None and run_id is not None:
            problem = Problem(
                "started_since", "is for job_id and job_name", "the run is given by its run_id"
            )
            raise InvalidRequestError("", [problem])
        if started_since is None and run_id is None:
            started_since = INTERVAL_BEGAN
        check_flags(start_from_trigger=start_from_trigger)
        if job_name is not None:
            check_text("job_name", job_name)
        if task_key is not None:
            check_text("task_key", task_key)
        check_id("run_id", run_id)
        check_id("job_id", job_id)
        self.run_id = run_id
        self.job_id = job_id
        self.job_name = job_name
        self.started_since = started_since
        self.task_key = task_key
        self.deferrable = self.deferrable or start_from_trigger
        if self.deferrable:
            check_json_serializable(self.databricks_retry_args)
        if start_from_trigger:
            unrendered = [n for n in self.template_fields if has_unrendered(getattr(self, n))]
            check_start_in_triggerer(self, unrendered)
        self.start_from_trigger = start_from_trigger


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        raise missing_name(__name__, name)
