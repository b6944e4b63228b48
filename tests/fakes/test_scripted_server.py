"""The scripted server itself, where a test relies on more than one connection."""

from __future__ import annotations

import socket

import requests

from tests.fakes.scripted_server import ScriptedServer, answer


def test_a_connection_that_says_nothing_holds_up_no_other() -> None:
    """A signal may interrupt a client between its connection and its request, and send another."""
    server = ScriptedServer([answer({"run_id": 7})])
    with socket.create_connection(("127.0.0.1", server.port)):
        response = requests.get(f"{server.url}/api/2.0/jobs/runs/get?run_id=7", timeout=5)
    server.close()
    assert response.json() == {"run_id": 7}
