"""What a person sees in a browser: the list of runs, a run's page, the executed notebook.

A notebook may print anything, and its parameters may hold anything. So: every text is escaped by
the template engine; the executed notebook is a document of its own in a sandbox without scripts;
and the headers forbid scripts, forms and foreign content in both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.local.model import Output, Run

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
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(file, as_version=4)
    html: str
    html, _ = HTMLExporter(exclude_input_prompt=False).from_notebook_node(notebook)
    return html


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
        .get_template("run")
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
    return _templates().get_template("runs").render(runs=runs, moment=_moment)


def render_missing(run_id: str) -> str:
    """Return the page about a run that is not there."""
    return _templates().get_template("missing").render(run_id=run_id)


def _moment(millis: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(millis / 1000))


def _span(millis: int) -> str:
    return f"{millis / 1000:.1f} s"


def _pretty(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)


@cache
def _templates() -> Environment:
    from jinja2 import DictLoader, Environment, StrictUndefined

    return Environment(
        loader=DictLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


_TEMPLATES = {
    "base": """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{% block title %}{% endblock %} - local workspace</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: .2rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .25rem 1.2rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: .7rem;
  overflow: auto; max-height: 30rem; white-space: pre-wrap; overflow-wrap: anywhere; }
iframe { width: 100%; height: 70vh; border: 1px solid var(--line); border-radius: 6px;
  background: #fff; }
.state { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; font-weight: 600;
  font-size: .85rem; border: 1px solid currentColor; color: #57606a; }
.SUCCESS { color: #1a7f37; } .FAILED, .TIMEDOUT, .INTERNAL_ERROR { color: #cf222e; }
.RUNNING, .PENDING, .TERMINATING { color: #0969da; }
nav { font-size: .9rem; }
</style>
</head>
<body>
<nav><a href="/">All runs</a></nav>
{% block body %}{% endblock %}
</body>
</html>
""",
    "state": """<span class="state {{ run.result_state or run.life_cycle_state }}">
{{- run.life_cycle_state }}{{ " / " ~ run.result_state if run.result_state else "" -}}
</span>""",
    "run": """{% extends "base" %}
{% block title %}{{ run.run_name }}{% endblock %}
{% block body %}
<h1>{{ run.run_name }}</h1>
<p>{% include "state" %} {{ run.state_message }}</p>
<table>
{% for name, value in facts.items() %}
<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
{% if run.parent_run_id %}
<tr><th>Part of</th><td><a href="/runs/{{ run.parent_run_id }}">run {{ run.parent_run_id }}</a></td></tr>
{% endif %}
{% if run.started_by_run_id %}
<tr><th>Started by</th><td><a href="/runs/{{ run.started_by_run_id }}">run {{ run.started_by_run_id }}</a></td></tr>
{% endif %}
{% if run.child_run_id %}
<tr><th>Started</th><td><a href="/runs/{{ run.child_run_id }}">run {{ run.child_run_id }}</a></td></tr>
{% endif %}
</table>
{% if output.result is not none %}
<h2>Result{{ " (truncated)" if output.truncated else "" }}</h2>
<pre>{{ output.result[:shown] }}</pre>
{% endif %}
{% if output.error is not none %}
<h2>Error</h2>
<pre>{{ output.error[:shown] }}</pre>
{% if output.error_trace %}<pre>{{ output.error_trace[-shown:] }}</pre>{% endif %}
{% endif %}
{% if parameters %}
<h2>Parameters</h2>
<table>
{% if parameters is mapping %}
{% for name, value in parameters.items() %}
<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
{% else %}
{% for value in parameters %}
<tr><td>{{ value }}</td></tr>
{% endfor %}
{% endif %}
</table>
{% endif %}
{% if task_runs %}
<h2>Tasks</h2>
<table>
{% for run in task_runs %}
<tr><th><a href="/runs/{{ run.run_id }}">{{ run.task_key }}</a></th><td>{% include "state" %}</td>
<td>{{ run.state_message }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% if task %}
<h2>Task</h2>
<pre>{{ task }}</pre>
{% endif %}
{% if output.logs %}
<h2>Log{{ " (its end)" if output.logs_truncated else "" }}</h2>
<pre>{{ output.logs[-shown:] }}</pre>
{% endif %}
{% if has_notebook %}
<h2>Notebook</h2>
<iframe sandbox src="/runs/{{ run.run_id }}/notebook" title="The executed notebook"></iframe>
{% endif %}
{% endblock %}
""",
    "runs": """{% extends "base" %}
{% block title %}Runs{% endblock %}
{% block body %}
<h1>Runs of this local workspace</h1>
{% if not runs %}<p>None yet.</p>{% endif %}
<table>
{% for run in runs %}
<tr><td><a href="/runs/{{ run.run_id }}">{{ run.run_id }}</a></td><td>{{ run.run_name }}</td>
<td>{% include "state" %}</td><td>{{ moment(run.start_time) }}</td></tr>
{% endfor %}
</table>
{% endblock %}
""",
    "missing": """{% extends "base" %}
{% block title %}No such run{% endblock %}
{% block body %}
<h1>Run {{ run_id }} does not exist</h1>
<p>It was deleted, or removed after 60 days, or belongs to another workspace.</p>
{% endblock %}
""",
}
