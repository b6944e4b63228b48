"""dbt_task runs a project with the real dbt, on DuckDB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.local.api import CLUSTER, Api
from tests.real_clients.client import WORKSPACE, Client

pytestmark = pytest.mark.real_clients

FILES = {
    "dbt_project.yml": "name: shop\nversion: '1.0'\nprofile: local\nmodel-paths: [models]\n",
    "profiles.yml": (
        "local:\n  target: dev\n  outputs:\n"
        "    dev: {type: duckdb, path: shop.duckdb, threads: 1}\n"
    ),
    "models/orders.sql": "select range as id, {{ var('price') }} as price from range(3)\n",
    "models/schema.yml": (
        "models:\n  - name: orders\n    columns:\n"
        "      - {name: id, data_tests: [unique]}\n"
        "      - {name: price, data_tests: [unique]}\n"
    ),
}


def test_project(client_of: Callable[..., Client], workspace_of: Callable[[Client], Api]) -> None:
    """Models are built with a parameter of the run; a test of the data that fails fails the run."""
    # dbt-core 1.12 has a part that is downloaded from another host when it is installed.
    requirements = ("dbt-core==1.11.16", "dbt-duckdb==1.11.1", *WORKSPACE)
    api = workspace_of(client_of("dbt", *requirements))
    for name, text in FILES.items():
        file = api.root / "shop" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    price = "--vars '{price: {{job.parameters.price}}}'"
    built = run_of(api, f"dbt run {price}", f"dbt test --exclude unique_orders_price {price}")
    assert built["state"]["result_state"] == "SUCCESS", built["logs"]
    assert "Completed successfully" in built["logs"]
    failed = run_of(api, f"dbt test {price}", "dbt docs generate")
    assert failed["state"]["result_state"] == "FAILED"
    assert "unique_orders_price" in failed["logs"]
    assert "+ dbt docs" not in failed["logs"]


def run_of(api: Api, *commands: str) -> dict[str, Any]:
    """Run commands in the project; return the state of the run and its log."""
    task = {"commands": commands, "project_directory": "/shop"}
    settings = {
        "name": "shop",
        "parameters": [{"name": "price", "default": "5"}],
        "tasks": [{"task_key": "dbt", "dbt_task": task, **CLUSTER}],
    }
    run_id = api.run_now(api.create(version="2.2", **settings))
    api.wait(run_id, seconds=240)
    [child] = api.run(run_id, version="2.2")["tasks"]
    output = api.get("runs/get-output", version="2.2", run_id=child["run_id"]).json()
    return {"state": child["state"], "logs": output.get("logs") or str(output)}
