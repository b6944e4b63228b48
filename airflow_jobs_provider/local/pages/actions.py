"""What the buttons of the pages do: cancel, repair, run again, run now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from airflow_jobs_provider.local import checks
from airflow_jobs_provider.local.engine.model import Run
from airflow_jobs_provider.local.http.call import Call
from airflow_jobs_provider.local.pages.key import PagesKey
from airflow_jobs_provider.local.pages.snippets import request_of
from airflow_jobs_provider.local.service import Service
from airflow_jobs_provider.local.versions import LATEST

__all__ = ["add_action_routes"]

_ID = "[0-9]{1,18}"


def add_action_routes(app: web.Application, service: Service, key: PagesKey) -> None:
    """Add the routes. Each needs the pages' key, and answers where the browser shall go next."""

    def of_run(act: Callable[[Call, Run], Run]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            key.check(request, service.base_url)
            call = Call(service, LATEST, {"run_id": int(request.match_info["run_id"])})
            shown = act(call, call.run())
            return web.json_response({"location": f"/runs/{shown.run_id}"})

        return handle

    async def run_now(request: web.Request) -> web.Response:
        key.check(request, service.base_url)
        call = Call(service, LATEST, {"job_id": int(request.match_info["job_id"])})
        run = service.launcher.run_now(call.job(), {})
        return web.json_response({"location": f"/runs/{run.run_id}"})

    async def give_key(request: web.Request) -> web.Response:
        key.check_token(request, service.base_url)
        return web.json_response({"key": key.text})

    router = app.router
    for name, act in {"cancel": _cancel, "repair": _repair, "run-again": _run_again}.items():
        router.add_post(f"/actions/runs/{{run_id:{_ID}}}/{name}", of_run(act))
    router.add_post(f"/actions/jobs/{{job_id:{_ID}}}/run-now", run_now)
    router.add_post("/actions/key", give_key)


def _cancel(call: Call, run: Run) -> Run:
    call.service.cancel(run.run_id)
    return run


def _repair(call: Call, run: Run) -> Run:
    """Run the failed tasks again."""
    request: dict[str, Any] = {"rerun_all_failed_tasks": True}
    if run.history:
        request["latest_repair_id"] = run.history[-1]["id"]
    call.service.repairer.repair(run, request, call.version)
    return run


def _run_again(call: Call, run: Run) -> Run:
    """Launch another run like this one."""
    endpoint, request = request_of(run)
    launcher = call.service.launcher
    if endpoint == "runs/submit":
        return launcher.submit(checks.check_settings(request, call.version))
    job = Call(call.service, call.version, request).job()
    request.pop("job_id")
    return launcher.run_now(job, request, only=request.pop("only", None))
