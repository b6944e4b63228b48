"""The default name of a run that an operator submits."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException, conf

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["DEFAULT_TEMPLATE", "default_run_name"]

DEFAULT_TEMPLATE = "{dag_id}.{task} {run_id} try {try_number}"
MAX_RUN_NAME_BYTES = 4096  # reference: "Run", run_name
_OPTION = "[databricks_jobs] run_name_template"


def default_run_name(context: Context) -> str:
    """Return the name of a run that was given none, by ``[databricks_jobs] run_name_template``.

    A name of more than 4096 bytes is cut off.

    :param context: the task's context.
    :raises AirflowFailException: the option is no valid template.
    """
    template = conf.get("databricks_jobs", "run_name_template", fallback="") or DEFAULT_TEMPLATE
    name = _rendered(template, _values(context))
    return name.encode()[:MAX_RUN_NAME_BYTES].decode(errors="ignore")


def _values(context: Context) -> dict[str, Any]:
    """Return the values of the placeholders."""
    ti = context["ti"]
    is_mapped = ti.map_index is not None and ti.map_index >= 0
    return {
        "dag_id": ti.dag_id,
        "task_id": ti.task_id,
        "task": f"{ti.task_id}[{ti.map_index}]" if is_mapped else ti.task_id,
        "map_index": ti.map_index if is_mapped else -1,
        "run_id": ti.run_id,
        "try_number": ti.try_number,
    }


def _rendered(template: str, values: dict[str, Any]) -> str:
    try:
        # Plain names only: str.format would also read attributes of the values.
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        if unknown := [name for name in names if name not in values]:
            known = ", ".join(f"{{{name}}}" for name in values)
            _refuse(template, f"it has the placeholder {{{unknown[0]}}}. Known are {known}")
        name = template.format_map(values)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        _refuse(template, str(error))
    if not name.strip():
        _refuse(template, "the name is empty")
    return name


def _refuse(template: str, reason: str) -> NoReturn:
    raise AirflowFailException(f"{_OPTION} is invalid, {template!r}: {reason}.")
