"""Workflows: exchanges of several requests, each written once for the blocking and asyncio clients.

A workflow is a generator. It yields steps and returns its result:

* a :class:`~airflow_jobs_provider.api.calls.Call` is sent. The workflow is resumed with the
  response, or with the error where it failed;
* a :class:`Wait` lets time pass;
* an event says what has happened: a launch is about to be sent, or the id of the run
  is known; see :mod:`.events`.

A workflow sends nothing and never sleeps. The two drivers do: :func:`run_workflow` blocks,
:func:`run_workflow_async` is for asyncio. What differs between their users is passed in as
functions: how a call is sent, how a wait is waited, and what happens on an event and before a step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.workflows.events import Event, LaunchPrepared, RunIdentified

__all__ = [
    "OnEvent",
    "Step",
    "Wait",
    "Workflow",
    "WorkflowExecution",
    "run_workflow",
    "run_workflow_async",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wait:
    """Let time pass.

    :ivar seconds: how long.
    """

    seconds: float


Step: TypeAlias = "Call[Any] | Wait | Event"
Workflow: TypeAlias = Generator[Step, Any, T]
OnEvent: TypeAlias = Callable[[Event], None]


class SendCall(Protocol):
    """Sends a call and returns what its response says; raises a JobsAPIError where it fails."""

    def __call__(self, call: Call[Any], /) -> Any: ...


class SendCallAsync(Protocol):
    """The same for asyncio."""

    def __call__(self, call: Call[Any], /) -> Awaitable[Any]: ...


def _ignore_event(_event: Event) -> None:
    pass


def _do_nothing() -> None:
    pass


class WorkflowExecution(Generic[T]):
    """One execution of a workflow. It can stop at a wait and go on later.

    :param steps: the workflow.
    :param on_event: called with each event; default: events are ignored.
    :param before_step: called before the workflow starts, goes on after a wait, or takes a step;
        what it raises ends the execution. Default: nothing is called.

    :ivar result: what the workflow returned, once :meth:`advance` has returned None.
    """

    def __init__(
        self,
        steps: Workflow[T],
        *,
        on_event: OnEvent = _ignore_event,
        before_step: Callable[[], None] = _do_nothing,
    ) -> None:
        self._steps = steps
        self._on_event = on_event
        self._before_step = before_step
        self.result = cast("T", None)

    def advance(self, send: SendCall) -> Wait | None:
        """Send the calls of the workflow until it waits or ends; return the wait, None at the end.

        A further call of this method goes on after the wait.

        :param send: sends a call.
        """
        self._before_step()
        call = self._resume(None)
        while isinstance(call, Call):
            self._before_step()
            try:
                response = send(call)
            except JobsAPIError as error:
                call = self._fail(error)
            else:
                call = self._resume(response)
        return call

    async def advance_async(self, send: SendCallAsync) -> Wait | None:
        """Do what :meth:`advance` does, from asyncio."""
        self._before_step()
        call = self._resume(None)
        while isinstance(call, Call):
            self._before_step()
            try:
                response = await send(call)
            except JobsAPIError as error:
                call = self._fail(error)
            else:
                call = self._resume(response)
        return call

    def _resume(self, response: Any) -> Call[Any] | Wait | None:
        return self._next_call(lambda: self._steps.send(response))

    def _fail(self, error: JobsAPIError) -> Call[Any] | Wait | None:
        return self._next_call(lambda: self._steps.throw(error))

    def _next_call(self, resume: Callable[[], Step]) -> Call[Any] | Wait | None:
        """Return the next call or wait; handle the events before it. None at the end."""
        try:
            step = resume()
            while isinstance(step, (LaunchPrepared, RunIdentified)):
                self._on_event(step)
                step = self._steps.send(None)
        except StopIteration as end:
            self.result = end.value
            return None
        return step


def run_workflow(
    steps: Workflow[T],
    *,
    send: SendCall,
    wait: Callable[[float], object],
    on_event: OnEvent = _ignore_event,
    before_step: Callable[[], None] = _do_nothing,
) -> T:
    """Execute a workflow, blocking, and return its result.

    :param steps: the workflow.
    :param send: sends a call.
    :param wait: lets so many seconds pass.
    :param on_event: see :class:`WorkflowExecution`.
    :param before_step: see :class:`WorkflowExecution`.
    """
    execution = WorkflowExecution(steps, on_event=on_event, before_step=before_step)
    while (pause := execution.advance(send)) is not None:
        wait(pause.seconds)
    return execution.result


async def run_workflow_async(
    steps: Workflow[T],
    *,
    send: SendCallAsync,
    wait: Callable[[float], Awaitable[object]],
    on_event: OnEvent = _ignore_event,
    before_step: Callable[[], None] = _do_nothing,
) -> T:
    """Execute a workflow from asyncio and return its result; see :func:`run_workflow`."""
    execution = WorkflowExecution(steps, on_event=on_event, before_step=before_step)
    while (pause := await execution.advance_async(send)) is not None:
        await wait(pause.seconds)
    return execution.result
