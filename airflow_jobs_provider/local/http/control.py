"""``/_local/...``: faults, scripted results and logged requests over HTTP.

For programs in other languages, for demos, and for ``python -m airflow_jobs_provider.local``'s
commands. Every request needs the workspace's access token, also where the API needs OAuth.

==========================  =====================================================================
Request                     What it does
==========================  =====================================================================
``POST /_local/faults``     adds a fault; the fields are those of :class:`~.faults.Fault`
``GET /_local/faults``      returns the faults that are still to come
``DELETE /_local/faults``   removes them
``POST /_local/results``    adds a result; the fields are those of
                            :class:`~airflow_jobs_provider.local.engine.scripted_results.ScriptedResult`
``GET /_local/results``     returns the results, the last added first
``DELETE /_local/results``  removes them
``GET /_local/requests``    returns the last requests of clients
``DELETE /_local/requests`` forgets them
``GET /_local/runs``        returns all runs, those of single tasks and deleted ones too
==========================  =====================================================================
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from aiohttp import web

from airflow_jobs_provider.local.engine.model import Run
from airflow_jobs_provider.local.engine.parameters import parameters_of
from airflow_jobs_provider.local.engine.scripted_results import ScriptedResult, names_of
from airflow_jobs_provider.local.engine.store import Store
from airflow_jobs_provider.local.errors import invalid, malformed
from airflow_jobs_provider.local.http.faults import Fault
from airflow_jobs_provider.local.simulation import Simulation

__all__ = ["CONTROL_PATH", "add_control_routes"]

CONTROL_PATH = "/_local/"
_T = TypeVar("_T")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_control_routes(app: web.Application, simulation: Simulation, store: Store) -> None:
    """Add the routes; the server checks the token before it calls them."""
    faults, results, log = simulation.faults, simulation.results, simulation.log

    async def add_fault(request: web.Request) -> web.Response:
        fault = _made(Fault, await _fields(request))
        try:
            faults.add(fault)
        except ValueError as error:
            raise invalid(str(error)) from None
        return web.json_response({})

    async def list_faults(_request: web.Request) -> web.Response:
        return web.json_response({"faults": [one.as_record() for one in faults.pending]})

    async def add_result(request: web.Request) -> web.Response:
        results.add(_made(ScriptedResult, await _fields(request)))
        return web.json_response({})

    async def list_results(_request: web.Request) -> web.Response:
        return web.json_response({"results": [one.as_record() for one in results.rules]})

    async def list_requests(_request: web.Request) -> web.Response:
        return web.json_response({"requests": [asdict(one) for one in log.requests]})

    async def list_all_runs(_request: web.Request) -> web.Response:
        runs = store.all_runs()
        return web.json_response({"runs": [_described(run, store) for run in runs]})

    def clearing(clear: Callable[[], None]) -> _Handler:
        async def handle(_request: web.Request) -> web.StreamResponse:
            clear()
            return web.json_response({})

        return handle

    router = app.router
    router.add_post(f"{CONTROL_PATH}faults", add_fault)
    router.add_get(f"{CONTROL_PATH}faults", list_faults)
    router.add_delete(f"{CONTROL_PATH}faults", clearing(faults.clear))
    router.add_post(f"{CONTROL_PATH}results", add_result)
    router.add_get(f"{CONTROL_PATH}results", list_results)
    router.add_delete(f"{CONTROL_PATH}results", clearing(results.clear))
    router.add_get(f"{CONTROL_PATH}requests", list_requests)
    router.add_delete(f"{CONTROL_PATH}requests", clearing(log.clear))
    router.add_get(f"{CONTROL_PATH}runs", list_all_runs)


def _described(run: Run, store: Store) -> dict[str, Any]:
    output = store.output(run.run_id)
    return {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "parent_run_id": run.parent_run_id,
        "names": names_of(run),
        "parameters": parameters_of(run),
        "life_cycle_state": run.life_cycle_state,
        "result_state": run.result_state,
        "state_message": run.state_message,
        "result": output.result,
        "error": output.error,
    }


async def _fields(request: web.Request) -> Mapping[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise malformed("The body of the request is not JSON") from None
    if not isinstance(body, dict):
        raise malformed("The body of the request must be a JSON object")
    return body


def _made(kind: type[_T], given: Mapping[str, Any]) -> _T:
    """Return the object that the fields describe.

    :raises ApiError: a field is unknown, missing or has a wrong value.
    """
    known = {one.name for one in fields(kind) if one.init}  # type: ignore[arg-type]
    unknown = sorted(given.keys() - known)
    if unknown:
        raise invalid(f"Unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    # Here, since most workspaces never need it and it takes 6 MB.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        first["msg"] = first["msg"].removeprefix("Value error, ")
        raise invalid(f"{where}: {first['msg']}" if where else first["msg"]) from None
