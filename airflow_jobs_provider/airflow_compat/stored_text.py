"""Values as text, for Airflow to store among the arguments of a trigger.

A long text is compressed with bzip2. Each DAG processor must store the same text, or they would
make new versions of the DAG in turn. What zlib returns depends on its build, such as zlib-ng, and
on its version. The encoder of bzip2 has not changed since 1.0.
"""

from __future__ import annotations

import base64
import functools
import json
from typing import Any

__all__ = ["compressed", "value_of_text"]

# A text of at most so many characters is stored as it is.
_PLAIN_LENGTH = 1_000


# Airflow asks several times for a task's arguments while it parses and serializes its DAG.
@functools.lru_cache(maxsize=8)
def compressed(text: str) -> str:
    """Return the text of a JSON object as it is stored.

    :param text: the text.
    """
    if len(text) <= _PLAIN_LENGTH:
        return text
    import bz2

    return base64.b85encode(bz2.compress(text.encode())).decode()


def value_of_text(stored: str) -> Any:
    """Return the value of what :func:`compressed` has returned.

    :param stored: the text.
    """
    return json.loads(_decompressed(stored))


def _decompressed(stored: str) -> str | bytes:
    if stored.startswith("{"):
        return stored
    data = base64.b85decode(stored)
    if data.startswith(b"BZh"):
        import bz2

        return bz2.decompress(data)
    # A version before compressed with zlib.
    import zlib

    return zlib.decompress(data)
