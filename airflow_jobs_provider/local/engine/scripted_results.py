"""Results that a test decides on: a run ends as it was told to, without running anything.

A rule names runs by what their task runs (notebook path, Python file, main class, package or entry
point of a wheel, SQL file, dbt project, pipeline id), the run's or job's name or the task's key. Of
the rules that fit a run the last one added decides, and one with a number of times only so often.
Runs that no rule fits are run as usual.

What could go wrong: a rule with a misspelled name is never used. ``ScriptedResults.unused`` lists
such rules.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from airflow_jobs_provider.local.engine.model import Output, Run
from airflow_jobs_provider.local.engine.runner import Outcome

__all__ = [
    "ScriptedEnd",
    "ScriptedResult",
    "ScriptedResults",
    "ScriptedRunner",
    "is_named",
    "names_of",
]

# The fields of tasks that name what they run.
_NAME_FIELDS = (
    ("notebook_task", "notebook_path"),
    ("spark_python_task", "python_file"),
    ("spark_jar_task", "main_class_name"),
    ("python_wheel_task", "package_name"),
    ("python_wheel_task", "entry_point"),
    ("sql_task", "file", "path"),
    ("dbt_task", "project_directory"),
    ("pipeline_task", "pipeline_id"),
)


class ScriptedEnd(StrEnum):
    """How a scripted run ends.

    * SUCCESS: it returns its result.
    * FAILED: it fails with its error.
    * NEVER: it stays RUNNING until it is canceled or times out.
    * DELETED: it ends and is deleted at once, so that the API does not know it any more.
    """

    SUCCESS = "success"
    FAILED = "failed"
    NEVER = "never"
    DELETED = "deleted"


@dataclass(slots=True)
class ScriptedResult:
    """The end of the runs of a name.

    :param name: what the task runs: notebook path, Python file, main class, package or entry point
        of a wheel, SQL file, dbt project or pipeline id; or run or job name, or task key. ``*`` and
        ``?`` match any characters.
    :param end: how the runs end; default SUCCESS.
    :param result: what the notebook gives to ``dbutils.notebook.exit()``: a text as it is, anything
        else as JSON; default None: it does not call it.
    :param error: the error of a run that fails; default "Failed by a test".
    :param seconds: how long the API says that the run took; no time passes. Default 0.
    :param times: for how many runs; default None: for all.
    """

    name: str
    end: ScriptedEnd = ScriptedEnd.SUCCESS
    result: Any = None
    error: str = "Failed by a test"
    seconds: float = 0.0
    times: int | None = None
    uses: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.end = ScriptedEnd(self.end)
        if not self.name:
            raise ValueError("name must name a notebook, file, run, job or task, or be *")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times must be at least 1, not {self.times}")
        if self.seconds < 0:
            raise ValueError(f"seconds must not be negative, not {self.seconds}")
        json.dumps(self.result)  # raises TypeError for what is no JSON

    @property
    def text(self) -> str | None:
        """The result as the API returns it."""
        if self.result is None or isinstance(self.result, str):
            return self.result
        return json.dumps(self.result)

    def as_record(self) -> dict[str, Any]:
        """Return the rule as JSON data."""
        return asdict(self)


@dataclass(slots=True)
class ScriptedResults:
    """The rules of a workspace; it may be used from any thread."""

    _rules: list[ScriptedResult] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rule: ScriptedResult) -> None:
        """Add a rule; it goes before those added earlier."""
        with self._lock:
            self._rules.insert(0, rule)

    def clear(self) -> None:
        """Remove all rules."""
        with self._lock:
            self._rules.clear()

    @property
    def rules(self) -> list[ScriptedResult]:
        """The rules, the last added first."""
        with self._lock:
            return list(self._rules)

    @property
    def unused(self) -> list[ScriptedResult]:
        """The rules that no run has met."""
        return [rule for rule in self.rules if not rule.uses]

    def take(self, run: Run) -> ScriptedResult | None:
        """Return the rule for a run that starts and count it; None where there is none."""
        names = names_of(run)
        with self._lock:
            for rule in self._rules:
                is_used_up = rule.times is not None and rule.uses >= rule.times
                if not is_used_up and is_named(names, rule.name):
                    rule.uses += 1
                    return rule
        return None


class ScriptedRunner:
    """Ends a run as its rule says."""

    def __init__(self, rule: ScriptedResult) -> None:
        self._rule = rule

    async def setup(self) -> None:
        """Nothing to prepare."""

    async def execute(self) -> Outcome:
        """Return what the rule says."""
        rule = self._rule
        if rule.end is ScriptedEnd.NEVER:
            await asyncio.Event().wait()  # until the run is canceled
        millis = round(rule.seconds * 1000)
        is_deleted = rule.end is ScriptedEnd.DELETED
        if rule.end is ScriptedEnd.FAILED:
            return Outcome.failure(rule.error, millis=millis)
        return Outcome(output=Output(result=rule.text), millis=millis, is_deleted=is_deleted)

    async def cleanup(self) -> None:
        """Nothing to end."""


def names_of(run: Run) -> list[str]:
    """Return the names by which a rule may name a run, each once."""
    names = [_value_at(run.task, path) for path in _NAME_FIELDS]
    # A task run's name is its task key.
    return list(dict.fromkeys(name for name in (*names, run.run_name, run.task_key) if name))


def _value_at(task: Mapping[str, Any], path: Iterable[str]) -> Any:
    value: Any = task
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def is_named(names: Iterable[str], pattern: str) -> bool:
    """Return whether one of the names is the pattern, or matches it."""
    # Names such as "[dev me] nightly" are no patterns.
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)
