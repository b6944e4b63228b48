"""Scheduler of runs: queue, prepare, execute, end (reference: "RunLifeCycleState")."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from airflow_jobs_provider.api.states import RunLifeCycleState, RunResultState
from airflow_jobs_provider.local.engine.model import Output, Run, RunType, now_millis
from airflow_jobs_provider.local.engine.runner import CannotRunError, Outcome, Runner
from airflow_jobs_provider.local.engine.scripted_results import ScriptedRunner
from airflow_jobs_provider.local.engine.store import Store

__all__ = ["STOPPED_MESSAGE", "Scheduler"]

_log = logging.getLogger(__name__)
# Kinds of tasks that start others and wait for them, or do nothing that takes time.
_ONLY_WAITING = {"run_job_task", "for_each_task", "condition_task"}
STOPPED_MESSAGE = "The local workspace stopped while the run was active."


class _Stop(Enum):
    """Why a run is ended early."""

    CANCELED = auto()
    TIMED_OUT = auto()
    WORKSPACE_STOPS = auto()


@dataclass(eq=False, slots=True)
class _Live:
    """A run that has not ended."""

    run: Run
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    stop: _Stop | None = None
    # Cleaning up must not be interrupted, nor can work that has not begun.
    is_interruptible: bool = False
    is_settled: bool = False
    has_slot: bool = False
    # A run that waits for one it has started lends that its place, to one at a time.
    lender: _Live | None = None
    has_lent: bool = False
    job_limit: int | None = None


class Scheduler:
    """Executes runs in their order of arrival, up to a number at once.

    :param slots: how many runs with work of their own are executed at once.
    :param runner_of: who does a run's work.
    :param job_limit_of: how many runs of a run's job may be at work at once, where the others are
        to wait; None where they are not.
    :param on_end: told of each run that has ended.
    """

    def __init__(
        self,
        store: Store,
        *,
        slots: int,
        runner_of: Callable[[Run], Runner],
        job_limit_of: Callable[[Run], int | None],
        on_end: Callable[[Run], None],
    ) -> None:
        self._store = store
        self._free_slots = slots
        self._runner_of = runner_of
        self._job_limit_of = job_limit_of
        self._on_end = on_end
        self._live: dict[int, _Live] = {}
        self._queue: list[_Live] = []
        self._is_stopping = False

    def admit(self, run: Run, *, delay: float = 0.0) -> None:
        """Schedule a run that was just stored: start or queue it.

        A run with ``life_cycle_state`` BLOCKED is held until :meth:`start_held`.
        """
        live = self._live[run.run_id] = _Live(run)
        if run.life_cycle_state == RunLifeCycleState.BLOCKED:
            return
        if delay > 0:
            live.timer = asyncio.get_running_loop().call_later(delay, self._enqueue, live)
            return
        self._enqueue(live)

    def start_held(self, run_id: int) -> None:
        """Start a held run."""
        live = self._live.get(run_id)
        if live is not None and live.work is None and live not in self._queue:
            self._enqueue(live)

    def skip_held(self, run_id: int, result_state: str, message: str) -> None:
        """Skip a held run."""
        live = self._live.get(run_id)
        if live is not None:
            self._end(live, RunLifeCycleState.TERMINATED, result_state, message)

    async def wait(self, run_id: int) -> Run:
        """Wait until a run has ended, and return it."""
        live = self._live.get(run_id)
        if live is not None:
            await live.has_ended.wait()
            return live.run
        run = self._store.run(run_id)
        if run is None:
            raise LookupError(f"Run {run_id} was deleted")
        return run

    def live_run(self, run_id: int) -> Run | None:
        """Return a run that has not ended, as it is changed while it runs; None if it has."""
        live = self._live.get(run_id)
        return None if live is None else live.run

    def cancel(self, run_id: int) -> None:
        """Cancel a run; does nothing if it has ended."""
        self._stop(run_id, _Stop.CANCELED)

    def set_timeout(self, run: Run, seconds: int) -> None:
        """Change the time-out of a run that may be live."""
        live = self._live.get(run.run_id)
        if live is not None and not live.is_settled:
            live.run.timeout_seconds = seconds
            self._store.save_run(live.run)
            if live.work is not None:
                self._set_timer(live)

    async def stop(self) -> None:
        """End all active runs; return when their processes are gone."""
        self._is_stopping = True
        lives = list(self._live.values())
        for live in lives:
            self._stop(live.run.run_id, _Stop.WORKSPACE_STOPS)
        await asyncio.gather(*(live.work for live in lives if live.work is not None))

    # Queue

    def _enqueue(self, live: _Live) -> None:
        live.timer = None
        live.job_limit = self._job_limit_of(live.run)
        self._queue.append(live)
        self._begin_what_can()
        if live in self._queue and live.run.life_cycle_state != RunLifeCycleState.QUEUED:
            self._move(live.run, RunLifeCycleState.QUEUED, "In queue: waiting for other runs")

    def _begin_what_can(self) -> None:
        if self._is_stopping:
            return
        for live in list(self._queue):
            if live.job_limit is not None and self._at_work(live.run.job_id) >= live.job_limit:
                continue
            if self._takes_a_place(live):
                self._queue.remove(live)
                self._begin(live)

    def _takes_a_place(self, live: _Live) -> bool:
        run = live.run
        if run.is_of_tasks or _ONLY_WAITING & run.task.keys():
            # They only wait for others. If they took places, they could all wait for each other.
            return True
        if run.run_type == RunType.WORKFLOW_RUN:
            lender = self._live.get(run.started_by_run_id or 0)
            if lender is not None and not lender.has_lent:
                live.lender, lender.has_lent = lender, True
                return True
        if self._free_slots > 0:
            live.has_slot = True
            self._free_slots -= 1
        return live.has_slot

    def _at_work(self, job_id: int) -> int:
        return sum(
            live.run.job_id == job_id and live.work is not None and live.run.parent_run_id is None
            for live in self._live.values()
        )

    def _begin(self, live: _Live) -> None:
        if live.run.history:
            # A repaired run keeps the time it was first started at.
            live.run.history[-1]["start_time"] = now_millis()
        else:
            live.run.start_time = now_millis()
        self._move(live.run, RunLifeCycleState.PENDING, "Waiting for the task to start")
        live.work = asyncio.create_task(self._work(live), name=f"run {live.run.run_id}")
        self._set_timer(live)

    def _set_timer(self, live: _Live) -> None:
        if live.timer is not None:
            live.timer.cancel()
            live.timer = None
        if live.run.timeout_seconds > 0:
            deadline = live.run.active_since / 1000 + live.run.timeout_seconds
            live.timer = asyncio.get_running_loop().call_later(
                deadline - time.time(), self._stop, live.run.run_id, _Stop.TIMED_OUT
            )

    # Stopping

    def _stop(self, run_id: int, reason: _Stop) -> None:
        live = self._live.get(run_id)
        if live is None or live.stop is not None or live.is_settled:
            return
        live.stop = reason
        if live.work is None:
            if live in self._queue:
                self._queue.remove(live)
            if live.timer is not None:
                live.timer.cancel()
            self._end(live, *_end_of_stopped(live))
        elif live.is_interruptible:
            live.work.cancel()

    # The work itself

    def _make_runner(self, live: _Live) -> Runner:
        runner = self._runner_of(live.run)
        if isinstance(runner, ScriptedRunner):
            # It does no work: one that never ends must not keep others from starting.
            self._give_place_back(live)
            self._begin_what_can()
        return runner

    async def _work(self, live: _Live) -> None:
        run = live.run
        runner: Runner | None = None
        outcome: Outcome | None = None
        cannot: str | None = None
        begun = moment = time.monotonic()
        try:
            runner = self._make_runner(live)
            live.is_interruptible = True
            if live.stop is None:
                await runner.setup()
                moment = time.monotonic()
                run.setup_duration = _millis(moment - begun)
                run.spark_context_id = str(run.run_id)
                self._move(run, RunLifeCycleState.RUNNING, "In run")
                outcome = await runner.execute()
        except asyncio.CancelledError:
            # Ours, by _stop; or the event loop is being closed over our head.
            live.stop = live.stop or _Stop.WORKSPACE_STOPS
        except CannotRunError as error:
            cannot = str(error)
        except Exception as error:  # noqa: BLE001  (any fault ends the run, not us)
            _log.exception("Run %s could not be done", run.run_id)
            cannot = f"The local workspace could not do this run: {error!r}"
        finally:
            live.is_interruptible = False
            live.is_settled = True
        if run.life_cycle_state == RunLifeCycleState.RUNNING:
            run.execution_duration = _millis(time.monotonic() - moment)
            if live.stop is None and outcome is not None:
                _take_result(run, outcome)
            self._move(run, RunLifeCycleState.TERMINATING, "Cleaning up")
        moment = time.monotonic()
        if runner is not None:
            try:
                await runner.cleanup()
            except Exception:  # noqa: BLE001  (the run has to end whatever happens)
                _log.exception("Cleaning up after run %s", run.run_id)
        run.cleanup_duration = _millis(time.monotonic() - moment)
        if live.stop is not None:
            self._end(live, *_end_of_stopped(live))
        elif outcome is None:
            self._end(live, RunLifeCycleState.INTERNAL_ERROR, None, cannot or "")
        else:
            self._store.save_output(run.run_id, outcome.output)
            self._end(live, *_end_of(outcome))
            if outcome.is_deleted:
                self._store.delete_run(run.run_id)

    def _end(
        self, live: _Live, life_cycle_state: str, result_state: str | None, message: str
    ) -> None:
        run = live.run
        if live.timer is not None:
            live.timer.cancel()
        run.result_state = result_state
        took = run.setup_duration + run.execution_duration + run.cleanup_duration
        run.end_time = max(now_millis(), run.active_since + took)
        run.user_cancelled_or_timedout = live.stop in {_Stop.CANCELED, _Stop.TIMED_OUT}
        if result_state != RunResultState.SUCCESS and self._store.output(run.run_id).error is None:
            self._store.save_output(run.run_id, Output(error=message))
        self._move(run, life_cycle_state, message)
        self._live.pop(run.run_id, None)
        self._give_place_back(live)
        if live.lender is not None:
            live.lender.has_lent = False
        live.has_ended.set()
        if not self._is_stopping:
            self._on_end(run)
        if live.work is None:
            return  # It never began: it has started no other run, and makes no room.
        for other in list(self._live.values()):
            if other.run.started_by_run_id == run.run_id:
                self._stop(other.run.run_id, live.stop or _Stop.CANCELED)
        self._begin_what_can()

    def _give_place_back(self, live: _Live) -> None:
        if live.has_slot:
            live.has_slot = False
            self._free_slots += 1

    def _move(self, run: Run, life_cycle_state: RunLifeCycleState | str, message: str) -> None:
        run.life_cycle_state = life_cycle_state
        run.state_message = message
        self._store.save_run(run)


def _take_result(run: Run, outcome: Outcome) -> None:
    run.result_state = outcome.result_state
    run.termination_code = outcome.termination_code
    if outcome.millis is not None:
        run.execution_duration = outcome.millis


def _end_of(outcome: Outcome) -> tuple[str, str, str]:
    failed = outcome.result_state == RunResultState.FAILED
    state = RunLifeCycleState.INTERNAL_ERROR if failed else RunLifeCycleState.TERMINATED
    return state, outcome.result_state, outcome.message


def _end_of_stopped(live: _Live) -> tuple[str, str | None, str]:
    if live.stop is _Stop.CANCELED:
        return RunLifeCycleState.TERMINATED, RunResultState.CANCELED, "Run cancelled."
    if live.stop is _Stop.TIMED_OUT:
        message = f"Run timed out after {live.run.timeout_seconds} seconds."
        return RunLifeCycleState.TERMINATED, RunResultState.TIMEDOUT, message
    return RunLifeCycleState.INTERNAL_ERROR, None, STOPPED_MESSAGE


def _millis(seconds: float) -> int:
    return max(0, round(seconds * 1000))
