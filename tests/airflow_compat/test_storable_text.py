"""Text of the service that Airflow cannot pass on or store: what becomes of it in each mode."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobs_provider.airflow_compat.storable_text import replace_unstorable
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, OUTPUT, RUNNING, SUCCEEDED, iterations, run, whole
from tests.helpers.tasks import (
    InTriggerer,
    deferred_by,
    ending_trigger,
    events,
    fired,
    stored_from_trigger,
    submit,
    xcoms_of,
)

ODD = "a\0b\ud83dc\udc00 é😀\n"
PLAIN = "a\ufffdb\ufffdc\ufffd é😀\n"
WARNING = "The output of run 7 has NUL characters or halves of surrogate pairs"


def output(text: str, **more: Any) -> Any:
    """Answer an output."""
    ended = run("TERMINATED", "SUCCESS")
    return answer({"metadata": ended, "notebook_output": {"result": text, **more}})


def check(value: Any) -> None:
    """Check that Airflow can pass a value on as UTF-8, and that PostgreSQL stores it as JSONB."""
    text = json.dumps(value, ensure_ascii=False)
    text.encode()
    assert "\\u0000" not in text


@pytest.mark.parametrize(
    ("value", "replaced"),
    [
        (ODD, PLAIN),
        ({ODD: [1, {"x": (ODD, None)}]}, {PLAIN: [1, {"x": [PLAIN, None]}]}),
        ("\ud83d\udc00", "\ufffd\ufffd"),
    ],
)
def test_each_character_that_cannot_be_stored_is_replaced(value: Any, replaced: Any) -> None:
    """In keys and values, at any depth."""
    assert replace_unstorable(value) == replaced
    check(replace_unstorable(value))


@pytest.mark.parametrize(
    "value", ["", "a\n\x01\x7f\ufffe", "😀é", {"a": [1.5, None, True, {"b": "c"}]}, None, 7]
)
def test_anything_else_stays_the_same_object(value: Any) -> None:
    """Also a list of a class of its own."""
    assert replace_unstorable(value) is value


def test_a_task_on_a_worker(
    context: Any, server: ScriptedServer, logged: Callable[[], str]
) -> None:
    """It succeeds, as its run has."""
    server.will(LAUNCHED, SUCCEEDED, output(ODD))
    assert submit().execute(context) == PLAIN
    assert WARNING in logged()


def test_an_output_is_cut_after_the_characters_are_replaced(
    context: Any, server: ScriptedServer
) -> None:
    """U+FFFD has three bytes."""
    server.will(LAUNCHED, SUCCEEDED, output(ODD))
    assert submit(max_output_bytes=4).execute(context) == "a\ufffd"
    assert context["ti"].xcoms["output_truncated"] is True


def test_the_iterations_of_a_loop(context: Any, server: ScriptedServer) -> None:
    """Each has an output of its own."""
    each = {**run("TERMINATED", "SUCCESS"), "run_id": 72, "task_key": "each", "for_each_task": {}}
    server.will(LAUNCHED, whole("SUCCESS", each), iterations("SUCCESS", "SUCCESS"))
    server.will(output("x"), output(ODD))
    assert submit().execute(context) == ["x", PLAIN]


def test_a_deferred_task(context: Any, server: ScriptedServer, logged: Callable[[], str]) -> None:
    """The event has no such output. The worker reads it, and tells what it has replaced."""
    server.will(LAUNCHED, RUNNING)
    operator = submit(deferrable=True)
    deferral = deferred_by(operator, context)
    server.will(SUCCEEDED, output(ODD))
    (event,) = events(deferral.trigger)
    check(event)
    assert not event.get("outputs")
    server.will(output(ODD))
    assert operator.execute_complete(context, event, **deferral.kwargs or {}) == PLAIN
    assert WARNING in logged()


def test_the_state_message_of_an_event(context: Any, server: ScriptedServer) -> None:
    """Such an event would end the triggerer, and each next one."""
    server.will(LAUNCHED, RUNNING)
    operator = submit(deferrable=True)
    deferral = deferred_by(operator, context)
    server.will(answer(run("TERMINATED", "FAILED", ODD)))
    (event,) = events(deferral.trigger)
    check(event)
    server.will(output(""))
    with pytest.raises(DatabricksRunFailedError, match="TERMINATED/FAILED: a") as caught:
        operator.execute_complete(context, event, **deferral.kwargs or {})
    assert "a\ufffdb\ufffdc\ufffd é😀" in str(caught.value)


@pytest.mark.usefixtures("triggerer_keeps_dags", "context")
def test_a_task_that_the_triggerer_ends(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it pushes can be stored."""
    stored = stored_from_trigger(monkeypatch)
    server.will(SUCCEEDED, output(ODD))
    event = fired(ending_trigger(), InTriggerer())
    assert xcoms_of(event) is None
    check(stored)
    assert any(PLAIN in one for one in stored)


def test_an_error_of_the_service(context: Any, server: ScriptedServer) -> None:
    """The event that tells why the run cannot be followed."""
    server.will(LAUNCHED, RUNNING)
    deferral = deferred_by(submit(deferrable=True), context)
    server.will(answer({"error_code": "INVALID_PARAMETER_VALUE", "message": ODD}, 400))
    (event,) = events(deferral.trigger)
    check(event)
    assert "a\\x00b\\ud83dc" in event["error"]


def test_an_output_without_such_characters_costs_no_second_read(
    context: Any, server: ScriptedServer
) -> None:
    """It is in the event."""
    server.will(LAUNCHED, RUNNING)
    deferral = deferred_by(submit(deferrable=True), context)
    server.will(SUCCEEDED, OUTPUT)
    (event,) = events(deferral.trigger)
    assert event["outputs"] == [{"run_id": 7, "result": "42"}]
