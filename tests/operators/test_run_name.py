"""The name of a run that is given none: ``[databricks_jobs] run_name_template``."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_jobs_provider.operators.run_name import default_run_name
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.responses import LAUNCHED, RUNNING
from tests.helpers.tasks import submit

OPTION = "AIRFLOW__DATABRICKS_JOBS__RUN_NAME_TEMPLATE"


@pytest.mark.parametrize(
    ("template", "map_index", "name"),
    [
        ("", -1, "sales.etl scheduled__2026-01-01 try 2"),
        (
            "{dag_id}.{task} {run_id} try {try_number}",
            3,
            "sales.etl[3] scheduled__2026-01-01 try 2",
        ),
        ("prod {task_id}/{map_index}", 3, "prod etl/3"),
        ("prod {task_id}/{map_index}", -1, "prod etl/-1"),
        ("{task:>6}|{try_number:03d}|{{x}}", -1, "   etl|002|{x}"),
        ("one name", -1, "one name"),
        ("{dag_id}" + "é" * 5000, -1, "sales" + "é" * 2045),
    ],
)
def test_a_template(
    context: Any, monkeypatch: pytest.MonkeyPatch, template: str, map_index: int, name: str
) -> None:
    """The placeholders are values of the task instance; a long name is cut off."""
    monkeypatch.setenv(OPTION, template)
    context["ti"].map_index = map_index
    assert default_run_name(context) == name


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{dag}", r"it has the placeholder \{dag\}\. Known are \{dag_id\}, \{task_id\}"),
        ("{dag_id.__class__}", "it has the placeholder"),
        ("{dag_id[0]}", "it has the placeholder"),
        ("{}", r"it has the placeholder \{\}"),
        ("{dag_id", "expected '}'"),
        ("{dag_id:{other}}", "'other'"),
        ("{try_number:x!}", "Invalid format specifier"),
        ("{dag_id:0.0}", "the name is empty"),
    ],
)
def test_an_invalid_template_fails_the_task(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, template: str, words: str
) -> None:
    """Nothing is launched, the option is named, and Airflow does not retry."""
    monkeypatch.setenv(OPTION, template)
    with pytest.raises(AirflowFailException, match=words) as error:
        submit().execute(context)
    assert "[databricks_jobs] run_name_template is invalid" in str(error.value)
    assert server.requests == []


def test_a_given_name_wins(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it does over an invalid template."""
    monkeypatch.setenv(OPTION, "{")
    server.will(LAUNCHED, RUNNING)
    submit(run_name="mine", wait_for_termination=False).execute(context)
    assert server.requests[0].body["run_name"] == "mine"
