"""RunPoller: one poller for all runs of one connection that an event loop waits for.

A thousand triggers that read their own runs send a thousand requests a poll. Here each trigger adds
a waiter to the poller of its connection. The poller reads the due runs from lists, with up to a
thousand runs a page, where that costs less than reading them by their ids. Each trigger gets its
run when the run has changed. A run that no list has is read by its id before anything is concluded.

Each waiter's polling period is kept, as long as the service answers and its rate limit allows. An
outage slows down all waits together, and is logged once when it begins and once when it ends. A run
that cannot be read while others can fails its own waits only. A list that cannot be read fails no
wait.

==================  =============================================================
Module              Responsibility
==================  =============================================================
``registry``        the poller of each connection and event loop
``poller``          the waits, the poller's life time, when to poll
``waiters``         which run is due when, and who gets it
``reader``          what to read: lists, or single runs by their ids
``run_lists``       how many pages of which list to read, and what they cost
``run_changes``     what has changed, where reading all runs takes too long
``window_sweep``    the same by windows of start times, where pages are small
``list_pages``      one page of a list, with its retries
``slow_reads``      concurrent reads of single runs
``publisher``       giving each waiter its run when the run has changed
``sender``          sending: client, rate limit, waits in outages
``rate_limiter``    requests per second and in flight
``launch_limiter``  launches per second, in turn between DAGs
``outages``         failures in a row, of the service and of single runs
``first_reads``     reads of runs that were just launched
``shared_reads``    reads of a run that the triggers of its tasks share
``ended_runs``      all runs that end, for watches of jobs
``all_run_lists``   reading the lists for them
``watch_position``  how far a watch has come, across restarts
``job_details``     names and tags of jobs
==================  =============================================================
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_jobs_provider.api.attempts import ignore_attempt
from airflow_jobs_provider.api.errors import ResponseLostError
from airflow_jobs_provider.api.responses import parse_states
from airflow_jobs_provider.api.retry import async_sleep, seconds_to_wait
from airflow_jobs_provider.api.workflows.base import OnEvent, Workflow, run_workflow_async
from airflow_jobs_provider.triggers.polling.first_reads import FirstReads
from airflow_jobs_provider.triggers.polling.launch_limiter import HostLimiters
from airflow_jobs_provider.triggers.polling.outages import UnreadableRuns
from airflow_jobs_provider.triggers.polling.reader import RunReader
from airflow_jobs_provider.triggers.polling.sender import Sender
from airflow_jobs_provider.triggers.polling.waiters import Waiter, Waiters, without_details

if TYPE_CHECKING:
    from airflow_jobs_provider.api.attempts import OnAttempt
    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.client import AsyncJobsClient
    from airflow_jobs_provider.api.retry import RetryPolicy
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.metrics import PollerMetrics
    from airflow_jobs_provider.triggers.polling.ended_runs import EndedRuns
    from airflow_jobs_provider.triggers.polling.sender import BeforeLaunch
    from airflow_jobs_provider.triggers.polling.waiters import States
from airflow_jobs_provider.api.workflows.progress import REPEAT_SECONDS
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

__all__ = ["RunPoller"]

T = TypeVar("T")

# How long a poller without waiters keeps its connections.
LINGER_SECONDS = 30.0
# How long a call without which its workflow goes on may take, with the wait for its turn.
LONGEST_OPTIONAL_SECONDS = 5.0


class RunPoller:
    """Polls the runs of one connection; made by :func:`.registry.get_poller`.

    :param hook: hook of the connection.
    :param limiters: the event loop's rate limiters by host. Pollers of one host share them.
    :param on_close: called, perhaps more than once, when the poller takes no more waiters: after a
        while without any, or after an error.
    """

    def __init__(
        self,
        hook: DatabricksJobsHook,
        limiters: dict[str, HostLimiters],
        on_close: Callable[[], None],
    ) -> None:
        self._hook = hook
        self._limiters = limiters
        self._on_close = on_close
        self._waiters = Waiters()
        self._unreadable_runs = UnreadableRuns()
        # Calls in progress, and others that need the poller although nobody waits for a run.
        self._users = 0
        self._unused = asyncio.Event()
        self._shared_waits = 0
        self._metrics: PollerMetrics | None = None
        self._error: Exception | None = None
        self._waiter_added = asyncio.Event()
        self._next_poll_at = float("inf")
        self._reader: RunReader | None = None
        self._ended_runs: EndedRuns | None = None
        self._first_reads = FirstReads(self.send)
        loop = asyncio.get_running_loop()
        self._sender: asyncio.Future[Sender] = loop.create_future()
        # A context of its own. In the first waiter's the poller would log to that waiter's task.
        self._task = loop.create_task(self._run(), context=contextvars.Context())

    # -- for waiters ---------------------------------------------------------------------------

    async def wait_for_change(
        self,
        run_id: int,
        *,
        period: float,
        known: Mapping[str, Any] | None = None,
        report_after: float | None = None,
        first: bool = True,
    ) -> Run:
        """Return the run, read from now on, as soon as its states are not the known ones.

        :param run_id: the run.
        :param period: seconds between two reads of the run, at most.
        :param known: the run as last seen; None returns the run when it is read next.
        :param report_after: seconds after which the run is returned although it has not changed;
            default never.
        :param first: whether this is the caller's first wait, which may be shorter than the period.
        :raises JobsAPIError: the run cannot be read, and waiting does not help.
        """
        states = None if known is None else parse_states(dict(known))
        reads = _PolledReads(self, period, states)
        return await self.wait_for_read(
            run_id, period, reads, report_after=report_after, first=first
        )

    async def wait_for_read(
        self,
        run_id: int,
        period: float,
        reads: _PolledReads,
        *,
        report_after: float | None,
        first: bool,
    ) -> Run:
        """Return the run as :meth:`wait_for_change` does, and record its states.

        A triggerer has ten thousand of these coroutines, so each keeps as little as it can: all of
        it costs time in each garbage collection.

        :param run_id: the run.
        :param period: seconds between two reads of the run, at most.
        :param reads: the states as last seen. It is given the new ones.
        :param report_after: see :meth:`wait_for_change`.
        :param first: see :meth:`wait_for_change`.
        """
        if self._error is not None:
            raise self._error
        period = seconds_to_wait(period)
        now = time.monotonic()
        waiter = Waiter(
            run_id=run_id,
            period=period,
            # Random, so that runs that were deferred together are not all due at the same moment.
            due=now + period * (random.uniform(0.8, 1.0) if first else 1.0),  # noqa: S311
            report_at=float("inf") if report_after is None else now + report_after,
            known=reads.known,
            future=asyncio.get_running_loop().create_future(),
        )
        self._waiters.add(waiter)
        if waiter.due < self._next_poll_at:
            self._waiter_added.set()
        try:
            run = await waiter.future
        finally:
            if not self._waiters.remove(waiter):
                self._unreadable_runs.forget(run_id)
        reads.record(run_id, run)
        return without_details(run)

    def run_workflow(
        self,
        steps: Workflow[T],
        *,
        period: float,
        life_cycle_state: str | None = None,
        every_read: bool = False,
        on_event: OnEvent = lambda _event: None,
    ) -> Coroutine[Any, Any, T]:
        """Execute a workflow as a client does, but take its reads of runs from the poller's.

        :param steps: the workflow, such as
            :func:`~airflow_jobs_provider.api.workflows.follow.follow_run`.
        :param period: seconds within which a run is to be read for the first time.
        :param life_cycle_state: the first run's, where it is known; default None.
        :param every_read: resume the workflow with each read of its run, not only when the run has
            changed; default False.
        :param on_event: called with each event of the workflow.
        """
        known = None if life_cycle_state is None else (life_cycle_state, None)
        reads = _PolledReads(self, period, known, every_read=every_read)
        return run_workflow_async(steps, send=reads, wait=reads.wait, on_event=on_event)

    async def send(
        self,
        call: Call[T],
        *,
        without_deadline: bool = True,
        retries: RetryPolicy | None = None,
        dag_id: str = "",
        is_urgent: bool = False,
        before_launch: BeforeLaunch | None = None,
        on_attempt: OnAttempt = ignore_attempt,
    ) -> T:
        """Send a call through the poller's client, within its rate limits.

        :param call: what to send.
        :param without_deadline: wait out any outage, as for a run that is known to exist; default
            True.
        :param retries: a policy for this call only, in place of that.
        :param dag_id: the DAG that launches a run, see :mod:`.launch_limiter`.
        :param is_urgent: send a read before others, see :meth:`.Sender.send`; default False.
        :param before_launch: awaited once a launch has its turn, see :meth:`.Sender.send`.
        :param on_attempt: called before and after each attempt, see :meth:`AsyncJobsClient.send`.
        """
        with self.kept_open():
            sender = await asyncio.shield(self._sender)
            if retries is None and without_deadline and not call.has_deadline:
                retries = sender.retries
            return await sender.send(
                call,
                retries,
                dag_id=dag_id,
                is_urgent=is_urgent,
                before_launch=before_launch,
                on_attempt=on_attempt,
            )

    async def read_launched_run(self, call: Call[Run]) -> Run:
        """Read a run that was just launched, perhaps together with others, see :mod:`.first_reads`.

        :param call: ``runs/get`` of the run.
        :raises JobsAPIError: the run cannot be read.
        """
        with self.kept_open():
            return await self._first_reads.read(call)

    async def client(self) -> AsyncJobsClient:
        """Return the poller's client: to validate requests, not to send any."""
        with self.kept_open():
            return (await asyncio.shield(self._sender)).client

    async def send_after(self, seconds: float, call: Call[T]) -> T:
        """Send a call after a wait; see :meth:`send`.

        :param seconds: how long to wait.
        :param call: what to send.
        """
        with self.kept_open():
            await async_sleep(seconds)
            return await self.send(call)

    async def send_optional(self, seconds: float, call: Call[T]) -> T:
        """Send a call without which its workflow goes on, such as a read for the log.

        The poller's lists do not have what it asks for. It is given up soon, since the workflow
        waits for its run only after it.

        :param seconds: how long to wait before.
        :param call: what to send.
        :raises ResponseLostError: there is no response after :data:`LONGEST_OPTIONAL_SECONDS`.
        """
        await async_sleep(seconds)
        try:
            async with asyncio.timeout(LONGEST_OPTIONAL_SECONDS):
                return await self.send(call)
        except TimeoutError:
            raise ResponseLostError(
                f"{call.name} took longer than {LONGEST_OPTIONAL_SECONDS:g} s"
            ) from None

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keep the poller, and so its client, although nobody waits for a run."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    @contextmanager
    def shared_wait(self) -> Iterator[None]:
        """Count a wait whose reads are not the poller's, see :mod:`.shared_reads`."""
        self._shared_waits += 1
        self._send_waits()
        try:
            # Between two reads nobody uses the poller. Without it each read may open a connection.
            with self.kept_open():
                yield
        finally:
            self._shared_waits -= 1
            self._send_waits()

    @property
    def ended_runs(self) -> EndedRuns:
        """The runs of the workspace that end, for watches."""
        if self._ended_runs is None:
            # Not imported where nothing is watched.
            from airflow_jobs_provider.triggers.polling.ended_runs import EndedRuns

            self._ended_runs = EndedRuns(self._waiters, self._opened)
        return self._ended_runs

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[Sender, RunReader]]:
        """Keep the poller open."""
        with self.kept_open():
            sender = await asyncio.shield(self._sender)
            assert self._reader is not None
            yield sender, self._reader

    # -- the loop ------------------------------------------------------------------------------

    async def _run(self) -> None:
        reader: RunReader | None = None
        try:
            async with self._hook.async_client() as client:
                if client.host not in self._limiters:
                    self._limiters[client.host] = HostLimiters.for_host(client.host)
                limiters = self._limiters[client.host]
                retries = self._hook.retry_policy().without_deadline()
                if (metrics := self._hook.metrics) is not None:
                    self._metrics = metrics.of_poller()
                sender = Sender(
                    client, limiters.requests, retries, limiters.launches, self._metrics
                )
                self._sender.set_result(sender)
                reader = self._reader = RunReader(self._waiters, sender, self._unreadable_runs)
                while await self._is_needed(sender):
                    await self._sleep_until_due()
                    await reader.poll()
                # Before anything is awaited, so that a later waiter gets another poller.
                self._on_close()
                await self._until_unused()
        except Exception as error:  # noqa: BLE001 - every waiter must get it
            self._on_close()
            self._error = error
            if not self._sender.done():
                self._sender.set_exception(error)
                self._sender.exception()
            await self._waiters.fail_all(error)
        finally:
            if reader is not None:
                reader.cancel()
            if self._metrics is not None:
                self._metrics.close()
                self._metrics = None
            self._on_close()

    def _send_waits(self) -> None:
        """Send how many waits there are, if Airflow sends metrics."""
        if self._metrics is not None:
            self._metrics.waits_changed(self._waiters.count() + self._shared_waits)

    async def _until_unused(self) -> None:
        """Wait for the end of calls by those that have got the poller before it was closed.

        A call may begin in a task that has been created, and has not run yet.
        """
        await asyncio.sleep(0)
        while self._users:
            self._unused.clear()
            await self._unused.wait()

    async def _is_needed(self, sender: Sender) -> bool:
        """Wait for a waiter; False if none comes for a while and nobody uses the poller."""
        self._send_waits()
        is_idle = not self._waiters
        if is_idle:
            sender.forget_outage()
        while not self._waiters:
            self._next_poll_at = float("inf")
            self._waiter_added.clear()
            try:
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._waiter_added.wait()
            except TimeoutError:
                if not self._users:
                    return bool(self._waiters)
        if is_idle:
            self._send_waits()
        return True

    async def _sleep_until_due(self) -> None:
        while self._waiters:
            self._next_poll_at = self._waiters.next_due()
            wait = self._next_poll_at - time.monotonic()
            if wait <= 0:
                return
            self._waiter_added.clear()
            try:
                # A waiter that is added may be due earlier.
                async with asyncio.timeout(wait):
                    await self._waiter_added.wait()
                # Many are added at once; the next due time is computed once for all of them.
                await asyncio.sleep(min(wait, 0.05))
            except TimeoutError:
                return


class _PolledReads:
    """Sends the calls of one workflow; its reads of runs are answered by the poller.

    :param poller: the poller.
    :param period: seconds within which a run is to be read for the first time.
    :param known: the states of the first run, where they are known.
    :param every_read: return each read of a run, not only those in which it has changed; default
        False.

    :ivar known: the states of the run as last read; None to return the next read.
    """

    __slots__ = ("_every_read", "_period", "_poller", "_run_id", "_wait", "known")

    def __init__(
        self, poller: RunPoller, period: float, known: States | None, *, every_read: bool = False
    ) -> None:
        self.known = None if every_read else known
        self._run_id: int | None = None
        self._poller = poller
        self._period = period
        self._every_read = every_read
        self._wait = 0.0

    def __call__(self, call: Call[Any]) -> Awaitable[Any]:
        """Send a call, after the wait before it."""
        wait, self._wait = self._wait, 0.0
        is_read = call.path == "runs/get" and call.parameters.keys() == {"run_id"}
        if call.is_optional:
            return self._poller.send_optional(wait, call)
        if not is_read:
            return self._poller.send_after(wait, call)
        run_id = int(call.parameters["run_id"])
        if self._run_id not in (None, run_id):
            self.known = None
        return self._poller.wait_for_read(
            run_id, wait or self._period, self, report_after=REPEAT_SECONDS, first=not wait
        )

    async def wait(self, seconds: float) -> None:
        """Wait before the next call. A read waits for the run's next change instead."""
        self._wait = seconds

    def record(self, run_id: int, run: Run) -> None:
        """Record the states of a run that was read."""
        self._run_id = run_id
        self.known = None if self._every_read else parse_states(run)
