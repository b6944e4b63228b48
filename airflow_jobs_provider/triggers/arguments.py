"""The arguments of the triggers: names, types, units and defaults.

Airflow stores them in its database and makes the trigger from them again, in a triggerer or after
an upgrade of this package. So an argument that was once stored stays accepted, and a new one has
the default that keeps the meaning of what is stored without it.

The arguments of the other triggers are in ``sensor_arguments``, ``workflow_arguments`` and
``event_arguments``, since a task that launches a run and defers does not need them.

They import neither Airflow nor an HTTP library: the sensor uses them while a DAG is parsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

__all__ = ["RunTriggerArguments", "StoredArguments", "TriggerArguments"]

_NO_DEFAULT = object()


class StoredArguments:
    """Arguments that Airflow stores; a base of dataclasses."""

    def as_kwargs(self) -> dict[str, Any]:
        """Return the arguments by name, as Airflow stores them."""
        return {field.name: getattr(self, field.name) for field in fields(cast("Any", self))}

    def as_kwargs_without_defaults(self) -> dict[str, Any]:
        """Return the arguments that differ from their defaults."""
        return self.without_defaults(self.as_kwargs())

    @classmethod
    def without_defaults(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of some arguments that differ from their defaults.

        A default is an attribute of the class.

        :param arguments: the arguments by name.
        """
        return {
            name: value
            for name, value in arguments.items()
            if value != getattr(cls, name, _NO_DEFAULT)
        }


@dataclass(eq=False, repr=False, kw_only=True)
class TriggerArguments(StoredArguments):
    """What each trigger that waits for a run takes.

    :param databricks_conn_id: Airflow connection to the workspace; default ``databricks_default``.
    :param polling_period_seconds: seconds between two reads of the run; default 30.
    :param retry_limit: see :class:`~airflow_jobs_provider.hooks.jobs.DatabricksJobsHook`.
    :param retry_delay: likewise, in seconds.
    :param retry_args: likewise.
    :param caller: likewise.
    :param cancel_on_kill: cancel the run when a user clears or marks the task, or when one of the
        time limits below is over; default False.
    :param deadline: stop waiting at this time, in seconds since the epoch; default never.
    :param queued_timeout_seconds: stop waiting if the run has not started after so many seconds;
        default never.
    :param queued_since: count them from this time, in seconds since the epoch; default the run's
        start_time.
    :param follow_attempts: continue with the runs by which the service retries this one; default
        False.
    :param life_cycle_state: the run's state when the task was deferred, which is in its log
        already; default not known.
    :param end_from_trigger: end the task in the triggerer if the run succeeded; default False.
    :param do_xcom_push: push the run's output then; default True.
    :param max_output_bytes: cut off the output after so many bytes; default no limit.
    :param fail_on_partial_success: treat the result ``SUCCESS_WITH_FAILURES`` as a failure, so that
        the task fails on a worker; default False, which is what triggers mean that were stored
        without the argument. With False the task succeeds, and a warning names the failed tasks.
    :param multiple_outputs: push the output of each task of the run under its task key as well;
        default False.
    :param launched_at: when the run was launched, in seconds since the epoch. For 60 s from then a
        run that is not found is read again. Default long ago.
    :param reached_by: how the worker reached the workspace: host, and proxy without credentials. If
        the triggerer uses the same, a proxy or host name that fails is an outage, even before the
        triggerer's first answer. Default not known.
    :param output_in_event: read the output of a run that succeeded, and put it into the event if it
        is short; default False.
    """

    databricks_conn_id: str = "databricks_default"
    polling_period_seconds: float = 30
    retry_limit: int | None = None
    retry_delay: float | None = None
    retry_args: dict[str, Any] | None = None
    caller: str = "DatabricksJobRunTrigger"
    cancel_on_kill: bool = False
    deadline: float | None = None
    queued_timeout_seconds: float | None = None
    queued_since: float | None = None
    follow_attempts: bool = False
    life_cycle_state: str | None = None
    end_from_trigger: bool = False
    do_xcom_push: bool = True
    max_output_bytes: int | None = None
    fail_on_partial_success: bool = False
    multiple_outputs: bool = False
    launched_at: float | None = None
    reached_by: str | None = None
    output_in_event: bool = False

    def __post_init__(self) -> None:
        """Do nothing here. A dataclass calls this only if it is there when the class is made."""


@dataclass(eq=False, repr=False)
class RunTriggerArguments(TriggerArguments):
    """The arguments of ``triggers.jobs.DatabricksJobRunTrigger``.

    :param run_id: the run to wait for.
    """

    run_id: int
