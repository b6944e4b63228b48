"""The attempts of mapped tasks in the triggerer: kills, retries and clears of one instance."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from tests.fakes.fake_service import UNTIL_ENDED, FakeService, Plan
from tests.helpers.launch_trigger import messages, pause, succeeded, until_launched
from tests.helpers.mapped_tasks import mapped, over_literal_values, sent
from tests.helpers.triggerer import RUN_ID, START, Attempt, values_of


@pytest.mark.parametrize("stores_xcoms", [True, False])
def test_killed_at_each_moment_each_instance_has_one_run(
    stores_xcoms: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another triggerer takes over, and gets the run of the same instance."""
    triggerer = mapped(service, monkeypatch, over_literal_values)
    triggerer.stores_xcoms = stores_xcoms
    assert succeeded(triggerer.start(Attempt(map_index=1)))
    moments = list(triggerer.moments)
    moments = moments[: moments.index("SetXCom job_id received")]
    killed = 0
    for number in range(len(moments)):
        service.forget()
        triggerer = mapped(service, monkeypatch, over_literal_values)
        triggerer.stores_xcoms = stores_xcoms
        assert succeeded(triggerer.start(Attempt(map_index=0)))
        triggerer.die_at = number
        attempt = Attempt(map_index=1)
        assert triggerer.start(attempt) is None, moments[number]
        triggerer.die_at = None
        killed += 1
        assert succeeded(triggerer.start(attempt))
        assert sent(service) == [{"a": "0"}, {"a": "1"}], moments[number]
        run = service.runs[1002]
        assert values_of(triggerer, "etl[1]")["return_value"] == f"output of {run.run_id}"
        assert (run.cancels, run.beside) == (0, 0)
    assert killed == len(moments)


def test_a_retry_follows_the_active_run_of_its_own_instance(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the tokens of a worker that executes the same instance."""
    triggerer = mapped(service, monkeypatch, over_literal_values)
    first = Attempt(map_index=1)
    assert succeeded(triggerer.start(Attempt(map_index=0)))
    service.plans.append(UNTIL_ENDED)
    service.at("runs/get", service.count("runs/get") + 3, triggerer.kill)
    service.at("runs/list", service.count("runs/list") + 1, triggerer.kill)
    assert triggerer.start(first) is None
    triggerer.is_dead = False
    run = service.runs[1002]
    ti = SimpleNamespace(
        dag_id="sales", run_id=RUN_ID, task_id="etl", map_index=1, try_number=1, max_tries=2
    )
    context: Any = {
        "ti": ti,
        "task": SimpleNamespace(retries=2),
        "dag_run": SimpleNamespace(start_date=START),
    }
    assert TaskAttempt.from_context(context).tokens()[0] == run.token
    service.end(1002)
    triggerer.xcoms["etl[1]", "launch_record"] = {
        "carrier": first.carrier,
        "first_try": 1,
        "try_number": 1,
        "handed_over": True,
    }
    assert succeeded(triggerer.start(first.next_try()))
    assert len(service.runs) == 2


def test_a_failed_run_is_launched_again_by_a_retry_and_a_cleared_one_starts_afresh(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the values of its index; the other instance is not touched."""
    triggerer = mapped(service, monkeypatch, over_literal_values)
    assert succeeded(triggerer.start(Attempt(map_index=0)))
    service.plans.append(Plan("FAILED"))
    first = Attempt(map_index=1)
    assert triggerer.start(first).payload["run"]["state"]["result_state"] == "FAILED"
    second = first.next_try()
    assert succeeded(triggerer.start(second))
    assert succeeded(triggerer.start(second.cleared()))
    assert sent(service) == [{"a": "0"}, {"a": "1"}, {"a": "1"}, {"a": "1"}]
    assert values_of(triggerer, "etl[0]")["run_id"] == 1001
    assert values_of(triggerer, "etl[1]")["run_id"] == 1004
    assert all(run.cancels == 0 for run in service.runs.values())


def test_an_instance_that_was_cleared_while_no_triggerer_ran(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt cancels the run of its own instance, and launches another one."""
    triggerer = mapped(service, monkeypatch, over_literal_values)
    attempt = Attempt(map_index=1)
    until_launched(triggerer, service, attempt)
    assert succeeded(triggerer.start(attempt.cleared()))
    first, second = service.runs.values()
    assert (first.cancels, second.cancels) == (1, 0)
    assert sent(service) == [{"a": "1"}, {"a": "1"}]


@pytest.mark.parametrize("was_paused", [False, True])
def test_many_instances_that_start_in_a_new_triggerer_store_one_record(
    was_paused: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message takes Airflow's main process a turn; the others know that XComs are stored."""
    values = [{"number": f"{index}"} for index in range(10)]
    triggerer = mapped(
        service, monkeypatch, lambda partial, _: partial.expand(notebook_params=values)
    )
    triggerer.stores_xcoms = False

    async def start_all(first: Any) -> list[Any]:
        others = [triggerer.trigger(Attempt(map_index=index)) for index in range(1, 10)]
        if was_paused:
            pause(monkeypatch)
        return await asyncio.gather(*map(triggerer.first_event, [first, *others]))

    events = triggerer.run(start_all, Attempt(map_index=0))
    assert all(map(succeeded, events))
    assert sorted(sent(service), key=str) == values
    asked = messages(triggerer)
    assert asked.count("SetXCom launch_record") == 1
    assert asked.count("GetXCom launch_record") >= (10 if was_paused else 1)
    if not was_paused:
        assert asked.count("GetXCom launch_record") == 1
