"""Options of Airflow's configuration for the constructors of operators, read once for a DAG.

Each process of a task constructs all operators of the DAG file. Airflow takes 50 microseconds to
find out that an option is not set, and an operator has three of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf

from airflow_jobs_provider.airflow_compat.dag_values import values_of_dag

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

__all__ = ["flag_option", "text_option"]


def flag_option(task: BaseOperator, section: str, option: str) -> bool:
    """Return an option that is true or false; False where it is not set.

    :param task: the operator, whose constructor runs.
    :param section: section of the option.
    :param option: name of the option.
    """
    options, key = values_of_dag(task), (section, option)
    if key not in options:
        options[key] = bool(conf.getboolean(section, option, fallback=False))
    return bool(options[key])


def text_option(task: BaseOperator, section: str, option: str) -> str:
    """Return an option that is text; empty text where it is not set.

    :param task: the operator, whose constructor runs.
    :param section: section of the option.
    :param option: name of the option.
    """
    options, key = values_of_dag(task), (section, option)
    if key not in options:
        options[key] = str(conf.get(section, option, fallback=""))
    return str(options[key])
