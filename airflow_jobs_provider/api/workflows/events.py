"""What a workflow says of its run while it is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call

__all__ = ["Event", "LaunchPrepared", "RunIdentified"]


class LaunchPrepared(NamedTuple):
    """A launch is the next call of the workflow.

    :ivar call: the launch, with its idempotency token.
    """

    call: Call[int]


class RunIdentified(NamedTuple):
    """The run that the workflow is about from now on.

    It was launched, found by the launch of an earlier try, found in a list, or is the next attempt
    with which the service retries a run.

    :ivar run_id: the run.
    :ivar launched_at: when the launch was answered, in seconds since the epoch; None if unknown.
    """

    run_id: int
    launched_at: float | None = None


Event: TypeAlias = LaunchPrepared | RunIdentified
