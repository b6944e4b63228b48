"""Whole Airflows for the tests, of which test modules share one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import pytest

from tests.end_to_end.airflow_cluster import AirflowCluster

__all__ = ["Clusters"]


class Clusters:
    """Whole Airflows, one at a time. Use it as a context manager.

    :param homes: makes the folders of the Airflows.
    """

    def __init__(self, homes: pytest.TempPathFactory) -> None:
        self._homes = homes
        self._one: AirflowCluster | None = None
        self._wanted: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._end()

    def running(
        self,
        dags: Path,
        connections: dict[str, str],
        settings: dict[str, str],
    ) -> AirflowCluster:
        """Return the Airflow that is running if it is the wanted one, or start that.

        A start takes half a minute of processor time.
        """
        wanted = (dags, connections, settings)
        if self._one is None or wanted != self._wanted or not self._one.is_whole:
            self._end()
            self._one = AirflowCluster(self._homes.mktemp("cluster"), *wanted).__enter__()
            self._wanted = wanted
        return self._one

    def _end(self) -> None:
        one, self._one = self._one, None
        if one is not None:
            one.__exit__()
