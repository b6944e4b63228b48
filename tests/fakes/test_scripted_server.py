"""The scripted server itself, where a test relies on more than one connection."""

from __future__ import annotations

import socket

import pytest
import requests

from tests.fakes import scripted_server
from tests.fakes.scripted_server import ScriptedServer, answer


def test_a_connection_that_says_nothing_holds_up_no_other() -> None:
    """A signal may interrupt a client between its connection and its request, and send another."""
    server = ScriptedServer([answer({"run_id": 7})])
    with socket.create_connection(("127.0.0.1", server.port)):
        response = requests.get(f"{server.url}/api/2.0/jobs/runs/get?run_id=7", timeout=5)
    server.close()
    assert response.json() == {"run_id": 7}


def test_a_client_that_goes_round_in_circles_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test whose answers are used up fails, in place of going on for ever."""
    monkeypatch.setattr(scripted_server, "MOST_UNSCRIPTED", 2)
    server = ScriptedServer([answer({"run_id": 7})])
    url = f"{server.url}/api/2.0/jobs/runs/get?run_id=7"
    statuses = [requests.get(url, timeout=5).status_code for _ in range(4)]
    server.close()
    assert statuses == [200, 200, 200, 400]


def test_a_step_that_is_taken_for_all_later_requests() -> None:
    """However often a client asks."""
    server = ScriptedServer([answer({"run_id": 7})])
    server.will_always(answer({"run_id": 8}))
    found = [requests.get(server.url, timeout=5).json()["run_id"] for _ in range(3)]
    server.close()
    assert found == [7, 8, 8]
