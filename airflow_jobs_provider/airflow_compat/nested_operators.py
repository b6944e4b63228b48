"""Counts the executions of operators in an attempt of a task, and calls the nested ones on a kill.

A task may execute more than one operator: a Python function or an operator calls ``execute`` of
others, a subclass calls ``super().execute()`` twice. Airflow knows only the task's own operator. So
this module counts the executions, for the tokens of their launches, and calls the nested operators
when the task is killed or has failed for good.
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

# By the id of the task instance's object, of which a process has one for each attempt that it
# executes, and the try_number.
_executions: dict[tuple[int, int], AttemptExecutions] = {}
# A task may execute operators in several threads. No signal handler takes the lock.
_lock = threading.Lock()


class ExecutedOperator(Protocol):
    """An operator that may have launched a run."""

    @property
    def run_may_be_active(self) -> bool:
        """Whether a run that it has launched may be live."""

    def on_kill(self) -> None:
        """React to the kill of the task."""

    def cancel_orphaned_run(self, context: Context) -> None:
        """Cancel its run after the task has failed for good."""


class AttemptExecutions:
    """The executions of operators in one attempt of a task.

    :param own_operator: the task's own operator, as Airflow executes it; None where it is not
        known.
    """

    def __init__(self, own_operator: Any) -> None:
        self._own_operator = own_operator
        self._numbers: dict[str, Iterator[int]] = {}
        # By id: operators of one task_id are equal for Airflow.
        self._watched: dict[int, ExecutedOperator] = {}
        self._is_wrapped = self._is_killed = False
        # A task instance without weak references is kept, so that its id is not used again.
        self.task_instance: Any = None

    def begin(self, task_id: str) -> int:
        """Count an execution of an operator; return how many there were before it.

        :param task_id: the operator's own.
        """
        return next(self._numbers.setdefault(task_id, itertools.count()))

    def resume(self, task_id: str, number: int) -> int:
        """Continue the count in the process that resumes a deferred task.

        :param task_id: the operator's own.
        :param number: number of executions before the one that was deferred.
        """
        self._numbers[task_id] = itertools.count(number + 1)
        return number

    def watch(self, operator: ExecutedOperator) -> None:
        """Call the operator when the task is killed or has failed for good.

        :param operator: a nested operator.
        :raises AirflowException: the task was killed. (In Airflow 3 its process goes on.)
        """
        if self._is_killed:
            raise AirflowException("the task was killed")
        self._watched[id(operator)] = operator
        with _lock:
            if not self._is_wrapped and self._own_operator is not None:
                self._is_wrapped = True
                self._wrap_own_operator()

    @contextmanager
    def watching(self, operator: ExecutedOperator) -> Iterator[None]:
        """Watch a nested operator during its execution, then as long as its run may be live."""
        if operator is self._own_operator or self._own_operator is None:
            yield
            return
        self.watch(operator)
        try:
            yield
        finally:
            if not operator.run_may_be_active:
                self._watched.pop(id(operator), None)

    def cancel_orphaned_run(self, context: Context) -> None:
        """Cancel the runs of nested operators: a failure callback."""
        for operator in list(self._watched.values()):
            operator.cancel_orphaned_run(context)

    def _wrap_own_operator(self) -> None:
        """Let Airflow's calls to the own operator of this attempt reach the nested ones."""
        on_kill, callbacks = self._own_operator.on_kill, self._own_operator.on_failure_callback

        def on_kill_of_all() -> None:
            self._is_killed = True
            try:
                on_kill()
            finally:
                for operator in list(self._watched.values()):
                    # Not the attribute, which this function may be.
                    type(operator).on_kill(operator)

        self._own_operator.on_kill = on_kill_of_all
        if callbacks is None:
            callbacks = []
        theirs = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
        self._own_operator.on_failure_callback = [self.cancel_orphaned_run, *theirs]


def executions_of(context: Context) -> AttemptExecutions:
    """Return the executions of the attempt that a context belongs to."""
    ti: Any = context["ti"]
    key = (id(ti), ti.try_number)
    with _lock:
        if key not in _executions:
            executions = AttemptExecutions(_own_operator(context))
            try:
                weakref.finalize(ti, _executions.pop, key, None).atexit = False
            except TypeError:
                executions.task_instance = ti
            _executions[key] = executions
        return _executions[key]


def is_nested(operator: Any, context: Context) -> bool:
    """Return whether another operator executes this one, and is the task's own."""
    own = _own_operator(context)
    return own is not None and own is not operator


def task_operator(context: Context) -> Any:
    """Return the task's own operator: on a worker, the object that Airflow executes."""
    # The context of Airflow 3.0 has what the executed operator was copied from.
    return getattr(context["ti"], "task", None) or context.get("task")


def _own_operator(context: Context) -> Any:
    operator = task_operator(context)
    return operator if isinstance(operator, BaseOperator) else None
