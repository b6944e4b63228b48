"""HTML pages: the list of runs, a run's page, the executed notebook.

A notebook may print anything, and its parameters may hold anything. So: every text is escaped by
the template engine; the executed notebook is a document of its own in a sandbox without scripts;
and the headers forbid scripts, forms and foreign content in both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.local.engine.model import Output, Run

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = [
    "NOTEBOOK_HEADERS",
    "PAGE_HEADERS",
    "export_notebook",
    "render_missing",
    "render_run",
    "render_runs",
]

_COMMON_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PAGE_HEADERS: Mapping[str, str] = {
    **_COMMON_HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
NOTEBOOK_HEADERS: Mapping[str, str] = {
    **_COMMON_HEADERS,
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
}
_SHOWN_CHARS = 100_000


def export_notebook(file: Path) -> str:
    """Return an executed notebook as one page of HTML. Takes a second; call it in a thread."""
    exporters: Any = import_module("nbconvert.exporters")
    html, _ = exporters.HTMLExporter().from_filename(str(file))
    return str(html)


def render_run(
    run: Run, output: Output, task_runs: Sequence[Run], parameters: Any, *, has_notebook: bool
) -> str:
    """Return the page of a run."""
    duration = run.end_time - run.start_time if run.end_time else None
    facts = {
        "Run": run.run_id,
        "Job": f"{run.job_id} (run {run.number_in_job} of it)",
        "Type": f"{run.run_type}, {run.trigger}",
        "Started": _moment(run.start_time),
        "Ended": _moment(run.end_time) if run.end_time else "not yet",
        "Took": _span(duration) if duration is not None else "still active",
        "Of that": (
            f"setup {_span(run.setup_duration)}, execution {_span(run.execution_duration)}, "
            f"cleanup {_span(run.cleanup_duration)}"
        ),
        "Attempt": f"{run.attempt_number} (the first one is run {run.original_attempt_run_id})",
    }
    return (
        _templates()
        .get_template("run.html")
        .render(
            run=run,
            output=output,
            facts=facts,
            task=_pretty(run.task) if run.task else None,
            parameters=parameters,
            task_runs=task_runs,
            has_notebook=has_notebook,
            shown=_SHOWN_CHARS,
        )
    )


def render_runs(runs: Sequence[Run]) -> str:
    """Return the page with the latest runs."""
    return _templates().get_template("runs.html").render(runs=runs, moment=_moment)


def render_missing(run_id: str) -> str:
    """Return the page for a run that does not exist."""
    return _templates().get_template("missing.html").render(run_id=run_id)


def _moment(millis: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(millis / 1000))


def _span(millis: int) -> str:
    return f"{millis / 1000:.1f} s"


def _pretty(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
