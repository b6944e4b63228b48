"""What a kernel knows, looked at inside this process: a kernel's own is killed without a word."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from airflow_jobs_provider.local.kernel import magics, namespace, sql_cells
from airflow_jobs_provider.local.kernel.context import CONTEXT_VARIABLE, KernelContext, restart_mark
from airflow_jobs_provider.local.kernel.dbutils import (
    DBUtils,
    InputWidgetNotDefined,
    NotebookExit,
    PythonRestart,
    WorkflowException,
)
from airflow_jobs_provider.local.kernel.spark_tables import remove_unused_warehouses
from airflow_jobs_provider.local.kernel.sql_cells import statements_of
from airflow_jobs_provider.local.notebook_files import NotNotebookError, read_notebook
from airflow_jobs_provider.local.paths import (
    PathRefusedError,
    data_file_in_root,
    file_in_root,
    notebook_in_root,
)
from tests.local.api import Api

HEADER = "# Databricks notebook source\n"


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelContext:
    """Return the context of a kernel, read as a kernel reads it."""
    folder = tmp_path / "Users" / "me"
    folder.mkdir(parents=True)
    file = tmp_path / "context.json"
    given = {
        "root": str(tmp_path),
        "code_root": str(tmp_path),
        "import_path": [str(tmp_path)],
        "folder": str(folder),
        "parameters": {"given": "1"},
        "exit_file": str(tmp_path / "exit"),
        "callback_url": "http://127.0.0.1:1/local/",
        "secret": "the secret",
        "widgets": {"kept": "2"},
        "about": {},
        "warehouse": str(tmp_path / "warehouse"),
        "spark_folder": str(tmp_path / "spark"),
        "packages": "",
    }
    file.write_text(json.dumps(given))
    monkeypatch.setenv(CONTEXT_VARIABLE, str(file))
    context = KernelContext.from_environment()
    assert not file.exists()
    return context


@pytest.fixture
def shell(context: KernelContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return an IPython shell that knows our magics."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    made: Any = InteractiveShell
    spark = namespace.Spark(context)
    shell = made(user_ns=namespace.names_for(context, spark))
    shell.history_manager.enabled = False
    magics.register(shell, context, spark)
    yield shell
    shell.history_manager.end_session()


def test_context_keeps_its_secret(context: KernelContext) -> None:
    """The key to the workspace does not show where the context is printed."""
    assert "the secret" not in repr(context)


def test_paths_in_a_notebook(context: KernelContext) -> None:
    """A path in a notebook is absolute in the workspace, or relative to the notebook's folder."""
    assert context.workspace_path("/a/b") == "/a/b"
    assert context.workspace_path("./b") == "/Users/me/b"
    assert context.workspace_path("../b") == "/Users/b"
    assert context.workspace_path("../../../../b") == "/b"


def test_exit_leaves_its_value(context: KernelContext) -> None:
    """Exit leaves its value as text and raises what no `except Exception` catches."""
    with pytest.raises(NotebookExit):
        DBUtils(context).notebook.exit(7)
    assert context.exit_file.read_text() == "7"
    assert not issubclass(NotebookExit, Exception)


def test_widgets_in_this_process(context: KernelContext) -> None:
    """Widgets are defined, overridden and removed."""
    widgets = DBUtils(context).widgets
    widgets.text("given", "0")
    widgets.dropdown("d", "a", ["a", "b"], "Label")
    widgets.combobox("c", "x", ["a"])
    widgets.multiselect("m", "a", ["a", "b"])
    assert widgets.getAll() == {"given": "1", "kept": "2", "d": "a", "c": "x", "m": "a"}
    assert widgets.get("none", "default") == "default"
    with pytest.raises(TypeError, match="must be text, not int"):
        widgets.text("number", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not among its choices"):
        widgets.dropdown("d", "c", ["a"])
    widgets.remove("d")
    for call in (widgets.get, widgets.remove):
        with pytest.raises(InputWidgetNotDefined, match="No input widget named d is defined"):
            call("d")
    widgets.removeAll()
    assert widgets.getAll() == {}


def test_what_dbutils_has_not(context: KernelContext) -> None:
    """A part of dbutils that is not there says which are."""
    dbutils = DBUtils(context)
    with pytest.raises(ValueError, match="no 'nothing' here"):
        dbutils.fs.help("nothing")
    with pytest.raises(PythonRestart):
        dbutils.library.restartPython()
    mark = json.loads(restart_mark(context.exit_file).read_text())
    assert mark == {"widgets": {"given": "1", "kept": "2"}}
    with pytest.raises(AttributeError, match=r"dbutils\.credentials is not there .* widgets"):
        dbutils.credentials.assumeRole("a")
    with pytest.raises(AttributeError):
        _ = dbutils._ipython_display_


def test_notebook_run_from_a_kernel(api: Api, context: KernelContext) -> None:
    """Another notebook is run with the key of a live run, and with no other."""
    path = api.notebook("import time; time.sleep(600)")
    run_id = api.submit(notebook_task={"notebook_path": path})
    api.wait(run_id, "RUNNING")
    context.callback_url = f"{api.workspace.url}/local/"
    with pytest.raises(RuntimeError, match=r"refused to run /x: Invalid access token\."):
        DBUtils(context).notebook.run("/x", 60)
    api.post("runs/cancel", {"run_id": run_id})


def test_how_another_notebook_ended(
    context: KernelContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit value of another notebook is returned; a bad end is raised with its reason."""
    ended: dict[str, Any] = {
        "run_id": 5,
        "result_state": "SUCCESS",
        "state_message": "",
        "result": "value",
        "error": None,
        "run_page_url": "http://127.0.0.1/runs/5",
    }
    monkeypatch.setattr(KernelContext, "run_notebook", lambda *_: ended)
    notebook = DBUtils(context).notebook
    assert notebook.run("./other", 60, {"a": 1}) == "value"
    ended.update(result_state="FAILED", error="ValueError: x", result=None)
    with pytest.raises(WorkflowException, match=r"Run 5 of /Users/me/other ended FAILED: ValueErr"):
        notebook.run("other", 60)


def test_run_magic_in_this_process(shell: Any, context: KernelContext) -> None:
    """%run shares namespace, gives widgets values, and leaves the folder as it was."""
    folder = context.folder
    (folder / "other.py").write_text(
        f"{HEADER}# MAGIC %md\n# MAGIC text\n# COMMAND ----------\nA = dbutils.widgets.get('w')"
    )
    shell.run_cell('%run ./other $w="5"').raise_error()
    assert shell.user_ns["A"] == "5"
    assert context.folder == folder
    for line, error in (
        ("%run", ValueError),
        ("%run ./nowhere", FileNotFoundError),
        ("%run /.workspace/x", FileNotFoundError),
        ("%scala", NotImplementedError),
    ):
        with pytest.raises(error):
            shell.run_cell(line).raise_error()


def test_magics_in_this_process(
    shell: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """%pip says that it does nothing; %sql asks spark; an exit is shown as such."""

    class Frame:
        """Stands for a Spark data frame, which is shown as the table of its rows."""

        columns = ("a", "<b>")

        def take(self, count: int) -> list[tuple[int, str]]:
            return [(1, "<i>")][:count]

    Frame.__module__ = "pyspark.sql.dataframe"
    monkeypatch.setattr(sql_cells, "_is_installed", lambda name: name == "pyspark")
    shell.user_ns["spark"] = types.SimpleNamespace(sql=lambda *_, **__: Frame())
    shell.run_cell("%pip install x").raise_error()
    shell.run_cell("%%sql\nselect 1").raise_error()
    assert isinstance(shell.user_ns["_sqldf"], Frame)
    assert namespace._table_of(Frame()) == (
        "<table><tr><th>a</th><th>&lt;b&gt;</th></tr><tr><td>1</td><td>&lt;i&gt;</td></tr></table>"
    )
    shell.run_cell("displayHTML('<b>x</b>')").raise_error()
    shell.run_cell("dbutils.notebook.exit('x' * 20_000)")
    shown = capsys.readouterr().out
    assert "%pip install x: not done by the local workspace" in shown
    assert "Notebook exited: xxx" in shown
    assert len(shown) < 15_000


def test_statements_of_a_cell() -> None:
    """Semicolons in literals, quoted names and comments divide nothing."""
    text = "select 'a;''b' -- c;d\n, `e;f` /* g;\nh */; ; -- only a comment\n;select \"i;j\""
    assert [*statements_of(text)] == [
        "select 'a;''b' -- c;d\n, `e;f` /* g;\nh */",
        'select "i;j"',
    ]


def test_sql_in_spark(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each statement is run, with the widgets as parameters; the last frame is shown."""
    ran: list[tuple[str, Any]] = []

    def sql(statement: str, args: Any = None) -> str:
        ran.append((statement, args))
        return f"frame {len(ran)}"

    monkeypatch.setattr(sql_cells, "_is_installed", lambda name: name == "pyspark")
    shell.user_ns["spark"] = types.SimpleNamespace(sql=sql)
    shell.run_cell("%%sql\nselect 1;\nselect :given").raise_error()
    values = {"given": "1", "kept": "2"}
    assert ran == [("select 1", values), ("select :given", values)]
    assert shell.user_ns["_sqldf"] == "frame 2"


def test_sql_needs_an_engine(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyspark and DuckDB a %sql cell says what to install."""
    monkeypatch.setattr(sql_cells, "_is_installed", lambda _: False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'airflow-jobs-provider\[sql\]'"):
        shell.run_cell("%sql select 1").raise_error()


def test_get_argument(shell: Any) -> None:
    """GetArgument is the old name for a widget's value with a default."""
    shell.run_cell("b = getArgument('given'), getArgument('none', 'd')").raise_error()
    assert shell.user_ns["b"] == ("1", "d")


def _install_pyspark(monkeypatch: pytest.MonkeyPatch, session: object) -> dict[str, str]:
    """Put a pyspark in place that returns this session; return the settings it will be given."""
    settings: dict[str, str] = {}

    class Builder:
        """Stands for pyspark's builder of sessions."""

        def master(self, _: str) -> Builder:
            return self

        def config(self, name: str, value: str) -> Builder:
            settings[name] = value
            return self

        def getOrCreate(self) -> object:  # noqa: N802
            return session

    module: Any = types.ModuleType("pyspark.sql")
    module.SparkSession = types.SimpleNamespace(builder=Builder())
    monkeypatch.setitem(sys.modules, "pyspark", types.ModuleType("pyspark"))
    monkeypatch.setitem(sys.modules, "pyspark.sql", module)
    return settings


def test_lazy_spark(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark is made once something is asked of it, and a missing pyspark says what to install."""
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pyspark"):
        shell.run_cell("spark.range(1)").raise_error()

    session = types.SimpleNamespace(sparkContext=types.SimpleNamespace(version="9"))
    _install_pyspark(monkeypatch, session)
    shell.run_cell("text = 'spark'; value = len(text)").raise_error()
    proxy = shell.user_ns["spark"]
    assert proxy is not session
    assert not hasattr(proxy, "_repr_html_")
    proxy.kept = 1
    shell.run_cell("v = sc.version; text = repr(spark)").raise_error()
    assert shell.user_ns["v"] == "9"
    assert session.kept == 1
    assert shell.user_ns["text"] == repr(session)
    # The real object in the first cell that names it, so that isinstance() is true.
    assert shell.user_ns["spark"] is session


def test_when_tables_are_shared(
    shell: Any, context: KernelContext, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Tables of other runs are read before a cell, its own are written after it; errors are told.

    The same around the run of another notebook.
    """
    asked: list[str] = []

    class Tables:
        """Stands for the tables of a session."""

        def __init__(self, _session: object, folder: Path, warehouse: Path) -> None:
            asked.append(f"of {warehouse.relative_to(folder).parent}")

        def read(self) -> None:
            asked.append("read")

        def write(self) -> None:
            asked.append("write")
            raise RuntimeError("Java has died")

    def run_notebook(*_: object) -> dict[str, str]:
        asked.append("run")
        return {"result_state": "SUCCESS", "result": ""}

    monkeypatch.setattr(namespace, "SparkTables", Tables)
    monkeypatch.setattr(KernelContext, "run_notebook", run_notebook)
    conf = {"spark.sql.catalogImplementation": "in-memory"}
    session = types.SimpleNamespace(sparkContext=None, _jsparkSession=None, conf=conf)
    settings = _install_pyspark(monkeypatch, session)
    shell.run_cell("dbutils.notebook.run('other')").raise_error()
    assert asked == ["run"]
    shell.run_cell("spark").raise_error()
    assert asked[1:] == ["of data", "read", "read", "write"]
    assert "Java has died" in capsys.readouterr().err
    warehouse = Path(settings["spark.sql.warehouse.dir"])
    assert warehouse.parent == Path(context.spark_folder, "data")
    asked.clear()
    shell.run_cell("dbutils.notebook.run('other')").raise_error()
    assert asked == ["read", "write", "run", "read", "write"]


def test_unused_warehouses(tmp_path: Path) -> None:
    """At its start the workspace removes the warehouse folders that no table is in.

    It leaves those of sessions with a Hive metastore, whose tables it does not know.
    """
    remove_unused_warehouses(tmp_path)
    for name in ("data/used/t", "data/unused/t", "data/hive/t", "tables"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("used", "unused"):
        (tmp_path / "data" / name / ".defined").touch()
    table = tmp_path / "tables" / "default.t.json"
    table.write_text(json.dumps({"location": "data/used/t"}))
    (tmp_path / "tables" / "default.v.json").write_text(json.dumps({"location": None}))
    table.with_suffix(".partial").touch()
    remove_unused_warehouses(tmp_path)
    assert {one.name for one in (tmp_path / "data").iterdir()} == {"used", "hive"}
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("catalog", ["hive", None])
def test_catalogs_that_remember_their_tables(
    shell: Any, context: KernelContext, monkeypatch: pytest.MonkeyPatch, catalog: str | None
) -> None:
    """The tables of a Hive metastore, and those of Spark Connect, are left alone."""
    session = types.SimpleNamespace(sparkContext=None)
    if catalog is not None:
        session._jsparkSession = None
        session.conf = {"spark.sql.catalogImplementation": catalog}
    _install_pyspark(monkeypatch, session)
    shell.run_cell("spark").raise_error()
    assert shell.user_ns["spark"] is session
    assert not Path(context.spark_folder).exists()


@pytest.mark.parametrize(
    ("cell", "needs"),
    [
        ("spark.range(3)", True),
        ("def f():\n    return sc", True),
        ("import pyspark.sql.functions as F", True),
        ("from pyspark.sql import Row", True),
        ("from pyspark.dbutils import DBUtils", False),
        ("import sparkle; x.spark = 'spark'", False),
        ("not python", False),
    ],
)
def test_which_cells_need_spark(cell: str, needs: bool) -> None:
    """A cell that names spark or sc, or imports pyspark, needs the session."""
    assert namespace._needs_spark(cell) is needs


def test_figure_is_shown_once(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure that was displayed is closed, so that it is not shown at the end of the cell."""
    closed: list[Any] = []
    pyplot: Any = types.ModuleType("matplotlib.pyplot")
    pyplot.close = closed.append
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    figure = type("Figure", (), {"__module__": "matplotlib.figure"})()
    shell.user_ns["figure"] = figure
    shell.run_cell("display(figure, 'text')").raise_error()
    assert closed == [figure]


def test_reading_notebooks(tmp_path: Path) -> None:
    """Cells come out ready to run: text as Markdown, magics for Jupyter, the rest as it is."""
    file = tmp_path / "n.py"
    file.write_text(
        f"{HEADER}# DBTITLE 1,A title\n# MAGIC %sql select 1\n"
        "# COMMAND ----------\n\n"
        "# COMMAND ----------\n# MAGIC %md-sandbox <b>\n"
        "# COMMAND ----------\n# MAGIC %sh\n# MAGIC ls\n"
        "# COMMAND ----------\nx = 1  # MAGIC no\n"
    )
    cells = [(cell.kind, cell.source) for cell in read_notebook(file)]
    assert cells == [
        ("code", "%%sql\nselect 1\n"),
        ("markdown", "<b>"),
        ("code", "%%sh\nls"),
        ("code", "x = 1  # MAGIC no"),
    ]
    root = tmp_path.resolve()
    assert notebook_in_root(root, "/n") == notebook_in_root(root, f"/{file.name}") == root / "n.py"
    assert notebook_in_root(root, "/m") is None
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(NotNotebookError, match="not text in UTF-8"):
        read_notebook(file)
    raw = tmp_path / "raw.ipynb"
    raw.write_text('{"cells": [{"cell_type": "raw", "source": "x"}]}')
    assert read_notebook(raw) == []


def test_paths_of_files(tmp_path: Path) -> None:
    """All kinds of paths are found below the root, and none beside it."""
    root = tmp_path.resolve()
    file = root / "a" / "x.py"
    for uri in ("dbfs:/a/x.py", "/a/x.py", "a/x.py", "file:/a/x.py", "/dbfs/a/x.py", str(file)):
        assert data_file_in_root(root, uri) == file
    assert file_in_root(root, "/Workspace/a/x.py") == file
    for path in ("/../x", "/a/../../x", "/a\0b", "/.workspace/x"):
        with pytest.raises(PathRefusedError):
            file_in_root(root, path)
