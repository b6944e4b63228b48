"""Options of Airflow's configuration for the constructors of operators, read once for a DAG.

Each process of a task constructs all operators of the DAG file. Airflow takes 50 microseconds to
find out that an option is not set, and an operator has three of them.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

__all__ = ["flag_option", "text_option"]


class _DagOptions:
    """The options that were read for one DAG.

    :param dag: the DAG; None for none.
    """

    def __init__(self, dag: Any = None) -> None:
        self._dag = None if dag is None else weakref.ref(dag)
        self.values: dict[tuple[str, str], str | bool] = {}

    def are_of(self, dag: Any) -> bool:
        """Return whether they were read for this DAG."""
        return self._dag is not None and self._dag() is dag


# Those of the DAG whose operators are constructed, or were constructed last.
_latest = [_DagOptions()]


def flag_option(task: BaseOperator, section: str, option: str) -> bool:
    """Return an option that is true or false; False where it is not set.

    :param task: the operator, whose constructor runs.
    :param section: section of the option.
    :param option: name of the option.
    """
    options, key = _options_of(task), (section, option)
    if key not in options:
        options[key] = bool(conf.getboolean(section, option, fallback=False))
    return bool(options[key])


def text_option(task: BaseOperator, section: str, option: str) -> str:
    """Return an option that is text; empty text where it is not set.

    :param task: the operator, whose constructor runs.
    :param section: section of the option.
    :param option: name of the option.
    """
    options, key = _options_of(task), (section, option)
    if key not in options:
        options[key] = str(conf.get(section, option, fallback=""))
    return str(options[key])


def _options_of(task: BaseOperator) -> dict[tuple[str, str], str | bool]:
    """Return the options that were read for the task's DAG; none for a task without a DAG."""
    dag = task.get_dag()
    if dag is None:
        return {}
    if not _latest[0].are_of(dag):
        _latest[0] = _DagOptions(dag)
    return _latest[0].values
