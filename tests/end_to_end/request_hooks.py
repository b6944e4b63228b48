"""Let something happen at a request of a DAG run in a whole Airflow."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.end_to_end.eventually import eventually
from tests.end_to_end.scenarios import Scenario
from tests.fakes.fake_service import Seen

__all__ = ["at_request", "happened"]


def at_request(
    scenario: Scenario,
    endpoint: str,
    moment: str,
    act: Callable[[], object],
    *,
    number: int = 1,
    is_answered: bool = False,
) -> threading.Event:
    """Let something happen at a request of the scenario's DAG run; the event tells that it did.

    :param scenario: the scenario.
    :param endpoint: the endpoint.
    :param moment: ``received``, or ``handled`` for after the service has done it.
    :param act: what happens.
    :param number: of the request among those of the DAG run to the endpoint.
    :param is_answered: whether the request is answered all the same.
    """
    done, lock, seen = threading.Event(), threading.Lock(), 0

    def is_own(parameters: dict[str, object]) -> bool:
        if "run_id" in parameters:
            return int(str(parameters["run_id"])) in [run.run_id for run in scenario.runs]
        return scenario.dag_run.run_id in str(parameters.get("run_name")).split()

    def hook(request: Seen, when: str) -> bool:
        nonlocal seen
        if (request.endpoint, when) != (endpoint, moment) or not is_own(request.parameters):
            return False
        with lock:
            seen += 1
            if seen != number:
                return False
        act()
        done.set()
        return not is_answered

    scenario.workspace.hooks.append(hook)
    return done


def happened(event: threading.Event, scenario: Scenario) -> None:
    """Wait for what happens at a request."""
    try:
        eventually(event.is_set, f"{scenario.dag_run.run_id} sends the request")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{scenario.dag_run.logs()}") from None
