"""SQL tasks run on DuckDB; their tables outlive the run."""

from __future__ import annotations

import importlib.util
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.runners import sql
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import Api

HAS_DUCKDB = importlib.util.find_spec("duckdb") is not None
needs_duckdb = pytest.mark.skipif(not HAS_DUCKDB, reason="needs the extra sql")


def task(path: str, **parameters: str) -> dict[str, Any]:
    """Return a sql_task of a file."""
    return {"sql_task": {"warehouse_id": "w", "file": {"path": path}, "parameters": parameters}}


def run(api: Api, text: str, **parameters: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a file of this text; return the run and its output, as version 2.2 answers them."""
    (api.root / "query.sql").write_text(text)
    return api.run_to_end(**task("/Workspace/query.sql", **parameters))


def rows(output: dict[str, Any]) -> list[list[str | None]]:
    """Return the rows of the last statement."""
    result = output["sql_output"]["file_output"]["query_result"]
    return [[value.get("string_value") for value in row["values"]] for row in result["rows"]]


@needs_duckdb
@pytest.mark.slow
def test_a_table_outlives_its_run(tmp_path: Path) -> None:
    """A table is there for later runs, also of a workspace that was started again."""
    from databricks.sdk.service.jobs import RunOutput

    with LocalWorkspace(tmp_path) as workspace:
        text = """
            CREATE SCHEMA IF NOT EXISTS main.sales;
            CREATE OR REPLACE TABLE main.sales.orders USING DELTA AS
            SELECT `id`, named_struct('who', :who) AS customer, DATE'2024-01-02' AS day
            FROM VALUES (1), (2) AS t(id);
            OPTIMIZE main.sales.orders; -- has no effect here
            USE CATALOG main;
            SELECT id, customer, date_format(day, 'yyyy/MM'), NULL AS nothing
            FROM sales.orders
            WHERE sales.orders.id >= :least AND orders.customer.who = :who ORDER BY id;
        """
        ended, output = run(Api(workspace), text, who="it's", least="1")
        assert ended["state"]["result_state"] == "SUCCESS", output
        file = output["sql_output"]["file_output"]
        assert file["query_text"] == text
        assert file["warehouse_id"] == "w"
        assert len({one["lookup_key"] for one in file["sql_statements"]}) == 5
        assert [column["name"] for column in file["query_result"]["columns"]][:2] == [
            "id",
            "customer",
        ]
        # A typed client finds each field where it expects it.
        assert RunOutput.from_dict(output).as_dict()["sql_output"] == output["sql_output"]
        customer = '{"who": "it\'s"}'
        assert rows(output) == [["1", customer, "2024/01", None], ["2", customer, "2024/01", None]]
    with LocalWorkspace(tmp_path) as workspace:
        text = "SELECT count(*) FROM IDENTIFIER(:table) AS o"
        _, output = run(Api(workspace), text, table="main.sales.orders")
        assert rows(output) == [["2"]]


@needs_duckdb
@pytest.mark.slow
def test_failures(api: Api) -> None:
    """A statement that fails names its error; the results before it are kept."""
    ended, output = run(api, "SELECT 1; SELECT * FROM no_such_table; SELECT 3")
    assert ended["state"]["result_state"] == "FAILED"
    assert "no_such_table" in output["error"]
    assert rows(output) == [["1"]]


@needs_duckdb
def test_texts_that_cannot_be_read() -> None:
    """A mistake in the text, or a parameter without a value, runs none of the statements."""
    sql_program = import_module("airflow_jobs_provider.local.runners.sql_program")
    for text, message in (
        (
            "SELECT 1;\nSELEC 2",
            "[PARSE_SYNTAX_ERROR] Syntax error at or near '2'. SQLSTATE: 42601 (line 2, pos 7)",
        ),
        ("SELECT 'a", "[PARSE_SYNTAX_ERROR]"),
        ("SELECT :day", "[UNBOUND_SQL_PARAMETER] Found the unbound parameter: day."),
        ("SELECT * FROM IDENTIFIER(:t)", "[UNBOUND_SQL_PARAMETER] Found the unbound parameter: t."),
    ):
        with pytest.raises(sql_program.SqlError) as caught:
            sql_program.read_statements(text, {"other": "x"})
        assert str(caught.value).startswith(message)


@needs_duckdb
def test_values_are_no_statements() -> None:
    """A parameter is a value or a name, whatever quotes it has."""
    sql_program = import_module("airflow_jobs_provider.local.runners.sql_program")
    query = "SELECT :value FROM IDENTIFIER(:table) AS o"
    given = {"value": "x'; SELECT 2; --", "table": "`a``; SELECT 2; --`.b"}
    (statement,) = sql_program.read_statements(query, given)
    literal, name = "'x''; SELECT 2; --'", '"a`; SELECT 2; --"'
    assert statement.sql(dialect="duckdb", identify=True) == (
        f'SELECT {literal} FROM {name}."b" AS "o"'
    )


@needs_duckdb
@pytest.mark.slow
def test_rows_for_other_tasks(api: Api) -> None:
    """The rows of a SQL task are the inputs of a loop, and values for other tasks."""
    (api.root / "rows.sql").write_text("SELECT range AS n, 'x' AS name FROM range(1005)")
    (api.root / "one.sql").write_text("SELECT :n, json_array_length(:rows), :given")
    job_id = api.create(
        tasks=[
            {"task_key": "rows", **task("/rows.sql")},
            {
                "task_key": "one",
                "depends_on": [{"task_key": "rows"}],
                **task(
                    "/one.sql",
                    n="{{tasks.rows.output.first_row.name}}",
                    rows="{{tasks.rows.output.rows}}",
                ),
            },
        ],
        version="2.2",
    )
    body = {"job_id": job_id, "sql_params": {"given": "yes"}}
    run_id = api.post("run-now", body, version="2.2").json()["run_id"]
    api.wait(run_id)
    first, second = (one["run_id"] for one in api.run(run_id, version="2.2")["tasks"])
    output = api.get("runs/get-output", version="2.2", run_id=first).json()
    assert output["sql_output"]["file_output"]["query_result"]["truncated"] is True
    assert len(rows(output)) == 1000
    output = api.get("runs/get-output", version="2.2", run_id=second).json()
    assert rows(output) == [["x", "1000", "yes"]]


def test_what_cannot_run(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved query, a missing file and a missing package end the run with what to do."""
    ended, _ = api.run_to_end(sql_task={"warehouse_id": "w", "query": {"query_id": "q"}})
    assert ended["state"]["life_cycle_state"] == "INTERNAL_ERROR"
    assert "name it in sql_task.file" in ended["state"]["state_message"]
    monkeypatch.setattr(sql, "_NEEDED", ("json", "no_such_module"))
    ended, _ = api.run_to_end(**task("/Workspace/none.sql"))
    assert ended["state"]["life_cycle_state"] == "INTERNAL_ERROR"
    message = "sql_task needs no_such_module on this machine: "
    command = "pip install 'airflow-jobs-provider[sql]'"
    assert ended["state"]["state_message"] == message + command
    monkeypatch.setattr(sql, "_NEEDED", ())
    ended, output = api.run_to_end(**task("/Workspace/none.sql"))
    assert ended["state"]["result_state"] == "FAILED"
    assert output["error"].startswith("Cannot read the file /Workspace/none.sql: there is no file")
