"""Notebooks, SQL cells and Spark tasks with the real pyspark."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.local.api import Api
from tests.real_clients.client import WORKSPACE, Client

# It installs the whole of Spark, which takes minutes.
pytestmark = [
    pytest.mark.real_clients,
    pytest.mark.thorough,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java"),
]

# Of one run, on a machine that does much else. Spark starts in each.
MOST_SECONDS = 1200

WRITES = (
    "dbutils.widgets.text('least', '1')",
    """
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import udf

    assert isinstance(spark, SparkSession)
    assert SparkSession.getActiveSession() is spark
    double = udf(lambda value: value * 2, "int")
    spark.range(3).withColumn("double", double("id")).write.saveAsTable("numbers")
    """,
    """
    %sql
    CREATE OR REPLACE TEMPORARY VIEW large AS SELECT * FROM numbers WHERE double > :least;
    CREATE DATABASE sales COMMENT 'it''s';
    CREATE TABLE sales.days (amount INT NOT NULL COMMENT 'Euro', day DATE) USING parquet
      PARTITIONED BY (day) TBLPROPERTIES ('team' = 'one');
    INSERT INTO sales.days VALUES (5, DATE '2026-01-31'), (6, DATE '2026-02-01');
    USE sales;
    CREATE VIEW amounts AS SELECT amount FROM days;
    CREATE VIEW default.all_amounts AS SELECT * FROM sales.amounts;
    SELECT count(*) AS count FROM large
    """,
    """
    display(_sqldf)
    dbutils.notebook.exit(str(_sqldf.first()["count"]))
    """,
)
READS = """
sums = [
    spark.table('numbers').agg({'double': 'sum'}).first()[0],
    spark.sql('select sum(amount) from all_amounts').first()[0],
    spark.table('sales.days').where("day = '2026-01-31'").count(),
]
assert spark.catalog.currentDatabase() == 'default'
"""
# Each is a run of its own, in this order, with what it returns.
STEPS = {
    "reads": (READS + "dbutils.notebook.exit(str(sums))", "[6, 11, 1]"),
    "replaces": (
        """
        spark.range(10, 12).selectExpr("id", "int(id) double").write.mode("overwrite").saveAsTable(
            "numbers"
        )
        spark.sql("INSERT INTO sales.days VALUES (7, DATE '2026-02-02')")
        dbutils.notebook.exit(spark.table("sales.days").count())
        """,
        "3",
    ),
    "reads what was replaced": (READS + "dbutils.notebook.exit(str(sums))", "[21, 18, 1]"),
    "runs another": (
        """
        before = spark.table("numbers").count(), spark.table("sales.days").count()
        spark.range(4).write.saveAsTable("of_parent")
        of_child = dbutils.notebook.run("/child")
        after = spark.table("numbers").count(), spark.table("sales.days").count()
        made = spark.table("of_child").count()
        dbutils.notebook.exit(str((before, of_child, after, made)))
        """,
        "((2, 3), '4', (3, 4), 1)",
    ),
    "drops": (
        """
        spark.sql("DROP TABLE numbers")
        spark.sql("DROP VIEW all_amounts")
        spark.sql("DROP DATABASE sales CASCADE")
        dbutils.notebook.exit("dropped")
        """,
        "dropped",
    ),
    "finds the others": (
        """
        names = [(table.name, table.tableType) for table in spark.catalog.listTables()]
        databases = [one.name for one in spark.catalog.listDatabases()]
        dbutils.notebook.exit(str((names, databases)))
        """,
        "([('of_child', 'MANAGED'), ('of_parent', 'MANAGED')], ['default'])",
    ),
}
CHILD = """
spark.range(1).selectExpr("id", "int(id) double").write.insertInto("numbers")
spark.sql("INSERT INTO sales.days VALUES (8, DATE '2026-02-03')")
spark.range(1).write.saveAsTable("of_child")
dbutils.notebook.exit(spark.table("of_parent").count())
"""
SUBMITTED = """
import sys
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
spark.range(int(sys.argv[1])).write.saveAsTable("of_a_file")
print("sum", spark.table("of_a_file").groupBy().sum().first()[0])
"""


def test_spark(
    client_of: Callable[..., Client],
    workspace_of: Callable[[Client], Api],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A notebook's tables, views and databases are those of the next runs; spark-submit works."""
    # Compiling what runs once costs more than it saves.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    api = workspace_of(client_of("spark", "pyspark==4.3.0", *WORKSPACE))
    assert result_of(api, api.notebook(*WRITES)) == "2"
    child = api.root / api.notebook(CHILD).lstrip("/")
    child.with_suffix(".py").rename(api.root / "child.py")
    for name, (source, expected) in STEPS.items():
        assert (name, result_of(api, api.notebook(source))) == (name, expected)
    # What a file saves ends with its run, so the next one may save it again.
    for _ in range(2):
        run_id = api.submit_python(SUBMITTED, "4")
        api.wait(run_id, seconds=MOST_SECONDS)
        output = api.get("runs/get-output", version="2.2", run_id=run_id).json()
        assert "sum 6" in output["logs"], output
    cluster = {"spark_version": "16", "node_type_id": "n", "num_workers": 1}
    task = {"parameters": [f"dbfs:{api.python(SUBMITTED)}", "5"]}
    body = {"new_cluster": cluster, "spark_submit_task": task}
    run_id = api.post("runs/submit", body).json()["run_id"]
    state = api.wait(run_id, seconds=MOST_SECONDS)["state"]
    output = api.get("runs/get-output", version="2.2", run_id=run_id).json()
    assert state.get("result_state") == "SUCCESS", output
    assert "sum 10" in output["logs"]
    assert not list(api.root.rglob("spark-warehouse"))


def result_of(api: Api, path: str) -> Any:
    """Run a notebook; return its result, or how it failed."""
    run_id = api.submit(notebook_task={"notebook_path": path})
    api.wait(run_id, seconds=MOST_SECONDS)
    output = api.output(run_id)
    return output["notebook_output"].get("result", output)
