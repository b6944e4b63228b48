"""The operator behind ``@task.databricks_python``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_jobs_provider.airflow_compat.storable_text import storable_output
from airflow_jobs_provider.decorators.base import DecoratedSubmitRunOperator
from airflow_jobs_provider.decorators.function_notebook import (
    ARGUMENTS_PARAMETER,
    function_notebook,
)
from airflow_jobs_provider.decorators.function_source import read_function_source
from airflow_jobs_provider.decorators.json_text import (
    MAX_RESULT_BYTES,
    airflow_json_text,
    as_parameter,
    read_result_text,
)
from airflow_jobs_provider.operators.argument_checks import check_text
from airflow_jobs_provider.xcom import RESERVED_KEYS, push_xcoms

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.operators.arguments import Text
    from airflow_jobs_provider.run_result import RunResult

__all__ = ["PYTHON_DECORATOR", "DatabricksPythonDecoratedOperator"]

PYTHON_DECORATOR = "@task.databricks_python"
# Arguments that cannot be had together with a result that is read on a worker, or with a notebook
# that is made here.
_REFUSED = {
    "json": "give its fields as arguments",
    "max_output_bytes": "a result that is cut off is no JSON",
    "notebook_task": "the notebook is made from the function",
    "tasks": "the run has one task, the function",
}


class DatabricksPythonDecoratedOperator(DecoratedSubmitRunOperator):
    """Run a function's source on Databricks once, and return its result.

    :param workspace_folder: folder of the workspace for the notebook that is made from the
        function; default ``.airflow_jobs_provider`` in the home folder of the connection's
        identity; templated.
    :param requirements: packages to install for the run, as pip takes them; default none.
    :param kwargs: those of :class:`~.base.DecoratedSubmitRunOperator`.
    :raises TypeError: when the DAG is parsed: the function is no plain one, or an argument is not
        taken.
    :raises ValueError: when the DAG is parsed: the function needs something of the DAG file.
    """

    custom_operator_name = PYTHON_DECORATOR
    template_fields: Sequence[str] = (
        *DecoratedSubmitRunOperator.template_fields,
        "workspace_folder",
    )

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        workspace_folder: Text | None = None,
        requirements: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        check_python_arguments(kwargs, requirements)
        self._source = read_function_source(python_callable, PYTHON_DECORATOR)
        super().__init__(python_callable=python_callable, **kwargs)
        if workspace_folder is not None:
            check_text("workspace_folder", workspace_folder)
        self.workspace_folder = workspace_folder
        self.requirements = requirements
        # The output of the run is no result of several tasks, but may be a dict.
        self._push_task_outputs = False
        self._push_items = self.multiple_outputs

    def _fields_when_parsed(self, fields: dict[str, Any]) -> dict[str, Any]:
        # The notebook is made when the task runs.
        return {**fields, "notebook_task": {"notebook_path": "/function"}}

    def launch_call(self, context: Context) -> Call[int]:
        """Upload the function, and return the ``runs/submit`` call that runs it."""
        from airflow_jobs_provider.api.workflows.base import within_deadline
        from airflow_jobs_provider.api.workflows.upload import upload_notebook

        arguments = as_parameter(self._arguments(context))
        content = function_notebook(self._source, self.requirements)
        upload = upload_notebook(content, self._source.name, self._folder())
        path = self._run_workflow(within_deadline(upload), stop_after_any_kill=True)
        self.log.info("The function %s is the notebook %s", self._source.name, path)
        self.notebook_task = {
            "notebook_path": path,
            "base_parameters": {ARGUMENTS_PARAMETER: arguments},
        }
        return super().launch_call(context)

    def _folder(self) -> str | None:
        folder = self.workspace_folder
        if folder is None:
            return None
        if not isinstance(folder, str) or not folder.startswith("/"):
            raise AirflowFailException("workspace_folder must be a path that begins with a slash")
        return folder

    def _arguments(self, context: Context) -> str:
        """Return the function's arguments as JSON; those of the context by the names they have."""
        signature = inspect.signature(self.python_callable)
        given = signature.bind_partial(*self.op_args, **self.op_kwargs).arguments
        kwargs = dict(self.op_kwargs)
        for name, parameter in signature.parameters.items():
            is_named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if is_named and name not in given and name in context:
                kwargs[name] = context[name]  # type: ignore[literal-required]
        try:
            args = [
                airflow_json_text(value, f"Argument {index} of {self._source.name}")
                for index, value in enumerate(self.op_args, 1)
            ]
            named = [
                f"{airflow_json_text(name, 'name')}: "
                + airflow_json_text(value, f"The argument {name} of {self._source.name}")
                for name, value in kwargs.items()
            ]
        except (TypeError, ValueError) as error:
            raise AirflowFailException(f"{PYTHON_DECORATOR}: {error}") from error
        return f'{{"args": [{", ".join(args)}], "kwargs": {{{", ".join(named)}}}}}'

    def _value_of(self, context: Context, result: RunResult) -> Any:
        """Return what the function returned.

        :raises AirflowFailException: the run returned something else, or the result is cut off.
        :raises AirflowException: the result could not be read. A retry reads it again, and runs
            nothing.
        """
        name = self._source.name
        if not self.do_xcom_push:
            return None
        if result.truncated:
            raise AirflowFailException(
                f"The result of {name} is longer than the {MAX_RESULT_BYTES:,} bytes that "
                "Databricks returns. Write it to a table or a file, and return where it is."
            )
        if result.value is None:
            raise AirflowException(
                f"The function {name} has run, but its result could not be read. The next try "
                "reads it again, without running the function."
            )
        try:
            value = read_result_text(str(result.value))
        except ValueError:
            raise AirflowFailException(
                f"The run did not return the result of {name}. A function must not call "
                "dbutils.notebook.exit(); it returns a value."
            ) from None
        value = storable_output(value, name=f"The result of {name}", log=self.log)
        if self._push_items:
            self._push_each_item(context, value)
        return value

    def _push_each_item(self, context: Context, value: Any) -> None:
        """Push the items of a dict as XComs of their own, as Airflow does (multiple_outputs)."""
        if not isinstance(value, Mapping):
            raise AirflowFailException(
                f"multiple_outputs: the function {self._source.name} must return a dict, not "
                f"{type(value).__name__}"
            )
        for key in sorted(RESERVED_KEYS & value.keys()):
            self.log.warning("%r is in return_value only: the XCom is something else.", key)
        push_xcoms(context, {key: one for key, one in value.items() if key not in RESERVED_KEYS})


def check_python_arguments(kwargs: Mapping[str, Any], requirements: Sequence[str]) -> None:
    """Check the arguments of the decorator that need no context.

    :param kwargs: the arguments by name.
    :param requirements: packages to install.
    :raises TypeError: an argument is not taken, or is of another type.
    """
    for name, reason in _REFUSED.items():
        if kwargs.get(name) is not None:
            raise TypeError(f"{PYTHON_DECORATOR} takes no {name}: {reason}.")
    if kwargs.get("end_from_trigger"):
        raise TypeError(
            f"{PYTHON_DECORATOR} takes no end_from_trigger: a worker reads the function's result."
        )
    if isinstance(requirements, str) or not all(
        isinstance(one, str) and one and "\n" not in one for one in requirements
    ):
        raise TypeError(f"{PYTHON_DECORATOR}: requirements must be a list of texts of one line.")
