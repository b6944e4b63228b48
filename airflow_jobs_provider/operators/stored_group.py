"""A workflow group as Airflow stores it for the triggerer, which launches the group's run.

The definition of the group's job is made of the templates of all its tasks. So the trigger of the
launching task has all of them among its arguments, as compressed text; see
:mod:`.workflow_launch_trigger`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_jobs_provider.airflow_compat.stored_text import compressed, value_of_text
from airflow_jobs_provider.airflow_compat.triggerer_values import (
    UnreadableValueError,
    plain_text_reasons,
    storable_field,
)
from airflow_jobs_provider.operators.templates import has_unrendered

if TYPE_CHECKING:
    from airflow_jobs_provider.operators.task_base import DatabricksTaskBaseOperator

__all__ = ["StoredGroup", "read_group", "stored_group"]

# The task defines the request with it, or reads it when it runs.
_NOT_RENDERED = ("workflow_run_metadata",)


class StoredGroup(NamedTuple):
    """A group as it is stored.

    :ivar text: the group.
    :ivar has_templates: whether the fields of any task have to be rendered.
    """

    text: str
    has_templates: bool


def stored_group(group: Any, members: Sequence[DatabricksTaskBaseOperator]) -> StoredGroup:
    """Return a group as it is stored.

    :param group: the group.
    :param members: its tasks.
    :raises UnreadableValueError: the triggerer cannot read a value.
    """
    inside = {member.task_id for member in members}
    fields = {member.task_id: _fields(member) for member in members}
    value = {
        "group_id": group.group_id,
        "notebook_packages": storable_field("notebook_packages", group.notebook_packages),
        "members": [_member(member, inside) for member in members],
        "fields": fields,
    }
    text = json.dumps(value, separators=(",", ":"))
    return StoredGroup(compressed(text), has_unrendered(fields))


def read_group(text: str) -> dict[str, Any]:
    """Return the group of the text of a :class:`StoredGroup`.

    :param text: the text.
    """
    group: dict[str, Any] = value_of_text(text)
    return group


def _member(member: DatabricksTaskBaseOperator, inside: set[str]) -> list[Any]:
    cls, timeout = type(member), member.execution_timeout
    if "_starts_in_triggerer" not in vars(cls):
        raise UnreadableValueError(f"a subclass of the operator of {member.task_id!r}")
    # A task may have it, while the launching task does not.
    for reason in plain_text_reasons(member):
        raise UnreadableValueError(f"{reason} of {member.task_id!r}")
    arguments = {
        "databricks_task_key": member.databricks_task_key,
        "trigger_rule": member.trigger_rule_name(),
        "execution_timeout_seconds": None if timeout is None else timeout.total_seconds(),
    }
    upstream = sorted(member.upstream_task_ids & inside)
    return [f"{cls.__module__}.{cls.__qualname__}", member.task_id, arguments, upstream]


def _fields(member: DatabricksTaskBaseOperator) -> dict[str, Any]:
    fields = {}
    for name in member.template_fields:
        value = getattr(member, name)
        if value is not None and name not in _NOT_RENDERED:
            fields[name] = storable_field(f"{name} of {member.task_id!r}", value)
    return fields
