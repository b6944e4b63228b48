"""Skipping a sensor's task instead of failing it: ``soft_fail`` and ``never_fail``, in every mode.

``soft_fail`` skips the task after a failure: the run failed, a time limit is over, or Airflow is
not to retry. ``never_fail`` skips it after any other error as well, such as a run that does not
exist or cannot be read. Airflow does so around a poke. In the triggerer's modes Airflow takes every
error for a failure, and before 3.3 it ignores ``never_fail``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

__all__ = ["skip_on_failure"]


@contextmanager
def skip_on_failure(*, soft_fail: bool, never_fail: bool) -> Iterator[None]:
    """Skip the task where an error within the context is to be ignored.

    :param soft_fail: ignore failures.
    :param never_fail: ignore all errors.
    :raises AirflowSkipException: the error is to be ignored.
    """
    from airflow_jobs_provider.exceptions import DatabricksRunFailedError

    try:
        yield
    except AirflowSkipException:
        raise
    except (
        DatabricksRunFailedError,
        AirflowFailException,
        AirflowSensorTimeout,
        AirflowTaskTimeout,
    ) as failure:
        if soft_fail or never_fail:
            raise AirflowSkipException(str(failure)) from failure
        raise
    except Exception as error:
        if never_fail:
            raise AirflowSkipException(str(error)) from error
        raise
