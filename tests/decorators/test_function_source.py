"""Which functions can be sent to Databricks, and what is sent of them."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobs_provider.decorators.function_source import read_function_source

NAME = "@task.databricks_python"
LIMIT = 5


def keep(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function itself, as Airflow's decorator has it."""
    return function


def with_arguments(**_: Any) -> Callable[..., Any]:
    """Return a decorator that takes arguments."""
    return keep


def loaded(function: Callable[..., Any]) -> Any:
    """Execute the source of a function alone, and return the function that it defines."""
    source = read_function_source(function, NAME)
    namespace: dict[str, Any] = {}
    exec(compile("from __future__ import annotations\n" + source.text, "x", "exec"), namespace)
    return namespace[source.name]


@with_arguments(a=[1, 2], b="@")
@keep
def of_module(left: int, right: LazyType = 2, *, sign: int = 1) -> LazyType:  # type: ignore[name-defined]  # noqa: F821
    """Annotated with names that only the DAG file has."""
    import math

    # A comment stays.
    total: OtherType = sum(n for n in (left, right))  # type: ignore[name-defined]  # noqa: F821
    return sign * math.floor(total)


def test_function_of_a_module() -> None:
    """The function runs alone, without its decorators; annotations are not evaluated."""
    assert loaded(of_module)(1, right=4) == 5
    text = read_function_source(of_module, NAME).text
    assert text.startswith("def of_module(")
    assert "# A comment stays." in text


def test_function_inside_another() -> None:
    """A function of a DAG function keeps its indentation, so that its texts do not change."""

    @with_arguments(
        task_id="x",
    )
    def query(day: str) -> str:
        text = f"""
        select *
    from t where day = '{day}'
    """
        return text  # noqa: RET504

    source = read_function_source(query, NAME)
    assert source.text.startswith("if True:\n    def query(")
    assert loaded(query)("d") == query("d")


def test_names_that_a_function_defines() -> None:
    """Recursion, classes, comprehensions, global statements and a notebook's names are its own."""

    def everything(n: int) -> Any:
        global LIMIT  # noqa: PLW0603
        LIMIT = n

        class Box:
            size = 2
            double: int = size * 2

            def get(self) -> int:
                return self.double + LIMIT

        try:
            rows = spark.sql("select 1")  # type: ignore[name-defined]
        except NameError as error:
            rows = [str(error)]
        return [everything(n - 1) if n else Box().get(), [row for row in rows if row], __name__]

    assert loaded(everything)(0)[0] == 4


def test_undefined_names_are_refused() -> None:
    """Globals of the DAG file, of nested code and of defaults, and variables around, are named."""
    around = 3

    def needs(a: int, b: int = LIMIT) -> Any:
        def inner() -> Any:
            return json.dumps(around)

        return [inner() for _ in range(a + b)]

    with pytest.raises(ValueError, match="uses names that it does not define") as refused:
        read_function_source(needs, NAME)
    assert ": LIMIT, around, json. " in str(refused.value)
    assert "Import modules" in str(refused.value)


def test_functions_of_other_kinds_are_refused() -> None:
    """What is no plain function, or cannot stand alone, is refused in words."""

    @functools.wraps(of_module)
    def wrapped() -> None: ...

    async def asynchronous() -> None:
        await asyncio.sleep(0)

    def generator() -> Any:
        yield 1

    count = 0

    def changes() -> None:
        nonlocal count
        count += 1

    def in_a_notebook() -> str:
        return """
# COMMAND ----------
"""

    namespace: dict[str, Any] = {}
    exec("def made(): ...", namespace)
    for function, words in (
        (lambda: 1, "defined with def, not <lambda>"),
        (functools.partial(of_module, 1), "defined with def"),
        (json.dumps, None),
        (len, "defined with def"),
        (wrapped, "nearest to the function of_module"),
        (asynchronous, "must not be async"),
        (generator, "nor a generator"),
        (changes, "changes cannot stand alone"),
        (in_a_notebook, "# COMMAND"),
        (namespace["made"], "the source of made (cannot be read|is not found)"),
    ):
        with pytest.raises((TypeError, ValueError), match=words) as refused:
            read_function_source(function, NAME)
        assert NAME in str(refused.value)
