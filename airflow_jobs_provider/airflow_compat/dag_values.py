"""Values that are found out once for all tasks of a DAG.

A process that parses a DAG file constructs all its operators, and each asks the same questions.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

__all__ = ["values_of_dag"]


class _DagValues:
    """The values that were found out for one DAG.

    :param dag: the DAG; None for none.
    """

    def __init__(self, dag: Any = None) -> None:
        self._dag = None if dag is None else weakref.ref(dag)
        self.values: dict[Any, Any] = {}

    def are_of(self, dag: Any) -> bool:
        """Return whether they were found out for this DAG."""
        return self._dag is not None and self._dag() is dag


# Those of the DAG whose operators are constructed, or were constructed last.
_latest = [_DagValues()]


def values_of_dag(task: BaseOperator | None) -> dict[Any, Any]:
    """Return the values by key that were found out for the task's DAG; none without a DAG.

    :param task: the task, whose constructor may run.
    """
    dag = None if task is None else task.get_dag()
    if dag is None:
        return {}
    if not _latest[0].are_of(dag):
        _latest[0] = _DagValues(dag)
    return _latest[0].values
