"""Many tasks that start together: each sends as many messages as one that starts alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
from tests.fakes.fake_service import FakeService
from tests.helpers.launch_trigger import messages, succeeded, triggerer_of
from tests.helpers.triggerer import Attempt

INSTANCES = 20
PUSHED = ("run_id", "job_id", "run_page_url", "return_value")


@pytest.mark.parametrize("is_answered", [True, False])
def test_only_without_answers_tasks_that_start_together_ask_for_later_attempts(
    is_answered: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their start takes 12 s, and so do the messages of other triggers before theirs."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__LAUNCHES_PER_SECOND", "30")
    with DAG("sales", schedule=None, catchup=False) as dag:
        DatabricksSubmitRunOperator.partial(
            task_id="etl",
            existing_cluster_id="c",
            start_from_trigger=True,
            end_from_trigger=True,
            polling_period_seconds=1,
        ).expand(notebook_task=[{"notebook_path": f"/etl/{n}"} for n in range(INSTANCES)])
    triggerer = triggerer_of(dag, service, monkeypatch)
    passed = 0.0
    clock = SimpleNamespace(time=lambda: passed, monotonic=lambda: passed)
    for module in ("airflow_compat.triggerer_health", "triggers.outdated"):
        monkeypatch.setattr(f"airflow_jobs_provider.{module}.time", clock)
    monkeypatch.setattr("airflow_jobs_provider.operators.attempt_trigger.time", clock)
    # Each is answered 12 s after it was sent.
    waiting = triggerer._pending
    waiting.update(dict.fromkeys(range(INSTANCES)))

    async def start_all(first: Any) -> list[Any]:
        nonlocal passed
        tasks = [asyncio.ensure_future(triggerer.first_event(first))]
        for index in range(1, INSTANCES):
            passed += 0.6
            if is_answered:
                del waiting[min(waiting)]
                waiting[index + INSTANCES] = None
            trigger = triggerer.trigger(Attempt(map_index=index))
            tasks.append(asyncio.ensure_future(triggerer.first_event(trigger)))
            await asyncio.sleep(0)
        waiting.clear()
        return await asyncio.gather(*tasks)

    events = triggerer.run(start_all, Attempt(map_index=0))
    assert all(map(succeeded, events))
    sent = Counter(messages(triggerer))
    questions = sent.pop("GetXCom launch_record", 0)
    assert sent == {f"SetXCom {key}": INSTANCES for key in PUSHED}
    assert bool(questions) is not is_answered
