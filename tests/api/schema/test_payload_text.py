"""A payload as text: as JSON, else as a Python literal, else an error that says where it broke."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.schema.introspection import fields_of
from airflow_jobs_provider.api.schema.payload_text import parse_nested_text, read_payload
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS
from airflow_jobs_provider.operators.create_job import DatabricksCreateJobsOperator
from airflow_jobs_provider.operators.run_now import DatabricksRunNowOperator
from airflow_jobs_provider.operators.submit_run import DatabricksSubmitRunOperator

PAYLOAD: dict[str, Any] = {"a": [1, 2.5, None, True], "it's": {'"': "ä\n\\ {1: 2}"}}
PLAIN = {
    *("name", "description", "existing_cluster_id", "run_name", "idempotency_token"),
    *("timeout_seconds", "max_retries", "min_retry_interval_millis", "max_concurrent_runs"),
    *("retry_on_timeout", "job_id", "job_name", "performance_target"),
}


@pytest.mark.parametrize("text", [json.dumps(PAYLOAD), repr(PAYLOAD), f"\n  {PAYLOAD!r}\n"])
def test_both_ways_to_write_it(text: str) -> None:
    """As json.dumps and as Python's own repr write it, with space around it."""
    assert read_payload("json", text) == PAYLOAD
    assert read_payload("json", PAYLOAD) == PAYLOAD


@pytest.mark.parametrize("nothing", [None, "", " \n"])
def test_nothing_is_no_fields(nothing: Any) -> None:
    """As in the official provider."""
    assert read_payload("json", nothing) == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[1]", "must be a map of fields; it is a list of 1 element"),
        ("None", "must be a map of fields; it is null"),
        ("null", "must be a map of fields; it is null"),
        ([1], "must be a map of fields; it is a list of 1 element"),
        ("[" * 100_000, "must not be nested too deeply; it is"),
    ],
)
def test_what_is_no_map(value: Any, message: str) -> None:
    """The error names the argument."""
    with pytest.raises(InvalidRequestError) as caught:
        read_payload("json", value)
    assert str(caught.value) == f"json {message}"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"a": 1', """at character 8, between '{"a": 1' and ''"""),
        ("{'a': 1,, 'b': 2}", """at character 9, between "{'a': 1," and ", 'b': 2}": """),
        ('{"day": 2026-01-01}', """at character 14, between '{"day": 2026-' and '01-01}'"""),
        ("{'ä': nan}", """at character 7, between "{'ä': " and 'nan}'"""),
        ("{'a': 1,\n 'd': datetime.date(1, 1, 1)}", "and 'datetime.date(1, 1, ': not a literal"),
        ('{"a": {{ x }}}', "at character 10, between '{\"a\": {{ ' and 'x }}}': not a literal"),
        ("not set", "at character 1, between '' and 'not set'"),
    ],
)
def test_where_it_broke(text: str, where: str) -> None:
    """Of the two ways to read it, the one that got farther tells."""
    with pytest.raises(
        InvalidRequestError, match="json must be JSON or a Python literal; it br"
    ) as caught:
        read_payload("json", text)
    assert where in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"password": "hunter2"; }',
        '{"password": "hunter2',
        "{'password': 'hunter2\\",
        '{"a": ["--password", "hunter2", oops]}',
        '{"password": "hunter2\n"}',
        '{"password": hunter2hunter2}',
        '{"password": 1 hunter2hunter2}',
        "{'a': '\\'hunter2', oops}",
    ],
)
def test_no_value_is_quoted(text: str) -> None:
    """Names and marks are, but no quoted value and no long word: each may be a secret."""
    with pytest.raises(InvalidRequestError) as caught:
        read_payload("json", text)
    assert "hunter2" not in str(caught.value)
    assert "it breaks at character" in str(caught.value)


def test_structures_within() -> None:
    """Each structure, list and map may be text; text stays text."""
    task: dict[str, Any] = {
        "task_key": "a",
        "for_each_task": {"inputs": "[1, 2]", "task": "{'task_key': 'b'}"},
    }
    read = parse_nested_text(
        "runs/submit",
        {
            "run_name": '{"a": 1}',
            "libraries": "[{'jar': 'dbfs:/a.jar'}]",
            "notebook_task": {"notebook_path": "[1]", "base_parameters": '{"a": "{}"}'},
            "tasks": [json.dumps(task), task],
            "dbt_task": '{"commands": []}',
            "a_field_of_tomorrow": "{}",
        },
    )
    assert read == {
        "run_name": '{"a": 1}',
        "libraries": [{"jar": "dbfs:/a.jar"}],
        "notebook_task": {"notebook_path": "[1]", "base_parameters": {"a": "{}"}},
        "tasks": [
            json.dumps(task),
            {**task, "for_each_task": {**task["for_each_task"], "task": {"task_key": "b"}}},
        ],
        "dbt_task": {"commands": []},
        "a_field_of_tomorrow": "{}",
    }


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("notebook_task", "[]", "notebook_task must be a map of fields; it is a list of 0 elem"),
        ("notebook_task", "None", "notebook_task must be a map of fields; it is null"),
        ("libraries", "{}", "libraries must be a list; it is a map of 0 entries"),
        ("libraries", "a b", "libraries must be JSON or a Python literal"),
    ],
)
def test_text_of_another_kind(field: str, text: str, message: str) -> None:
    """A list is no map; what another task did not push is not left out without a word."""
    with pytest.raises(InvalidRequestError, match=f"^{message}"):
        parse_nested_text("runs/submit", {field: text})


@pytest.mark.parametrize("name", [1, None, True])
def test_names_that_are_no_text(name: Any) -> None:
    """A Python literal may have them; they are refused like all that is wrong with a request."""
    payload = read_payload("json", repr({"job_id": 3, name: 2}))
    assert parse_nested_text("run-now", payload) == payload
    with pytest.raises(InvalidRequestError, match="must have text as keys"):
        DatabricksRunNowOperator(task_id="t", json=repr(payload))


@pytest.mark.parametrize(
    "kind",
    [DatabricksSubmitRunOperator, DatabricksRunNowOperator, DatabricksCreateJobsOperator],
)
def test_every_argument_is_known_as_text_or_structure(kind: Any) -> None:
    """So that a new argument of an operator is not forgotten here."""
    known = fields_of(ENDPOINTS[kind.call_name].request)
    for name in kind.request_fields:
        if name in PLAIN:
            assert parse_nested_text(kind.call_name, {name: "{}"}) == {name: "{}"}
        else:
            text = "[]" if name in known and known[name].is_list else "{}"
            if name in ("access_control_list", "environments", "dbt_commands"):
                text = "[]"
            assert parse_nested_text(kind.call_name, {name: text}) == {name: json.loads(text)}
