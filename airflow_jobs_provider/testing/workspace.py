"""The workspace that tests of DAGs use: results decided by the test, faults on demand."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.workspace import LocalWorkspace

__all__ = ["DatabricksWorkspace", "WorkspaceRun"]

_HEADER = "# Databricks notebook source\n"
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class WorkspaceRun:
    """A run of the workspace, or the run of a single task of one.

    :ivar run_id: the run.
    :ivar job_id: its job; a one-time run has a job of its own.
    :ivar parent_run_id: for the run of a task, the run that it belongs to; else None.
    :ivar names: what the task runs, such as a notebook's path; the name of the run or the job; the
        task key.
    :ivar parameters: the parameters that the notebook got, as a map of text to text; of other tasks
        the list of their parameters.
    :ivar life_cycle_state: such as RUNNING or TERMINATED (reference: "RunLifeCycleState").
    :ivar result_state: such as SUCCESS; None while it is active (reference: "RunResultState").
    :ivar state_message: the message of the state.
    :ivar result: what the notebook gave to ``dbutils.notebook.exit()``; None without it.
    :ivar error: the run's own error; None without one.
    """

    run_id: int
    job_id: int
    parent_run_id: int | None
    names: Sequence[str]
    parameters: Mapping[str, str] | Sequence[str]
    life_cycle_state: str
    result_state: str | None
    state_message: str
    result: str | None
    error: str | None


class DatabricksWorkspace(LocalWorkspace):
    """A local workspace with what tests of DAGs need beside it.

    ::

        def test_etl(databricks_workspace):
            databricks_workspace.returns("/Shared/etl", {"rows": 3})
            assert dag.test().state == "success"
            databricks_workspace.assert_launched("/Shared/etl", parameters={"day": "2026-01-31"})

    Where a method takes a ``name``, it is what the task runs (a notebook's path, a Python file, a
    main class, package or entry point of a wheel, a SQL file, a dbt project or a pipeline id), the
    name of a run or a job, or a task key. ``*`` and ``?`` in it match any characters.

    The arguments are those of :class:`~airflow_jobs_provider.local.workspace.LocalWorkspace`.
    """

    @property
    def connection(self) -> str:
        """The Airflow connection to the workspace, as an ``AIRFLOW_CONN_...`` variable has it."""
        return json.dumps(
            {"conn_type": "databricks_jobs", "host": self.url, "password": self.token}
        )

    # Content

    def add_notebook(self, path: str, source: str) -> Path:
        """Store a Python notebook, which its runs then really execute.

        :param path: the notebook's path in the workspace, such as ``/Shared/etl``.
        :param source: its source; cells are divided by ``# COMMAND ----------``. Common leading
            spaces are removed.
        :return: the file.
        :raises ValueError: the path leads out of the workspace.
        """
        text = textwrap.dedent(source).lstrip("\n")
        if not text.startswith(_HEADER.strip()):
            text = _HEADER + text
        file = (self.root / path.strip("/")).resolve()
        if not file.is_relative_to(self.root):
            raise ValueError(f"{path} is outside of the workspace")
        file = file.with_name(f"{file.name}.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    # Results

    def returns(
        self, name: str, result: Any = None, *, seconds: float = 0.0, times: int | None = None
    ) -> None:
        """Let runs succeed with a result, without running anything.

        :param name: of the runs.
        :param result: what the notebook gives to ``dbutils.notebook.exit()``: a text as it is,
            anything else as JSON; default None: it does not call it.
        :param seconds: how long the API says that the run took; no time passes. Default 0.
        :param times: for how many runs; default None: for all.
        :raises TypeError: the result cannot be written as JSON.
        """
        self._script(name, "success", result=result, seconds=seconds, times=times)

    def fails(
        self,
        name: str,
        error: str = "Failed by a test",
        *,
        seconds: float = 0.0,
        times: int | None = None,
    ) -> None:
        """Let runs fail with an error, without running anything.

        :param name: of the runs.
        :param error: the error of the run.
        :param seconds: how long the API says that the run took; no time passes. Default 0.
        :param times: for how many runs; default None: for all. Then the results that were decided
            on before apply again.
        """
        self._script(name, "failed", error=error, seconds=seconds, times=times)

    def never_ends(self, name: str, *, times: int | None = None) -> None:
        """Let runs stay RUNNING until they are canceled or time out.

        :param name: of the runs.
        :param times: for how many runs; default None: for all.
        """
        self._script(name, "never", times=times)

    def is_deleted(self, name: str, *, times: int | None = None) -> None:
        """Let runs end and be deleted at once, so that the API answers that they do not exist.

        :param name: of the runs.
        :param times: for how many runs; default None: for all.
        """
        self._script(name, "deleted", times=times)

    def _script(self, name: str, end: str, **options: Any) -> None:
        from airflow_jobs_provider.local.engine.scripted_results import ScriptedEnd, ScriptedResult

        self.simulation.results.add(ScriptedResult(name, ScriptedEnd(end), **options))

    # Faults

    def break_next(
        self,
        endpoint: str,
        kind: str = "error",
        *,
        status: int = 503,
        error_code: str | None = None,
        message: str | None = None,
        retry_after: int | None = None,
        times: int = 1,
    ) -> None:
        """Break the next requests of an endpoint.

        :param endpoint: such as ``runs/submit`` or ``runs/get``; ``*`` and ``?`` match any
            characters. Deferred tasks are polled through ``runs/list`` and ``runs/get``: break
            ``runs/[gl]*`` for both.
        :param kind: ``error`` (a status with a JSON error; the default), ``html`` (a status with an
            HTML page), ``expired_token`` (403), ``connection_reset``, ``response_lost`` (carried
            out, but the connection is closed without a response), ``no_response`` (carried out, but
            no response comes until the client gives up).
        :param status: HTTP status of ``error`` and ``html``; default 503.
        :param error_code: default the one that belongs to the status.
        :param message: of the error; default one that says that a test made it.
        :param retry_after: seconds in the header Retry-After; default None: no header.
        :param times: number of requests; default 1.
        :raises ValueError: an argument has a wrong value, or the workspace has no such endpoint.
        """
        from airflow_jobs_provider.local.http.faults import Fault, FaultKind

        fault = Fault(endpoint, FaultKind(kind), status, error_code, message, retry_after, times)
        self.simulation.faults.add(fault)

    # What happened

    @property
    def runs(self) -> list[WorkspaceRun]:
        """All runs in the order of their launches, those of single tasks and deleted ones too."""
        import requests

        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(
                f"{self.url}/_local/runs",
                headers={"Authorization": f"Bearer {self.token}"},
                timeout=_TIMEOUT_SECONDS,
            )
        answer.raise_for_status()
        return [WorkspaceRun(**run) for run in answer.json()["runs"]]

    def runs_of(self, name: str) -> list[WorkspaceRun]:
        """Return the runs of a name, in the order of their launches.

        :param name: of the runs.
        """
        return _named(self.runs, name)

    def assert_launched(
        self,
        name: str,
        *,
        parameters: Mapping[str, str] | Sequence[str] | None = None,
        times: int = 1,
    ) -> None:
        """Assert how often a notebook, file or job was launched.

        A job of several tasks counts once, however many of its tasks and iterations have the name.
        A launch that was repeated with the same idempotency token counts once.

        :param name: of the runs.
        :param parameters: what each of the counted runs had: some of a notebook's parameters, or
            the whole list of another task; default None: any.
        :param times: the number of launches; default 1.
        :raises AssertionError: the number is another one; the message lists the runs.
        """
        runs = self.runs
        found = [run for run in _named(runs, name) if _has(run, parameters)]
        launches = {_launched(run, runs) for run in found}
        if len(launches) != times:
            wanted = f" with the parameters {parameters}" if parameters is not None else ""
            lines = [f"  {run.names} with {run.parameters}: {_state(run)}" for run in runs]
            raise AssertionError(
                f"{name} was launched {len(launches)} times{wanted}, not {times}. "
                + ("\n".join(["The runs are:", *lines]) if lines else "There are no runs.")
            )

    def assert_nothing_is_left(self) -> None:
        """Assert that each fault has met its requests, and each decided result a run.

        :raises AssertionError: some have not; most likely a name is misspelled.
        """
        faults = [fault.endpoint for fault in self.simulation.faults.pending]
        results = [rule.name for rule in self.simulation.results.unused]
        if faults or results:
            raise AssertionError(
                f"No request met the faults of {faults}, and no run the results of {results}."
            )


def _named(runs: Sequence[WorkspaceRun], name: str) -> list[WorkspaceRun]:
    from airflow_jobs_provider.local.engine.scripted_results import is_named

    return [run for run in runs if is_named(run.names, name)]


def _launched(run: WorkspaceRun, runs: Sequence[WorkspaceRun]) -> int:
    """Return the run that was launched, for the run of a task of it, or of an iteration."""
    parents = {one.run_id: one.parent_run_id for one in runs}
    run_id = run.run_id
    while (parent := parents.get(run_id)) is not None:
        run_id = parent
    return run_id


def _has(run: WorkspaceRun, wanted: Mapping[str, str] | Sequence[str] | None) -> bool:
    if wanted is None:
        return True
    if isinstance(wanted, Mapping):
        had = run.parameters if isinstance(run.parameters, Mapping) else {}
        return all(had.get(name) == value for name, value in wanted.items())
    return list(run.parameters) == list(wanted)


def _state(run: WorkspaceRun) -> str:
    return "/".join(filter(None, (run.life_cycle_state, run.result_state)))
