"""Keeps what other libraries log at DEBUG while a token is fetched out of the logs.

botocore logs the bodies of responses, azure-core and google-auth log requests. They hold secrets.
msal logs exceptions with their tracebacks, whose local variables hold secrets.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["fetching", "hide_debug_logs"]

_fetch = threading.local()


@contextmanager
def fetching() -> Iterator[None]:
    """Mark this thread as one that fetches a token, until the context ends."""
    _fetch.is_running = True
    try:
        yield
    finally:
        _fetch.is_running = False


def _is_harmless(record: logging.LogRecord) -> bool:
    if not getattr(_fetch, "is_running", False):
        return True
    # Airflow 3.0 logs tracebacks with the local variables of each frame.
    record.exc_info = record.exc_text = None
    return record.levelno >= logging.WARNING


def hide_debug_logs(*libraries: str) -> None:
    """Drop what these libraries log below WARNING in threads that fetch a token, and tracebacks.

    :param libraries: names of loggers; those below them count. Call it after the libraries were
        imported.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(libraries):
            # Adding the same filter again has no effect.
            logging.getLogger(name).addFilter(_is_harmless)
