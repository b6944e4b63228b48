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
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast

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
    "within_deadline",
    "without_retries",
]

T = TypeVar("T")


class Wait(NamedTuple):
    """Let time pass.

    :ivar seconds: how long.
    """

    seconds: float


Step: TypeAlias = "Call[Any] | Wait | Event"
Workflow: TypeAlias = Generator[Step, Any, T]
OnEvent: TypeAlias = Callable[[Event], None]


def within_deadline(steps: Workflow[T]) -> Workflow[T]:
    """Let a workflow send its reads within the deadline of the retry policy, and return its result.

    For what is read before a launch: refused credentials are an error at once there, as they are
    for the launch itself. The other reads of a workflow are about a run that is known to exist, so
    they wait out any outage.

    :param steps: the workflow.
    """
    return (yield from _with_changed_calls(steps, lambda call: call._replace(has_deadline=True)))


def without_retries(steps: Workflow[T]) -> Workflow[T]:
    """Let a workflow send each of its calls once, and return its result.

    For what the log says beside: an outage is not waited out for it.

    :param steps: the workflow.
    """
    return (yield from _with_changed_calls(steps, lambda call: call._replace(is_optional=True)))


def _with_changed_calls(
    steps: Workflow[T], change: Callable[[Call[Any]], Call[Any]]
) -> Workflow[T]:
    """Change the calls of a workflow, and return its result."""
    response: Any = None
    error: JobsAPIError | None = None
    try:
        while True:
            step = steps.send(response) if error is None else steps.throw(error)
            if isinstance(step, Call):
                step = change(step)
            response, error = None, None
            try:
                response = yield step
            except JobsAPIError as failure:
                error = failure
    except StopIteration as end:
        return cast("T", end.value)
    finally:
        steps.close()


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
        step = _next_step(self._steps, None, self._on_event)
        while isinstance(step, Call):
            self._before_step()
            response: Any
            try:
                response = send(step)
            except JobsAPIError as error:
                response = error
            step = _next_step(self._steps, response, self._on_event)
        if isinstance(step, Wait):
            return step
        self.result = step.value
        return None


class _Returned(Generic[T]):
    """What a workflow returned."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


def _next_step(
    steps: Workflow[T], response: Any, on_event: OnEvent
) -> Call[Any] | Wait | _Returned[T]:
    """Start a workflow, or go on with it; return its next call or wait, or what it returned.

    :param steps: the workflow.
    :param response: the response to a call, or the error with which it failed; None to start, or
        after a wait.
    :param on_event: called with each event.
    """
    try:
        is_error = isinstance(response, JobsAPIError)
        step = steps.throw(response) if is_error else steps.send(response)
        while isinstance(step, (LaunchPrepared, RunIdentified)):
            on_event(step)
            step = steps.send(None)
    except StopIteration as end:
        return _Returned(end.value)
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
    # A triggerer has ten thousand of these coroutines. So there is one for a workflow, and it keeps
    # nothing while it waits: each object costs time in each garbage collection.
    before_step()
    step: Call[Any] | Wait | _Returned[T] | None = _next_step(steps, None, on_event)
    while not isinstance(step, _Returned):
        response: Any = None
        if isinstance(step, Wait):
            await wait(step.seconds)
            before_step()
        else:
            before_step()
            assert step is not None
            response = send(step)
            step = None
            try:
                response = await response
            except JobsAPIError as error:
                response = error
        step = _next_step(steps, response, on_event)
    return step.value
