"""What one try of a task executes: which operators, how often, and which may have left a run.

A task may execute more than one operator: a Python function or an operator calls ``execute`` of
others, a subclass calls ``super().execute()`` twice. Airflow knows the task's own operator only. So
the others are counted here, for the tokens of their launches, and are told when the task is killed
or fails.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from airflow.providers.common.compat.sdk import AirflowException, BaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["AttemptExecutions", "executions_of", "is_nested", "task_operator"]

# By the id of the task instance's object, of which a process has one for each try that it executes,
# and the try's number.
_executions: dict[tuple[int, int], AttemptExecutions] = {}
# A task may execute operators in several threads. No signal handler takes it.
_lock = threading.Lock()


class ExecutedOperator(Protocol):
    """What is asked of an operator that may have left a run."""

    @property
    def run_may_be_live(self) -> bool:
        """Whether there may be a run that it has launched and that goes on."""

    def on_kill(self) -> None:
        """Take note that the task is killed."""

    def cancel_orphaned_run(self, context: Context) -> None:
        """Cancel the run that it has left, after the task has failed for good."""


class AttemptExecutions:
    """The executions of operators in one try of a task.

    :param outer: the task's own operator, as Airflow executes it; None where it is not known.
    """

    def __init__(self, outer: Any) -> None:
        self._outer = outer
        self._numbers: dict[str, Iterator[int]] = {}
        # By id: operators of one task_id are equal for Airflow.
        self._watched: dict[int, ExecutedOperator] = {}
        self._is_outer_hooked = self._is_killed = False
        # A task instance without weak references is kept, so that its id is not used again.
        self.task_instance: Any = None

    def begin(self, task_id: str) -> int:
        """Count an execution of an operator; return how many there were before it.

        :param task_id: the operator's own.
        """
        return next(self._numbers.setdefault(task_id, itertools.count()))

    def resume(self, task_id: str, number: int) -> int:
        """Go on counting in the process that resumes a deferred task."""
        self._numbers[task_id] = itertools.count(number + 1)
        return number

    def watch(self, operator: ExecutedOperator) -> None:
        """Let the operator know when the task is killed or has failed for good.

        :param operator: one that Airflow does not know.
        :raises AirflowException: the task was killed; Airflow 3 lets its process go on.
        """
        if self._is_killed:
            raise AirflowException("the task was killed")
        self._watched[id(operator)] = operator
        with _lock:
            if not self._is_outer_hooked and self._outer is not None:
                self._is_outer_hooked = True
                self._hook_outer()

    @contextmanager
    def watching(self, operator: ExecutedOperator) -> Iterator[None]:
        """Watch an operator while it is executed, and after that as long as its run may be live."""
        if operator is self._outer or self._outer is None:
            yield
            return
        self.watch(operator)
        try:
            yield
        finally:
            if not operator.run_may_be_live:
                self._watched.pop(id(operator), None)

    def cancel_orphaned_run(self, context: Context) -> None:
        """Cancel the runs that the operators have left: a failure callback."""
        for operator in list(self._watched.values()):
            operator.cancel_orphaned_run(context)

    def _hook_outer(self) -> None:
        """Call the watched operators from where Airflow calls the task's own, of this try only."""
        on_kill, callbacks = self._outer.on_kill, self._outer.on_failure_callback

        def on_kill_of_all() -> None:
            self._is_killed = True
            try:
                on_kill()
            finally:
                for operator in list(self._watched.values()):
                    # Not the attribute, which this function may be.
                    type(operator).on_kill(operator)

        self._outer.on_kill = on_kill_of_all
        if callbacks is None:
            callbacks = []
        theirs = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
        self._outer.on_failure_callback = [self.cancel_orphaned_run, *theirs]


def executions_of(context: Context) -> AttemptExecutions:
    """Return the executions of the try that a context belongs to."""
    ti: Any = context["ti"]
    key = (id(ti), ti.try_number)
    with _lock:
        if key not in _executions:
            executions = AttemptExecutions(_outer(context))
            try:
                weakref.finalize(ti, _executions.pop, key, None).atexit = False
            except TypeError:
                executions.task_instance = ti
            _executions[key] = executions
        return _executions[key]


def is_nested(operator: Any, context: Context) -> bool:
    """Whether another operator is the task that Airflow executes."""
    outer = _outer(context)
    return outer is not None and outer is not operator


def task_operator(context: Context) -> Any:
    """Return the task's own operator: on a worker, the object that Airflow executes."""
    # The context of Airflow 3.0 has what the executed operator was copied from.
    return getattr(context["ti"], "task", None) or context.get("task")


def _outer(context: Context) -> Any:
    outer = task_operator(context)
    return outer if isinstance(outer, BaseOperator) else None
