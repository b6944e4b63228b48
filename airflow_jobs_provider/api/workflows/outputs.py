"""Reading the output of a run.

The API returns the output of one task at a time. The output of a run of one task is read by the
run's own id. If a run lists ``tasks``, the output of each is read, at its latest attempt. A
``for_each_task`` has no output of its own: its run lists ``iterations``, each a run with an output.
Nothing is read of a task that succeeded and is of a kind that gives no text back.

Reference: "Runs get output", "NotebookOutput".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from airflow_jobs_provider.api.endpoints import get_run_output
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InvalidRequestError,
    JobsAPIError,
    NotFoundError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.run_summary import attempt_number, latest_attempts, task_kinds
from airflow_jobs_provider.api.states import RunResultState, RunState, RunStatus
from airflow_jobs_provider.api.text import printable
from airflow_jobs_provider.api.versions import LATEST_API_VERSION
from airflow_jobs_provider.api.workflows.base import Workflow
from airflow_jobs_provider.api.workflows.follow import whole_run

__all__ = [
    "MAX_FAILED_ITERATIONS_READ",
    "OutputValue",
    "TaskOutput",
    "failed_tasks",
    "output_value",
    "read_outputs",
]

# For how many failed iterations of a run the error is read, with one request each.
MAX_FAILED_ITERATIONS_READ = 100
_BECAUSE_OF_OTHERS = (RunResultState.UPSTREAM_FAILED, RunResultState.UPSTREAM_CANCELED)
# Iterations are listed from this version on.
_ITERATIONS_API_VERSION = LATEST_API_VERSION
_FOR_EACH = "for_each_task"
# The kinds of tasks that give no text back: only a notebook does, by dbutils.notebook.exit(). The
# output of another kind has its error, if it failed. Unknown kinds are read.
_KINDS_WITHOUT_RESULT = frozenset(
    {
        "condition_task",
        "dbt_task",
        "pipeline_task",
        "python_wheel_task",
        "run_job_task",
        "spark_jar_task",
        "spark_python_task",
        "spark_submit_task",
        "sql_task",
    }
)

Entry: TypeAlias = Mapping[str, Any]
# The output of a task: a text, None, or a list of them for a for_each_task.
OutputValue: TypeAlias = str | list[str | None] | None


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """The output of one task run.

    :ivar task_key: the task's key; None in a run that lists no tasks.
    :ivar run_id: the task run's id.
    :ivar result: the text that the notebook gave to ``dbutils.notebook.exit()``; None without one.
    :ivar truncated: whether the service cut the result off.
    :ivar error: the task's own error; empty if it has none.
    :ivar error_trace: the error's stack trace, where the service gives one.
    :ivar state: the task run's state.
    :ivar is_read: whether the service returned the output; False where it was not requested, or
        the service refused it.
    :ivar iterations: for a ``for_each_task``, the outputs of its iterations in the order of its
        inputs, None for those that did not start; None for any other task.
    """

    task_key: str | None
    run_id: int
    result: str | None
    truncated: bool
    error: str
    error_trace: str
    state: RunState
    is_read: bool = True
    iterations: tuple[TaskOutput | None, ...] | None = None

    @classmethod
    def from_answer(
        cls, task_key: str | None, run_id: int, answer: Mapping[str, Any]
    ) -> TaskOutput:
        """Read the answer of ``runs/get-output``."""
        notebook_output = answer.get("notebook_output") or {}
        result = notebook_output.get("result")
        return cls(
            task_key=task_key,
            run_id=run_id,
            result=None if result is None else str(result),
            truncated=bool(notebook_output.get("truncated")),
            error=str(answer.get("error") or ""),
            error_trace=str(answer.get("error_trace") or ""),
            state=RunState.from_run(answer.get("metadata") or {}),
        )

    @classmethod
    def unread(cls, task_key: str | None, run_id: int, task: Entry) -> TaskOutput:
        """Return the output of a task run of which only the state is known."""
        return replace(cls.from_answer(task_key, run_id, {"metadata": task}), is_read=False)

    @property
    def value(self) -> OutputValue:
        """The output: a text or None, or a list of them for a ``for_each_task``."""
        if self.iterations is None:
            return self.result
        return [None if one is None else one.result for one in self.iterations]

    def each(self) -> Iterator[TaskOutput]:
        """Yield the output itself, or those of the iterations of a ``for_each_task``."""
        if self.iterations is None:
            yield self
        else:
            yield from (one for one in self.iterations if one is not None)

    def cut(self, max_bytes: int | None) -> TaskOutput:
        """Return the output with each text cut off after so many bytes of UTF-8."""
        if max_bytes is None:
            return self
        if self.iterations is not None:
            cut = tuple(one and one.cut(max_bytes) for one in self.iterations)
            return replace(self, iterations=cut)
        if self.result is None or len(self.result.encode()) <= max_bytes:
            return self
        kept = self.result.encode()[:max_bytes].decode(errors="ignore")
        return replace(self, result=kept, truncated=True)

    def failure_lines(self) -> list[str]:
        """Return why the task failed, as lines of text: one, and one for each iteration."""
        name = "" if self.task_key is None else f"Task {self.task_key!r}"
        lines = [": ".join(filter(None, (name, printable(self.error) or str(self.state))))]
        failed = [
            (index, one)
            for index, one in enumerate(self.iterations or ())
            if one is not None and _failed_itself(one.state)
        ]
        lines += [
            f"{name}, iteration {index} (run {one.run_id}): {printable(one.error) or one.state}"
            for index, one in failed
            if one.is_read
        ]
        more = sum(not one.is_read for _, one in failed)
        return [*lines, f"{name}, further iterations that failed: {more}"] if more else lines


def failed_tasks(run: Entry) -> dict[str, Entry]:
    """Return the task runs that failed, by task key, at their latest attempt.

    Tasks that were skipped, or did not run because of other tasks, are left out.
    """
    tasks = latest_attempts(run)
    return {key: task for key, task in tasks.items() if _failed_itself(RunState.from_run(task))}


def read_outputs(
    run: Entry,
    *,
    of_failed_tasks_only: bool = False,
    on_unreadable: Callable[[Mapping[str, int], JobsAPIError], None] | None = None,
) -> Workflow[list[TaskOutput]]:
    """Read the outputs of a run that has ended, one for each of its tasks.

    The errors of at most :data:`MAX_FAILED_ITERATIONS_READ` failed iterations are read. The output
    of a task that succeeded and has no result by its kind is not read, and is empty.

    :param run: the run as ``runs/get`` or ``runs/list`` answered it.
    :param of_failed_tasks_only: in a run of several tasks, leave out the tasks and iterations that
        succeeded, or did not run because of other tasks; default False.
    :param on_unreadable: called with the tasks whose output cannot be read, as run ids by task key
        (``key[3]`` for an iteration), and the error; only for a run of several tasks. Their output
        is then empty. After an error that is not one task's own, the outputs of the remaining tasks
        are not read either. Default None: the error is raised.
    :raises JobsAPIError: the output cannot be read.
    """
    if not run.get("tasks") and not _is_for_each_task(run):
        run_id = int(run["run_id"])
        if _is_empty(run):
            return [TaskOutput.unread(None, run_id, run)]
        try:
            answer = yield get_run_output(run_id)
        except NotFoundError:
            raise
        except BadRequestError:
            # runs/list does not list the tasks, and a run of several tasks has no own output.
            run = yield from whole_run(run_id, api_version=_ITERATIONS_API_VERSION)
            if not run.get("tasks"):
                raise
        else:
            return [TaskOutput.from_answer(None, run_id, answer)]
    if not run.get("tasks"):
        run = {"tasks": [run]}
    elif run.get("iterations") is not None:
        # The run of a for_each_task lists itself as its only task.
        run = {"tasks": [{**task, "iterations": run["iterations"]} for task in run["tasks"]]}
    tasks = failed_tasks(run) if of_failed_tasks_only else latest_attempts(run)
    reading = _OutputReader(
        of_failed_tasks_only,
        [
            _TaskRun(key, int(task["run_id"]), task)
            for key, task in tasks.items()
            if task.get("run_id") is not None
        ],
    )
    while (task_run := reading.next()) is not None:
        try:
            yield from reading.read(task_run)
        except InvalidRequestError:
            raise
        except JobsAPIError as error:
            if on_unreadable is None:
                raise
            lost = [task_run]
            if not _is_of_one_task(error):
                lost += reading.give_up()
            on_unreadable({one.name: one.run_id for one in lost}, error)
    return [one.output() for one in reading.tasks]


class _IterationsNotListedError(JobsAPIError):
    """The run of a for_each_task came without its iterations."""

    def __init__(self) -> None:
        super().__init__("its iterations are not listed; version 2.2 of the API lists them")


@dataclass(eq=False, slots=True)
class _TaskRun:
    """The run of a task, or of an iteration of one, whose output is to be read.

    :ivar name: the task's key; ``key[3]`` for an iteration, by its place in the service's list.
    :ivar entry: the run as it is listed.
    :ivar parent: for an iteration, the task that it belongs to.
    :ivar answer: the response of ``runs/get-output``.
    :ivar iterations: for a ``for_each_task``, all its iterations as they are listed, once known.
    :ivar total: for a ``for_each_task``, the number of its inputs, if known.
    :ivar attempts: for a ``for_each_task``, the latest known attempt of each iteration, by the run
        id of the first attempt.
    """

    name: str
    run_id: int
    entry: Entry
    parent: _TaskRun | None = None
    answer: Mapping[str, Any] | None = None
    iterations: list[_TaskRun] | None = None
    total: int = 0
    attempts: dict[int, int] = field(default_factory=dict)

    @property
    def attempt(self) -> int:
        """Number of attempts before this one."""
        return attempt_number(self.entry)

    @property
    def first_attempt_id(self) -> int | None:
        """The run id of the first attempt; None if unknown."""
        known_id = self.entry.get("original_attempt_run_id")
        if not known_id and self.answer is not None:
            known_id = (self.answer.get("metadata") or {}).get("original_attempt_run_id")
        if not known_id and self.attempt == 0:
            known_id = self.run_id
        return int(known_id) if known_id else None

    def note_attempt(self, one: _TaskRun) -> None:
        """Record the attempt of an iteration of this for_each_task."""
        first = one.first_attempt_id
        if first is not None:
            self.attempts[first] = max(one.attempt, self.attempts.get(first, 0))

    def is_replaced(self, one: _TaskRun) -> bool:
        """Whether a later attempt at the same iteration is known."""
        first = one.first_attempt_id
        return first is not None and one.attempt < self.attempts.get(first, 0)

    def output(self) -> TaskOutput:
        if self.answer is not None:
            return TaskOutput.from_answer(self.name, self.run_id, self.answer)
        output = TaskOutput.unread(self.name, self.run_id, self.entry)
        if self.iterations is None:
            return output
        latest: dict[int, _TaskRun] = {}
        for one in self.iterations:
            first = one.first_attempt_id or one.run_id
            # The later attempt takes the position of the one that it replaces.
            if first not in latest or not self.is_replaced(one):
                latest[first] = one
        outputs = [one.output() for one in latest.values()]
        not_started = max(0, self.total - len(outputs))
        return replace(output, iterations=(*outputs, *[None] * not_started))


@dataclass(eq=False, slots=True)
class _OutputReader:
    """Reads outputs task by task; a for_each_task is replaced by its iterations."""

    of_failed_only: bool
    tasks: list[_TaskRun]
    errors_left: int = MAX_FAILED_ITERATIONS_READ
    waiting: deque[_TaskRun] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.waiting.extend(self.tasks)

    def next(self) -> _TaskRun | None:
        """Return the task run to read next; None at the end."""
        while self.waiting:
            task_run = self.waiting.popleft()
            if task_run.parent is None or self._is_to_be_read(task_run, task_run.parent):
                return task_run
        return None

    def give_up(self) -> list[_TaskRun]:
        """Read nothing more; return the task runs that were not read."""
        left, self.waiting = list(self.waiting), deque()
        return left

    def read(self, task_run: _TaskRun) -> Workflow[None]:
        """Read one output, or a for_each_task's list of iterations."""
        if _is_for_each_task(task_run.entry):
            yield from self._read_iterations(task_run)
            return
        if task_run.parent is None and _is_empty(task_run.entry):
            return
        try:
            task_run.answer = yield get_run_output(task_run.run_id)
            if task_run.parent is not None:
                task_run.parent.note_attempt(task_run)
        except BadRequestError as error:
            # It may be a for_each_task, whose output is refused. Version 2.0 does not tell.
            if not _may_be_for_each_task(task_run) or isinstance(
                error, (NotFoundError, ConflictError)
            ):
                raise
            try:
                yield from self._read_iterations(task_run)
            except JobsAPIError:
                raise error from None

    def _read_iterations(self, parent: _TaskRun) -> Workflow[None]:
        run = parent.entry
        if run.get("iterations") is None:
            run = yield from whole_run(parent.run_id, api_version=_ITERATIONS_API_VERSION)
        stats = [
            (task.get(_FOR_EACH) or {}).get("stats") for task in (run, *(run.get("tasks") or ()))
        ]
        totals = [(one.get("task_run_stats") or {}).get("total_iterations") for one in stats if one]
        parent.total = max((int(total or 0) for total in totals), default=0)
        if run.get("iterations") is None and (parent.total or all(one is None for one in stats)):
            raise _IterationsNotListedError
        parent.iterations = [
            _TaskRun(f"{parent.name}[{place}]", int(entry["run_id"]), entry, parent)
            for place, entry in enumerate(run.get("iterations") or ())
            if entry.get("run_id") is not None
        ]
        for one in parent.iterations:
            parent.note_attempt(one)
        # The latest attempts first: their outputs name the attempts that they replace.
        ordered = sorted(parent.iterations, key=lambda one: -one.attempt)
        self.waiting.extendleft(reversed(ordered))

    def _is_to_be_read(self, task_run: _TaskRun, parent: _TaskRun) -> bool:
        if parent.is_replaced(task_run):
            return False
        failed = _failed_itself(RunState.from_run(task_run.entry))
        if self.of_failed_only and not failed and task_run.first_attempt_id is not None:
            return False
        if failed or self.of_failed_only:
            self.errors_left -= 1
            return self.errors_left >= 0
        return True


def _is_for_each_task(entry: Entry) -> bool:
    return entry.get(_FOR_EACH) is not None


def _may_be_for_each_task(task_run: _TaskRun) -> bool:
    return task_run.parent is None and not task_kinds(task_run.entry)


def _is_empty(entry: Entry) -> bool:
    """Return whether a run of one task is known to have neither a result nor an error."""
    kinds = task_kinds(entry)
    is_known = bool(kinds) and kinds <= _KINDS_WITHOUT_RESULT
    return is_known and RunState.from_run(entry).is_successful


def _is_of_one_task(error: JobsAPIError) -> bool:
    """Whether the error is one task's own, so that the next task's output may be readable."""
    refused = isinstance(error, (BadRequestError, AuthenticationError, _IterationsNotListedError))
    does_not_fit = isinstance(error, UnexpectedResponseError) and error.does_not_fit
    return does_not_fit or (refused and not isinstance(error, ConflictError))


def _failed_itself(state: RunState) -> bool:
    return state.status not in (RunStatus.SUCCEEDED, RunStatus.SKIPPED) and (
        state.result_state not in _BECAUSE_OF_OTHERS
    )


def output_value(outputs: Sequence[TaskOutput]) -> OutputValue | dict[str, OutputValue]:
    """Return the output of a run: that of its one task, or a dict by task key for several."""
    if len(outputs) == 1:
        return outputs[0].value
    return {str(output.task_key): output.value for output in outputs} or None
