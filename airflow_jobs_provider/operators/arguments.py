"""What the arguments of the operators may be, for the editor and the type checker only.

A structure of the reference, so that the editor completes its fields; any other mapping, since a
field that the reference does not know is passed on; text of one, such as a template; or what
another task returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, TypedDict, TypeVar

from airflow.providers.common.compat.sdk import XComArg

__all__ = [
    "CompletionArguments",
    "Flag",
    "HookArguments",
    "Id",
    "ListOf",
    "Number",
    "Seconds",
    "StructureOf",
    "Text",
]

T = TypeVar("T")

StructureOf: TypeAlias = T | Mapping[str, Any] | str | XComArg
ListOf: TypeAlias = Sequence[T] | Sequence[Any] | str | XComArg
Text: TypeAlias = str | XComArg
# As text where a template gives them.
Number: TypeAlias = int | str | XComArg
Seconds: TypeAlias = Number | timedelta
Flag: TypeAlias = bool | str | XComArg
Id: TypeAlias = int | str | XComArg


class HookArguments(TypedDict):
    """What an operator passes on to the hook, on the worker and in the triggerer."""

    retry_limit: int | None
    retry_delay: float | None
    retry_args: dict[str, Any] | None
    caller: str


class CompletionArguments(TypedDict):
    """What an operator passes on to a trigger that may end the task."""

    end_from_trigger: bool
    do_xcom_push: bool
    max_output_bytes: int | None
    fail_on_partial_success: bool
    multiple_outputs: bool
