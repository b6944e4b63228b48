"""The decorator ``@task.databricks_notebook`` over real HTTP: a function gives the parameters."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.decorators.jobs import databricks_notebook
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.decorators import notebook, parameters, sent
from tests.helpers.responses import LAUNCHED, OUTPUT, SUCCEEDED


def test_parameters_of_a_notebook(context: Any, server: ScriptedServer) -> None:
    """The function gives the parameters; the call gives the notebook's exit value."""

    def etl(day: str, ds: Any = None) -> dict[str, Any]:
        return {"day": day, "ds": ds, "n": 5, "flag": True, "rows": [1, "a"], "ref": "{{job.id}}"}

    context |= {"ds": "2026-01-01"}
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    operator = notebook(etl, "monday")
    assert operator.execute(context) == "42"
    assert sent(server) == ["jobs/runs/submit", "jobs/runs/get", "jobs/runs/get-output"]
    assert parameters(server) == {
        "day": "monday",
        "ds": "2026-01-01",
        "n": "5",
        "flag": "true",
        "rows": '[1, "a"]',
        "ref": "{{job.id}}",
    }
    # The annotation is that of the parameters.
    assert operator.multiple_outputs is False


@pytest.mark.parametrize("returned", [None, {}])
def test_notebook_without_parameters(context: Any, server: ScriptedServer, returned: Any) -> None:
    """The DAG's params are not sent in place of what the function returns."""

    def etl() -> Any:
        return returned

    context["params"] = {"a": 1}
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    operator = notebook(etl)
    operator.params = {"a": 1}
    operator.execute(context)
    assert parameters(server) == {}


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (["a"], "as a dict, or None; it returned list"),
        ({1: "a"}, "The name of a parameter must be text, not int"),
        ({"day": {1}}, "The parameter day is of type builtins.set"),
    ],
)
def test_function_that_returns_no_parameters(
    context: Any, server: ScriptedServer, returned: Any, words: str
) -> None:
    """What is no dict of JSON is an error, and launches nothing."""

    def etl() -> Any:
        return returned

    with pytest.raises(TypeError, match=words):
        notebook(etl).execute(context)
    assert server.requests == []


def test_notebook_decorator_without_a_path() -> None:
    """The error says how it is written."""

    def etl() -> None: ...

    for wrong in (None, etl):
        with pytest.raises(TypeError, match=r'@task.databricks_notebook\("/Shared/etl"\)'):
            databricks_notebook(wrong)  # type: ignore[arg-type]

    async def asynchronous() -> None: ...

    with pytest.raises(TypeError, match="no async function"):
        notebook(asynchronous)
