"""What became of a DAG run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.airflow_env import ROOT

# The environment of a DAG run in whose log Airflow masks no secret, so that the package has to.
UNMASKED = {
    "AIRFLOW__CORE__HIDE_SENSITIVE_VAR_CONN_FIELDS": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
    "PYTHONPATH": str(ROOT),
}
STARTS = re.compile(r"\[DAG TEST\] starting task_id=(\S+)")


@dataclass(frozen=True)
class DagRun:
    """What became of a DAG run: its log, its tasks' states and XComs."""

    exit_code: int
    log: str
    home: Path
    state: str = "unknown"
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def log_of(self, task_id: str) -> str:
        """Return what was logged and printed while a task was at work."""
        parts = STARTS.split(self.log)
        # A part with a task's id is followed by the part of its log.
        return "".join(
            log for name, log in zip(parts[1::2], parts[2::2], strict=True) if name == task_id
        )


def dag_run_of(result: dict[str, Any] | None, exit_code: int, log: str, home: Path) -> DagRun:
    """Return what became of a DAG run, from what ``scripts/run_dag.py`` wrote down, if anything."""
    known = {name: value for name, value in (result or {}).items() if name != "run_id"}
    return DagRun(exit_code, log, home, **known)


RunDag = Callable[..., DagRun]
RunDags = Callable[..., list[DagRun]]
