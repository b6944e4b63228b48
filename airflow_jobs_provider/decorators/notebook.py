"""The operator behind ``@task.databricks_notebook``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import context_merge, determine_kwargs

from airflow_jobs_provider.decorators.base import DecoratedSubmitRunOperator
from airflow_jobs_provider.decorators.json_text import airflow_json_text

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.operators.arguments import Text

__all__ = ["NOTEBOOK_DECORATOR", "DatabricksNotebookDecoratedOperator"]

NOTEBOOK_DECORATOR = "@task.databricks_notebook"


class DatabricksNotebookDecoratedOperator(DecoratedSubmitRunOperator):
    """Run a notebook once, with the parameters that a function returns.

    :param notebook_path: path of the notebook.
    :param source: ``WORKSPACE`` or ``GIT``; default: the service decides.
    :param kwargs: those of :class:`~.base.DecoratedSubmitRunOperator`.
    """

    custom_operator_name = NOTEBOOK_DECORATOR

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        notebook_path: Text,
        source: Text | None = None,
        **kwargs: Any,
    ) -> None:
        if inspect.iscoroutinefunction(python_callable):
            raise TypeError(f"{NOTEBOOK_DECORATOR} takes no async function.")
        notebook: dict[str, Any] = {"notebook_path": notebook_path}
        if source is not None:
            notebook["source"] = source
        super().__init__(python_callable=python_callable, notebook_task=notebook, **kwargs)

    def launch_call(self, context: Context) -> Call[int]:
        """Return the ``runs/submit`` call with the parameters that the function returns."""
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        returned = self.python_callable(*self.op_args, **kwargs)
        if returned is None:
            returned = {}
        if not isinstance(returned, Mapping):
            raise TypeError(
                f"The function of {NOTEBOOK_DECORATOR} must return the notebook's parameters as a "
                f"dict, or None; it returned {type(returned).__name__}."
            )
        parameters = {name: _as_text(name, value) for name, value in returned.items()}
        self.notebook_task = {**self._notebook(), "base_parameters": parameters}
        return super().launch_call(context)

    def _notebook(self) -> Mapping[str, Any]:
        assert isinstance(self.notebook_task, Mapping)  # The constructor has set it.
        return self.notebook_task


def _as_text(name: Any, value: Any) -> str:
    """Return a parameter as the API takes it: text as it is, anything else as JSON."""
    if not isinstance(name, str):
        raise TypeError(f"The name of a parameter must be text, not {type(name).__name__}.")
    return value if isinstance(value, str) else airflow_json_text(value, f"The parameter {name}")
