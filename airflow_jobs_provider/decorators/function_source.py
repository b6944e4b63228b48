"""The source of a decorated function, to be run somewhere else.

Only the function's own source goes there. So what is checked, when the DAG is parsed, is that it
needs nothing of the DAG file: no import, variable or function of the module, and no variable of an
enclosing function.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

__all__ = ["FunctionSource", "read_function_source"]

# What every Python notebook of Databricks has.
_OF_A_NOTEBOOK = frozenset(
    {
        "dbutils",
        "display",
        "displayHTML",
        "getArgument",
        "sc",
        "spark",
        "sql",
        "sqlContext",
        "table",
        "udf",
    }
)
_DEFINED = _OF_A_NOTEBOOK | frozenset(dir(builtins)) | {"__name__"}
# Python sets these in the body of a class; the annotations of a dataclass are in the last one.
_OF_A_CLASS_BODY = {"__qualname__", "__module__", "__static_attributes__", "__annotations__"}
_OF_A_NOTEBOOK_FILE = re.compile(r"^# (COMMAND -+|MAGIC\b)", re.MULTILINE)
# An annotation is not evaluated, so that it may name what the DAG file imports.
_FLAGS = __future__.annotations.compiler_flag


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """A function's source.

    :ivar name: the function's name.
    :ivar text: its source without decorators, ready to be executed as a module.
    """

    name: str
    text: str


def read_function_source(function: Callable[..., Any], decorator: str) -> FunctionSource:
    """Return the source of a function without its decorators.

    :param function: the function.
    :param decorator: name of the decorator, for messages.
    :raises TypeError: it is no plain function.
    :raises ValueError: its source cannot be read, or needs something of the DAG file.
    """
    name = getattr(function, "__name__", type(function).__name__)
    if not inspect.isfunction(function) or name == "<lambda>":
        raise TypeError(f"{decorator} takes a function defined with def, not {name}.")
    if hasattr(function, "__wrapped__"):
        raise TypeError(
            f"{decorator} must be the decorator nearest to the function {name}: another one below "
            "it would not exist on Databricks."
        )
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise TypeError(f"{decorator}: the function {name} must not be async, nor a generator.")
    text = _without_decorators(function, decorator, name)
    try:
        code = compile(text, f"<{name}>", "exec", flags=_FLAGS, dont_inherit=True)
    except SyntaxError as error:
        raise ValueError(f"{decorator}: {name} cannot stand alone: {error.msg}.") from error
    if missing := sorted(_undefined_names(code)):
        raise ValueError(
            f"{decorator}: the function {name} uses names that it does not define: "
            f"{', '.join(missing)}. Only its own source runs on Databricks, without the DAG file. "
            "Import modules and define helpers inside the function, and pass values as arguments."
        )
    return FunctionSource(name, text)


def _without_decorators(function: Callable[..., Any], decorator: str, name: str) -> str:
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise ValueError(f"{decorator}: the source of {name} cannot be read: {error}.") from error
    lines = source.splitlines()
    indented = lines[0][:1].isspace()
    if indented:
        # Without a change of the indentation, which would change texts of several lines.
        lines.insert(0, "if True:")
    node = ast.parse("\n".join(lines)).body[0]
    if isinstance(node, ast.If):
        node = node.body[0]
    if not isinstance(node, ast.FunctionDef) or node.name != name:
        raise ValueError(f"{decorator}: the source of {name} is not found in its file.")
    first = node.lineno - 1
    text = "\n".join([*(lines[:1] if indented else ()), *lines[first : node.end_lineno], ""])
    if _OF_A_NOTEBOOK_FILE.search(text):
        raise ValueError(
            f"{decorator}: the function {name} has a line that begins with '# COMMAND' or "
            "'# MAGIC', which has a meaning in a notebook."
        )
    return text


def _undefined_names(module: CodeType) -> set[str]:
    codes = list(_with_nested(module))
    defined = {
        one.argval
        for code in codes
        for one in dis.get_instructions(code)
        if one.opname == "STORE_GLOBAL" or (code is module and one.opname == "STORE_NAME")
    }
    return {name for code in codes for name in _global_names(code)} - defined - _DEFINED


def _with_nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_nested(constant)


def _global_names(code: CodeType) -> set[str]:
    """Return the names that a code object loads and that are not its own."""
    loaded: set[str] = set()
    own: set[str] = set()
    for one in dis.get_instructions(code):
        if one.opname in {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}:
            loaded.add(str(one.argval))
        elif one.opname == "STORE_NAME":  # the body of a class
            own.add(str(one.argval))
    return loaded - own - _OF_A_CLASS_BODY
