"""The application that the API server mounts: the list of runs, and what is waited for.

It only reads. Each request needs a user of Airflow, and shows what that user may read, see
:mod:`airflow_jobs_provider.airflow_compat.page_access`. What a query says and is not understood is
ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from airflow_jobs_provider.airflow_compat.page_access import ReaderDep, SessionDep
from airflow_jobs_provider.airflow_compat.run_list import Position, RunFilter, find_runs
from airflow_jobs_provider.airflow_compat.wait_list import WaitFilter, find_triggerers, find_waits
from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.ui.links import LONGEST_PERIOD_DAYS
from airflow_jobs_provider.ui.render import (
    PAGE_HEADERS,
    STATES,
    STATIC_FILES,
    STATIC_HEADERS,
    read_static,
    render,
)

__all__ = ["DAYS", "ROWS", "make_app"]

# Of a page.
ROWS = 50
# The choices of the period, in days.
DAYS = (1, 7, 30, LONGEST_PERIOD_DAYS)
_DEFAULT_DAYS = 7
_MAX_TEXT = 250
# Suggestions of the field for a DAG.
_MAX_DAGS = 500


def make_app() -> FastAPI:
    """Return the application. It must be mounted in Airflow's own, which authenticates."""
    app = FastAPI(title="Databricks runs", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/", _runs, methods=["GET"])
    app.add_api_route("/waits", _waits, methods=["GET"])
    app.add_api_route("/static/{name}", _static, methods=["GET"])
    app.add_exception_handler(HTTPException, _refused)
    return app


def _runs(
    reader: ReaderDep,
    session: SessionDep,
    dag: str = "",
    state: str = "",
    text: str = "",
    days: str = "",
    before: str = "",
    after: str = "",
) -> Response:
    """Return the page with the runs."""
    wanted = RunFilter(
        days=int(days) if days in map(str, DAYS) else _DEFAULT_DAYS,
        dag_id=dag.strip()[:_MAX_TEXT],
        states=STATES[state][1] if state in STATES else (),
        text=_printable(text.strip())[:_MAX_TEXT],
        before=_position(before),
        after=_position(after) if not before else None,
    )
    found = find_runs(session, wanted, reader.dag_ids, ROWS + 1)
    rows, has_newer, has_older = _cut(found, wanted.before, wanted.after)
    kept = {
        "dag": wanted.dag_id,
        "state": state if state in STATES else "",
        "text": wanted.text,
        "days": "" if wanted.days == _DEFAULT_DAYS else str(wanted.days),
    }
    return _page(
        "runs.html",
        runs=rows,
        wanted=wanted,
        state=kept["state"],
        states={name: label for name, (label, _) in STATES.items()},
        periods=DAYS,
        dag_ids=sorted(reader.dag_ids)[:_MAX_DAGS],
        is_filtered=any(kept[name] for name in ("dag", "state", "text")),
        **_pager(
            "./",
            kept,
            newer=json.dumps(rows[0].position) if has_newer else None,
            older=json.dumps(rows[-1].position) if has_older else None,
        ),
    )


def _waits(
    reader: ReaderDep,
    session: SessionDep,
    dag: str = "",
    triggerer: str = "",
    before: str = "",
    after: str = "",
) -> Response:
    """Return the page with what is waited for."""
    wanted = WaitFilter(
        reads_assets=reader.reads_assets,
        dag_id=dag.strip()[:_MAX_TEXT],
        triggerer_id=_database_id(triggerer),
        before=_database_id(before),
        after=_database_id(after) if not before else None,
    )
    found = find_waits(session, wanted, reader.dag_ids, ROWS + 1)
    rows, has_newer, has_older = _cut(found, wanted.before, wanted.after)
    kept = {"dag": wanted.dag_id, "triggerer": str(wanted.triggerer_id or "")}
    return _page(
        "waits.html",
        waits=rows,
        triggerers=find_triggerers(session, wanted, reader.dag_ids),
        wanted=wanted,
        dag_ids=sorted(reader.dag_ids)[:_MAX_DAGS],
        is_filtered=any(kept.values()),
        **_pager(
            "waits",
            kept,
            newer=str(rows[0].trigger_id) if has_newer else None,
            older=str(rows[-1].trigger_id) if has_older else None,
        ),
    )


def _static(name: str) -> Response:
    """Return a file that the pages refer to. It holds nothing of the deployment."""
    if name not in STATIC_FILES:
        raise HTTPException(404)
    return Response(read_static(name), media_type=STATIC_FILES[name], headers=STATIC_HEADERS)


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = {401: "Not logged in", 403: "Not allowed", 404: "Not found"}.get(error.status_code)
    return _page(
        "refused.html",
        error.status_code,
        title=title or f"Error {error.status_code}",
        reason=str(error.detail),
        is_login_needed=error.status_code == 401,
    )


def _page(template: str, status: int = 200, /, **values: Any) -> Response:
    return HTMLResponse(render(template, **values), status_code=status, headers=PAGE_HEADERS)


def _cut(found: Sequence[Any], before: Any, after: Any) -> tuple[list[Any], bool, bool]:
    """Return the rows of a page, and whether there are newer and older ones.

    :param found: up to one row more than a page has.
    :param before: the position before the page, if it was asked for by that.
    :param after: the position after the page, if it was asked for by that.
    """
    has_more = len(found) > ROWS
    # Of those before a position the nearest are wanted, which are the last ones.
    rows = list(found[-ROWS:] if after is not None else found[:ROWS])
    has_newer = bool(rows) and (has_more if after is not None else before is not None)
    has_older = bool(rows) and (after is not None or has_more)
    return rows, has_newer, has_older


def _pager(
    path: str, kept: Mapping[str, str], *, newer: str | None, older: str | None
) -> dict[str, str | None]:
    """Return the links to the pages of a list."""
    query = {name: value for name, value in kept.items() if value}

    def link(**position: str) -> str:
        return f"{path}?{urlencode(query | position)}"

    return {
        "newest": (f"{path}?{urlencode(query)}" if query else path) if newer else None,
        "newer": link(after=newer) if newer else None,
        "older": link(before=older) if older else None,
    }


def _database_id(text: str) -> int | None:
    """Return an id of Airflow's database, which has 32 bits; None for anything else."""
    number = parse_id(text)
    return number if number is not None and number < 2**31 else None


def _position(text: str) -> Position | None:
    """Return a position as a link of the page has it; None for anything else."""
    try:
        dag_run, task_id, map_index = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    is_one = type(dag_run) is int and isinstance(task_id, str) and type(map_index) is int
    is_small = is_one and abs(dag_run) < 2**31 and abs(map_index) < 2**31
    return (dag_run, _printable(task_id)[:_MAX_TEXT], map_index) if is_small else None


def _printable(text: str) -> str:
    """Return text without what no database takes: NUL in PostgreSQL, halves of characters."""
    return "".join(char for char in text if char.isprintable())
