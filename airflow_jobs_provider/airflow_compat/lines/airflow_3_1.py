"""Airflow 3.1: a trigger may end its task, and plugins may have pages."""

from __future__ import annotations

from airflow_jobs_provider.airflow_compat.lines.airflow_3_0 import Airflow30

__all__ = ["LINE", "Airflow31"]


class Airflow31(Airflow30):
    """Airflow 3.1.

    An attempt that follows an orphaned one has a new id here, as one that follows a clear has. The
    API does not tell how often tasks were cleared, so a new id still counts as a user's doing: the
    worst is a run that is canceled and begun again, not two runs at the same time.
    """

    completion_fault = None
    shows_plugin_pages = True


LINE = Airflow31()
