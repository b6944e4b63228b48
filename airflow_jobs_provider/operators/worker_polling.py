"""How often a task that waits on a worker reads its run, where it is not told."""

from __future__ import annotations

import time
from collections.abc import Callable

from airflow_jobs_provider.api.retry import skipped_seconds

__all__ = ["growing_period"]

# The wait after so many seconds. A run that takes long is read as often as by the official
# provider. Each task on a worker sends its own requests, and the service limits their number.
_WAITS = ((30.0, 30.0), (10.0, 20.0), (0.0, 10.0))
# A wait that ends a little early counts.
_TOLERANCE = 0.5


def growing_period() -> Callable[[], float]:
    """Return a function that returns the seconds to the next read, for a wait that begins now.

    The run is read after 10 s, after 30 s, and every 30 s from then on.
    """
    began = time.monotonic() + skipped_seconds()

    def period() -> float:
        waited = time.monotonic() + skipped_seconds() - began + _TOLERANCE
        return next(wait for since, wait in _WAITS if waited >= since)

    return period
