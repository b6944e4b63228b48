"""The fault matrix: each fault at each endpoint, waited for in the worker and in the triggerer.

The service is one that keeps count (fake_service.py), behind real HTTP; the operators, the trigger
and their clients are the real ones. What they would wait is noted, not waited.
"""

from __future__ import annotations

import logging
import os
import re
import signal
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_jobs_provider.api.errors import ServerError
from airflow_jobs_provider.exceptions import DatabricksRunTimeoutError
from tests.fakes.fake_service import FAULTS, Plan, Seen
from tests.helpers.fault_bench import (
    FOREVER,
    Bench,
    KilledError,
    faults,
)

# How often each goes wrong in a row; minutes of 503 are many times.
TIMES = {"503": 6, "403": 2}
MINUTES_OF_503 = 4.5
LAUNCHES = ["runs/submit", "run-now"]
MODES = ["blocking", "deferrable"]


def _reason(fault: str) -> str:
    """What a log line must say of a fault."""
    return {
        "500": "500 INTERNAL_ERROR: Try again",
        "502 HTML": "502 with no JSON object but 'Bad Gateway'",
        "503": "503 TEMPORARILY_UNAVAILABLE",
        "429": "429 REQUEST_LIMIT_EXCEEDED",
        "403": "answered 403 Invalid access token",
        "200 not JSON": "200 with no JSON object but 'Bad Gateway'",
        "time-out": "no complete response came from 127.0.0.1.*nothing came for",
    }.get(
        re.sub(r" (before|after) handling| with Retry-After", "", fault),
        "no complete response came",
    )


def _check_one_line(bench: Bench, endpoint: str, fault: str) -> None:
    (line,) = bench.lines()
    assert re.search(_reason(fault), line), line
    assert "Error" not in line, line
    in_triggerer = "cannot be followed for now" in line
    assert in_triggerer or line.startswith(f"{endpoint} failed: "), line
    ends = [
        one
        for one in bench.lines(logging.INFO)
        if re.search(r"(succeeded after|answers again)", one)
    ]
    assert len(ends) == 1, ends


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("endpoint", LAUNCHES)
@pytest.mark.parametrize("fault", faults("403"))
def test_at_launch(bench: Bench, fault: str, endpoint: str, mode: str) -> None:
    """One run is launched and followed to its end; one line says what the trouble was."""
    times = TIMES.get(fault, 1)
    bench.service.trouble(endpoint, FAULTS[fault], times)
    assert bench.run(endpoint, mode) == "output of 1001"
    assert len(bench.service.runs) == 1
    assert bench.service.count(endpoint) == times + 1
    assert bench.xcoms["run_id"] == 1001
    _check_one_line(bench, endpoint, fault)
    if fault == "503":
        assert sum(bench.waits) >= MINUTES_OF_503 * 60


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("endpoint", LAUNCHES)
def test_refused_at_launch(bench: Bench, endpoint: str, mode: str) -> None:
    """A 403 fails the try: no run, no second request; the exception says why, retries decide."""
    bench.service.trouble(endpoint, FAULTS["403"], FOREVER)
    with pytest.raises(AirflowException, match="Invalid access token") as caught:
        bench.run(endpoint, mode)
    assert not isinstance(caught.value, AirflowFailException)
    assert bench.service.runs == {}
    assert bench.service.count(endpoint) == 1
    assert bench.lines() == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", [True, False], ids=["first look", "while polling"])
@pytest.mark.parametrize("fault", faults())
def test_at_runs_get(bench: Bench, fault: str, first: bool, mode: str) -> None:
    """Any outage is waited out, a refusal for a while; the run is followed to its end."""
    if first:
        bench.service.trouble("runs/get", FAULTS[fault], TIMES.get(fault, 1))
    else:

        def once_it_runs(seen: Seen, moment: str) -> bool:
            if (seen.endpoint, moment) == ("runs/get", "handled"):
                bench.service.hook = None
                bench.service.trouble("runs/get", FAULTS[fault], TIMES.get(fault, 1))
            return False

        bench.service.hook = once_it_runs
    assert bench.run("runs/submit", mode) == "output of 1001"
    assert len(bench.service.runs) == 1
    assert bench.service.count("runs/submit") == 1
    if mode == "deferrable" and not first and re.match("lost|reset", fault):
        # aiohttp reads once more by itself where a connection it kept turns out to be closed.
        assert bench.lines() == []
        assert bench.service.count("runs/get") == 3
        return
    _check_one_line(bench, "runs/get", fault)
    if fault == "503":
        assert sum(bench.waits) >= MINUTES_OF_503 * 60


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", faults("403"))
def test_at_get_output(bench: Bench, fault: str, mode: str) -> None:
    """The output is read once the trouble is over; the triggerer leaves that to the worker."""
    # The triggerer asks once, or twice where a connection that aiohttp kept turns out to be closed.
    times = TIMES.get(fault, 1) + (2 if mode == "deferrable" else 0)
    bench.service.trouble("runs/get-output", FAULTS[fault], times)
    assert bench.run("runs/submit", mode) == "output of 1001"
    assert len(bench.service.runs) == 1
    _check_one_line(bench, "runs/get-output", fault)


@pytest.mark.parametrize("mode", MODES)
def test_refused_at_get_output(bench: Bench, mode: str) -> None:
    """Output that may not be read never spoils a verdict; the log says why there is none."""
    bench.service.trouble("runs/get-output", FAULTS["403"], FOREVER)
    assert bench.run("runs/submit", mode) is None
    (line,) = bench.lines()
    assert re.fullmatch(r"The output of run 1001 cannot be read: .*403.*Invalid access.*", line)


def _failing_once(bench: Bench) -> None:
    bench.service.plans.extend((Plan("FAILED", message="LAUNCH_FAILURE"), Plan()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", faults("403"))
def test_at_repair(bench: Bench, fault: str, mode: str) -> None:
    """The run is repaired once, however the answer gets lost, and its end is the task's."""
    _failing_once(bench)
    bench.service.trouble("runs/repair", FAULTS[fault], TIMES.get(fault, 1))
    assert bench.run("run-now", mode, repair_run=True) == "output of 1001"
    (run,) = bench.service.runs.values()
    assert len(run.repairs) == 1


@pytest.mark.parametrize("fault", faults("403"))
def test_at_update_before_a_repair(bench: Bench, fault: str) -> None:
    """The job gets its new settings, and the run is repaired after that."""
    _failing_once(bench)
    bench.service.trouble("update", FAULTS[fault], TIMES.get(fault, 1))
    settings = {"LAUNCH_FAILURE": {"name": "larger"}}
    output = bench.run(
        "run-now", "blocking", repair_run=True, databricks_repair_reason_new_settings=settings
    )
    assert output == "output of 1001"
    assert bench.service.jobs == {11: {"name": "larger"}}
    endpoints = [seen.endpoint for seen in bench.service.seen]
    assert endpoints.index("runs/repair") > max(
        place for place, name in enumerate(endpoints) if name == "update"
    )


@pytest.mark.parametrize("fault", faults("403"))
def test_at_the_list_of_pipelines(bench: Bench, fault: str) -> None:
    """A pipeline that is given by its name is found once the trouble is over."""
    bench.service.pipelines = {"a-1": "sales", "a-2": "sales_of_2026"}
    bench.service.trouble("pipelines", FAULTS[fault], TIMES.get(fault, 1))
    more = {"notebook_task": None, "existing_cluster_id": None}
    task = {"pipeline_name": "sales", "full_refresh": True}
    assert bench.run("runs/submit", "blocking", pipeline_task=task, **more) == "output of 1001"
    (run,) = bench.service.runs.values()
    assert run.request["pipeline_task"] == {"pipeline_id": "a-1", "full_refresh": True}


def _run_and_kill(bench: Bench, mode: str) -> None:
    """Run a task that is killed in the worker, or whose execution_timeout passes while deferred."""
    bench.service.plan = Plan(looks=FOREVER)
    if mode == "blocking":

        def kill(seen: Seen, moment: str) -> bool:
            polled = (seen.endpoint, moment) == ("runs/get", "received")
            if polled and bench.service.count("runs/get") == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
            return False

        bench.service.hook = kill
        with pytest.raises(KilledError):
            bench.run("runs/submit", mode)
    else:
        bench.context["ti"].start_date = datetime.now(UTC)
        with pytest.raises(DatabricksRunTimeoutError, match="execution_timeout"):
            bench.run("runs/submit", mode, execution_timeout=timedelta(seconds=0.2))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", faults("403", "503"))
def test_at_cancel(bench: Bench, fault: str, mode: str) -> None:
    """The one run is canceled all the same."""
    bench.service.trouble("runs/cancel", FAULTS[fault])
    _run_and_kill(bench, mode)
    (run,) = bench.service.runs.values()
    assert run.result == "CANCELED"
    assert bench.service.count("runs/cancel") == 2
    _check_one_line(bench, "runs/cancel", fault)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["503", "403"])
def test_no_cancel(bench: Bench, fault: str, mode: str) -> None:
    """Where the service refuses for longer than is tried, an error names the live run."""
    bench.service.trouble("runs/cancel", FAULTS[fault], FOREVER)
    _run_and_kill(bench, mode)
    assert [run.run_id for run in bench.service.live] == [1001]
    *_, line = bench.lines()
    assert re.match("Run 1001 could not be canceled and may still run: runs/cancel", line)
    assert re.search(_reason(fault), line)
    # A kill on the worker may take seconds; the triggerer tries for ten minutes.
    assert 1 <= bench.service.count("runs/cancel") <= (4 if mode == "blocking" else 20)


def test_minutes_of_503_at_cancel(bench: Bench) -> None:
    """In the triggerer the one run is canceled all the same."""
    bench.service.trouble("runs/cancel", FAULTS["503"], TIMES["503"])
    _run_and_kill(bench, "deferrable")
    (run,) = bench.service.runs.values()
    assert run.result == "CANCELED"
    assert sum(bench.waits) >= MINUTES_OF_503 * 60
    _check_one_line(bench, "runs/cancel", "503")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("endpoint", LAUNCHES)
def test_an_outage_without_end_at_launch(bench: Bench, endpoint: str, mode: str) -> None:
    """After ten minutes the task fails with what the service said; Airflow may retry it."""
    bench.service.trouble(endpoint, FAULTS["503"], FOREVER)
    with pytest.raises(ServerError, match=r"503 TEMPORARILY_UNAVAILABLE.*\d+ attempts in") as e:
        bench.run(endpoint, mode)
    # The next wait, of at most 60 s and a quarter of jitter, would have ended after ten minutes.
    assert 600 - 75 <= e.value.elapsed_seconds <= 600
    assert bench.service.runs == {}


@pytest.mark.parametrize("mode", MODES)
def test_an_outage_without_end_at_get_output(bench: Bench, mode: str) -> None:
    """The run succeeded, so the task does, without an output."""
    bench.service.trouble("runs/get-output", FAULTS["503"], FOREVER)
    assert bench.run("runs/submit", mode) is None
    began, gave_up = bench.lines()
    assert "runs/get-output failed" in began
    assert "The output of run 1001 cannot be read" in gave_up


@pytest.mark.parametrize("mode", MODES)
def test_an_hour_of_outage_while_polling(bench: Bench, mode: str) -> None:
    """However long it takes, the run is found again; there is still one line."""
    bench.service.trouble("runs/get", FAULTS["503"], 70)
    assert bench.run("runs/submit", mode) == "output of 1001"
    assert sum(bench.waits) >= 3600
    _check_one_line(bench, "runs/get", "503")


@pytest.mark.parametrize("mode", MODES)
def test_retry_after_is_honoured(bench: Bench, mode: str) -> None:
    """The wait is the Retry-After with a jitter on top, not the policy's own first wait."""
    bench.service.trouble("runs/submit", FAULTS["429 with Retry-After"])
    bench.run("runs/submit", mode)
    assert [wait for wait in bench.waits if 2.0 <= wait <= 2.5]
    assert not [wait for wait in bench.waits if 1.0 <= wait < 2.0]
