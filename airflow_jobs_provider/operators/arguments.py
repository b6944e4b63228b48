"""What the arguments of the operators may be, for the editor and the type checker only.

A structure of the reference, so that the editor completes its fields; any other mapping, since a
field that the reference does not know is passed on; text of one, such as a template; or what
another task returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

from airflow.providers.common.compat.sdk import XComArg

__all__ = ["Flag", "Id", "ListOf", "Number", "Seconds", "StructureOf", "Text"]

T = TypeVar("T")

StructureOf: TypeAlias = T | Mapping[str, Any] | str | XComArg
ListOf: TypeAlias = Sequence[T] | Sequence[Any] | str | XComArg
Text: TypeAlias = str | XComArg
# As text where a template gives them.
Number: TypeAlias = int | str | XComArg
Seconds: TypeAlias = Number | timedelta
Flag: TypeAlias = bool | str | XComArg
Id: TypeAlias = int | str | XComArg
