"""Random answers: whatever comes, no other exception than the client's own leaves it.

Quick with a fixed seed; ``make fuzz`` gives each test FUZZ_EXAMPLES random ones.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_jobs_provider.api import endpoints, retry
from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.errors import JobsAPIError, UnexpectedResponseError
from airflow_jobs_provider.api.pagination import read_all_items
from airflow_jobs_provider.api.responses import InvalidResponseError
from airflow_jobs_provider.api.retry import Backoff, RetryPolicy
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.base import WorkflowExecution
from airflow_jobs_provider.api.workflows.cancel_previous import cancel_previous_runs
from airflow_jobs_provider.api.workflows.find import (
    find_job_id,
    find_pipeline_id,
    find_run,
    follow_task,
)
from airflow_jobs_provider.api.workflows.follow import follow_run, whole_run
from airflow_jobs_provider.api.workflows.launch import launch_once
from airflow_jobs_provider.api.workflows.outputs import output_value, read_outputs
from airflow_jobs_provider.api.workflows.progress import RunProgress
from airflow_jobs_provider.api.workflows.repair import repair_once, repaired_at, run_parameters
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.event_arguments import RunEventTriggerArguments
from airflow_jobs_provider.triggers.polling import ended_runs, list_pages, rate_limiter
from airflow_jobs_provider.triggers.polling.ended_runs import Watch
from airflow_jobs_provider.triggers.polling.poller import RunPoller
from airflow_jobs_provider.triggers.polling.registry import get_poller
from airflow_jobs_provider.triggers.polling.watch_position import WatchPosition
from airflow_jobs_provider.triggers.run_selection import RunSelection
from tests.fakes.many_runs import ManyRuns
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.client_face import Face
from tests.helpers.fuzz import examples

# -- answers -------------------------------------------------------------------------------------

whole_numbers = st.integers(-2, 9) | st.integers(-(2**70), 2**70)
anything = st.recursive(
    st.none() | st.booleans() | whole_numbers | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
RUN_ID = 7
ids = st.sampled_from([RUN_ID, str(RUN_ID), 8, 9])
texts = st.text(max_size=8)
times = st.integers(0, 2**45)


def like(**fields: Any) -> Any:
    """Make objects with some of these fields, a few of them of any type."""
    return st.fixed_dictionaries(
        {},
        optional={
            # Mostly as it should be, else hardly an object would fit.
            name: st.one_of([strategy] * 9 + [anything])
            for name, strategy in fields.items()
        },
    )


states = like(
    life_cycle_state=st.sampled_from(["RUNNING", "TERMINATED", "INTERNAL_ERROR", "NEW"]) | texts,
    result_state=st.sampled_from(["SUCCESS", "FAILED", "TIMEDOUT", "CANCELED"]) | texts,
    state_message=texts,
    user_cancelled_or_timedout=st.booleans(),
)
of_tasks: dict[str, Any] = {
    "run_id": ids,
    "task_key": st.sampled_from(["a", "b"]),
    "state": states,
    "start_time": times,
    "end_time": times,
    "attempt_number": st.integers(0, 3),
    "original_attempt_run_id": ids,
    "notebook_task": st.just({}),
    "for_each_task": like(stats=like(task_run_stats=like(total_iterations=st.integers(0, 9)))),
}
runs = like(
    **of_tasks,
    job_id=ids,
    run_type=st.just("JOB_RUN"),
    run_page_url=texts,
    format=st.just("MULTI_TASK"),
    has_more=st.booleans(),
    next_page_token=texts,
    tasks=st.lists(like(**of_tasks), max_size=3),
    iterations=st.lists(like(**of_tasks), max_size=3),
    repair_history=st.lists(
        like(id=ids, type=st.just("REPAIR"), start_time=times, state=states), max_size=2
    ),
    overriding_parameters=like(notebook_params=like(a=texts)),
    job_parameters=st.lists(like(name=texts, value=texts), max_size=2),
)
jobs = like(
    job_id=ids,
    settings=like(
        name=st.just("name"),
        max_retries=st.integers(-1, 2),
        retry_on_timeout=st.booleans(),
        min_retry_interval_millis=times,
    ),
)
outputs = like(
    metadata=runs,
    notebook_output=like(result=texts, truncated=st.booleans()),
    error=texts,
    error_trace=texts,
)
pipelines = like(pipeline_id=st.sampled_from(["a", "b"]), name=st.just("name"), state=texts)
pages = like(
    runs=st.lists(runs, max_size=3),
    jobs=st.lists(jobs, max_size=3),
    statuses=st.lists(pipelines, max_size=3),
    has_more=st.booleans(),
    next_page_token=texts,
)
errors = like(error_code=texts | whole_numbers, message=texts, error=texts)
views = like(views=st.lists(like(content=texts, name=texts, type=texts), max_size=2))
answers = st.one_of(
    runs, jobs, outputs, pages, errors, views, like(run_id=ids, job_id=ids, repair_id=ids), anything
)
DEEP = b"[" * 20_000
bodies = st.one_of(
    answers.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60),
    st.sampled_from([b"", b"null", DEEP, b'{"run_id": 7, "state": ' + DEEP, b'{"a": 1e400}']),
    st.sampled_from([b'{"run_id": ' + b"9" * 5000 + b"}", b'\xef\xbb\xbf{"run_id": 7}', b"\xff{}"]),
)
# No line breaks, which would end a header.
values = st.binary(max_size=20).map(lambda value: bytes(b for b in value if b not in b"\r\n\0"))
headers = st.dictionaries(
    st.sampled_from(
        [
            *(b"Retry-After", b"Location", b"Content-Type", b"Content-Encoding", b"Set-Cookie"),
            *(b"x-request-id", b"x-databricks-request-id", b"WWW-Authenticate", b"Date"),
        ]
    ),
    values
    | st.sampled_from(
        [b"0", b"17", b"nan", b"Wed, 21 Oct 2015 07:28:00 +99999999999999", b"http://[::1", b"gzip"]
    ),
    max_size=3,
)
statuses = st.sampled_from([200, 200, 200, 201, 204, 301, 302, 400, 401, 403, 404, 429, 500, 503])

CALLS: list[Call[Any]] = [
    endpoints.create_job({}),
    endpoints.list_jobs(),
    endpoints.delete_job(1),
    endpoints.get_job(RUN_ID),
    endpoints.reset_job(1, {}),
    endpoints.update_job(1, {}),
    endpoints.run_now({"job_id": 1}),
    endpoints.submit_run({}),
    endpoints.list_runs(),
    endpoints.list_runs(check_items=False),
    endpoints.get_run(RUN_ID),
    endpoints.export_run(RUN_ID),
    endpoints.cancel_run(RUN_ID),
    endpoints.cancel_all_runs(1),
    endpoints.get_run_output(RUN_ID),
    endpoints.repair_run({"run_id": RUN_ID}),
    endpoints.delete_run(RUN_ID),
    endpoints.get_job_id_of_run(RUN_ID),
    endpoints.update_job_permission(1, {}),
    endpoints.list_pipelines(name="name"),
]


@examples(50)
@given(
    call=st.sampled_from(CALLS),
    status=statuses,
    more=headers,
    body=bodies,
    form=st.sampled_from(["whole", "whole", "gzip", "cut"]),
    tries=st.integers(1, 3),
)
def test_the_client(
    face: Face,
    server: ScriptedServer,
    call: Call[Any],
    status: int,
    more: dict[bytes, bytes],
    body: bytes,
    form: str,
    tries: int,
) -> None:
    """Every endpoint, on both faces: a result, or a JobsAPIError that can be written anywhere."""
    if form == "gzip":
        body, more = gzip.compress(body), {**more, b"Content-Encoding": b"gzip"}
    # Where it is cut, the connection is closed before the last bytes.
    length = len(body) + 5 * (form == "cut")
    head = [b"HTTP/1.1 %d Whatever" % status, b"Content-Length: %d" % length]
    head += [b"Connection: close", *(name + b": " + value for name, value in more.items())]

    def step(connection: socket.socket) -> None:
        connection.sendall(b"\r\n".join([*head, b"", body]))

    server.steps.clear()
    server.will(*[step] * tries)
    face.connect(server.url, retries=RetryPolicy(max_attempts=tries))
    try:
        result = face.send(call)
    except JobsAPIError as error:
        told = str(error)
        assert told.isprintable()
    else:
        if call.path in ("run-now", "runs/submit", "create", "runs/repair"):
            assert type(result) is int
            assert 0 < result < 2**63


# -- what uses answers ---------------------------------------------------------------------------

NO_LOG = logging.getLogger("fuzz")
NO_LOG.propagate = False
NO_LOG.addHandler(logging.NullHandler())


def followed() -> Generator[Any, Any, Any]:
    """Follow a run, read its outputs, and say how it ended."""
    progress = RunProgress(RUN_ID, NO_LOG)
    ended = yield from follow_run(
        RUN_ID, polling_period=lambda: 1.0, progress=progress, queued_timeout_seconds=5
    )
    assert str(RunState.from_run(ended.run))
    repaired_at(ended.run)
    run_parameters(ended.run)
    read = yield from read_outputs(ended.run, on_unreadable=lambda _tasks, _error: None)
    return output_value(read)


WORKFLOWS: dict[str, Callable[[], Generator[Any, Any, Any]]] = {
    "follow": followed,
    "launch": lambda: launch_once(
        endpoints.run_now({"job_id": 1}), ["a", "b"], polling_period_seconds=1.0
    ),
    "read whole": lambda: whole_run(RUN_ID),
    "find job": lambda: find_job_id("name"),
    "find pipeline": lambda: find_pipeline_id("name"),
    "find run": lambda: find_run(3, started_since=1.0, began=2.0**40),
    "follow task": lambda: follow_task(RUN_ID, "a", polling_period=lambda: 1.0, log=NO_LOG),
    "cancel previous": lambda: cancel_previous_runs(3, polling_period_seconds=1.0),
    "repair": lambda: repair_once(RUN_ID, max_repairs=2, polling_period_seconds=1.0),
    "list": lambda: read_all_items(endpoints.list_runs()),
}
STEPS = 25


class TooManySteps(Exception):  # noqa: N818 - no error
    """The workflow has taken enough steps."""


class Steps:
    """Ends a workflow after so many steps."""

    def __init__(self) -> None:
        self.left = STEPS

    def count(self) -> None:
        """Count a step."""
        self.left -= 1
        if self.left < 0:
            raise TooManySteps


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", WORKFLOWS)
@examples(50)
@given(data=st.data())
def test_workflows(name: str, data: st.DataObject) -> None:
    """What was checked once can be relied on: nothing that uses answers fails over one."""
    kinds = {"runs/get": runs, "runs/list": pages, "list": pages, "get": jobs, "": pages}
    kinds["runs/get-output"], launches = outputs, like(run_id=ids, repair_id=ids)

    def send(call: Call[Any]) -> Any:
        drawn = data.draw(kinds.get(call.path, launches))
        try:
            return call.parse(json.loads(json.dumps(drawn)))
        except InvalidResponseError as error:
            raise UnexpectedResponseError(status=200, excerpt=error.problem) from None

    execution = WorkflowExecution(WORKFLOWS[name](), before_step=Steps().count)
    try:
        while execution.advance(send) is not None:
            pass
    except TooManySteps:
        pass
    except JobsAPIError:
        pass
    except ValueError as error:
        # What is asked for is not there: the user is told so.
        assert "has no task" in str(error)  # noqa: PT017


# -- the poller ----------------------------------------------------------------------------------

# Runs of others, and the odd one, with what no run has: huge numbers, times in the far future,
# states that are no states. What a list says of the other runs that are waited for is believed.
run_ids_of_others = st.integers(2**53, 2**63 - 1) | st.sampled_from([1, "1", 1000]) | anything
listed_runs = st.fixed_dictionaries(
    {"run_id": run_ids_of_others},
    optional={
        "state": states | anything,
        "start_time": st.integers(2**41, 2**64) | times | anything,
        "end_time": st.integers(2**41, 2**64) | times | anything,
        "job_id": ids | anything,
        "run_type": texts | anything,
        "run_name": texts | anything,
        "execution_duration": anything,
        "tasks": anything,
    },
)
# Tokens that come again, and pages that all say that there is another one.
listed_pages = st.fixed_dictionaries(
    {"runs": st.lists(listed_runs, max_size=4).map(lambda found: [*found, *found])},
    optional={
        "has_more": st.booleans() | anything,
        "next_page_token": st.sampled_from(["again", ""]) | anything,
    },
).map(lambda page: json.dumps(page).encode())


class Cut(bytes):
    """A body of which the second half does not come: the connection is closed."""


class Packed(bytes):
    """A body that is sent with ``Content-Encoding: gzip``."""


odd_bodies = (
    bodies
    | bodies.map(Cut)
    | bodies.map(gzip.compress).map(Packed)
    | st.just(b"<html><title>Sign in</title></html>")
)


@examples(12)
@given(
    odd=st.lists(st.tuples(statuses, odd_bodies), min_size=1, max_size=3),
    listed=st.none() | odd_bodies | listed_pages,
    api_version=st.sampled_from(["2.0", "2.1"]),
    chosen=st.sampled_from([None, {"all_runs": True}, {"all_runs": True, "states": ["FAILED"]}]),
)
@example(odd=[(200, b"{}")], listed=b"{}", api_version="2.0", chosen=None)
@example(
    odd=[(200, b"{}")],
    listed=b'{"runs": [{"run_id": 1000, "end_time": 4102444800000, "state": '
    b'{"life_cycle_state": "TERMINATED", "result_state": [1]}}]}',
    api_version="2.0",
    chosen={"all_runs": True, "states": ["FAILED"]},
)
def test_the_poller(
    monkeypatch: pytest.MonkeyPatch,
    odd: list[tuple[int, bytes]],
    listed: bytes | None,
    api_version: str,
    chosen: dict[str, Any] | None,
) -> None:
    """One run's answers are its own waiter's trouble: the others get their runs.

    A list stops neither them nor a watch of all runs.
    """
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1000.0)
    for name in ("_INVALID_BODY", "_REFUSED_CREDENTIALS", "_UNEXPECTED_WHILE_POLLING"):
        monkeypatch.setattr(
            retry, name, Backoff(0.001, 0.002, timeout=0.05, max_attempts=4, always_limited=True)
        )
    monkeypatch.setattr(ended_runs, "COLLECT_SECONDS", 0.001)
    monkeypatch.setattr(list_pages, "SHORT_OUTAGE_SECONDS", 0.05)
    asyncio.run(asyncio.wait_for(_poll(monkeypatch, odd, listed, api_version, chosen), 20))


async def _respond(request: web.Request, status: int, body: bytes | None) -> web.StreamResponse:
    if isinstance(body, Cut):
        response = web.StreamResponse(status=status, headers={"Content-Length": str(len(body) + 9)})
        await response.prepare(request)
        await response.write(body)
        assert request.transport is not None
        request.transport.close()
        return response
    packed = {"Content-Encoding": "gzip"} if isinstance(body, Packed) else {}
    return web.Response(status=status, body=body, headers=packed)


async def _watch(watch: Watch, poller: RunPoller) -> None:
    """Follow a watch; each position can be stored."""
    async for batch in poller.ended_runs.follow(watch):
        json.dumps(batch.position, allow_nan=False)


async def _poll(
    monkeypatch: pytest.MonkeyPatch,
    odd: list[tuple[int, bytes]],
    listed: bytes | None,
    api_version: str,
    chosen: dict[str, Any] | None,
) -> None:
    service = ManyRuns()
    runner = web.AppRunner(service.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    monkeypatch.setenv(
        "AIRFLOW_CONN_DATABRICKS_DEFAULT",
        json.dumps(
            {"conn_type": "databricks_jobs", "host": f"http://{host}:{port}", "password": "x"}
            | {"extra": {"api_version": api_version}}
        ),
    )
    alone, *run_ids = service.add(5)
    given_answers = iter(odd)
    latest = odd[-1]

    get_run = service._get

    async def get(request: web.Request) -> web.StreamResponse:
        if request.query["run_id"] != str(alone):
            return await get_run(request)
        return await _respond(request, *next(given_answers, latest))

    async def list_page(request: web.Request) -> web.StreamResponse:
        return await _respond(request, 200, listed)

    service.get_run = get
    if listed is not None:
        service.list_runs = list_page
    poller = get_poller(DatabricksJobsHook(retry_delay=0.001))
    known = {"state": {"life_cycle_state": "RUNNING"}}
    of_odd_run = asyncio.create_task(poller.wait_for_change(alone, period=0.01, known=known))
    others = [
        asyncio.create_task(poller.wait_for_change(run_id, period=0.01, known=known))
        for run_id in run_ids
    ]
    watching: list[asyncio.Task[None]] = []
    if chosen is not None:
        selection = RunSelection.from_arguments(RunEventTriggerArguments(**chosen))
        watch = Watch(selection, 0.01, WatchPosition.at_first_start(time.time(), 3600))
        watching.append(asyncio.create_task(_watch(watch, poller)))
    try:
        # On a slow machine the poller reads the list of ended runs only.
        while service.asked.total() < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        for run_id in run_ids:
            service.end(run_id)
        ended = await asyncio.gather(*others)
        assert {run["state"]["result_state"] for run in ended} == {"SUCCESS"}
        if of_odd_run.done() and (error := of_odd_run.exception()) is not None:
            assert isinstance(error, JobsAPIError)
        assert not any(task.done() for task in watching)
    finally:
        for task in (of_odd_run, *watching):
            task.cancel()
        await asyncio.gather(of_odd_run, *watching, return_exceptions=True)
        poller._task.cancel()
        await asyncio.gather(poller._task, return_exceptions=True)
        await runner.cleanup()
