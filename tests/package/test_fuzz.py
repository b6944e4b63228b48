"""Random answers: whatever comes, no other exception than the client's own leaves it.

Quick with a fixed seed; ``make fuzz`` gives each test FUZZ_EXAMPLES random ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
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
from airflow_jobs_provider.triggers.polling import rate_limiter
from airflow_jobs_provider.triggers.polling.registry import get_poller
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
    tries=st.integers(1, 3),
)
def test_the_client(
    face: Face,
    server: ScriptedServer,
    call: Call[Any],
    status: int,
    more: dict[bytes, bytes],
    body: bytes,
    tries: int,
) -> None:
    """Every endpoint, on both faces: a result, or a JobsAPIError that can be written anywhere."""
    head = [b"HTTP/1.1 %d Whatever" % status, b"Content-Length: %d" % len(body)]
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


@examples(12)
@given(
    odd=st.lists(st.tuples(statuses, bodies), min_size=1, max_size=3),
    listed=st.none() | bodies,
)
@example(odd=[(200, b"{}")], listed=b"{}")
def test_the_poller(
    monkeypatch: pytest.MonkeyPatch, odd: list[tuple[int, bytes]], listed: bytes | None
) -> None:
    """One run's answers are its own waiter's trouble: the others get their runs."""
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1000.0)
    for name in ("_INVALID_BODY", "_REFUSED_CREDENTIALS", "_UNEXPECTED_WHILE_POLLING"):
        monkeypatch.setattr(
            retry, name, Backoff(0.001, 0.002, timeout=0.05, max_attempts=4, always_limited=True)
        )
    asyncio.run(asyncio.wait_for(_poll(monkeypatch, odd, listed), 20))


async def _poll(
    monkeypatch: pytest.MonkeyPatch, odd: list[tuple[int, bytes]], listed: bytes | None
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
        ),
    )
    alone, *run_ids = service.add(5)
    given_answers = iter(odd)
    latest = odd[-1]

    def answer() -> web.Response:
        status, body = next(given_answers, latest)
        return web.Response(status=status, body=body)

    async def list_page(_request: web.Request) -> web.Response:
        return web.Response(body=listed)

    service.odd[alone] = answer
    if listed is not None:
        service.list_runs = list_page
    poller = get_poller(DatabricksJobsHook(retry_delay=0.001))
    known = {"state": {"life_cycle_state": "RUNNING"}}
    of_odd_run = asyncio.create_task(poller.wait_for_change(alone, period=0.01, known=known))
    others = [
        asyncio.create_task(poller.wait_for_change(run_id, period=0.01, known=known))
        for run_id in run_ids
    ]
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
    finally:
        of_odd_run.cancel()
        await asyncio.gather(of_odd_run, return_exceptions=True)
        poller._task.cancel()
        await asyncio.gather(poller._task, return_exceptions=True)
        await runner.cleanup()
