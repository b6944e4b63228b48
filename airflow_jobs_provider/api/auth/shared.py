"""Credentials that all clients of a process share, so that each token is fetched once."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from airflow_jobs_provider.api.auth.base import keyed_digest
from airflow_jobs_provider.api.auth.cached import CachedCredentials

__all__ = ["MAX_SHARED", "shared_credentials"]

#: Credentials that a process keeps at most; the ones that were unused for longest are dropped.
MAX_SHARED = 128

_lock = threading.RLock()
_shared: OrderedDict[str, CachedCredentials] = OrderedDict()


def shared_credentials(
    settings: Mapping[str, Any], make: Callable[[], CachedCredentials]
) -> CachedCredentials:
    """Return the credentials of this process for these settings; make them at the first call.

    Credentials whose latest token was refused are made anew, since what they were made of, such as
    the AWS connection, may have changed.

    :param settings: all that decides which token is fetched, and how; JSON values.
    :param make: makes the credentials.
    """
    # The settings hold secrets, so only a digest of them is kept.
    key = keyed_digest(json.dumps(settings, sort_keys=True, default=str))
    with _lock:
        credentials = _shared.get(key)
        if credentials is None or credentials.is_refused:
            credentials = _shared[key] = make()
        _shared.move_to_end(key)
        while len(_shared) > MAX_SHARED:
            _shared.popitem(last=False)
        return credentials


def _renew_lock() -> None:
    """Replace the lock in a forked process, since another thread may have held it."""
    global _lock  # noqa: PLW0603 - the lock of this module
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)
