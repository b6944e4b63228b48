"""A trigger with the request of an operator among its arguments, which Airflow renders."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.mapped_values import MappedOutput, values_at
from airflow_jobs_provider.airflow_compat.stored_arguments import of_text
from airflow_jobs_provider.airflow_compat.task_state import read_xcom_of
from airflow_jobs_provider.airflow_compat.threads import in_thread
from airflow_jobs_provider.airflow_compat.triggerer_values import (
    UnreadableValueError,
    with_xcoms,
    xcom_references,
)
from airflow_jobs_provider.operators.attempt_trigger import (
    AttemptTrigger,
    NeedsWorkerError,
    needing_xcoms,
)
from airflow_jobs_provider.triggers.arguments import TriggerArguments

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

__all__ = ["RequestTrigger"]


class RequestTrigger(AttemptTrigger):
    """Base class of the trigger that launches a run: its request, rendered and with XComs.

    :param arguments: text of the arguments below but ``mapped``; default None where each is given
        by itself, as versions before stored them.
    :param operator: import path of the operator's class.
    :param operator_arguments: arguments of the operator that are no template fields.
    :param mapped: the values of all instances of a mapped task; default None for another task.
    :param kwargs: the arguments of
        :class:`~airflow_jobs_provider.triggers.arguments.TriggerArguments`, and the operator's
        template fields as far as they are given.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._set_arguments(**of_text(kwargs))

    def _set_arguments(
        self,
        *,
        operator: str,
        operator_arguments: dict[str, Any] | None = None,
        mapped: str | None = None,
        **kwargs: Any,
    ) -> None:
        # Whatever an exception of another type than TypeError would be, it stops the triggerer.
        names = {field.name for field in fields(TriggerArguments)}
        super().__init__(**{name: kwargs[name] for name in kwargs.keys() & names})
        self.operator = operator
        self.operator_arguments = operator_arguments or {}
        self.mapped = mapped
        self._has_mapped_values = mapped is None
        # Another task's output that has more arguments of this instance.
        self._mapped_output: MappedOutput | None = None
        self._stored_names = frozenset(kwargs)
        self._request_names = sorted(kwargs.keys() - names)
        for name in self._request_names:
            setattr(self, name, kwargs[name])
        self._rendering_error: Exception | None = None

    def as_kwargs(self) -> dict[str, Any]:
        """Return the arguments by name, as Airflow stores them."""
        return {
            **super().as_kwargs(),
            "operator": self.operator,
            "operator_arguments": self.operator_arguments,
            "mapped": self.mapped,
            **self._request(),
        }

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render the request; keep an error for :meth:`run`, so that a worker tells it."""
        try:
            # Airflow knows those that are stored by themselves.
            fields = context["task"].template_fields
            self.template_fields = tuple(name for name in fields if name in self._stored_names)
            self._take_stored_values(context["ti"].map_index)
            super().render_template_fields(context, jinja_env)
        except Exception as error:  # noqa: BLE001 - whatever a template does
            self._rendering_error = error

    def _take_stored_values(self, map_index: int | None) -> None:
        """Add what this instance of a mapped task has to the request.

        :raises UnreadableValueError: the triggerer does not know it.
        """
        index = -1 if map_index is None else map_index
        if self.mapped is None:
            if index >= 0:  # The task was mapped after its arguments were stored, or before.
                raise UnreadableValueError(f"no mapped values at {index}")
            return
        values = values_at(self.mapped, index)
        for name, value in values.fields.items():
            setattr(self, name, value)
        self._request_names = sorted({*self._request_names, *values.fields})
        self._mapped_output, self._has_mapped_values = values.output, True
        self.template_fields = tuple({*self.template_fields, *values.fields})

    def _check_arguments(self) -> None:
        """Leave the task to a worker if its request could not be rendered."""
        error = self._rendering_error
        if isinstance(error, UnreadableValueError):
            raise NeedsWorkerError(str(error))
        if error is not None:
            raise NeedsWorkerError(f"the triggerer cannot render its templates: {error}")
        if not self._has_mapped_values:  # The task was changed, and Airflow renders nothing for it.
            raise NeedsWorkerError("a mapped task that is not expanded")

    async def _resolved_request(self, attempt: TaskAttempt) -> dict[str, Any]:
        """Return the request with the XComs of other tasks in it."""
        request = self._request()
        xcoms = {}
        references, output = set(xcom_references(request)), self._mapped_output
        if output is not None:
            references.add((output.task_id, output.key))
        for task_id, key in sorted(references):
            with needing_xcoms():
                value = await in_thread(read_xcom_of, attempt, task_id, key)
            if value is None:
                raise NeedsWorkerError(f"the task {task_id!r} has pushed no XCom {key!r}")
            xcoms[task_id, key] = value
        try:
            resolved: dict[str, Any] = with_xcoms(request, xcoms)
            if output is not None:
                resolved |= output.arguments(xcoms[output.task_id, output.key])
        except UnreadableValueError as error:
            raise NeedsWorkerError(str(error)) from error
        return resolved

    def _request(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._request_names}
