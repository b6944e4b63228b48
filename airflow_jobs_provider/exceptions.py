"""What the operators and the sensor raise when a run did not end well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException

if TYPE_CHECKING:
    from airflow_jobs_provider.api.outputs import TaskOutput
    from airflow_jobs_provider.api.states import RunState

__all__ = ["DatabricksRunFailedError"]


class DatabricksRunFailedError(AirflowException):
    """A run ended, but not well: it failed, timed out, was canceled or skipped.

    :ivar run_id: the run.
    :ivar state: its state.
    :ivar run_page_url: its page in the workspace.
    :ivar outputs: what its tasks gave back, their errors and traces included.
    """

    def __init__(
        self,
        run_id: int,
        state: RunState,
        run_page_url: str = "",
        outputs: Sequence[TaskOutput] = (),
    ) -> None:
        self.run_id = run_id
        self.state = state
        self.run_page_url = run_page_url
        self.outputs = list(outputs)
        super().__init__(self._text())

    def _text(self) -> str:
        lines = [f"Run {self.run_id} ended {state_words(self.state)}"]
        for output in self.outputs:
            if output.error and not output.state.is_successful:
                name = f"Task {output.task_key!r}: " if output.task_key else ""
                lines.append(f"{name}{output.error}")
        if self.run_page_url:
            lines.append(f"See {self.run_page_url}")
        return "\n".join(lines)


def state_words(state: RunState) -> str:
    """Write a terminal state for a person: what it means, then the service's own words."""
    return f"{state.verdict.value.replace('_', ' ')} ({state})"
