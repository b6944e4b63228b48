"""Airflow's decorator for a function whose task may leave a run behind.

A task decorator makes the operator when the function is called, and a mapped one on the worker
only. Airflow's ``expand`` of a decorated function never calls the operator's ``partial``. So the
failure callback, which the operators add in both places, is added here to a mapped function's task.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from airflow.providers.common.compat.sdk import task_decorator_factory

from airflow_jobs_provider.airflow_compat.orphaned_runs import (
    cancels_orphans,
    with_orphan_callback,
)

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import Task

__all__ = ["decorate_task"]

P = ParamSpec("P")
R = TypeVar("R")


def decorate_task(
    function: Callable[P, R],
    operator_class: Any,
    *,
    multiple_outputs: bool | None,
    **kwargs: Any,
) -> Task[P, R]:
    """Return Airflow's decorated function.

    :param function: the function.
    :param operator_class: the class of its tasks, with ``cancel_on_kill`` and
        ``wait_for_termination``.
    :param multiple_outputs: Airflow's argument; None: the function's return annotation decides.
    :param kwargs: the arguments of the class.
    """
    decorated: Any = task_decorator_factory(
        python_callable=function,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=operator_class,
        **kwargs,
    )
    kind: Any = type(decorated)
    decorated.__class__ = _with_callback_when_mapped(kind)
    return cast("Task[P, R]", decorated)


@cache
def _with_callback_when_mapped(decorator: Any) -> Any:
    class Decorated(decorator):  # type: ignore[misc]
        """Airflow's decorated function, which adds the failure callback to a mapped task."""

        def _expand(self, *args: Any, **kwargs: Any) -> Any:
            output = super()._expand(*args, **kwargs)
            arguments = output.operator.partial_kwargs
            if cancels_orphans(arguments):
                arguments["on_failure_callback"] = with_orphan_callback(
                    arguments.get("on_failure_callback")
                )
            return output

    return Decorated
