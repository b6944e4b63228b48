"""Requests to the API of a whole Airflow for the tests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from tests.end_to_end.airflow_versions import AIRFLOW_2
from tests.end_to_end.eventually import PATIENCE_SECONDS

__all__ = ["ClusterApi"]

API = "/api/v1" if AIRFLOW_2 else "/api/v2"
LOCKED = "database is locked"
OPEN = build_opener(ProxyHandler({})).open


class ClusterApi:
    """Airflow's API.

    :param port: of the API server.
    :param log: returns what the API server has written.
    """

    def __init__(self, port: int, log: Callable[[], str]) -> None:
        self._url, self._log = f"http://127.0.0.1:{port}{API}", log

    def ask(self, verb: str, path: str, body: object = None) -> dict[str, Any]:
        """Send a request; again while another process writes to SQLite.

        SQLite does not wait where a transaction has read, and another one has written since. A DAG
        run is requested again until the DAG file is parsed.
        """
        request = Request(self._url + path, method=verb)
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        begins_dag_run = verb == "POST" and path.endswith("/dagRuns")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            before = self._locked()
            try:
                with OPEN(request, timeout=60) as answer:
                    return dict(json.loads(answer.read() or b"{}") or {})
            except HTTPError as error:
                text = error.read().decode()
                is_locked = error.code == HTTPStatus.INTERNAL_SERVER_ERROR and (
                    LOCKED in text or self._locks_since(before)
                )
                is_unparsed = error.code == HTTPStatus.NOT_FOUND and begins_dag_run
                if not (is_locked or is_unparsed) or time.monotonic() > deadline:
                    raise AssertionError(f"{verb} {path}: {error}: {text}") from error
            time.sleep(0.2)

    def _locked(self) -> int:
        """Return how often the API server has logged that another process was writing to SQLite.

        Airflow 3.3 says so in its response only.
        """
        return self._log().count(LOCKED)

    def _locks_since(self, before: int) -> bool:
        """Whether the API server logs it once more. Airflow 3.0 does after it has responded."""
        deadline = time.monotonic() + 2
        while self._locked() == before:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True
