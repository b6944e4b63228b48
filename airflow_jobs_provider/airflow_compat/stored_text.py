"""Values as compressed text, for Airflow to store among the arguments of a trigger."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

__all__ = ["stored_text", "value_of_text"]


def stored_text(value: Any) -> str:
    """Return a value of JSON as compressed text.

    :param value: the value.
    """
    text = json.dumps(value, separators=(",", ":"))
    return base64.b85encode(zlib.compress(text.encode())).decode()


def value_of_text(text: str) -> Any:
    """Return the value of a text that :func:`stored_text` has made.

    :param text: the text.
    """
    return json.loads(zlib.decompress(base64.b85decode(text)))
