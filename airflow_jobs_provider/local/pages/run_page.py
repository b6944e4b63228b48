"""The page of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.model import Output, Run, now_millis
from airflow_jobs_provider.local.engine.parameters import parameters_of
from airflow_jobs_provider.local.pages import snippets
from airflow_jobs_provider.local.pages.graph import lay_out
from airflow_jobs_provider.local.pages.log_files import log_end
from airflow_jobs_provider.local.pages.page_store import PageStore, without_clusters
from airflow_jobs_provider.local.pages.render import render
from airflow_jobs_provider.local.pages.states import StateKind, attempt_of, kind_of
from airflow_jobs_provider.local.pages.timeline import repairs_of, timeline_of

__all__ = ["render_request", "render_run"]

# More rows than this are not read by anybody, and take long to render.
_MAX_TASKS = 300
_MAX_RESULTS, _MAX_ROWS, _MAX_COLUMNS, _MAX_VALUE_CHARS = 20, 50, 50, 200
_NOTEBOOK_TASK = "notebook_task"
# These have no process, or none whose output is kept as a log.
_WITHOUT_LOG = {_NOTEBOOK_TASK, "condition_task", "for_each_task", "run_job_task"}


def render_run(run_id: int, store: PageStore, files: tuple[Path, Path]) -> str | None:
    """Return the page of a run; None if there is no such run.

    :param files: where its executed notebook and its log are, if there are any.
    """
    # First: of what changes while the page is made, the page learns by a newer version.
    version = store.version(run_id)
    run = store.run(run_id)
    if run is None:
        return None
    notebook, log = files
    children = store.task_runs([run.run_id])
    latest = _latest(run, children)
    attempts = store.attempts(run)
    endpoint, _ = snippets.request_of(run)
    log_text, log_size = log_end(log) if _writes_log(run) else (None, 0)
    job = store.job(run.job_id)
    output = store.output(run.run_id)
    return render(
        "run.html",
        run=run,
        kind=kind_of(run),
        version=version,
        job=job,
        facts=_facts(run),
        output=output,
        shows_error=run.has_ended and _tells_more(output, run),
        sql_results=_sql_results(output),
        graph=lay_out(run.tasks) if 1 < len(run.tasks) <= _MAX_TASKS else None,
        latest=latest,
        children=children[:_MAX_TASKS],
        hidden_children=max(0, len(children) - _MAX_TASKS),
        timeline=timeline_of(run, children[:_MAX_TASKS], attempts),
        attempts=attempts,
        repairs=repairs_of(run),
        parameters=parameters_of(run),
        task=without_clusters(run.task),
        live_log=log_text,
        log_size=log_size,
        is_live_notebook=_NOTEBOOK_TASK in run.task and not run.has_ended,
        has_notebook=run.has_ended and notebook.exists(),
        can_repair=_can_be_repaired(run, latest),
        can_run_again=run.parent_run_id is None and (endpoint != "run-now" or job is not None),
        now=now_millis(),
    )


def render_request(run: Run, base_url: str) -> str:
    """Return the request that launches a run like this one, as a part of a page."""
    endpoint, request = snippets.request_of(run)
    return render(
        "request.html",
        curl=snippets.curl("POST", f"{base_url}/api/2.1/jobs/{endpoint}", request),
        dag=snippets.dag_of(endpoint, request),
    )


def _tells_more(output: Output, run: Run) -> bool:
    """Return whether a run's error says more than the message of its state, which is shown first.

    A run of several tasks, and one that was canceled, have the same text in both.
    """
    return output.error_trace is not None or output.error not in {None, run.state_message}


def _sql_results(output: Output) -> list[dict[str, Any]]:
    """Return the first results of a SQL task, each with the first rows and columns of it."""
    results: list[dict[str, Any]] = (output.sql or {}).get("results") or []
    return [
        {
            "columns": [str(name) for name in one["columns"][:_MAX_COLUMNS]],
            "rows": [[_text_of(v) for v in row[:_MAX_COLUMNS]] for row in one["rows"][:_MAX_ROWS]],
            "is_cut": one["truncated"]
            or len(one["rows"]) > _MAX_ROWS
            or len(one["columns"]) > _MAX_COLUMNS,
        }
        for one in results[:_MAX_RESULTS]
        if one["columns"]
    ]


def _text_of(value: Any) -> str:
    if value is None:
        return "NULL"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}…"


def _latest(run: Run, children: list[Run]) -> dict[str, Run]:
    """Return the latest run of each task by its key."""
    by_id = {child.run_id: child for child in children}
    return {key: by_id[run_id] for key, run_id in run.task_run_ids.items() if run_id in by_id}


def _writes_log(run: Run) -> bool:
    """Return whether a process of the run writes a log now."""
    return not run.has_ended and not run.is_of_tasks and not _WITHOUT_LOG & run.task.keys()


def _can_be_repaired(run: Run, latest: dict[str, Run]) -> bool:
    if run.parent_run_id is not None or not run.has_ended:
        return False
    kinds = {kind_of(one) for one in latest.values()} or {kind_of(run)}
    return bool(kinds & {StateKind.FAILED, StateKind.CANCELED, StateKind.TIMED_OUT})


def _facts(run: Run) -> dict[str, Any]:
    states = " / ".join(filter(None, (run.life_cycle_state, run.result_state)))
    return {
        "Run": run.run_id,
        "State in the API": states,
        "Type": f"{run.run_type}, {run.trigger}",
        "Attempt": f"{attempt_of(run)} (attempt_number {run.attempt_number} in the API)",
    }
