"""A server of StatsD, for the metrics of a whole Airflow."""

from __future__ import annotations

import socket
import threading
from typing import Self

__all__ = ["StatsDServer"]


class StatsDServer:
    """Receives metrics. Use it as a context manager.

    :ivar lines: what was received, such as ``airflow.ti_successes,dag_id=d:1|c``.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        # An empty packet ends the thread.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables for an Airflow that sends its metrics here, with tags."""
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(self._socket.getsockname()[1]),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        }

    def values(self, name: str, **tags: str) -> list[float]:
        """Return the values of a metric, in the order in which they came.

        :param name: the name below ``airflow.databricks_jobs``.
        :param tags: only values with these tags.
        """
        found = []
        for line in list(self.lines):
            sent, _, value = line.partition(":")
            sent_name, *sent_tags = sent.split(",")
            wanted = {f"{tag}={text}" for tag, text in tags.items()}
            if sent_name == f"airflow.databricks_jobs.{name}" and wanted <= set(sent_tags):
                found.append(float(value.partition("|")[0]))
        return found

    def _receive(self) -> None:
        while packet := self._socket.recv(65536):
            self.lines += packet.decode().splitlines()
