"""``dbutils`` as a notebook of the local workspace finds it."""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from airflow_jobs_provider.local.kernel.context import KernelContext
from airflow_jobs_provider.local.kernel.dbutils_help import Helpful
from airflow_jobs_provider.local.kernel.files import Files
from airflow_jobs_provider.local.kernel.notebook_context import EntryPoint, NotebookContext

_MAX_TASK_VALUE_BYTES = 48 * 1024

__all__ = [
    "DBUtils",
    "InputWidgetNotDefined",
    "NotebookExit",
    "PythonRestart",
    "WorkflowException",
]


class NotebookExit(BaseException):
    """Ends the notebook as a success.

    No Exception, so that a notebook's own ``except Exception`` does not swallow it.
    """


class PythonRestart(BaseException):
    """Ends the cell; the next one finds a fresh Python. No Exception, as :class:`NotebookExit`."""


class InputWidgetNotDefined(Exception):  # noqa: N818 - the name in dbutils
    """A widget was asked for that neither the notebook nor the run's parameters define."""


class WorkflowException(Exception):  # noqa: N818 - the name in dbutils
    """A notebook started with ``dbutils.notebook.run`` did not end well."""


class Widgets(Helpful):
    """The parameters of the notebook, with the notebook's own defaults."""

    def __init__(
        self, parameters: Mapping[str, str], values: Mapping[str, str] | None = None
    ) -> None:
        self._parameters = dict(parameters)
        self._values = {**parameters, **(values or {})}

    # The arguments have the names they have on Databricks, since notebooks may give them by name.

    def text(
        self,
        name: str,
        defaultValue: str,  # noqa: N803
        label: str | None = None,  # noqa: ARG002
    ) -> None:
        """Define a text widget; the run's parameter of that name overrides the default."""
        self._define(name, defaultValue)

    def dropdown(
        self,
        name: str,
        defaultValue: str,  # noqa: N803
        choices: Sequence[str],
        label: str | None = None,  # noqa: ARG002
    ) -> None:
        """Define a widget that has one of ``choices``."""
        self._choose(name, defaultValue, choices)

    def combobox(
        self,
        name: str,
        defaultValue: str,  # noqa: N803
        choices: Sequence[str],  # noqa: ARG002
        label: str | None = None,  # noqa: ARG002
    ) -> None:
        """Define a widget that has one of ``choices`` or any other text."""
        self._define(name, defaultValue)

    def multiselect(
        self,
        name: str,
        defaultValue: str,  # noqa: N803
        choices: Sequence[str],
        label: str | None = None,  # noqa: ARG002
    ) -> None:
        """Define a widget that has several of ``choices``; its value is joined with commas."""
        self._choose(name, defaultValue, choices)

    def override(self, name: str, value: str) -> None:
        """Give a widget a value over its default, as ``%run ./other $name="value"`` does."""
        self._parameters[name] = self._values[name] = value

    def get(self, name: str, default: str | None = None) -> str:
        """Return the value of a widget.

        :raises InputWidgetNotDefined: if neither the notebook nor the run defines it.
        """
        if name in self._values:
            return self._values[name]
        if default is not None:
            return default
        raise InputWidgetNotDefined(f"No input widget named {name} is defined")

    def getAll(self) -> dict[str, str]:  # noqa: N802
        """Return all widgets' values by name."""
        return dict(self._values)

    def remove(self, name: str) -> None:
        """Remove a widget.

        :raises InputWidgetNotDefined: if there is none of that name.
        """
        if name not in self._values:
            raise InputWidgetNotDefined(f"No input widget named {name} is defined")
        del self._values[name]

    def removeAll(self) -> None:  # noqa: N802
        """Remove all widgets."""
        self._values.clear()

    def _choose(self, name: str, default: str, choices: Sequence[str]) -> None:
        if default not in choices:
            raise ValueError(
                f"The default value {default!r} of widget {name} is not among its choices"
            )
        self._define(name, default)

    def _define(self, name: str, default: str) -> None:
        if not isinstance(default, str):
            raise TypeError(
                f"The default value of widget {name} must be text, not {type(default).__name__}"
            )
        self._values[name] = self._parameters.get(name, default)


class Tables(Protocol):
    """The tables that runs have in common (see :class:`.namespace.Spark`)."""

    def write_tables(self) -> None:
        """Make this run's tables known to other runs."""

    def read_tables(self) -> None:
        """Make other runs' tables known to this run."""


class Notebook(Helpful):
    """End this notebook, and run other notebooks."""

    def __init__(self, context: KernelContext, tables: Tables | None) -> None:
        self._context = context
        self._tables = tables

    @property
    def entry_point(self) -> EntryPoint:
        """The way to the notebook's context: ``getDbutils().notebook().getContext()``."""
        return EntryPoint(self.getContext())

    def getContext(self) -> NotebookContext:  # noqa: N802
        """Return what the notebook can know of its run."""
        return NotebookContext(self._context.about)

    def exit(self, value: Any = "") -> NoReturn:
        """End the run as a success, with ``value`` (as text) as its result."""
        text = str(value)
        self._context.leave_exit_value(text)
        raise NotebookExit(text)

    def run(
        self,
        path: str,
        timeout_seconds: int = 0,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """Run another notebook as a run of its own, and return its exit value.

        :raises WorkflowException: if that run does not succeed in time.
        """
        texts = {str(name): str(value) for name, value in (arguments or {}).items()}
        full_path = self._context.workspace_path(path)
        if self._tables is not None:
            self._tables.write_tables()
        ended = self._context.run_notebook(full_path, int(timeout_seconds), texts)
        if self._tables is not None:
            self._tables.read_tables()
        if ended["result_state"] != "SUCCESS":
            raise WorkflowException(
                f"Run {ended['run_id']} of {full_path} ended {ended['result_state'] or 'badly'}: "
                f"{ended['error'] or ended['state_message']} ({ended['run_page_url']})"
            )
        return str(ended["result"] or "")


class TaskValues(Helpful):
    """Values that a task hands to the later tasks of its job run."""

    def __init__(self, context: KernelContext) -> None:
        self._context = context

    def set(self, key: str, value: Any) -> None:
        """Set a value: anything that can be written as JSON.

        :raises TypeError: it cannot be written as JSON.
        :raises ValueError: it is too large, or the task has too many values.
        """
        size = len(json.dumps(value).encode())
        if size > _MAX_TASK_VALUE_BYTES:
            raise ValueError(
                f"The task value {key} has {size} bytes of JSON, more than {_MAX_TASK_VALUE_BYTES}"
            )
        self._context.set_task_value(key, value)

    def get(
        self,
        taskKey: str,  # noqa: N803
        key: str,
        default: Any = None,
        debugValue: Any = None,  # noqa: N803, ARG002 - used where a notebook runs outside of a job
    ) -> Any:
        """Return a value that a task of this job run has set.

        :raises ValueError: there is no such task, or no such value and no default.
        """
        values = self._context.task_values(taskKey)
        if values is None:
            raise ValueError(f"The job run has no task with the key {taskKey!r}")
        if key in values:
            return values[key]
        if default is None:
            raise ValueError(
                f"The task {taskKey!r} has set no value {key!r}, and no default was given"
            )
        return default


@dataclass(frozen=True, slots=True)
class SecretMetadata:
    """The key of a secret, as ``dbutils.secrets.list`` returns it."""

    key: str


@dataclass(frozen=True, slots=True)
class SecretScope:
    """A scope, as ``dbutils.secrets.listScopes`` returns it."""

    name: str


class Secrets(Helpful):
    """The secrets of the workspace. What is read is redacted in outputs."""

    def __init__(self, context: KernelContext) -> None:
        self._context = context

    def get(self, scope: str, key: str) -> str:
        """Return a secret as text.

        :raises RuntimeError: there is none.
        """
        return self.getBytes(scope, key).decode("utf-8")

    def getBytes(self, scope: str, key: str) -> bytes:  # noqa: N802
        """Return a secret as bytes.

        :raises RuntimeError: there is none.
        """
        return self._context.secret_value(scope, key)

    def list(self, scope: str) -> list[SecretMetadata]:
        """Return the keys of a scope."""
        return [SecretMetadata(key) for key in self._context.secret_names(scope)]

    def listScopes(self) -> builtins.list[SecretScope]:  # noqa: N802
        """Return the scopes."""
        return [SecretScope(name) for name in self._context.secret_names(None)]


class Jobs(Helpful):
    """Values that the tasks of a job run hand to each other."""

    def __init__(self, context: KernelContext) -> None:
        self.taskValues = TaskValues(context)


class Library(Helpful):
    """Restart Python."""

    def __init__(self, context: KernelContext, widgets: Widgets) -> None:
        self._context = context
        self._widgets = widgets

    def restartPython(self) -> NoReturn:  # noqa: N802
        """End the cell, and restart Python: the next cell finds the widgets, and nothing else."""
        self._context.leave_restart(self._widgets.getAll())
        raise PythonRestart


class DBUtils(Helpful):
    """The utilities of a notebook. Each part has a help() of its own, such as dbutils.fs.help().

    :param context: what the kernel knows of its run.
    :param tables: the tables that this run shares with the notebooks that it runs, if any.
    """

    def __init__(self, context: KernelContext, tables: Tables | None = None) -> None:
        self.widgets = Widgets(context.parameters, context.widgets)
        self.notebook = Notebook(context, tables)
        self.jobs = Jobs(context)
        self.fs = Files(context)
        self.secrets = Secrets(context)
        self.library = Library(context, self.widgets)

    @property
    def entry_point(self) -> EntryPoint:
        """The same as ``dbutils.notebook.entry_point``."""
        return self.notebook.entry_point

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"dbutils.{name} is not there in the local workspace; "
            "it has dbutils.fs, jobs, library, notebook, secrets and widgets"
        )
