"""Arguments and results as JSON text, on the worker and in the notebook that runs a function.

The source of :func:`airflow_json_text` is a part of that notebook. So it needs nothing but the
standard library of Python 3.8, imports what it needs itself, and has a name of its own there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = [
    "MAX_RESULT_BYTES",
    "RESULT_KEY",
    "airflow_json_text",
    "as_parameter",
    "read_result_text",
]

# The service cuts off the text given to dbutils.notebook.exit() after so many bytes.
MAX_RESULT_BYTES = 5 * 1024 * 1024
RESULT_KEY = "return_value"
_OPENING_BRACES = re.compile(r"\{(?=\{)")


def airflow_json_text(value: Any, name: str) -> str:
    """Return a value as JSON in ASCII; a tuple becomes an array.

    :param value: the value.
    :param name: what the value is, for the message.
    :raises TypeError: it contains something that JSON does not have, such as a date or a set.
    :raises ValueError: it contains a NaN or an infinite number, or is nested too deeply.
    """
    import json
    import math
    from collections.abc import Mapping, Sequence

    def plain(item: Any, place: str, depth: int) -> Any:
        if depth > 100:
            raise ValueError(f"{name} is nested deeper than 100 levels, or contains itself.")
        if item is None or isinstance(item, (bool, int, str)):
            return item
        if isinstance(item, float):
            if not math.isfinite(item):
                raise ValueError(f"{place} is {item}, which JSON does not have.")
            return item
        if isinstance(item, Mapping):
            for key in item:
                if not isinstance(key, str):
                    kind = type(key).__name__
                    raise TypeError(f"{place} has a key of type {kind}; JSON takes text only.")
            return {key: plain(one, f"{place}[{key!r}]", depth + 1) for key, one in item.items()}
        if isinstance(item, Sequence) and not isinstance(item, (bytes, bytearray, memoryview)):
            return [plain(one, f"{place}[{index}]", depth + 1) for index, one in enumerate(item)]
        kind = f"{type(item).__module__}.{type(item).__qualname__}"
        raise TypeError(
            f"{place} is of type {kind}, which JSON does not have. Convert it to text, numbers, "
            "lists and dicts."
        )

    return json.dumps(plain(value, name, 0))


def as_parameter(text: str) -> str:
    """Return JSON text so that the service does not take a part of it for a reference.

    Databricks replaces ``{{job.id}}`` and the like in a parameter.

    :param text: JSON.
    """
    # JSON itself has no two braces in a row: these are inside of its texts.
    return _OPENING_BRACES.sub(r"\\u007b", text)


def read_result_text(text: str) -> Any:
    """Return the function's result from the text that its notebook gave to ``exit``.

    :param text: JSON.
    :raises ValueError: it is something else, such as the text that the function itself gave.
    """
    result = json.loads(text)
    if not isinstance(result, Mapping) or list(result) != [RESULT_KEY]:
        raise ValueError("it is no result of a function")
    return result[RESULT_KEY]
