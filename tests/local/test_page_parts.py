"""Parts of the pages on their own: graph, timeline, snippets, what is followed, colours."""

from __future__ import annotations

import ast
import json
import re
import shlex
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.api.states import RunLifeCycleState, RunResultState
from airflow_jobs_provider.local.engine.model import Output, Run
from airflow_jobs_provider.local.engine.runner import LiveNotebook
from airflow_jobs_provider.local.engine.store import Store
from airflow_jobs_provider.local.pages.graph import lay_out
from airflow_jobs_provider.local.pages.live_notebook import NotebookFollower
from airflow_jobs_provider.local.pages.log_files import LogFollower, log_end
from airflow_jobs_provider.local.pages.page_store import PageStore
from airflow_jobs_provider.local.pages.render import SHOWN_CHARS, span
from airflow_jobs_provider.local.pages.run_page import render_run
from airflow_jobs_provider.local.pages.snippets import curl, dag_of, request_of
from airflow_jobs_provider.local.pages.states import StateKind, kind_of_states
from airflow_jobs_provider.local.pages.timeline import repairs_of, timeline_of
from airflow_jobs_provider.local.runners.notebook_changes import NotebookChanges
from tests.helpers.html_checks import problems_of

TERMINATED, SUCCESS = RunLifeCycleState.TERMINATED, RunResultState.SUCCESS


def run(run_id: int = 1, **fields: Any) -> Run:
    """Return a run that has ended well."""
    return Run(
        **{
            "run_id": run_id,
            "job_id": 9,
            "number_in_job": 1,
            "run_name": "etl",
            "run_type": "JOB_RUN",
            "creator_user_name": "me",
            "task": {"notebook_task": {"notebook_path": "/etl"}},
            "cluster_spec": {},
            "original_attempt_run_id": run_id,
            "start_time": 1_000,
            "end_time": 2_000,
            "life_cycle_state": TERMINATED,
            "result_state": SUCCESS,
            **fields,
        }
    )


def test_every_state_is_shown_as_one_kind() -> None:
    """All states of the API have a kind; only the successful ones are shown as such."""
    for state in RunLifeCycleState:
        for result in (None, *RunResultState):
            kind = kind_of_states(state, result)
            assert kind.label
            if kind is StateKind.SUCCEEDED:
                assert result in {SUCCESS, RunResultState.SUCCESS_WITH_FAILURES}
    assert kind_of_states(RunLifeCycleState.INTERNAL_ERROR, None) is StateKind.FAILED
    assert kind_of_states(RunLifeCycleState.SKIPPED, None) is StateKind.SKIPPED
    assert kind_of_states(RunLifeCycleState.BLOCKED, None) is StateKind.WAITING


def task(key: str, *above: str) -> dict[str, Any]:
    """Return a task that depends on others."""
    return {"task_key": key, "depends_on": [{"task_key": one} for one in above]}


def test_graph() -> None:
    """A task stands right of all that it depends on, and no two boxes overlap."""
    tasks = [task("d", "b", "c"), task("a"), task("b", "a"), task("c", "a"), task("e", "a", "d")]
    graph = lay_out(tasks)
    at = {node.key: node for node in graph.nodes}
    for one in tasks:
        for needed in one["depends_on"]:
            above = at[needed["task_key"]]
            assert above.x + above.width < at[one["task_key"]].x
    assert at["b"].x == at["c"].x
    assert abs(at["b"].y - at["c"].y) >= at["b"].height
    assert len(graph.edges) == 6
    assert all(node.x + node.width <= graph.width for node in graph.nodes)
    assert all(0 <= node.y <= graph.height - node.height for node in graph.nodes)


def test_odd_graphs() -> None:
    """A cycle, or a task that depends on one that is not there, has a graph, too."""
    assert len(lay_out([task("a", "b"), task("b", "a")]).nodes) == 2
    assert lay_out([task("a", "gone")]).edges == []
    assert lay_out([]).nodes == []
    chain = [task(str(number), str(number - 1)) for number in range(1, 1000)]
    assert len(lay_out([task("0"), *chain]).edges) == 999


def test_timeline_cuts_pauses() -> None:
    """An hour between a run and its repair takes little room; the bars keep their proportions."""
    hour = 3_600_000
    children = [
        run(2, task_key="a", parent_run_id=1, start_time=0, end_time=4_000),
        run(3, task_key="b", parent_run_id=1, start_time=4_000, end_time=6_000),
        run(
            4, task_key="b", parent_run_id=1, start_time=hour, end_time=hour + 2_000,
            attempt_number=1,
        ),
    ]  # fmt: skip
    timeline = timeline_of(run(), children, [])
    assert timeline is not None
    assert [row.label for row in timeline.rows] == ["a", "b"]
    [a], [b, again] = (row.bars for row in timeline.rows)
    assert b.x == pytest.approx(a.x + a.width, abs=0.2)
    assert a.width == pytest.approx(2 * b.width, abs=0.2)
    assert again.width == pytest.approx(b.width, abs=0.2)
    assert again.x + again.width == pytest.approx(1000, abs=0.2)
    [(middle, millis)] = timeline.gaps
    assert b.x + b.width < middle < again.x
    assert millis == hour - 6_000
    assert timeline.rows[1].run_id == 4


def test_timeline_of_a_run_without_work() -> None:
    """A task that was skipped has no bar; a run that waits has no timeline."""
    skipped = run(2, task_key="a", parent_run_id=1, result_state=RunResultState.UPSTREAM_FAILED)
    assert timeline_of(run(), [skipped], []) is None
    queued = run(life_cycle_state=RunLifeCycleState.QUEUED, result_state=None, end_time=0)
    assert timeline_of(queued, [], [queued]) is None


def test_repairs_of_a_run_of_one_task() -> None:
    """Each repair is a bar and a row, with the state that it ended in."""
    failed = {"life_cycle_state": "INTERNAL_ERROR", "result_state": "FAILED"}
    repaired = run(
        end_time=9_000,
        history=[
            {"type": "ORIGINAL", "start_time": 1_000, "end_time": 2_000, "state": failed,
             "task_run_ids": [1]},
            {"type": "REPAIR", "id": 5, "start_time": 7_000, "task_run_ids": [1]},
        ],
    )  # fmt: skip
    timeline = timeline_of(repaired, [], [repaired])
    assert timeline is not None
    assert [bar.kind for bar in timeline.rows[0].bars] == [StateKind.FAILED, StateKind.SUCCEEDED]
    assert [(one.name, one.millis) for one in repairs_of(repaired)] == [
        ("original run", 1_000),
        ("repair 1", 2_000),
    ]


@pytest.mark.parametrize(
    ("millis", "text"),
    [(40, "0.0 s"), (59_949, "59.9 s"), (61_000, "1 min 1 s"), (7_260_000, "2 h 1 min"),
     (90_000_000, "1 d 1 h")],
)  # fmt: skip
def test_span(millis: int, text: str) -> None:
    """A duration has its two largest units."""
    assert span(millis) == text


# Snippets

ODD = {"a": 'it\'s "quoted" $HOME `x`', "b": "{{job.id}}", "c": [1, True, None], "d": "ä\n{%x"}


def test_curl_is_what_the_shell_passes() -> None:
    """The shell gives curl the body as it is; the token comes from a variable."""
    words = shlex.split(curl("POST", "http://h/run-now?a=b'c", ODD).replace("\\\n", ""))
    assert json.loads(words[words.index("--data") + 1]) == ODD
    assert "http://h/run-now?a=b'c" in words
    assert "Authorization: Bearer $DATABRICKS_TOKEN" in words
    assert curl("GET", "http://h/get", {"run_id": 1}).endswith("'http://h/get?run_id=1'")


def test_dag_sends_the_request() -> None:
    """The operator's json is the request, but for its token; Databricks' references are kept."""
    text = dag_of("runs/submit", {**ODD, "idempotency_token": "used"})
    assert text is not None
    [call] = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "").startswith("Databricks")
    ]
    [payload] = [ast.literal_eval(one.value) for one in call.keywords if one.arg == "json"]
    from jinja2.sandbox import SandboxedEnvironment

    # As Airflow renders a field.
    rendered = {
        name: SandboxedEnvironment().from_string(value).render()
        if isinstance(value, str)
        else value
        for name, value in payload.items()
    }
    assert rendered == ODD
    assert dag_of("runs/get", {}) is None


def test_request_of_a_repaired_run() -> None:
    """It is launched again as it was launched, not as it was repaired."""
    history = [{"overriding_parameters": {"notebook_params": {"day": "1"}}}]
    repaired = run(overriding_parameters={"notebook_params": {"day": "2"}}, history=history)
    assert request_of(repaired) == ("run-now", {"job_id": 9, "notebook_params": {"day": "1"}})


# What is followed


def test_results_of_sql_on_the_page(tmp_path: Path) -> None:
    """The page has the statements, and the first rows of each result; what is cut is told."""
    file = tmp_path / "store.sqlite"
    store = Store(file)
    store.add_runs([run(task={"sql_task": {"file": {"path": "/q.sql"}}})])
    results = [
        {"columns": [], "rows": [], "truncated": False},
        {"columns": ["<a>", "b"], "rows": [[1, None], ["x" * 999, {"k": 2}]], "truncated": False},
        {"columns": ["n"], "rows": [[n] for n in range(60)], "truncated": False},
    ]
    sql = {"query_text": "SELECT '<b>'", "results": results}
    store.save_output(1, Output(sql=sql, info="<unpacked>"))
    store.close()
    with closing(PageStore(file)) as pages:
        page = render_run(1, pages, (tmp_path / "1.ipynb", tmp_path / "1.log"))
    assert page is not None
    assert problems_of(page) == []
    assert "SELECT &#39;&lt;b&gt;&#39;" in page
    assert "&lt;unpacked&gt;" in page
    assert "<td>1</td><td>NULL</td>" in page
    assert f"<td>{'x' * 200}…</td><td>{{&#34;k&#34;: 2}}</td>" in page
    assert page.count('<th scope="col">') == 3
    assert "<td>49</td>" in page
    assert "<td>50</td>" not in page
    assert page.count("There are more rows") == 1


def test_log_follower(tmp_path: Path) -> None:
    """It returns what is added, whole characters only, and notices a new log."""
    log = tmp_path / "log"
    follower = LogFollower(log, 0)
    assert follower.read() == ""
    log.write_bytes(b"eins\nzw" + "ö".encode()[:1])
    assert follower.read() == "eins\nzw"
    with log.open("ab") as opened:
        opened.write("ö".encode()[1:] + b"lf\xff\n")
    assert follower.read() == "ölf\ufffd\n"
    assert not follower.is_new
    assert follower.read() == ""
    log.write_text("new")
    assert (follower.read(), follower.is_new) == ("new", True)


def test_end_of_a_large_log(tmp_path: Path) -> None:
    """Only the end of a log is read, at first and when much is added at once."""
    log = tmp_path / "log"
    log.write_bytes(b"x" * 3 * SHOWN_CHARS + b"end")
    text, offset = log_end(log)
    assert text.endswith("xend")
    assert len(text) == SHOWN_CHARS
    assert offset == 3 * SHOWN_CHARS + 3
    follower = LogFollower(log, 0)
    parts = [follower.read(), follower.read()]
    assert len("".join(parts)) == SHOWN_CHARS
    assert parts[1].endswith("xend")
    assert log_end(tmp_path / "none") == ("", 0)


def test_changed_cells_of_a_notebook() -> None:
    """Those cells are told that have changed, as text."""
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "source": "# title"},
        {"cell_type": "code", "source": "print(1)", "execution_count": 1, "outputs": []},
        {"cell_type": "code", "source": "2", "execution_count": None, "outputs": []},
    ]
    changes = NotebookChanges({"cells": cells})
    assert [cell["source"] for cell in changes.changed_cells()] == ["# title", "print(1)", "2"]
    assert changes.changed_cells() == []
    cells[1]["outputs"].append({"output_type": "stream", "text": "1\n"})
    [cell] = changes.changed_cells()
    assert (cell["index"], cell["output"], cell["is_running"]) == (1, "1\n", True)
    cells[2]["execution_count"] = 2
    html = {"text/html": "<b>2</b>", "text/plain": "2"}
    cells[2]["outputs"].append({"output_type": "execute_result", "data": html})
    first, second = changes.changed_cells()
    assert not first["is_running"]
    assert second["output"] == "(HTML: shown when the run has ended)\n"
    error = {"output_type": "error", "traceback": ["\x1b[31mValueError\x1b[0m"]}
    cells[2]["outputs"] = [error]
    [cell] = changes.changed_cells()
    assert cell["output"] == "ValueError\n"


def test_pages_follow_a_notebook() -> None:
    """Each page gets all cells first, and then those that have changed."""
    live: LiveNotebook | None = None
    early = NotebookFollower(lambda: live)
    assert early.changed_cells() == []
    live = LiveNotebook()
    live.update([{"index": 0, "output": ""}, {"index": 1, "output": ""}])
    assert [cell["index"] for cell in early.changed_cells()] == [0, 1]
    live.update([{"index": 1, "output": "1"}])
    late = NotebookFollower(lambda: live)
    assert [cell["output"] for cell in early.changed_cells()] == ["1"]
    assert [cell["output"] for cell in late.changed_cells()] == ["", "1"]
    assert early.changed_cells() == late.changed_cells() == []


# Colours


def _luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast() -> None:
    """Each text has the contrast 4.5 that WCAG AA asks for, in the light and in the dark scheme."""
    sheet = (
        resources.files("airflow_jobs_provider.local.pages") / "static" / "pages.css"
    ).read_text()
    colours = dict(re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}, #[0-9a-f]{6})\)", sheet))
    pairs = {name: text.split(", ") for name, text in colours.items()}
    texts = [(name, back) for name in ("text", "quiet", "link") for back in ("back", "soft")]
    texts += [(name, f"{name}-back") for name in ("good", "bad", "work", "wait", "none")]
    texts += [("bad", "soft"), ("text", "bad-back"), ("text", "good-back"), ("text", "work-back")]
    for name, back in texts:
        for scheme in (0, 1):
            light, dark = sorted(
                (_luminance(pairs[name][scheme]), _luminance(pairs[back][scheme])), reverse=True
            )
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, back, scheme)
