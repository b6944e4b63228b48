"""All runs that end, for many watches: what each is told, and what that costs in requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.polling import all_run_lists, ended_runs
from airflow_jobs_provider.triggers.polling.registry import get_poller
from tests.helpers.timeless_workspace import Workspace, play
from tests.helpers.watch_observer import Observer

PERIOD = 30.0
RUNNING: Any = {"state": {"life_cycle_state": "RUNNING"}}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workspace]:
    """Run a scenario in virtual time."""
    return lambda scenario, *arguments, **options: play(
        monkeypatch, scenario, *arguments, **options
    )


Run = Callable[..., Workspace]


@pytest.mark.parametrize("api_version", ["2.0", "2.1"])
def test_each_run_that_ends_is_told_once(run: Run, api_version: str) -> None:
    """One that was active, one that starts and ends between two reads; the active one is not."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, lasting=100)
        workspace.start(2, lasting=1e6)
        observer = Observer(workspace)
        await asyncio.sleep(70)
        workspace.start(3, lasting=5)
        await asyncio.sleep(200)
        assert observer.told == [3, 1]

    run(scenario, api_version=api_version)


def test_a_run_that_started_long_before_is_told_when_it_ends(run: Run) -> None:
    """The lists are in order of start, and it is far down on that of the ended ones."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=40 * 86_400, lasting=40 * 86_400 + 60)
        for run_id in range(100, 400):
            workspace.start(run_id, ago=86_400 * 2 - 60 * run_id, lasting=30)
        observer = Observer(workspace)
        await asyncio.sleep(150)
        assert observer.told == [1]

    workspace = run(scenario)
    assert workspace.asked["runs/get"] == 1


def test_a_run_is_told_within_the_period(run: Run) -> None:
    """The time from its end to the batch is no longer than the period and a read."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(100)
        for run_id in range(1, 20):
            workspace.start(run_id, lasting=7 * run_id)
        await asyncio.sleep(300)
        late = [at - workspace.runs[run_id].end for run_id, at in observer.ends.items()]
        assert len(late) == 19
        assert max(late) <= PERIOD + 0.5

    run(scenario)


def test_a_run_that_is_repaired_is_told_at_each_end(run: Run) -> None:
    """Also if the repair begins and ends between two reads."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, lasting=20)
        observer = Observer(workspace)
        await asyncio.sleep(60)
        assert observer.told == [1]
        workspace.runs[1].end = workspace.now() + 60
        await asyncio.sleep(120)
        assert observer.told == [1, 1]
        workspace.runs[1].end = workspace.now() + 0.01
        await asyncio.sleep(PERIOD + 1)
        assert observer.told == [1, 1, 1]

    run(scenario)


def test_a_run_that_is_deleted_is_not_told(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so, once, and the others are told."""
    caplog.set_level("INFO")

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1)
        workspace.start(2, lasting=70)
        observer = Observer(workspace)
        await asyncio.sleep(40)
        workspace.deleted.add(1)
        await asyncio.sleep(120)
        assert observer.told == [2]

    run(scenario)
    assert caplog.text.count("Run 1 was active and does not exist any more") == 1


def test_a_run_that_cannot_be_read_is_told_later(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """While it is neither on a list nor to be read it counts as active; others go on."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=1000, lasting=1040)
        workspace.start(2, ago=1000, lasting=1040)
        for run_id in range(10, 50):
            workspace.start(run_id, ago=500 - run_id, lasting=10)
        observer = Observer(workspace)
        await asyncio.sleep(10)
        workspace.start(3)
        workspace.refused.add(1)
        await asyncio.sleep(PERIOD * 4)
        assert observer.told == [2]
        workspace.refused.clear()
        await asyncio.sleep(PERIOD)
        assert observer.told == [2, 1]

    run(scenario)
    assert caplog.text.count("Run 1 cannot be read for now") == 1


def test_a_run_that_cannot_be_read_stops_no_other(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if it is the only one that is read by its id: the caller may not see it any more."""
    caplog.set_level("INFO")

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=1000, lasting=1e6)
        observer = Observer(workspace)
        await asyncio.sleep(10)
        workspace.hidden.add(1)
        workspace.start(2, lasting=10)
        await asyncio.sleep(PERIOD * 5)
        assert observer.told == [2]
        workspace.start(3, lasting=10)
        await asyncio.sleep(PERIOD * 1.5)
        assert observer.told == [2, 3]
        workspace.hidden.clear()
        workspace.end(1)
        await asyncio.sleep(PERIOD * 1.5)
        assert observer.told == [2, 3, 1]

    run(scenario)
    assert caplog.text.count("Run 1 cannot be read for now") == 1
    assert caplog.text.count("1 watchers cannot be followed for now") == 2
    assert "1 runs cannot be followed for now" not in caplog.text


def test_an_error_loses_no_run_of_a_watch_that_is_behind(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is given to it after the error: Airflow may take minutes to store its events."""
    read = all_run_lists.AllRunLists.read

    async def scenario(workspace: Workspace) -> None:
        watches = [Observer(workspace) for _ in range(2)]
        for one in watches:
            one.task.cancel()
        quick, slow = (one.watch for one in watches)
        runs = get_poller(DatabricksJobsHook()).ended_runs
        of_quick, of_slow = runs.follow(quick), runs.follow(slow)
        await asyncio.gather(anext(of_quick), anext(of_slow))
        monkeypatch.setattr(all_run_lists.AllRunLists, "read", None)
        with pytest.raises(TypeError):
            await anext(of_quick)
        monkeypatch.setattr(all_run_lists.AllRunLists, "read", read)
        again = runs.follow(quick)
        await anext(again)
        workspace.start(1, lasting=5)
        assert [one.run["run_id"] for one in (await anext(again)).runs] == [1]
        with pytest.raises(TypeError):
            await anext(of_slow)
        assert [one.run["run_id"] for one in (await anext(runs.follow(slow))).runs] == [1]

    run(scenario)


def test_an_outage_of_hours_loses_nothing(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """All runs that ended meanwhile are told. The log tells of its begin and end once each."""
    caplog.set_level("INFO")

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, lasting=3600)
        observer = Observer(workspace)
        await asyncio.sleep(100)
        workspace.is_down = True
        for run_id in range(2, 100):
            await asyncio.sleep(90)
            workspace.start(run_id, lasting=30)
        workspace.is_down = False
        await asyncio.sleep(400)
        assert sorted(observer.told) == list(range(1, 100))

    run(scenario)
    assert caplog.text.count("cannot be followed for now") == 1
    assert caplog.text.count("The service answers again") == 1


def test_a_long_wait_for_the_service_does_not_delay_the_next_read(run: Run) -> None:
    """A 429 is waited out within one read, for as long as it takes."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(PERIOD)
        workspace.retry_after, workspace.requests_per_second = "90", 0
        await asyncio.sleep(300)
        workspace.requests_per_second = None
        workspace.start(1, lasting=1)
        await asyncio.sleep(120)
        assert observer.told == [1]
        workspace.start(2, lasting=1)
        await asyncio.sleep(ended_runs.MAX_PAUSE_SECONDS + 1)
        assert observer.told == [1, 2]

    run(scenario)


def test_a_restart_with_its_position_loses_nothing_and_repeats_nothing(run: Run) -> None:
    """Whatever ended in between: an old run, a new one, many new ones. The look-back is 0."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=40 * 86_400, lasting=40 * 86_400 + 300)
        workspace.start(2, lasting=20)
        workspace.start(3, lasting=300)
        first = Observer(workspace)
        await asyncio.sleep(90)
        assert first.told == [2]
        position = await first.stop()
        for run_id in range(4, 200):
            workspace.start(run_id, lasting=30)
            await asyncio.sleep(10)
        second = Observer(workspace, position=position)
        await asyncio.sleep(90)
        assert sorted(second.told) == [1, *range(3, 200)]

    run(scenario)


def test_a_restart_finds_runs_beyond_those_whose_ids_are_in_the_position(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of so many only; the earliest start says where the others are."""
    monkeypatch.setattr(ended_runs, "MAX_ACTIVE_IDS", 100)

    async def scenario(workspace: Workspace) -> None:
        count = ended_runs.MAX_ACTIVE_IDS + 150
        for run_id in range(1, count + 1):
            workspace.start(run_id, ago=100_000 - run_id, lasting=100_000 + 200 + run_id)
        first = Observer(workspace)
        await asyncio.sleep(60)
        position = await first.stop()
        assert len(position["active"]) == ended_runs.MAX_ACTIVE_IDS
        await asyncio.sleep(3600)
        second = Observer(workspace, position=position)
        await asyncio.sleep(60)
        assert sorted(second.told) == list(range(1, count + 1))

    run(scenario)


def test_a_run_of_weeks_does_not_make_a_restart_read_weeks_of_runs(run: Run) -> None:
    """Its id is in the position, so only what came after the position is read."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=40 * 86_400, lasting=40 * 86_400 + 100)
        for run_id in range(10, 510):
            workspace.start(run_id, ago=40 * 86_400 - 600 * run_id, lasting=60)
        workspace.start(2, ago=10, lasting=5)
        first = Observer(workspace)
        await asyncio.sleep(10)
        position = await first.stop()
        await asyncio.sleep(3600)
        workspace.asked.clear()
        second = Observer(workspace, position=position)
        await asyncio.sleep(PERIOD)
        assert second.told == [1]

    assert run(scenario, api_version="2.1").asked["runs/list completed_only"] == 1


def test_the_position_of_a_job_has_the_runs_of_the_job(run: Run) -> None:
    """So the many active runs of other jobs make it neither long nor old."""

    async def scenario(workspace: Workspace) -> None:
        for run_id in range(1, 60):
            workspace.start(run_id, job=run_id % 3, ago=86_400 + run_id, lasting=1e6)
        of_job, of_all = Observer(workspace, job_id=1), Observer(workspace)
        await asyncio.sleep(10)
        assert of_job.position["active"] == list(range(1, 60, 3))
        assert of_all.position["active"] == list(range(1, 60))
        position = await of_job.stop()
        workspace.end(1)
        workspace.end(2)
        await asyncio.sleep(3600)
        again = Observer(workspace, job_id=1, position=position)
        await asyncio.sleep(PERIOD)
        assert again.told == [1]

    run(scenario)


def test_a_first_start_begins_at_the_look_back(run: Run) -> None:
    """By the time of the end, not of the start."""

    async def scenario(workspace: Workspace) -> None:
        workspace.start(1, ago=1000, lasting=100)
        workspace.start(2, ago=5000, lasting=4800)
        observer = Observer(workspace, look_back=300)
        none = Observer(workspace, look_back=0)
        await asyncio.sleep(60)
        assert observer.told == [2]
        position = await observer.stop()
        again = Observer(workspace, position=position)
        later = Observer(workspace, position=await none.stop())
        await asyncio.sleep(60)
        assert again.told == none.told == later.told == []

    run(scenario)


def test_the_first_read_has_a_limit_of_pages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-back costs no more than that in a workspace with very many runs."""
    monkeypatch.setattr(all_run_lists, "MAX_FIRST_PAGES", 4)

    async def scenario(workspace: Workspace) -> None:
        for run_id in range(1, 1000):
            workspace.start(run_id, ago=run_id * 60 + 20, lasting=10)
        observer = Observer(workspace, look_back=86_400)
        await asyncio.sleep(20)
        assert observer.told == list(range(100, 0, -1))
        position = await observer.stop()
        second = Observer(workspace, position=position)
        await asyncio.sleep(20)
        assert second.told == []

    workspace = run(scenario, api_version="2.1")
    assert workspace.asked["runs/list completed_only"] == 5


def test_two_hundred_watches_cost_as_much_as_one(run: Run) -> None:
    """Two requests in each period: one list of active runs, and one of ended ones."""
    seconds = 10 * PERIOD

    async def scenario(workspace: Workspace, watches: int) -> None:
        for job in range(1, 201):
            workspace.start(job, job=job, ago=job * 60, lasting=1e6)
        observers = [Observer(workspace, job_id=n + 1) for n in range(watches)]
        await asyncio.sleep(15)
        for job in (1, 2, 50, 150, 200):
            await asyncio.sleep(PERIOD)
            workspace.end(job)
        await asyncio.sleep(seconds - 5 * PERIOD)
        told = [one.told for one in observers]
        assert told == [[n] if n in (1, 2, 50, 150, 200) else [] for n in range(1, watches + 1)]

    one, many = run(scenario, 1), run(scenario, 200)
    assert many.asked == one.asked
    reads = 1 + seconds // PERIOD
    # The first read does not know yet how large a run is, and takes smaller pages.
    assert reads <= one.asked["runs/list active_only"] <= reads + 1
    assert one.asked["runs/list completed_only"] == reads
    assert one.requests <= 2 * reads + 6


def test_watches_that_join_one_after_the_other_share_their_reads(run: Run) -> None:
    """As Airflow starts them: some each second. All get what ended meanwhile."""

    async def scenario(workspace: Workspace) -> None:
        observers = []
        for n in range(40):
            observers.append(Observer(workspace, all_runs=True))
            if n % 2:
                workspace.start(n, lasting=10)
            await asyncio.sleep(0.5)
        await asyncio.sleep(60)
        assert all(one.told[-10:] == list(range(21, 41, 2)) for one in observers)

    assert run(scenario).requests == 6


def test_a_watch_with_a_shorter_period_need_not_wait_for_the_others(run: Run) -> None:
    """It is read within its own period after it was added."""

    async def scenario(workspace: Workspace) -> None:
        Observer(workspace, period=3600)
        await asyncio.sleep(100)
        workspace.start(1, lasting=10)
        quick = Observer(workspace, period=5)
        await asyncio.sleep(17)
        assert quick.told == [1]

    run(scenario)


def test_waits_take_their_runs_from_the_pages_of_the_watches(run: Run) -> None:
    """A hundred deferred tasks need no request of their own, and get their ends as early."""

    async def scenario(workspace: Workspace) -> None:
        for run_id in range(1, 101):
            workspace.start(run_id, lasting=200 + run_id)
        observer = Observer(workspace)
        await asyncio.sleep(10)
        poller = get_poller(DatabricksJobsHook())
        waits = [poller.wait_for_change(r, period=PERIOD, known=RUNNING) for r in range(1, 101)]
        runs = await asyncio.gather(*waits)
        assert {one["state"]["result_state"] for one in runs} == {"SUCCESS"}
        assert "cluster_spec" in runs[0]
        await asyncio.sleep(PERIOD)
        assert sorted(observer.told) == list(range(1, 101))
        assert "cluster_spec" not in observer.runs[0].run

    workspace = run(scenario)
    assert set(workspace.asked) == {"runs/list active_only", "runs/list completed_only"}
    # Until 330 s, every 24 s while there are waits. A page of ended runs may be followed by two.
    assert workspace.requests <= 3 * 15


def test_runs_are_chosen_by_their_jobs_names_and_tags(run: Run) -> None:
    """Each job of a run that has ended is read once for all watches, in ten minutes."""

    async def scenario(workspace: Workspace) -> None:
        workspace.jobs = {
            7: {"name": "sales", "tags": {"team": "emea", "nightly": ""}},
            8: {"name": "stock", "tags": {"team": "emea"}},
            9: {"name": "sales"},
        }
        by_name = Observer(workspace, job_name="sales")
        by_tag = Observer(workspace, tags={"team": "emea"})
        by_label = Observer(workspace, tags=["nightly", "team"])
        await asyncio.sleep(40)
        for n, job in enumerate([7, 8, 9, 10, 7]):
            workspace.start(n + 1, job=job, lasting=10 + 60 * n)
        await asyncio.sleep(400)
        assert by_name.told == [1, 3, 5]
        assert by_tag.told == [1, 2, 5]
        assert by_label.told == [1, 5]
        assert by_name.runs[0].job.tags == {"team": "emea", "nightly": ""}
        workspace.jobs[8]["name"] = "sales"
        await asyncio.sleep(601)
        workspace.start(6, job=8, lasting=1)
        await asyncio.sleep(PERIOD + 1)
        assert by_name.told == [1, 3, 5, 6]

    assert run(scenario).asked["get"] == 5


@pytest.mark.parametrize("seconds", [PERIOD * 3, PERIOD * 12])
def test_a_job_that_cannot_be_read_delays_its_watch_only(
    run: Run, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    """Its run is told once the job can be read. After ten reads it counts as without tags."""
    caplog.set_level("INFO")

    async def scenario(workspace: Workspace) -> None:
        workspace.jobs = {7: {"tags": {"team": "emea"}}, 8: {"tags": {"team": "emea"}}}
        by_tag = Observer(workspace, tags=["team"])
        everything = Observer(workspace)
        await asyncio.sleep(10)
        workspace.broken_jobs.add(8)
        workspace.start(1, job=8, lasting=1)
        workspace.start(2, job=7, lasting=1)
        await asyncio.sleep(PERIOD * 2)
        assert sorted(everything.told) == [1, 2]
        assert by_tag.told == []
        await asyncio.sleep(seconds - PERIOD * 2)
        workspace.broken_jobs.clear()
        await asyncio.sleep(PERIOD * 10)
        assert sorted(by_tag.told) == ([1, 2] if seconds < PERIOD * 10 else [2])
        assert sorted(everything.told) == [1, 2]

    run(scenario)
    assert caplog.text.count("Job 8 cannot be read for now") == 1
    assert caplog.text.count("Job 8 counts as one without name and tags") == (seconds > PERIOD * 10)
    assert "cannot be followed" not in caplog.text


def test_an_old_run_is_not_lost_while_a_job_cannot_be_read(run: Run) -> None:
    """It has started before a first start looks for, and ends before the watch has a position."""

    async def scenario(workspace: Workspace) -> None:
        workspace.jobs = {7: {"tags": {"team": "emea"}}}
        workspace.start(1, job=7, ago=9 * 86_400, lasting=9 * 86_400 + PERIOD)
        for run_id in range(10, 40):
            workspace.start(run_id, job=0, ago=2 * 86_400 + run_id, lasting=10)
        workspace.broken_jobs.add(8)
        observer = Observer(workspace, tags=["team"])
        workspace.start(2, job=8, lasting=1)
        await asyncio.sleep(PERIOD * 3)
        workspace.broken_jobs.clear()
        await asyncio.sleep(PERIOD * 2)
        assert observer.told == [1]

    run(scenario)


def test_runs_of_submit_cost_no_reads_of_jobs(run: Run) -> None:
    """Each has a job id of its own, of a job that does not exist."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace, tags=["team"])
        for run_id in range(1, 11):
            workspace.start(run_id, job=0, lasting=run_id)
        await asyncio.sleep(PERIOD * 2)
        assert observer.told == []

    assert run(scenario).asked["get"] == 0


def test_reads_of_many_jobs_delay_no_waits(run: Run) -> None:
    """The poller's requests come in between."""

    async def scenario(workspace: Workspace) -> None:
        for run_id in range(1, 201):
            workspace.start(run_id, job=run_id, lasting=40)
        Observer(workspace, tags=["team"])
        await asyncio.sleep(PERIOD * 1.9)
        waited_for = workspace.start(1000, lasting=8)
        poller = get_poller(DatabricksJobsHook())
        await poller.wait_for_change(1000, period=3, known=RUNNING)
        assert 0 < workspace.asked["get"] < 200
        assert workspace.now() - waited_for.end <= 3.5

    run(scenario)


def test_runs_are_chosen_by_their_states(run: Run) -> None:
    """A result state, or the life cycle state."""

    async def scenario(workspace: Workspace) -> None:
        bad = Observer(workspace, all_runs=True, states=["FAILED", "CANCELED"])
        ended = Observer(workspace, all_runs=True, states=["TERMINATED"])
        await asyncio.sleep(10)
        for n, result in enumerate(["SUCCESS", "FAILED", "TIMEDOUT", "CANCELED"]):
            workspace.start(n + 1, lasting=n + 1).result = result
        await asyncio.sleep(60)
        assert bad.told == [2, 4]
        assert ended.told == [1, 2, 3, 4]

    run(scenario)


def test_a_refused_list_is_tried_again(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what is wrong; what ended meanwhile is told once lists are allowed."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(40)
        workspace.lists_refused = True
        workspace.start(1, lasting=30)
        await asyncio.sleep(600)
        workspace.lists_refused = False
        await asyncio.sleep(700)
        assert observer.told == [1]

    run(scenario)
    assert "the next try is in 30 s" in caplog.text
    assert "the next try is in 60 s" in caplog.text


def test_a_position_is_told_without_events(run: Run) -> None:
    """So that a restart after a quiet day has little to read."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace, job_id=1, period=300)
        await asyncio.sleep(10)
        first = observer.position
        for run_id in range(2, 10):
            workspace.start(run_id, job=2, lasting=10)
            await asyncio.sleep(ended_runs.POSITION_SECONDS / 3)
        assert observer.position["started_from"] > first["started_from"] + 900_000
        assert observer.told == []

    run(scenario)


def test_positions_without_events_are_told_at_different_times(run: Run) -> None:
    """Each is a write to Airflow's database, and there may be hundreds of watches."""

    async def scenario(workspace: Workspace) -> None:
        observers = [Observer(workspace, job_id=n) for n in range(1, 41)]
        await asyncio.sleep(ended_runs.POSITION_SECONDS + 2 * PERIOD)
        at = [one.positions_at[1] for one in observers]
        assert max(at) - min(at) > ended_runs.POSITION_SECONDS * ended_runs.POSITION_JITTER / 2
        assert max(at.count(moment) for moment in at) < len(at) / 2

    run(scenario)


def test_after_a_restart_positions_without_events_are_told_at_different_times(run: Run) -> None:
    """The stored ones are good enough until then; a watch with events has its own at once."""

    async def scenario(workspace: Workspace) -> None:
        first = [Observer(workspace, job_id=n) for n in range(1, 41)]
        await asyncio.sleep(2 * PERIOD)
        stored = [await one.stop() for one in first]
        workspace.start(1, job=1, lasting=5)
        await asyncio.sleep(10)
        watches = zip(range(1, 41), stored, strict=True)
        second = [Observer(workspace, job_id=n, position=at) for n, at in watches]
        began = workspace.now()
        await asyncio.sleep(2 * PERIOD)
        assert second[0].told == [1]
        assert sum(bool(one.positions_at) for one in second) < len(second) / 2
        await asyncio.sleep(ended_runs.POSITION_SECONDS)
        at = [one.positions_at[0] - began for one in second]
        assert max(at) <= ended_runs.POSITION_SECONDS + PERIOD
        # Some in each third of the time.
        assert {int(one / ended_runs.POSITION_SECONDS * 3) for one in at} >= {0, 1, 2}

    run(scenario)


def test_a_first_position_is_told_as_soon_as_there_is_one(run: Run) -> None:
    """Also without events, and after reads that a job has delayed: a restart would look back."""

    async def scenario(workspace: Workspace) -> None:
        workspace.jobs = {8: {"tags": {"another": "x"}}}
        workspace.broken_jobs.add(8)
        workspace.start(1, job=8, ago=20, lasting=10)
        observer = Observer(workspace, tags=["team"], look_back=600)
        await asyncio.sleep(2 * PERIOD)
        assert observer.position == {}
        workspace.broken_jobs.clear()
        await asyncio.sleep(2 * PERIOD)
        assert observer.told == []
        assert observer.position != {}

    run(scenario)


def test_a_run_with_a_time_in_the_future_hides_no_other(run: Run) -> None:
    """The clock of the service, or of a run, may be wrong."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(10)
        workspace.start(1, ago=-1e6, lasting=-1e6)
        await asyncio.sleep(60)
        position = await observer.stop()
        workspace.start(2, lasting=10)
        await asyncio.sleep(60)
        second = Observer(workspace, position=position)
        await asyncio.sleep(60)
        assert 2 in observer.told + second.told

    run(scenario)


def test_nothing_is_read_once_the_last_watch_has_ended(run: Run) -> None:
    """The poller closes as it does without watches."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(100)
        await observer.stop()
        workspace.asked.clear()
        await asyncio.sleep(1000)

    assert run(scenario).requests == 0


def test_a_list_that_ends_too_early_is_read_again_and_then_given_up(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A service of 2.0 alone lists no runs beyond an offset; the log says what that may mean."""
    monkeypatch.setattr("airflow_jobs_provider.triggers.polling.run_lists.MAX_OFFSET", 100)
    monkeypatch.setattr("tests.fakes.many_runs.LAST_OFFSET", 100)

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        workspace.start(1, lasting=5)
        await asyncio.sleep(40)
        workspace.is_down = True
        for run_id in range(2, 402):
            workspace.start(run_id, lasting=1)
            await asyncio.sleep(1)
        workspace.is_down = False
        await asyncio.sleep(500)
        assert observer.told[0] == 1
        assert len(observer.told) == len(set(observer.told)) < 401
        assert 401 in observer.told
        workspace.start(2000, lasting=1)
        await asyncio.sleep(60)
        assert observer.told[-1] == 2000

    run(scenario)
    assert caplog.text.count("does not list the ended runs back to where") == 1


def test_active_runs_beyond_the_reach_of_their_list_are_read_in_turn(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.0 alone shows no run beyond an offset. Some are read by their ids each time."""
    monkeypatch.setattr("airflow_jobs_provider.triggers.polling.run_lists.MAX_OFFSET", 60)
    monkeypatch.setattr("tests.fakes.many_runs.LAST_OFFSET", 60)
    monkeypatch.setattr(all_run_lists, "UNLISTED_AT_ONCE", 20)

    async def scenario(workspace: Workspace) -> None:
        workspace.max_page = 30
        for run_id in range(1, 61):
            workspace.start(run_id, ago=2000 - run_id, lasting=1e6)
        observer = Observer(workspace)
        await asyncio.sleep(20)
        for run_id in range(101, 301):
            workspace.start(run_id, ago=1000 - run_id, lasting=1e6)
        await asyncio.sleep(100)
        workspace.asked.clear()
        for run_id in (1, 30, 60):
            workspace.end(run_id)
        await asyncio.sleep(4 * PERIOD)
        assert sorted(observer.told) == [1, 30, 60]
        assert workspace.asked["runs/get"] <= 4 * 20

    run(scenario)


def test_a_run_that_is_listed_late_is_told(run: Run) -> None:
    """Later runs were on the lists before it, and it has ended when it comes."""

    async def scenario(workspace: Workspace) -> None:
        observer = Observer(workspace)
        await asyncio.sleep(40)
        workspace.start(1, lasting=3)
        workspace.deleted.add(1)
        await asyncio.sleep(5)
        for run_id in range(2, 42):
            workspace.start(run_id, lasting=1)
            await asyncio.sleep(0.1)
        await asyncio.sleep(20)
        assert observer.told == list(range(2, 42))
        workspace.deleted.clear()
        await asyncio.sleep(PERIOD)
        assert observer.told == [*range(2, 42), 1]

    run(scenario)
