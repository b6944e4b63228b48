"""What users do to a workflow group without workers, and triggerers that stand still meanwhile."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)


from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.airflow_compat.workflow_records import TaskRecord, WorkflowRecords
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.operators.workflow_next_step import Rerun, runs_again_too
from tests.fakes.fake_service import FAULTS, FakeService
from tests.helpers.group_in_triggerer import (
    GroupInTriggerer,
    mark_while_waiting,
    until,
)
from tests.helpers.launch_trigger import pause, succeeded
from tests.helpers.triggerer import Attempt


def test_a_task_is_cleared_while_no_trigger_could_cancel_its_run(
    launched: GroupInTriggerer,
) -> None:
    """As where no triggerer was running. The next attempt cancels it; also in a group's old run."""
    mark_while_waiting(launched, "load", "deferred")
    del launched.xcoms["etl.launch", "return_value"]
    assert "start_on_worker" in launched.start("load", Attempt().cleared()).payload
    assert [task.cancels for task in launched.run.task_runs] == [1, 0, 0]


def test_a_retry_does_not_cancel_the_run_that_it_follows(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """The run could not be read; a worker has failed the try."""
    mark_while_waiting(launched, "load", "deferred")
    with no_waiting():
        service.accepts = set()
        assert "error" in launched.start("load").payload
    service.accepts = None
    assert "start_on_worker" in launched.start("load", Attempt().next_try()).payload
    assert [task.cancels for task in launched.run.task_runs] == [0, 0, 0]


def test_a_task_is_cleared_with_the_launching_one_and_soon_deferred_again(
    launched: GroupInTriggerer,
) -> None:
    """Airflow tells that it is deferred. The next attempt's record tells of the clear."""

    async def clear(trigger: Any) -> None:
        waiting = asyncio.ensure_future(launched.triggerer.first_event(trigger))
        await until(lambda: "run_id" in launched.of("load"))
        launched.triggerer.record(carrier="00-second-clear-01", try_number=2, first_try=2)
        await trigger.on_kill()
        waiting.cancel()

    launched.triggerer.task_id = "etl.load"
    launched.triggerer.run(clear, Attempt())
    assert [task.cancels for task in launched.run.task_runs] == [1, 0, 0]


def test_a_marked_task_cancels_its_own_run(launched: GroupInTriggerer) -> None:
    """The other tasks of the group go on."""
    mark_while_waiting(launched, "load")
    assert [task.cancels for task in launched.run.task_runs] == [1, 0, 0]
    assert launched.run.cancels == 0


def test_a_task_that_is_still_deferred_does_not(launched: GroupInTriggerer) -> None:
    """Another triggerer has taken it over."""
    mark_while_waiting(launched, "load", "deferred")
    assert [task.cancels for task in launched.run.task_runs] == [0, 0, 0]


@pytest.mark.parametrize("moment", ["GetXCom return_value", "runs/get"])
def test_a_task_that_is_marked_before_its_run_is_known(
    moment: str, service: FakeService, launched: GroupInTriggerer
) -> None:
    """It is found, and canceled."""

    async def kill_at(trigger: Any) -> None:
        waiting = asyncio.ensure_future(launched.triggerer.first_event(trigger))
        await until(lambda: any(one.startswith(moment) for one in launched.triggerer.moments), 0.0)
        waiting.cancel()
        launched.triggerer.state = "failed"
        await trigger.on_kill()

    launched.triggerer.task_id = "etl.load"
    launched.triggerer.run(kill_at, Attempt())
    assert [task.cancels for task in launched.run.task_runs] == [1, 0, 0]


def test_a_launch_is_cleared_before_it_has_ended(
    service: FakeService, group: GroupInTriggerer
) -> None:
    """Nothing follows its run, so the attempt after the clear cancels it."""
    group.triggerer.refuses.add("return_value")
    assert "run" in group.launch().payload  # A worker would end it.
    group.triggerer.refuses.clear()
    group.triggerer.record(handed_over=False)
    assert "start_on_worker" in group.launch(Attempt().cleared()).payload
    assert group.run.cancels == 1


def test_a_frozen_triggerer_goes_no_further(
    service: FakeService, launched: GroupInTriggerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later attempt has recorded something, so the output of this one must not be stored."""
    task_run = launched.task_run("load")

    async def freeze(trigger: Any) -> None:
        waiting = asyncio.ensure_future(launched.triggerer.first_event(trigger))
        await until(lambda: "run_id" in launched.of("load"))
        launched.triggerer.record(carrier="00-second-clear-01", try_number=2)
        pause(monkeypatch)
        service.end_task(launched.run, task_run.key)
        done, _ = await asyncio.wait({waiting}, timeout=1.0)
        assert not done
        waiting.cancel()

    launched.triggerer.task_id = "etl.load"
    launched.triggerer.run(freeze, Attempt())
    assert "return_value" not in launched.of("load")


def test_a_success_does_not_run_again_with_another_task_after_an_earlier_clear(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """Tasks of the DAG run were cleared before the group started; the attempt has died at its end.

    Its retry reports the success, so the repair that another task makes leaves it alone.
    """
    task_run = launched.task_run("load")
    service.end_task(launched.run, task_run.key)
    assert succeeded(launched.start("load"))
    attempt = TaskAttempt.from_context(launched.worker_context(launched.dag.get_task("etl.report")))
    record = TaskRecord(**launched.record("load"))
    records = WorkflowRecords(attempt._replace(clear_number=1), "etl.launch")
    later = records.later_attempt("etl.load", record, pushes_xcoms=False)
    state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
    task = {"run_id": task_run.run_id, "state": state}
    assert runs_again_too("up_for_retry", task, record, later) is Rerun.NO


def test_execution_timeout_cancels_the_tasks_own_run(launched: GroupInTriggerer) -> None:
    """The worker fails the task."""
    end = datetime.now(UTC) + timedelta(seconds=0.5)
    payload = launched.start("load", timeout_after=end).payload
    assert payload["timed_out"] == "execution_timeout"
    assert [task.cancels for task in launched.run.task_runs] == [1, 0, 0]


def test_execution_timeout_is_over_while_the_triggerer_is_frozen(
    service: FakeService, launched: GroupInTriggerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one has failed the try before this one knew the run, and a retry follows it."""

    async def freeze(trigger: Any) -> None:
        waiting = asyncio.ensure_future(launched.triggerer.first_event(trigger))
        await until(lambda: any("runs/get" in one for one in launched.triggerer.moments), 0.0)
        launched.triggerer.record(try_number=2)
        pause(monkeypatch)
        done, _ = await asyncio.wait({waiting}, timeout=2.0)
        assert not done
        waiting.cancel()

    service.trouble("runs/get", FAULTS["503"])
    launched.triggerer.task_id = "etl.load"
    end = datetime.now(UTC) + timedelta(seconds=0.5)
    launched.triggerer.run(freeze, Attempt(), end)
    assert [task.cancels for task in launched.run.task_runs] == [0, 0, 0]


def test_a_frozen_triggerer_does_not_cancel_a_run_of_a_later_launch(
    service: FakeService, group: GroupInTriggerer
) -> None:
    """The whole group was cleared before this triggerer knew its run."""

    async def kill_late(trigger: Any) -> None:
        await trigger.on_kill()

    assert succeeded(group.launch())  # the later one
    group.triggerer.task_id = "etl.load"
    group.triggerer.record(carrier="00-second-clear-01", try_number=2, first_try=2)
    group.triggerer.run(kill_late, Attempt())
    assert [task.cancels for task in group.run.task_runs] == [0, 0, 0]


def test_execution_timeout_in_an_outage(service: FakeService, launched: GroupInTriggerer) -> None:
    """The run is not known yet; it is found once the service answers."""
    service.trouble("runs/get", FAULTS["503"])
    end = datetime.now(UTC) + timedelta(seconds=0.3)
    payload = launched.start("load", timeout_after=end).payload
    assert payload.get("timed_out") or payload["error"] == "execution_timeout is over"


def test_a_worker_starts_a_task_if_airflow_does_not_tell_the_groups_run(
    service: FakeService, launched: GroupInTriggerer
) -> None:
    """Airflow's API answers with an error, as where its database is locked."""
    requests = service.requests
    launched.triggerer.unreadable.add("etl.launch")
    assert "XCom" in launched.start("load").payload["start_on_worker"]
    assert service.requests == requests


def test_execution_timeout_of_an_attempt_that_is_known_to_be_over_cancels_nothing(
    service: FakeService, launched: GroupInTriggerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry follows the task's run. Airflow has not canceled the trigger yet."""

    def wake_up_late() -> None:
        launched.triggerer.record(try_number=2)
        pause(monkeypatch)

    async def wait(trigger: Any) -> None:
        waiting = asyncio.ensure_future(launched.triggerer.first_event(trigger))
        done, _ = await asyncio.wait({waiting}, timeout=3.0)
        assert not done
        waiting.cancel()

    service.at("runs/get", service.count("runs/get") + 1, wake_up_late)
    launched.triggerer.task_id = "etl.load"
    launched.triggerer.run(wait, Attempt(), datetime.now(UTC) + timedelta(seconds=1.5))
    assert [task.cancels for task in launched.run.task_runs] == [0, 0, 0]


def test_a_task_that_has_succeeded_before_execution_timeout_is_not_canceled(
    service: FakeService, launched: GroupInTriggerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its XComs were waiting for those of other tasks meanwhile. It succeeds with all of them."""
    task_run, answer = launched.task_run("load"), launched.triggerer._answer

    def hold(msg: Any) -> Any:
        if type(msg).__name__ == "SetXCom" and msg.key == "job_id":
            service.end_task(launched.run, task_run.key)
            time.sleep(2)
        return answer(msg)

    monkeypatch.setattr(launched.triggerer, "_answer", hold)
    event = launched.start("load", timeout_after=datetime.now(UTC) + timedelta(seconds=1.5))
    assert succeeded(event)
    assert task_run.cancels == 0
    assert {"run_id", "job_id", "run_page_url", "return_value"} <= launched.of("load").keys()
