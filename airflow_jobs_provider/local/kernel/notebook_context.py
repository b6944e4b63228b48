"""The context of a notebook: which job, run and notebook it is.

On Databricks it is a Java object, reached through ``dbutils.notebook.entry_point``. Its methods
return Java's options, whose value ``get()`` returns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["EntryPoint", "NotebookContext", "Option"]


class Option:
    """A value that may be missing."""

    def __init__(self, value: Any, name: str) -> None:
        self._value = value
        self._name = name

    def get(self) -> Any:
        """Return the value.

        :raises ValueError: there is none.
        """
        if self._value is None:
            raise ValueError(f"The notebook's context has no {self._name} in the local workspace")
        return self._value

    def getOrElse(self, default: Any) -> Any:  # noqa: N802
        """Return the value; the default if there is none."""
        return default if self._value is None else self._value

    def isDefined(self) -> bool:  # noqa: N802
        """Return whether there is a value."""
        return self._value is not None

    def isEmpty(self) -> bool:  # noqa: N802
        """Return whether there is none."""
        return self._value is None

    def toString(self) -> str:  # noqa: N802
        """Return the option as text."""
        return "None" if self._value is None else f"Some({self._value})"

    __repr__ = __str__ = toString


class Tags:
    """The tags of a run, by name."""

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._tags = dict(tags)

    def get(self, name: str) -> Option:
        """Return a tag."""
        return Option(self._tags.get(name), f"tag {name}")

    def apply(self, name: str) -> str:
        """Return the value of a tag.

        :raises ValueError: there is no such tag.
        """
        return str(self.get(name).get())

    def contains(self, name: str) -> bool:
        """Return whether there is such a tag."""
        return name in self._tags


class NotebookContext:
    """What a notebook can know of its run.

    :param about: the tags of the run and more, as the workspace wrote them.
    """

    def __init__(self, about: Mapping[str, Any]) -> None:
        self._about = about

    def tags(self) -> Tags:
        """Return the tags: jobId, runId, taskKey, multitaskParentRunId, user, orgId and others."""
        return Tags(self._about["tags"])

    def toJson(self) -> str:  # noqa: N802
        """Return the context as JSON."""
        run_id = int(self._about["tags"]["runId"])
        context = {
            "rootRunId": {"id": run_id},
            "currentRunId": {"id": run_id},
            "tags": self._about["tags"],
            "extraContext": self._about["extraContext"],
        }
        return json.dumps(context)

    safeToJson = toJson  # noqa: N815

    def notebookPath(self) -> Option:  # noqa: N802
        """Return the notebook's path in the workspace."""
        return self._extra("notebook_path")

    def apiUrl(self) -> Option:  # noqa: N802
        """Return the workspace's URL."""
        return self._extra("api_url")

    def apiToken(self) -> Option:  # noqa: N802
        """Return no token: a notebook gets none in the local workspace."""
        return self._extra("api_token")

    def jobId(self) -> Option:  # noqa: N802
        """Return the job's id."""
        return self.tags().get("jobId")

    def currentRunId(self) -> Option:  # noqa: N802
        """Return the run's id."""
        return self.tags().get("runId")

    def userName(self) -> Option:  # noqa: N802
        """Return the name of the workspace's user."""
        return self.tags().get("user")

    def clusterId(self) -> Option:  # noqa: N802
        """Return the id of the existing cluster that the run names."""
        return self.tags().get("clusterId")

    def workspaceId(self) -> Option:  # noqa: N802
        """Return the workspace's id."""
        return self.tags().get("orgId")

    def browserHostName(self) -> Option:  # noqa: N802
        """Return the workspace's host."""
        return self.tags().get("browserHostName")

    def _extra(self, name: str) -> Option:
        return Option(self._about["extraContext"].get(name), name)


class EntryPoint:
    """``dbutils.notebook.entry_point``."""

    def __init__(self, context: NotebookContext) -> None:
        self._context = context

    def getDbutils(self) -> EntryPoint:  # noqa: N802
        """Return the next step to the context."""
        return self

    def notebook(self) -> EntryPoint:
        """Return the next step to the context."""
        return self

    def getContext(self) -> NotebookContext:  # noqa: N802
        """Return the context."""
        return self._context
