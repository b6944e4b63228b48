"""Parses a payload, or a field of it, that is text: as JSON, else as a Python literal.

A template renders to text. A dict from another task's XCom renders to a Python literal.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args, get_origin

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.problems import Problem, describe_value, field_path
from airflow_jobs_provider.api.schema.introspection import Field, fields_of, named_types
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS

__all__ = ["parse_nested_text", "read_payload"]

Path = tuple[str | int, ...]

# The types of fields of later API versions that :mod:`.types` does not list.
_LATER_MAPS = frozenset(
    {
        "continuous",
        "deployment",
        "git_source",
        "job_parameters",
        "pipeline_params",
        "python_named_params",
        "queue",
        "run_as",
        "sql_params",
        "tags",
        "trigger",
    }
)
_LATER_STRINGS = frozenset({"budget_policy_id", "description", "performance_target"})
_LATER_LISTS = frozenset({"access_control_list", "dbt_commands", "environments", "parameters"})

_EXCERPT = 20
_HERE = "\0"
# A quoted text, also without its closing quote. Before a colon it is a name.
# Both are compiled at first use: they are for messages.
_QUOTED = r"""(?s)(["'])((?:\\.|(?!\1)[^\\])*)(?:\1(\s*:)?|\\?$)"""
# A long word may be a credential without quotes.
_LONG_WORD = r"[\w+/=~-]{13,}"


def read_payload(name: str, value: Any) -> Mapping[str, Any]:
    """Return an argument as a payload.

    :param name: name of the argument.
    :param value: a dict, text, or None; None and empty text give an empty payload.
    :raises InvalidRequestError: the argument has another type, or is text that is neither JSON nor
        a Python literal.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    if isinstance(value, str):
        value = _read((name,), value)
    if not isinstance(value, Mapping):
        raise _invalid((name,), "must be a map of fields", describe_value(value))
    return value


def parse_nested_text(call_name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload in which structures, lists and maps that are text are parsed.

    :param call_name: the endpoint, such as ``runs/submit``.
    :param payload: the payload; it is not changed.
    :raises InvalidRequestError: a text is neither JSON nor a Python literal, or has another type.
    """
    endpoint = ENDPOINTS.get(call_name)
    return _with_read(payload, endpoint.request if endpoint else None, ())


def _with_read(value: Mapping[str, Any], structure: Any, path: Path) -> dict[str, Any]:
    fields: Mapping[str, Field] = {} if structure is None else fields_of(structure)
    return {name: _item(name, item, fields.get(name), path) for name, item in value.items()}


def _item(name: str, item: Any, field: Field | None, path: Path) -> Any:
    place = (*path, name)
    kind = _kind(name, field)
    if field is None and name in _LATER_STRINGS and not isinstance(item, (str, type(None))):
        raise _invalid(place, "must be text", describe_value(item))
    if kind is not None and item is not None:
        is_text = isinstance(item, str)
        if is_text:
            item = _read(place, item)
        # The types of listed fields are checked with the whole request.
        if (is_text or field is None) and not isinstance(item, kind):
            raise _invalid(place, _RULES[kind], describe_value(item))
    inner = field.structure if field is not None else None
    if inner is None:
        return item
    if isinstance(item, Mapping):
        return _with_read(item, inner, place)
    if isinstance(item, (list, tuple)):
        return [
            _with_read(one, inner, (*place, index)) if isinstance(one, Mapping) else one
            for index, one in enumerate(item)
        ]
    return item


_RULES: dict[Any, str] = {Mapping: "must be a map of fields", (list, tuple): "must be a list"}


def _kind(name: str, field: Field | None) -> Any:
    """Return the Python types of a field that is a list or map; None for any other field."""
    if field is not None:
        if field.is_list:
            return (list, tuple)
        is_map = field.structure is not None or field.type_name in _map_names()
    else:
        if name in _LATER_LISTS:
            return (list, tuple)
        # Keys that are not text are found by the check of the whole request.
        is_map = name in _LATER_MAPS or str(name).endswith("_task")
    return Mapping if is_map else None


@cache
def _map_names() -> frozenset[str]:
    return frozenset(
        name for name, held in named_types().items() if get_origin(get_args(held)[0]) is dict
    )


def _read(path: Path, text: str) -> Any:
    """Parse text as JSON, else as a Python literal."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        fault, position = error.msg, error.pos
    except RecursionError:
        raise _invalid(path, "must not be nested too deeply", "it is") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of what is in the user's text
        tree: ast.AST | None = None
        try:
            tree = ast.parse(text.strip(), mode="eval")
            return ast.literal_eval(tree)
        except SyntaxError as error:
            python_fault = error.msg
            python_position = _position(text, error.lineno, (error.offset or 1) - 1)
        except (ValueError, TypeError):
            python_fault = "not a literal"
            # There is no tree for a text that Python cannot read, such as one with a null byte.
            python_position = 0 if tree is None else next(_not_literal(tree, text), 0)
        except (MemoryError, RecursionError):
            raise _invalid(path, "must not be nested too deeply", "it is") from None
    if python_position > position:
        fault, position = python_fault, python_position
    found = f"it breaks at character {position + 1}, {_excerpt(text, position)}: {fault}"
    raise _invalid(path, "must be JSON or a Python literal", found)


def _not_literal(tree: ast.AST, text: str) -> Iterator[int]:
    """Yield the positions in an expression that are not literals."""
    allowed = (
        *(ast.Expression, ast.Dict, ast.List, ast.Tuple, ast.Set, ast.Constant, ast.Load),
        *(ast.UnaryOp, ast.UAdd, ast.USub, ast.BinOp, ast.Add, ast.Sub),
    )
    for node in ast.walk(tree):
        if not isinstance(node, allowed):
            yield _position(
                text, getattr(node, "lineno", 1), getattr(node, "col_offset", 0), is_bytes=True
            )


def _position(text: str, line: int | None, column: int, *, is_bytes: bool = False) -> int:
    """Return the position in a text of a line and column as Python counts them."""
    start = len(text) - len(text.lstrip())
    lines = text.strip().splitlines(keepends=True)
    before = lines[: max(0, (line or 1) - 1)]
    if is_bytes and len(before) < len(lines):
        column = len(lines[len(before)].encode()[:column].decode(errors="ignore"))
    return min(len(text), start + sum(map(len, before)) + max(0, column))


def _excerpt(text: str, position: int) -> str:
    """Quote the text around a position, without the quoted values in it."""
    masked = re.sub(_QUOTED, _without_value, f"{text[:position]}{_HERE}{text[position:]}")
    before, _, after = masked.partition(_HERE)
    return f"between {_shortened(before)[-_EXCERPT:]!r} and {_shortened(after)[:_EXCERPT]!r}"


def _shortened(text: str) -> str:
    return re.sub(_LONG_WORD, lambda word: f"{word[0][:3]}...", text)


def _without_value(quoted: re.Match[str]) -> str:
    mark, content, colon = quoted[1], quoted[2], quoted[3]
    if colon:
        return quoted[0]
    return f"{mark}...{_HERE if _HERE in content else ''}{mark}"


def _invalid(path: Path, rule: str, found: str) -> InvalidRequestError:
    return InvalidRequestError("", [Problem(field_path(path), rule, found)])
