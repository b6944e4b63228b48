"""DatabricksJobRunEventTrigger: what Airflow gets, across restarts, kills and versions."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobs_provider.airflow_compat import event_triggers
from airflow_jobs_provider.airflow_compat.lines import airflow_version
from airflow_jobs_provider.triggers import jobs
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunEventTrigger
from tests.helpers.event_triggerer import HAS_STORE, Database, EventTriggerer
from tests.helpers.timeless_workspace import Workspace, play

on_airflow_3 = pytest.mark.skipif(airflow_version() < (3, 0), reason="Airflow 3.0 and later")
with_store = pytest.mark.skipif(not HAS_STORE, reason="Airflow 3.3 and later")
without_store = pytest.mark.skipif(
    HAS_STORE or airflow_version() < (3, 0), reason="Airflow 3.0 to 3.2"
)

Run = Callable[..., Workspace]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a scenario in virtual time, with a function that starts a triggerer."""

    def start(database: Database) -> EventTriggerer:
        return EventTriggerer(database, monkeypatch)

    return lambda scenario: play(monkeypatch, scenario, start)


def trigger(**arguments: Any) -> Any:
    """Return a trigger for all runs, unless told otherwise."""
    return DatabricksJobRunEventTrigger(**({"all_runs": True, "look_back_seconds": 0} | arguments))


# -- arguments ----------------------------------------------------------------------------------


@pytest.mark.skipif(airflow_version() >= (3, 0), reason="Airflow 2")
def test_airflow_2_refuses_in_words() -> None:
    """The module can be imported: the other trigger is in it."""
    with pytest.raises(RuntimeError, match="DatabricksJobRunEventTrigger needs Airflow 3"):
        DatabricksJobRunEventTrigger(job_id=1)


def test_the_module_has_the_public_names() -> None:
    """The trigger of events is imported when it is asked for."""
    assert set(jobs.__all__) == {"DatabricksJobRunEventTrigger", "DatabricksJobRunTrigger"}
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        getattr(jobs, "Other")  # noqa: B009 - type checkers know that it is not there


@pytest.mark.slow
def test_neither_a_deferring_task_nor_a_dag_imports_what_watches() -> None:
    """A task process does not import the trigger; a DAG that is parsed makes it only."""
    watching = "('ended_runs', 'all_run_lists', 'watch_position', 'job_details', 'aiohttp')"
    program = f"""if True:
        import sys
        import airflow_jobs_provider.triggers.jobs as jobs
        assert "airflow_jobs_provider.triggers.run_events" not in sys.modules
        try:
            jobs.DatabricksJobRunEventTrigger(job_id=1).serialize()
        except RuntimeError:
            pass  # Airflow 2
        print([name for name in sys.modules if name.endswith({watching})])
    """
    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert found.stdout.splitlines()[-1] == "[]"


@on_airflow_3
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of job_id, job_name, tags and all_runs=True, not none of them"),
        ({"job_id": 1, "all_runs": True}, "not job_id and all_runs"),
        ({"job_id": None}, "not none of them"),
        ({"job_id": "one"}, "job_id must be the id of a job, not 'one'"),
        ({"job_name": ""}, "job_name must be text"),
        ({"tags": []}, "tags must be a dict or a list of text"),
        ({"tags": "team"}, "tags must be a dict or a list of text"),
        ({"tags": {"team": 1}}, "tags must be a dict or a list of text"),
        ({"job_id": 1, "states": "FAILED"}, "states must be a list of states"),
        ({"job_id": 1, "states": []}, "states must be a list of states"),
        ({"job_id": 1, "states": ["SUCCEEDED"]}, r"unknown: \['SUCCEEDED'\]"),
        ({"job_id": 1, "polling_period_seconds": 0}, "polling_period_seconds must be a number"),
        ({"job_id": 1, "polling_period_seconds": float("nan")}, "must be a number from 1 to"),
        ({"job_id": 1, "look_back_seconds": -1}, "look_back_seconds must be a number"),
        ({"job_id": 1, "look_back_seconds": float("inf")}, "must be a number from 0 to"),
    ],
)
def test_a_wrong_argument_is_a_type_error(arguments: dict[str, Any], message: str) -> None:
    """The DAG cannot be imported then. Any other exception would stop a triggerer."""
    with pytest.raises(TypeError, match=message):
        DatabricksJobRunEventTrigger(**arguments)


@on_airflow_3
def test_arguments_survive_what_airflow_stores() -> None:
    """With lists and dicts, which Airflow wraps; nothing of the connection is in them."""
    from tests.helpers.event_triggerer import restored

    made = DatabricksJobRunEventTrigger(
        tags={"team": "emea"}, states=["FAILED", "SKIPPED"], databricks_conn_id="other"
    )
    again = restored(made)
    assert again.serialize() == made.serialize()
    assert again.position_key == made.position_key
    path, kwargs = made.serialize()
    assert path == "airflow_jobs_provider.triggers.jobs.DatabricksJobRunEventTrigger"
    assert json.loads(json.dumps(kwargs)) == {
        "job_id": None,
        "job_name": None,
        "tags": {"team": "emea"},
        "all_runs": False,
        "states": ["FAILED", "SKIPPED"],
        "databricks_conn_id": "other",
        "polling_period_seconds": 30,
        "look_back_seconds": 600,
    }


@on_airflow_3
def test_a_watcher_takes_the_trigger() -> None:
    """And a DAG with it can be serialized."""
    from airflow.sdk import DAG, Asset, AssetWatcher
    from airflow.serialization import serialized_objects

    watcher = AssetWatcher(name="runs", trigger=trigger(all_runs=False, job_id=7))
    with DAG("consumer", schedule=[Asset("sales", watchers=[watcher])]) as dag:
        pass
    module: Any = serialized_objects
    serializer = getattr(module, "DagSerialization", None) or module.SerializedDAG
    assert "DatabricksJobRunEventTrigger" in json.dumps(serializer.to_dict(dag))


@on_airflow_3
def test_the_position_belongs_to_what_is_watched() -> None:
    """Not to how often it is read; two watchers of an asset do not share one."""
    keys = {
        trigger(all_runs=False, job_id=7).position_key,
        trigger(all_runs=False, job_id="7", polling_period_seconds=5).position_key,
        trigger(all_runs=False, job_id=7, look_back_seconds=9).position_key,
    }
    assert len(keys) == 1
    others = [
        trigger(),
        trigger(all_runs=False, job_id=8),
        trigger(all_runs=False, job_name="7"),
        trigger(all_runs=False, tags=["7"]),
        trigger(all_runs=False, tags={"7": ""}),
        trigger(all_runs=False, job_id=7, states=["FAILED"]),
        trigger(all_runs=False, job_id=7, databricks_conn_id="other"),
    ]
    keys |= {one.position_key for one in others}
    assert len(keys) == 1 + len(others)
    # Stored positions are found by these names after an upgrade.
    assert trigger().position_key == "databricks_job_runs_a95392722b20c0349288b5f29ade4857"


# -- events -------------------------------------------------------------------------------------


@on_airflow_3
def test_an_event_tells_of_the_run(run: Run) -> None:
    """Its ids, states, times and page; neither settings nor parameters."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        workspace.jobs[7] = {"name": "sales", "tags": {"team": "emea"}}
        triggerer = start(database)
        triggerer.start(trigger())
        triggerer.start(trigger(all_runs=False, job_name="sales"), 2)
        await asyncio.sleep(10)
        one = workspace.start(1, lasting=20)
        one.result = "FAILED"
        await asyncio.sleep(60)
        start_time, end_time = int(one.start * 1000), int(one.end * 1000)
        expected = {
            "run_id": 1,
            "job_id": 7,
            "life_cycle_state": "TERMINATED",
            "result_state": "FAILED",
            "state_message": "",
            "run_name": "sales.total[1] scheduled__2026-01-01T00:00:00+00:00 try 1",
            "run_page_url": "https://example.com/?o=1#job/7/run/1",
            "run_type": "JOB_RUN",
            "start_time": start_time,
            "end_time": end_time,
            "setup_duration": 1000,
            "execution_duration": 20_000,
            "cleanup_duration": 0,
            "number_in_job": 1,
            "original_attempt_run_id": 1,
            "attempt_number": 0,
            "creator_user_name": "someone@example.com",
            "databricks_conn_id": "databricks_default",
        }
        assert database.events[1] == [expected]
        assert database.events[2] == [
            expected | {"job_name": "sales", "job_tags": {"team": "emea"}}
        ]

    run(scenario)


@on_airflow_3
def test_an_event_has_text_that_airflow_can_store(run: Run) -> None:
    """Half a surrogate pair would end the triggerer."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        workspace.jobs[7] = {"name": "sales\ud83d", "tags": {"team": "e\0"}}
        start(database).start(trigger(all_runs=False, job_name="sales\ud83d"))
        await asyncio.sleep(10)
        workspace.start(1, lasting=20)
        await asyncio.sleep(60)
        (payload,) = database.events[1]
        assert (payload["job_name"], payload["job_tags"]) == ("sales\ufffd", {"team": "e\ufffd"})

    run(scenario)


@with_store
def test_a_restart_loses_nothing_and_repeats_nothing(run: Run) -> None:
    """With a look-back of 0: the position is in the asset's store."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        workspace.start(1, ago=90_000, lasting=90_000 + 100)
        workspace.start(2, lasting=20)
        first = start(database)
        first.start(trigger())
        await asyncio.sleep(70)
        assert database.run_ids() == [2]
        await first.kill()
        workspace.start(3, lasting=200)
        await asyncio.sleep(900)
        start(database).start(trigger())
        await asyncio.sleep(70)
        assert database.run_ids() == [2, 1, 3]

    run(scenario)


@without_store
def test_a_restart_without_a_store_looks_back(run: Run) -> None:
    """What ended within the look-back comes, and comes again; nothing older does."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        workspace.start(1, lasting=20)
        workspace.start(2, ago=9000, lasting=9000 + 200)
        first = start(database)
        first.start(trigger(look_back_seconds=300))
        await asyncio.sleep(70)
        await first.kill()
        await asyncio.sleep(170)
        second = start(database)
        second.start(trigger(look_back_seconds=300))
        await asyncio.sleep(170)
        assert database.run_ids() == [1, 1, 2]
        await second.kill()
        start(database).start(trigger(look_back_seconds=300))
        await asyncio.sleep(70)
        assert database.run_ids() == [1, 1, 2, 2]

    run(scenario)


@with_store
@pytest.mark.parametrize("seconds_after_event", [0.0, 0.5, 1.5, 2.5])
def test_a_kill_between_event_and_position(run: Run, seconds_after_event: float) -> None:
    """An event that was in memory only comes from the next triggerer; one may come twice."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        workspace.start(1, lasting=40)
        first = start(database)
        first.start(trigger())
        # Reads at 2.1 s and 32.1 s; the run has ended at the one at 62.1 s.
        await asyncio.sleep(62.16 + seconds_after_event)
        await first.kill()
        stored = len(database.run_ids())
        start(database).start(trigger())
        await asyncio.sleep(100)
        events = database.events[1]
        assert 1 <= len(events) <= stored + 1
        assert {(one["run_id"], one["end_time"]) for one in events} == {
            (1, int(workspace.runs[1].end * 1000))
        }

    run(scenario)


@with_store
def test_a_position_is_stored_after_its_events_only(run: Run) -> None:
    """While Airflow stores no event, no position goes on."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        first = start(database)
        first.start(trigger())
        await asyncio.sleep(20)
        before = dict(database.values)
        first.stores_events = False
        workspace.start(1, lasting=5)
        await asyncio.sleep(200)
        assert database.values == before
        await first.kill()
        start(database).start(trigger())
        await asyncio.sleep(60)
        assert database.run_ids() == [1]
        assert database.values != before

    run(scenario)


@with_store
def test_events_that_airflow_does_not_store_are_given_again(run: Run) -> None:
    """Airflow fails the trigger after five minutes, and starts it again."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        triggerer = start(database)
        triggerer.start(trigger())
        await asyncio.sleep(20)
        workspace.start(1, lasting=5)
        triggerer.stores_events = False
        await asyncio.sleep(60)
        triggerer._queue.clear()
        await asyncio.sleep(600)
        triggerer.stores_events = True
        await asyncio.sleep(100)
        assert set(database.run_ids()) == {1}

    run(scenario)


@with_store
def test_many_runs_are_handed_over_in_portions(run: Run) -> None:
    """After an outage: Airflow stores one portion before it gets the next one."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        triggerer = start(database)
        triggerer.start(trigger())
        await asyncio.sleep(40)
        workspace.is_down = True
        for run_id in range(1, 451):
            workspace.start(run_id, lasting=1)
            await asyncio.sleep(1)
        workspace.is_down = False
        await asyncio.sleep(400)
        assert sorted(database.run_ids()) == list(range(1, 451))
        assert triggerer.most_at_once == event_triggers.PORTION
        assert database.writes <= 3

    run(scenario)


@with_store
def test_two_watchers_of_an_asset_have_their_own_positions(run: Run) -> None:
    """One that was stopped for long goes on where it was, whatever the other has seen."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        both = [trigger(all_runs=False, job_id=1), trigger(all_runs=False, job_id=2)]
        first = start(database)
        for n, one in enumerate(both):
            first.start(one, n)
        await asyncio.sleep(20)
        await first.kill()
        second = start(database)
        second.start(both[0], 0)
        for run_id in range(1, 11):
            workspace.start(run_id, job=1 + run_id % 2, lasting=10)
            await asyncio.sleep(80)
        assert database.run_ids(1) == []
        second.start(both[1], 1)
        await asyncio.sleep(60)
        assert database.run_ids(0) == list(range(2, 11, 2))
        assert database.run_ids(1) == list(range(1, 11, 2))
        assert len(database.values) == 2

    run(scenario)


@with_store
def test_a_trigger_of_two_assets_stores_its_position_for_both(run: Run) -> None:
    """Airflow runs one trigger for equal watchers. An asset that is added later changes nothing."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        first = start(database)
        first.start(trigger(), assets=("a", "b"))
        workspace.start(1, lasting=5)
        await asyncio.sleep(60)
        assert {asset for asset, _ in database.values} == {"a", "b"}
        await first.kill()
        workspace.start(2, lasting=5)
        await asyncio.sleep(600)
        start(database).start(trigger(), assets=("b", "c"))
        await asyncio.sleep(60)
        assert database.run_ids() == [1, 2]

    run(scenario)


@with_store
def test_a_position_that_cannot_be_read_is_waited_for(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is assumed meanwhile: a wrong begin would lose events."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        first = start(database)
        first.start(trigger())
        await asyncio.sleep(20)
        await first.kill()
        workspace.start(1, lasting=5)
        await asyncio.sleep(600)
        database.is_down = True
        start(database).start(trigger())
        await asyncio.sleep(60)
        assert database.run_ids() == []
        database.is_down = False
        await asyncio.sleep(100)
        assert database.run_ids() == [1]

    run(scenario)
    assert "The position of a watcher cannot be read yet" in caplog.text


@with_store
def test_positions_cost_one_write_for_each_read_with_events(run: Run) -> None:
    """And one in fifteen minutes without any: the triggerer's supervisor answers each."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        triggerer = start(database)
        triggerer.start(trigger(all_runs=False, job_id=1, polling_period_seconds=150))
        await asyncio.sleep(10)
        assert database.writes == 1
        for run_id in range(1, 11):
            workspace.start(run_id, job=2, lasting=5)
            await asyncio.sleep(180)
        assert database.writes == 1 + 1800 // 900
        workspace.start(1000, job=1, lasting=1)
        workspace.start(1001, job=1, lasting=1)
        await asyncio.sleep(160)
        assert database.writes == 2 + 1800 // 900

    run(scenario)


@on_airflow_3
def test_a_missing_connection_is_waited_for(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The trigger goes on where it was once the connection is there."""

    async def scenario(workspace: Workspace, start: Any) -> None:
        database = Database()
        workspace.api_version = "missing"
        start(database).start(trigger())
        await asyncio.sleep(5)
        workspace.start(1, lasting=5)
        await asyncio.sleep(100)
        workspace.api_version = "2.0"
        await asyncio.sleep(200)
        assert database.run_ids() == [1]

    run(scenario)
    assert "The runs of connection databricks_default cannot be watched" in caplog.text
