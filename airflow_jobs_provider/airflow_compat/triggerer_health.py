"""Detects pauses of this triggerer, and whether Airflow stores its XComs.

A triggerer that was paused (a stopped process, a suspended machine, a blocked event loop, a main
process that waits for the database) may still run the trigger of an attempt that is over. Without a
pause Airflow cancels such a trigger within a few seconds. So only a triggerer that may have been
paused needs to ask Airflow whether a later attempt has begun, and only for as long after the pause.

A busy triggerer is not paused. Where many triggers start together, their messages wait for each
other, and Airflow starts all triggers before it cancels any, 8 to 29 ms for each. But its main
process answers one message after the other, and reports that it is alive. So no other triggerer
takes over. A question before each message would only make all of them wait longer.
"""

from __future__ import annotations

import asyncio
import contextvars
import time

from airflow_jobs_provider.airflow_compat.event_loops import PerEventLoop
from airflow_jobs_provider.airflow_compat.lines import airflow_line

__all__ = ["PAUSE_SECONDS", "TriggererHealth", "triggerer_health"]

#: A longer gap is a pause. Airflow cancels the trigger of a cleared task sooner, and has another
#: triggerer take over the triggers of a paused one later.
PAUSE_SECONDS = 5.0
_BEAT_SECONDS = 1.0
# Airflow waits for a second between two batches of triggers that it starts.
_BATCH_SECONDS = 0.5


class TriggererHealth:
    """Watches the triggerer that has the running event loop; see :func:`triggerer_health`.

    :ivar stores_xcoms: whether the latest attempt to store XComs has succeeded; False before the
        first one.
    :ivar first_record: held by the trigger that stores the first record.
    """

    def __init__(self) -> None:
        self._loop, self._context = asyncio.get_running_loop(), contextvars.Context()
        self.stores_xcoms = False
        self.first_record = asyncio.Lock()
        # The monotonic clock stops in a suspended machine. The other one may be set.
        self._monotonic, self._clock = time.monotonic(), time.time()
        self._running_since = self._monotonic
        # The message that is answered next, and since when it is that one; None where none waits.
        self._next: int | None = None
        self._next_since = self._monotonic
        # The first and the latest trigger of the batch that Airflow starts.
        self._batch_since = self._started_at = self._monotonic
        self._beat()

    def may_have_paused(self, since: float) -> bool:
        """Return whether there may have been a pause in a time, up to now.

        :param since: the beginning of the time, on the monotonic clock.
        """
        self._check()
        return since < self._running_since

    def may_run_outdated(self, since: float) -> bool:
        """Return whether a trigger may run that Airflow would have canceled but for a pause.

        Airflow has canceled it a few seconds after the pause, once it has started the triggers that
        it starts together. What it starts later makes no difference.

        :param since: until then there was no pause, on the monotonic clock.
        """
        if not self.may_have_paused(since):
            return False
        settled_at = self._running_since + PAUSE_SECONDS
        if self._batch_since <= settled_at:
            settled_at = max(settled_at, self._started_at + PAUSE_SECONDS)
        return self._monotonic <= settled_at

    def trigger_started(self) -> None:
        """Record that Airflow has started a trigger."""
        self._check()
        now = self._monotonic
        if now - self._started_at > _BATCH_SECONDS:
            self._batch_since = now
        # Airflow sends no message of its own meanwhile. A triggerer without messages is taken for
        # dead, and another one takes over.
        elif now - max(self._batch_since, self._next_since) > PAUSE_SECONDS:
            self._running_since = now
        self._started_at = now

    def _beat(self) -> None:
        self._check()
        # Not in the context of the trigger that came first.
        self._loop.call_later(_BEAT_SECONDS, self._beat, context=self._context)

    def _check(self) -> None:
        monotonic, clock = time.monotonic(), time.time()
        gap = max(monotonic - self._monotonic, clock - self._clock)
        self._monotonic, self._clock = monotonic, clock
        if self._waits_for_airflow() or gap > PAUSE_SECONDS:
            self._running_since = monotonic

    def _waits_for_airflow(self) -> bool:
        """Return whether messages wait, and none has been answered for long."""
        now, pending = self._monotonic, airflow_line().pending_messages()
        if pending is None:  # it may have, at any time
            return now - self._running_since > PAUSE_SECONDS
        # In the order in which they were sent, which is that of the answers.
        oldest = next(iter(pending), None)
        if oldest != self._next:
            self._next, self._next_since = oldest, now
        return oldest is not None and now - self._next_since > PAUSE_SECONDS


_healths = PerEventLoop(TriggererHealth)


def triggerer_health() -> TriggererHealth:
    """Return what watches the running event loop. It does so from the first call on."""
    return _healths.get()
