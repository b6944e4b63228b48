"""Lists to their end, without repeats, whatever pages the service makes of them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_jobs_provider.api import endpoints, pagination
from airflow_jobs_provider.api.errors import BadRequestError, UnexpectedResponseError
from airflow_jobs_provider.api.workflows.cancel_previous import cancel_previous_runs
from airflow_jobs_provider.api.workflows.find import find_run
from airflow_jobs_provider.api.workflows.follow import follow_run
from airflow_jobs_provider.api.workflows.progress import RunProgress
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.operators.cancel_runs import DatabricksCancelRunsOperator
from airflow_jobs_provider.triggers.polling import rate_limiter, run_changes
from airflow_jobs_provider.triggers.polling.registry import get_poller
from tests.fakes.fake_service import FakeService, Plan, Run
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.client_face import Face

JOB, OTHER_JOB = 11, 12
# Without a version the lists are those of 2.0; the pages of 2.1 and 2.2 are alike.
VERSIONS = [
    None,
    pytest.param("2.0", marks=pytest.mark.slow),
    pytest.param("2.1", marks=pytest.mark.slow),
    "2.2",
]


@pytest.fixture
def service() -> Iterator[FakeService]:
    """A service of 160 runs, among others' that are left out of each page once it is cut.

    The newest run of all is one of those, so that the page at offset 1 begins with the same run as
    the first one; and so are a hundred in a row, so that pages are empty.
    """
    with FakeService() as one:
        one.lists.cut_first = True
        for n in range(360):
            is_active = n % 3 == 0
            run_id = 1000 + n
            one.runs[run_id] = Run(
                run_id=run_id,
                job_id=JOB if n % 2 else OTHER_JOB,
                kind="JOB_RUN",
                token=None,
                plan=Plan(looks=10**9 if is_active else 0),
                started=1_700_000_000.0 + n,
            )
            one.jobs[5000 + n] = {"name": f"job {n}"}
        hidden = [n for n in range(360) if n == 359 or 200 <= n < 300 or (n < 297 and n % 3 == 1)]
        hidden += list(range(2, 200, 6))[: 200 - len(hidden)]
        one.lists.hidden = {base + n for n in hidden for base in (1000, 5000)}
        assert len(one.runs) - len(hidden) == 160
        yield one


@pytest.fixture(params=VERSIONS, ids=str)
def hook(
    request: pytest.FixtureRequest, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DatabricksJobsHook]:
    """A hook of the service, for each version of the API that a connection may ask for."""
    one = connect(service, request.param, monkeypatch)
    yield one
    one.close()


def connect(
    service: FakeService, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> DatabricksJobsHook:
    """Make a hook of the service, which asks for a version."""
    connection: dict[str, Any] = {"conn_type": "databricks_jobs", "password": "x"}
    extra = {} if version is None else {"api_version": version}
    monkeypatch.setenv(
        "AIRFLOW_CONN_DATABRICKS_DEFAULT",
        json.dumps({**connection, "host": service.url, "extra": extra}),
    )
    return DatabricksJobsHook(retry_delay=0.01)


def visible(
    service: FakeService, cancels_orphans: Callable[[Run], bool] = lambda _run: True
) -> list[int]:
    """Return the ids of the runs that can be seen, latest first."""
    return [
        run_id
        for run_id in sorted(service.runs, reverse=True)
        if run_id not in service.lists.hidden and cancels_orphans(service.runs[run_id])
    ]


def listed(hook: DatabricksJobsHook, asynchronous: bool, **arguments: Any) -> list[int]:
    """List runs with the hook, on one of its faces."""
    if not asynchronous:
        return [run["run_id"] for run in hook.list_runs(**arguments)]

    async def collect() -> list[int]:
        return [run["run_id"] async for run in hook.a_list_runs(**arguments)]

    return asyncio.run(collect())


@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "asyncio"])
@pytest.mark.parametrize(
    "limit", [None, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (0, 100)), 25]
)
def test_all_runs_are_listed_once(
    service: FakeService, hook: DatabricksJobsHook, limit: int | None, asynchronous: bool
) -> None:
    """Short and empty pages are no end, pages overlap, and a limit too large is made smaller."""
    assert listed(hook, asynchronous, limit=limit) == visible(service)
    active = listed(hook, asynchronous, limit=limit, active_only=True, job_id=JOB)
    assert active == visible(service, lambda run: run.job_id == JOB and not run.ended)


def test_a_page_that_repeats_the_first_run(service: FakeService, hook: DatabricksJobsHook) -> None:
    """The case that the other tests are about is there."""
    first, second = (
        hook.send(endpoints.list_runs(limit=25, offset=offset)).items[0] for offset in (0, 1)
    )
    assert first["run_id"] == second["run_id"]
    page = hook.send(endpoints.list_runs(limit=25, offset=80))
    assert page.items == []
    assert page.has_more or page.token


def test_a_limit_that_is_refused(service: FakeService, hook: DatabricksJobsHook) -> None:
    """The largest one is taken from the refusal, so that one request is lost and no more."""
    service.lists.largest_limit = 26
    assert listed(hook, asynchronous=False, limit=900) == visible(service)
    limits = [seen.parameters["limit"] for seen in service.seen]
    assert limits[0] == "900"
    assert set(limits[1:]) == {"26"}


def test_all_jobs_are_listed_once(service: FakeService, hook: DatabricksJobsHook) -> None:
    """A job that is missed would be created once more."""
    job_ids = [job_id for job_id in service.jobs if job_id not in service.lists.hidden]
    assert [job["job_id"] for job in hook.list_jobs()] == job_ids
    assert hook.find_job_id_by_name(service.jobs[job_ids[-1]]["name"]) == job_ids[-1]
    assert asyncio.run(hook.a_find_job_id_by_name("job 0")) == 5000
    assert hook.find_job_id_by_name("job 359") is None


def test_the_run_of_a_job_is_found(service: FakeService, hook: DatabricksJobsHook) -> None:
    """It may be on a page behind empty ones."""
    *_, oldest = visible(service, lambda run: run.job_id == JOB)
    started = service.runs[oldest].started
    run = hook.client.run(find_run(JOB, started_since=started - 1, began=started))
    assert run is not None
    assert run["run_id"] == oldest


def test_previous_runs_are_canceled(service: FakeService, hook: DatabricksJobsHook) -> None:
    """All of them, each once."""
    active = visible(service, lambda run: run.job_id == JOB and not run.ended)
    canceled = hook.client.run(cancel_previous_runs(JOB, polling_period_seconds=0))
    assert sorted(canceled) == sorted(active)
    assert service.count("runs/cancel") == len(active)


def test_a_job_whose_first_page_has_no_active_run(
    service: FakeService, hook: DatabricksJobsHook
) -> None:
    """The operator that cancels a job's runs waits for those on later pages, too."""
    operator = DatabricksCancelRunsOperator(task_id="cancel", job_id=JOB)
    operator.hook = hook
    for run in service.runs.values():
        if run.run_id >= 1100:
            run.plan = Plan(looks=0)
    active = visible(service, lambda run: run.job_id == JOB and not run.ended)
    found = operator._active("job_id", JOB)
    assert found
    assert set(found) <= set(active)
    for run in service.runs.values():
        run.plan = Plan(looks=0)
    assert operator._active("job_id", JOB) == []


def test_the_next_attempt_is_found(service: FakeService, hook: DatabricksJobsHook) -> None:
    """The run with which the service retries another one may be behind an empty page."""
    first, last = 1001, 1003
    service.lists.hidden -= {first, last}
    service.jobs[JOB] = {"name": "retried", "max_retries": 1}
    service.runs[first].plan = Plan(result="FAILED", looks=0)
    service.runs[last].plan = Plan(looks=0)
    service.runs[last].more = {"original_attempt_run_id": first, "attempt_number": 1}
    progress = RunProgress(first, logging.getLogger("task"))
    steps = follow_run(first, polling_period=lambda: 0, progress=progress)
    assert hook.client.run(steps).run["run_id"] == last


def test_the_poller_sees_all_runs(
    service: FakeService, hook: DatabricksJobsHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the same pages to their end: no active run is missing and asked for by its id."""
    monkeypatch.setattr(rate_limiter, "REQUESTS_PER_SECOND", 1000.0)
    # All runs are read each time, however slow the machine is.
    monkeypatch.setattr(run_changes, "SLOW_FRACTION", float("inf"))
    service.lists.largest_limit = 26 if hook.client.api_version in (None, "2.0") else None
    active = visible(service, lambda run: not run.ended)
    known = {"state": {"life_cycle_state": "RUNNING"}}

    async def follow() -> list[Any]:
        poller = get_poller(hook)
        waits = [
            asyncio.create_task(poller.wait_for_change(run_id, period=0.5, known=known))
            for run_id in active
        ]
        # The service has no event for it.
        while len([s for s in service.seen if "active_only" in s.parameters]) < 60:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        asked_for = service.count("runs/get")
        for run_id in active:
            service.runs[run_id].plan = Plan(looks=0)
        assert asked_for == 0
        return list(await asyncio.gather(*waits))

    runs = asyncio.run(asyncio.wait_for(follow(), 30))
    assert [run["run_id"] for run in runs] == active
    assert {run["state"]["result_state"] for run in runs} == {"SUCCESS"}
    limits = {int(seen.parameters["limit"]) for seen in service.seen if "limit" in seen.parameters}
    assert len([limit for limit in limits if limit > 26]) <= 1


@pytest.mark.parametrize("pinned", [None, "2.0"])
def test_an_offset_that_is_refused(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, pinned: str | None
) -> None:
    """Lists beyond it are read by page tokens, in a version that has them; else the words tell."""
    service.lists.last_offset = 100
    hook = connect(service, pinned, monkeypatch)
    # Version 2.0 is where pages go by offset.
    monkeypatch.setattr(endpoints, "_list_call", _from_2_0(endpoints._list_call))
    if pinned is None:
        assert listed(hook, asynchronous=False, limit=25) == visible(service)
        assert {seen.version for seen in service.seen} == {"2.0", "2.2"}
    else:
        with pytest.raises(BadRequestError, match="Please use the page_token parameter"):
            listed(hook, asynchronous=False, limit=25)
    hook.close()


def _from_2_0(paged: Any) -> Any:

    def from_2_0(*arguments: Any) -> Any:
        return paged(*arguments)._replace(default_api_version="2.0")

    return from_2_0


RUN = {"run_id": 1, "state": {"life_cycle_state": "RUNNING"}}
PAGES_WITHOUT_ITEMS = 90
STUCK = {
    "one token for ever": ({"runs": [RUN], "next_page_token": "a"}, 4),
    "has_more with the same page": ({"runs": [RUN], "has_more": True}, 60),
    "empty pages for ever": ({"runs": [], "has_more": True}, PAGES_WITHOUT_ITEMS + 1),
}


@pytest.mark.parametrize("name", STUCK)
def test_a_list_that_does_not_advance(
    name: str, connected: Face, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with an error that says so. 1,000 empty pages take a second."""
    monkeypatch.setattr(pagination, "MAX_PAGES_WITHOUT_ITEMS", PAGES_WITHOUT_ITEMS)
    page, most = STUCK[name]
    server.will(*[answer(page)] * (most + 1))
    with pytest.raises(UnexpectedResponseError, match=r"runs/list: .* the list does not advance"):
        connected.take(endpoints.list_runs(), 9)
    assert len(server.requests) <= most


def test_a_token_for_each_time_the_same_page(connected: Face, server: ScriptedServer) -> None:
    """New tokens do not make an old page new."""
    server.will(*[answer({"runs": [RUN], "next_page_token": str(n)}) for n in range(9)])
    with pytest.raises(UnexpectedResponseError, match="the same page came once more"):
        connected.take(endpoints.list_runs(), 9)
    assert len(server.requests) == 2
