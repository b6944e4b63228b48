"""The arguments of a trigger with which a task starts, as one text.

Airflow encodes each value of them by itself while it serializes a DAG, and decodes each in the
scheduler, the triggerer and the API server: a dict takes several times as long as its text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["as_text", "of_text", "text_size"]

# The trigger's argument that has the others. A trigger that an earlier version has stored has none.
_TEXT = "arguments"
# Sorted: the order in a dict that is made of a set differs between the processes that parse a DAG
# file, and each other text is a new version of the DAG. A mapping may be of another class than
# dict.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=dict).encode


def as_text(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return arguments as a trigger is stored with them.

    :param arguments: the arguments by name, which are JSON.
    """
    return {_TEXT: _encode(arguments)}


def of_text(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a trigger is stored with.

    :param stored: what :func:`as_text` has returned, and arguments that were added to it. Those of
        an earlier version are returned as they are.
    """
    arguments = dict(stored)
    text = arguments.pop(_TEXT, None)
    return arguments if text is None else {**json.loads(text), **arguments}


def text_size(arguments: Mapping[str, Any]) -> int:
    """Return how many bytes arguments take in Airflow's database as a text, before encryption.

    :param arguments: the arguments by name, which are JSON.
    """
    text = _encode(arguments)
    # Airflow stores the text as a value of JSON.
    return len(text) + text.count('"') + text.count("\\")
