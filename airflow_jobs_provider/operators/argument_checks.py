"""Checks of the arguments of the operators and the sensor, in their constructors.

A templated argument is checked there if it is known, else when the task runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, overload

from airflow.providers.common.compat.sdk import conf

from airflow_jobs_provider.operators.dag_options import flag_option
from airflow_jobs_provider.operators.templates import has_unrendered

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

__all__ = [
    "check_flags",
    "check_id",
    "check_json_serializable",
    "check_optional_flags",
    "check_retry_args",
    "check_text",
    "check_token",
    "check_whole_number",
    "flag_or_option",
    "openlineage_flag",
    "to_seconds",
]

# Longer than any wait, and in the range of every clock and timer.
MAX_SECONDS = 10**9
MAX_WHOLE = 2**63 - 1


def check_id(name: str, value: Any) -> None:
    """Check the id of a run or job, if it is given and known.

    :param name: name of the argument.
    :param value: the argument.
    :raises InvalidRequestError: it is no id.
    """
    if value is not None and not has_unrendered(value):
        from airflow_jobs_provider.api.ids import require_id

        require_id(name, value)


def check_flags(**flags: Any) -> None:
    """Check arguments that must be True or False.

    :param flags: the arguments by name.
    :raises InvalidRequestError: one is something else, such as the text ``"False"``, which is true.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            _refuse(name, "must be True or False", value)


def check_optional_flags(**flags: Any) -> None:
    """Check arguments that must be True, False or None.

    :param flags: the arguments by name.
    :raises InvalidRequestError: one is something else.
    """
    check_flags(**{name: value for name, value in flags.items() if value is not None})


def flag_or_option(name: str, value: bool | None, section: str, option: str) -> bool:
    """Return a flag, or an option of Airflow's configuration in its place.

    :param name: name of the argument.
    :param value: the argument; None for the option.
    :param section: section of the option.
    :param option: name of the option; without it the flag is False.
    :raises InvalidRequestError: the argument is neither a bool nor None.
    """
    if value is None:
        return bool(conf.getboolean(section, option, fallback=False))
    check_flags(**{name: value})
    return value


def openlineage_flag(task: BaseOperator, name: str, value: bool | None) -> bool:
    """Return an operator's argument ``openlineage_<name>``, or Airflow's setting for it.

    :param task: the operator, whose constructor runs.
    :param name: the name, such as ``inject_parent_job_info``.
    :param value: the argument; None for ``[openlineage] spark_<name>``, else False.
    :raises InvalidRequestError: it is neither a bool nor None.
    """
    if value is None:
        return flag_option(task, "openlineage", f"spark_{name}")
    check_flags(**{f"openlineage_{name}": value})
    return value


def check_whole_number(name: str, value: Any, *, least: int) -> None:
    """Check an argument that must be a whole number, if it is given.

    :param name: name of the argument.
    :param value: the argument.
    :param least: its minimum.
    :raises InvalidRequestError: it is no whole number, or too small or too large.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_WHOLE:
        _refuse(name, f"must be a whole number from {least} to {MAX_WHOLE}", value)


def check_text(name: str, value: Any) -> None:
    """Check an argument that must be text that is not empty, if it is known.

    :param name: name of the argument.
    :param value: the argument.
    :raises InvalidRequestError: it is something else.
    """
    if not has_unrendered(value) and not (isinstance(value, str) and value):
        _refuse(name, "must be text that is not empty", value)


def check_token(value: Any) -> None:
    """Check a rendered ``idempotency_token``, if it is given.

    :param value: the token.
    :raises InvalidRequestError: it is what a template without a value renders to.
    """
    if not isinstance(value, str):
        return
    from airflow_jobs_provider.api.schema.rules.tasks import is_unset_token, unset_token_problem

    if is_unset_token(value):
        from airflow_jobs_provider.api.errors import InvalidRequestError

        raise InvalidRequestError("", [unset_token_problem("idempotency_token")])


@overload
def to_seconds(name: str, value: None, *, zero: bool = False, optional: bool) -> None: ...


@overload
def to_seconds(
    name: str, value: float | timedelta, *, zero: bool = False, optional: bool = False
) -> float: ...


def to_seconds(
    name: str, value: Any, *, zero: bool = False, optional: bool = False
) -> float | None:
    """Return an argument that is a number of seconds or a timedelta as seconds.

    :param name: name of the argument.
    :param value: the argument.
    :param zero: whether it may be 0; default False.
    :param optional: whether it may be None; default False.
    :raises InvalidRequestError: it is something else, or out of bounds.
    """
    if value is None and optional:
        return None
    number = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not is_number or not 0 <= number <= MAX_SECONDS or (number == 0 and not zero):
        bounds = f"{'from' if zero else 'above'} 0 and up to {MAX_SECONDS}"
        _refuse(name, f"must be a number of seconds {bounds}, or a timedelta", value)
    return number


def check_retry_args(value: Any) -> None:
    """Check ``databricks_retry_args``: arguments for tenacity by name, or None.

    :param value: the argument.
    :raises InvalidRequestError: it is something else.
    """
    if value is not None and not (
        isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
    ):
        _refuse("databricks_retry_args", "must be a dict of tenacity's arguments by name", value)


def check_json_serializable(retry_args: Mapping[str, Any] | None) -> None:
    """Check the ``databricks_retry_args`` of a task that may defer: Airflow stores them as JSON.

    :param retry_args: the argument.
    :raises InvalidRequestError: a value is no JSON, such as an object of tenacity.
    """
    for name, value in (retry_args or {}).items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            field = f"databricks_retry_args[{name!r}]"
            _refuse(field, "must be JSON with deferrable=True, since the trigger is stored", value)


def _refuse(name: str, rule: str, value: Any) -> NoReturn:
    from airflow_jobs_provider.api.errors import InvalidRequestError
    from airflow_jobs_provider.api.problems import Problem, describe_value

    raise InvalidRequestError("", [Problem(name, rule, describe_value(value))])
