"""Which runs a watch reports: by job, and by the state in which they have ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.api.states import RunLifeCycleState, RunResultState, RunState

if TYPE_CHECKING:
    from airflow_jobs_provider.triggers.event_arguments import RunEventTriggerArguments
    from airflow_jobs_provider.triggers.polling.job_details import JobDetails

__all__ = ["RunSelection"]

_ENDED = (
    RunLifeCycleState.TERMINATED,
    RunLifeCycleState.SKIPPED,
    RunLifeCycleState.INTERNAL_ERROR,
)
#: The states by which a watch may choose.
STATES = tuple(
    dict.fromkeys([*(str(one) for one in RunResultState), *(str(one) for one in _ENDED)])
)


@dataclass(frozen=True, slots=True)
class RunSelection:
    """Which runs a watch reports.

    :ivar job_id: those of this job; None for any.
    :ivar job_name: those of jobs with this name; None for any.
    :ivar tags: those of jobs with these tags; None for any value of a tag.
    :ivar states: those that ended in one of these states; empty for any.
    """

    job_id: int | None = None
    job_name: str | None = None
    tags: Mapping[str, str | None] | None = None
    states: frozenset[str] = frozenset()

    @classmethod
    def from_arguments(cls, arguments: RunEventTriggerArguments) -> RunSelection:
        """Return what a trigger's arguments choose.

        :param arguments: the arguments.
        :raises TypeError: an argument is wrong. In a triggerer any other exception of a trigger's
            constructor would stop the triggerer.
        """
        job_id = None
        if arguments.job_id is not None and (job_id := parse_id(arguments.job_id)) is None:
            raise TypeError(f"job_id must be the id of a job, not {arguments.job_id!r}")
        if arguments.job_name is not None and not _is_text(arguments.job_name):
            raise TypeError(f"job_name must be text, not {arguments.job_name!r}")
        tags = None if arguments.tags is None else _tags(arguments.tags)
        given = [
            name
            for name, is_given in (
                ("job_id", job_id is not None),
                ("job_name", arguments.job_name is not None),
                ("tags", tags is not None),
                ("all_runs", arguments.all_runs is True),
            )
            if is_given
        ]
        if len(given) != 1:
            raise TypeError(
                "give exactly one of job_id, job_name, tags and all_runs=True, not "
                f"{' and '.join(given) or 'none of them'}"
            )
        return cls(job_id, arguments.job_name, tags, _states(arguments.states))

    def as_json(self) -> dict[str, Any]:
        """Return the selection as plain JSON, always in the same order."""
        return {
            "job_id": self.job_id,
            "job_name": self.job_name,
            "tags": None if self.tags is None else sorted(self.tags.items()),
            "states": sorted(self.states),
        }

    @property
    def needs_job(self) -> bool:
        """Whether a run is chosen by its job's name or tags."""
        return self.job_name is not None or self.tags is not None

    def may_match(self, run: Mapping[str, Any]) -> bool:
        """Whether a run is reported, as far as the run itself tells.

        :param run: a run that has ended.
        """
        if self.job_id is not None and parse_id(run.get("job_id")) != self.job_id:
            return False
        state = RunState.from_run(run)
        return not self.states or not self.states.isdisjoint(
            (state.result_state, state.life_cycle_state)
        )

    def matches(self, run: Mapping[str, Any], job: JobDetails) -> bool:
        """Whether a run is reported.

        :param run: a run that :meth:`may_match`.
        :param job: what is known of its job.
        """
        if self.job_name is not None and self.job_name != (job.name or run.get("run_name")):
            return False
        return all(
            name in job.tags and value in (None, job.tags[name])
            for name, value in (self.tags or {}).items()
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _tags(tags: Any) -> dict[str, str | None]:
    if isinstance(tags, Mapping):
        found: dict[Any, Any] = dict(tags)
    elif isinstance(tags, Collection) and not isinstance(tags, str):
        found = dict.fromkeys(tags)
    else:
        raise TypeError(f"tags must be a dict or a list of text, not {tags!r}")
    is_right = all(_is_text(name) for name in found) and all(
        value is None or isinstance(value, str) for value in found.values()
    )
    if not found or not is_right:
        raise TypeError(f"tags must be a dict or a list of text, not {tags!r}")
    return found


def _states(states: Any) -> frozenset[str]:
    if states is None:
        return frozenset()
    if isinstance(states, str) or not isinstance(states, Collection) or not states:
        raise TypeError(f"states must be a list of states, not {states!r}")
    unknown = [state for state in states if state not in STATES]
    if unknown:
        raise TypeError(f"states must be of {', '.join(STATES)}; unknown: {unknown}")
    return frozenset(states)
