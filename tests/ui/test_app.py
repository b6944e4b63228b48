"""The page that lists runs and waits: permissions, escaping, filters, paging."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import quote

import airflow
import pytest

from tests.helpers.html_checks import problems_of
from tests.helpers.metadata import Metadata

pytestmark = [
    pytest.mark.skipif(
        tuple(map(int, airflow.__version__.split(".")[:2])) < (3, 1),
        reason="Airflow has no pages of plugins before 3.1",
    ),
    # Of Airflow's API, when it is imported.
    pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`"),
]

RUN_TRIGGER = "triggers.jobs.DatabricksJobRunTrigger"
SENSOR_TRIGGER = "triggers.sensor.DatabricksJobRunSensorTrigger"
PAGES = ("", "waits")
Get = Callable[..., Awaitable[Any]]


@pytest.fixture
def get(application: tuple[Any, Any], metadata: Metadata) -> Get:
    """Give what requests a page, as a user who may read all by default."""
    import httpx

    server, users = application

    async def request(
        path: str = "", user: str | None = "viewer", role: str | None = "viewer"
    ) -> Any:
        cookies = {} if user is None else {"_token": users.token(user, role)}
        transport = httpx.ASGITransport(app=server)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://airflow", cookies=cookies
        ) as client:
            return await client.get(f"/databricks-jobs/{path}")

    return request


def rows(page: Any) -> list[dict[str, str]]:
    """Return the rows of the last table of a page, by the headings of the columns."""
    assert page.status_code == 200, page.text
    tables = page.text.split("<table")
    cell = re.compile(r'<td data-label="([^"]*)"[^>]*>(.*?)</td>', re.DOTALL)
    if len(tables) == 1:
        return []
    return [
        {
            name: " ".join(unescape(re.sub("<[^>]*>", "", text)).split())
            for name, text in cell.findall(row)
        }
        for row in tables[-1].split("<tr>")[2:]
    ]


# -- permissions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
async def test_without_a_user_nothing_is_shown(get: Get, metadata: Metadata, path: str) -> None:
    """Who is not logged in gets 401, and a link to where to log in."""
    metadata.add_run("etl", 7001)
    page = await get(path, user=None)
    assert page.status_code == 401
    assert 'href="../"' in page.text
    assert "etl" not in page.text
    assert problems_of(page.text, relative=True) == []


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    ("user", "role"), [("nobody", None), ("no-TASK_INSTANCE", "viewer"), ("no-XCOM", "viewer")]
)
async def test_who_may_not_read_tasks_or_xcoms_is_refused(
    get: Get, metadata: Metadata, path: str, user: str, role: str | None
) -> None:
    """A page shows both, so Airflow's permission for each is needed."""
    metadata.add_run("etl", 7001)
    page = await get(path, user, role)
    assert page.status_code == 403
    assert "etl" not in page.text


async def test_a_forged_token_is_refused(get: Get, application: Any, metadata: Metadata) -> None:
    """The signature is Airflow's to check."""
    import httpx

    token = application[1].token("admin", "admin")
    head, payload, signature = token.split(".")
    forged = f"{head}.{payload}.{signature[::-1]}"
    transport = httpx.ASGITransport(app=application[0])
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
        for value, status in ((token, 200), (forged, 403), ("x", 403)):
            headers = {"Authorization": f"Bearer {value}"}
            page = await client.get("/databricks-jobs/", headers=headers)
            assert page.status_code == status


async def test_who_may_not_read_a_dag_sees_none_of_it(get: Get, metadata: Metadata) -> None:
    """Neither its runs nor its waits nor its name, by no filter, and it is in no number."""
    triggerer = metadata.add_triggerer("host-1")
    for dag_id, run_id in (("open", 7001), ("payroll", 8001)):
        metadata.add_run(dag_id, run_id)
        trigger = metadata.add_trigger(RUN_TRIGGER, {"run_id": run_id}, triggerer_id=triggerer)
        metadata.add_run(dag_id, run_id, state="deferred", trigger_id=trigger)
    for path in ("", "?dag=payroll", "?text=8001", "?text=payroll", "waits", "waits?dag=payroll"):
        page = await get(path, "only-open")
        seen = page.text.replace('value="payroll"', "").replace('value="8001"', "")
        assert "payroll" not in seen, path
        assert "8001" not in seen, path
        assert len(rows(page)) == {"": 2, "waits": 1}.get(path, 0)
    waits = (await get("waits", "only-open")).text
    assert '<td data-label="Waits">1</td>' in waits
    # The same pages for a user who may read both.
    assert len(rows(await get("?text=8001"))) == 2
    assert '<td data-label="Waits">2</td>' in (await get("waits")).text


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("verb", ["post", "put", "patch", "delete"])
async def test_nothing_can_be_changed(get: Get, application: Any, path: str, verb: str) -> None:
    """There are only requests that read."""
    import httpx

    transport = httpx.ASGITransport(app=application[0])
    cookies = {"_token": application[1].token("admin", "admin")}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://airflow", cookies=cookies
    ) as client:
        answer = await getattr(client, verb)(f"/databricks-jobs/{path}")
    assert answer.status_code == 405


# -- runs ------------------------------------------------------------------------------------------


async def test_a_run_is_shown_with_its_task(get: Get, metadata: Metadata) -> None:
    """Run, DAG, task, state, duration, try and job; links to Databricks and to Airflow."""
    metadata.add_run("etl", 7001, task_id="load", dag_run="manual__2026-01-01T00:00:00+00:00")
    page = await get()
    (row,) = rows(page)
    assert row.pop("Started (UTC)")
    assert row == {
        "Run": "7001",
        "DAG": "etl",
        "Task": "load manual__2026-01-01T00:00:00+00:00",
        "State": "✓success",
        "Duration": "1 min 15 s",
        "Try": "1",
        "Job": "12",
    }
    assert (
        '<a href="https://example.com/?o=1#job/12/run/7001" target="_blank" '
        'rel="noopener noreferrer">7001</a>'
    ) in page.text
    assert f'href="../dags/etl/runs/{quote("manual__2026-01-01T00:00:00+00:00")}/tasks/load"' in (
        page.text
    )
    assert problems_of(page.text, relative=True) == []


async def test_the_tasks_of_a_run_have_links(get: Get, metadata: Metadata) -> None:
    """To the page of each task's run; what a user has pushed under the key is no error."""
    metadata.add_run("etl", 7001, task_run_ids={"load": 71, "<b>": "72", "none": "x"})
    metadata.add_run("etl", 7002, task_run_ids=["load"])
    metadata.add_run("etl", 7003, page="no page", task_run_ids={"load": 73})
    # Of an earlier attempt of a task that starts in the triggerer.
    dag_run = metadata.add_run("etl", 7004, task_run_ids={"old": 74})
    metadata.age_xcom(dag_run, "task_run_ids")
    page = await get()
    cells = [row["Run"] for row in rows(page)]
    assert sorted(cells) == ["7001 2 tasks load <b>", "7002", "7003 1 task load: 73", "7004"]
    for run_id in (71, 72):
        assert f'href="https://example.com/?o=1#job/12/run/{run_id}"' in page.text
    assert "<b>" not in page.text
    assert problems_of(page.text, relative=True) == []


async def test_mapped_tasks_lead_to_their_index(get: Get, metadata: Metadata) -> None:
    """The link is that of the mapped task instance."""
    metadata.add_run("etl", 7001, task_id="load", map_index=3, dag_run="r")
    page = await get()
    assert rows(page)[0]["Task"] == "load [3] r"
    assert 'href="../dags/etl/runs/r/tasks/load/mapped/3"' in page.text


async def test_a_task_without_a_run_is_not_listed(get: Get, metadata: Metadata) -> None:
    """Airflow pushes an empty link for a task that failed before its launch."""
    metadata.add_task("etl", state="failed", xcoms={"run_page_url": ""})
    metadata.add_task("etl", xcoms={"return_value": 1})
    page = await get()
    assert rows(page) == []
    assert "No runs." in page.text


async def test_a_run_that_is_not_over_has_a_duration_so_far(get: Get, metadata: Metadata) -> None:
    """It began ten minutes ago."""
    metadata.add_run("etl", 7001, state="deferred")
    assert re.fullmatch(r"10 min \d+ s so far", rows(await get())[0]["Duration"])


async def test_filters(get: Get, metadata: Metadata) -> None:
    """By DAG, state, text, run id and period; what is not understood is ignored."""
    metadata.add_run("etl", 5, age=timedelta(days=8))
    metadata.add_run("etl", 1, task_id="load", state="success")
    metadata.add_run("etl", 2, task_id="report", state="failed")
    metadata.add_run("etl_2", 3, task_id="load", state="deferred")
    metadata.add_run("etl", 4, state=None)

    async def runs(query: str) -> str:
        return "".join(row["Run"] for row in rows(await get(f"?{query}")))

    assert await runs("") == "4321"
    assert await runs("days=30") == "43215"
    assert await runs("days=9") == await runs("state=odd") == await runs("before=odd") == "4321"
    assert await runs("dag=etl") == "421"
    assert await runs("dag=nothing") == ""
    assert await runs("state=failed") == "2"
    assert await runs("state=active") == "3"
    assert await runs("state=no_status") == "4"
    assert await runs("text=LOAD") == "31"
    assert await runs("text=etl_") == "3"
    assert await runs("text=%25") == ""
    metadata.add_run("etl", 90017)
    # Ids are whole. 12 is the job of all.
    assert await runs("text=90017") == "90017"
    assert await runs("text=9001") == ""
    assert await runs("text=12&dag=etl_2") == "3"
    assert await runs("text=90017&dag=etl_2") == ""
    assert "No run matches." in (await get("?dag=nothing")).text


@pytest.mark.parametrize("position", [r'[1, "\ud800", -1]', r'[1, "\u0000", -1]', '["", 1, {}]'])
@pytest.mark.parametrize("name", ["before", "after"])
async def test_text_that_no_database_takes(
    get: Get, metadata: Metadata, name: str, position: str
) -> None:
    """NUL is an error in PostgreSQL, and half a character in all of them."""
    metadata.add_run("etl", 1)
    assert (await get(f"?{name}={quote(position)}")).status_code == 200
    page = await get("?text=et%00l")
    assert [row["Run"] for row in rows(page)] == ["1"]
    assert "\0" not in page.text


async def test_a_run_whose_task_has_ended_in_the_triggerer(get: Get, metadata: Metadata) -> None:
    """Airflow stores what the trigger's event pushes as text that is JSON."""
    url = "https://example.com/?o=1#job/12/run/7001"
    metadata.add_run("etl", "7001", page=f'"{url}"')
    page = await get()
    assert rows(page)[0]["Run"] == "7001"
    assert f'href="{url}"' in page.text


async def test_run_ids_of_an_earlier_airflow_are_found(get: Get, metadata: Metadata) -> None:
    """A database that was migrated may have them as text."""
    metadata.add_run("etl", "7001")
    assert rows(await get("?text=7001"))[0]["Run"] == "7001"


async def test_paging(get: Get, metadata: Metadata) -> None:
    """Older and newer pages, each run once, with the filter kept."""
    for number in range(1, 121):
        metadata.add_run("etl", number)
    metadata.add_run("other", 999)

    pages, path = [], "?dag=etl"
    while path:
        page = await get(path)
        pages.append([int(row["Run"]) for row in rows(page)])
        older = re.search(r'href="./([^"]*)" rel="next"', page.text)
        path = unescape(older[1]) if older else ""
    assert pages == [list(range(120, 70, -1)), list(range(70, 20, -1)), list(range(20, 0, -1))]
    # And back.
    for expected in (pages[1], pages[0]):
        newer = re.search(r'href="./([^"]*)" rel="prev"', page.text)
        assert newer is not None
        page = await get(unescape(newer[1]))
        assert [int(row["Run"]) for row in rows(page)] == expected
        newest = re.search(r'href="./([^"]*)">Newest', page.text)
        assert (newest and newest[1]) == ("?dag=etl" if expected is pages[1] else None)


# -- waits -----------------------------------------------------------------------------------------


async def test_what_each_triggerer_waits_for(get: Get, metadata: Metadata) -> None:
    """Triggerers with host, heartbeat and number; waits with run, job or task."""
    one = metadata.add_triggerer("host-1")
    two = metadata.add_triggerer("host-2", age=timedelta(hours=1))
    for kind, arguments, triggerer, xcoms in (
        (RUN_TRIGGER, {"run_id": 7001}, one, {"run_id": 7001}),
        (SENSOR_TRIGGER, {"run_id": None, "job_id": "42"}, one, None),
        (SENSOR_TRIGGER, {"run_id": None, "job_name": "nightly"}, two, None),
        (
            "triggers.workflow.DatabricksWorkflowTaskTrigger",
            {"run_id": 9, "workflow_run_id": 8, "task_key": "load"},
            two,
            {"run_id": 9},
        ),
        ("operators.launch_trigger.DatabricksLaunchTrigger", {"job_id": 5}, None, None),
        ("operators.launch_trigger.DatabricksLaunchTrigger", {"operator": "x"}, one, {"run_id": 6}),
    ):
        trigger = metadata.add_trigger(kind, arguments, triggerer_id=triggerer)
        metadata.add_task("etl", state="deferred", trigger_id=trigger, xcoms=xcoms)
    page = await get("waits")
    assert [(row["Waits for"], row["Triggerer"]) for row in rows(page)] == [
        ("run 6", str(one)),
        ("its run to be launched", "none yet"),
        ("task load of run 8", str(two)),
        ("a run of job nightly", str(two)),
        ("a run of job 42", str(one)),
        ("run 7001", str(one)),
    ]
    table = re.sub(r"<[^>]*>", " ", page.text.partition("<table")[2].partition("</table>")[0])
    assert re.search(rf"{one}\s+host-1\s.*✓\s*alive\s+3\s", table, re.DOTALL)
    assert re.search(rf"{two}\s+host-2\s.*✕\s*not alive\s+2\s", table, re.DOTALL)
    assert len(rows(await get(f"waits?triggerer={two}"))) == 2
    # No id of the database has more than 32 bits. Some databases raise an error for one.
    assert len(rows(await get(f"waits?triggerer={2**31}&before={2**40}"))) == 6
    assert rows(await get("waits?dag=etl_")) == []
    assert problems_of(page.text, relative=True) == []


async def test_triggers_of_others_are_not_listed(get: Get, metadata: Metadata) -> None:
    """Only classes of this package are."""
    from airflow.models.trigger import Trigger

    with metadata.session() as session:
        session.add(Trigger("airflow_jobs_providers.x.Trigger", {"run_id": 7001}))
        session.add(Trigger("airflowXjobs_provider.x.Trigger", {"run_id": 7001}))
    assert rows(await get("waits")) == []


async def test_no_argument_of_a_trigger_is_shown_but_ids(get: Get, metadata: Metadata) -> None:
    """No connection, no payload, no templates: they may hold secrets."""
    secret = {
        "databricks_conn_id": "s3cret-connection",
        "retry_args": {"a": "s3cret"},
        "operator_arguments": {"json": {"token": "s3cret"}},
        "reached_by": "https://user:s3cret@proxy",
        "notebook_params": {"password": "s3cret"},
        "run_id": "s3cret",
        "caller": "s3cret",
    }
    trigger = metadata.add_trigger(RUN_TRIGGER, secret)
    metadata.add_task("etl", state="deferred", trigger_id=trigger)
    page = await get("waits")
    assert rows(page)[0]["Waits for"] == "unknown"
    assert "s3cret" not in page.text


async def test_arguments_that_cannot_be_read_are_no_error(get: Get, metadata: Metadata) -> None:
    """They may be encrypted with a key that is gone."""
    trigger = metadata.add_trigger(RUN_TRIGGER, {"run_id": 7001})
    metadata.add_task("etl", state="deferred", trigger_id=trigger)
    with metadata.session() as session:
        from airflow.models.trigger import Trigger

        session.get_one(Trigger, trigger).encrypted_kwargs = "gAAAAABm"
    assert rows(await get("waits"))[0]["Waits for"] == "unknown"


async def test_task_instances_are_not_read_as_a_whole(get: Get, metadata: Metadata) -> None:
    """Such as their ``executor_config``, which may be of a class that the API server lacks."""
    from sqlalchemy import text

    trigger = metadata.add_trigger(RUN_TRIGGER, {"run_id": 7001})
    metadata.add_task("etl", state="deferred", trigger_id=trigger)
    with metadata.session() as session:
        session.execute(text("UPDATE task_instance SET executor_config = X'00'"))
    assert rows(await get("waits"))[0]["Waits for"] == "run 7001"


async def test_watchers_of_assets_need_the_right_to_read_assets(
    get: Get, application: Any, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They belong to no DAG. Which runs a tag selects is not shown."""
    for arguments in ({"job_id": 5}, {"tags": {"team": "x"}}):
        kind = "triggers.run_events.DatabricksJobRunEventTrigger"
        metadata.watch(metadata.add_trigger(kind, arguments), "sales")
    found = [(row["Waits for"], row["DAG"]) for row in rows(await get("waits"))]
    assert found == [
        ("runs of several jobs", "asset sales"),
        ("each run of job 5", "asset sales"),
    ]
    monkeypatch.setattr(application[1], "is_authorized_asset", lambda **_: False)
    assert rows(await get("waits")) == []


async def test_the_trigger_of_a_cleared_task_is_not_listed(get: Get, metadata: Metadata) -> None:
    """It stays for some seconds. Nothing tells any more whether the user may read its DAG."""
    metadata.add_trigger(RUN_TRIGGER, {"run_id": 7001})
    page = await get("waits")
    assert rows(page) == []
    assert "7001" not in page.text
    assert "No trigger waits" in page.text


async def test_paging_of_waits(get: Get, metadata: Metadata) -> None:
    """Newest first; each wait is on one page."""
    for number in range(1, 61):
        trigger = metadata.add_trigger(RUN_TRIGGER, {"run_id": number})
        metadata.add_task("etl", state="deferred", trigger_id=trigger)
    page = await get("waits")
    older = re.search(r'href="([^"]*)" rel="next"', page.text)
    assert older is not None
    rest = await get(unescape(older[1]))
    assert [row["Waits for"] for row in rows(page) + rows(rest)] == [
        f"run {number}" for number in range(60, 0, -1)
    ]
    newer = re.search(r'href="([^"]*)" rel="prev"', rest.text)
    assert newer is not None
    again = rows(await get(unescape(newer[1])))
    assert [row["Trigger"] for row in again] == [row["Trigger"] for row in rows(page)]


# -- escaping --------------------------------------------------------------------------------------

EVIL = """"'><script>alert(1)</script><img src=x onerror=alert(1)>"""


@pytest.mark.parametrize(
    "query",
    [
        "",
        *(f"?{name}={quote(EVIL)}" for name in ("dag", "state", "text", "days", "before", "after")),
    ],
)
async def test_everything_on_the_page_of_runs_is_escaped(
    get: Get, metadata: Metadata, query: str
) -> None:
    """Names, states and XComs may hold anything; so may a query."""
    metadata.add_run(f"d{EVIL}", 7001, task_id=f"t{EVIL}", dag_run=f"r{EVIL}", state="success")
    metadata.add_run("etl", EVIL, page="javascript:alert(1)", state="<b>")
    metadata.add_run("etl", 7, page="data:text/html,x")
    metadata.add_run("etl", 8, page={"a": 1})
    metadata.add_run("etl", 9, page=f"https://x/{EVIL}")
    page = await get(query)
    assert page.status_code == 200
    assert problems_of(page.text, relative=True) == []
    assert "<script>" not in page.text
    assert "<img" not in page.text
    assert "<b>" not in page.text
    assert "javascript:" not in page.text
    assert "data:text" not in page.text


@pytest.mark.parametrize(
    "query", ["", *(f"?{name}={quote(EVIL)}" for name in ("dag", "triggerer", "before", "after"))]
)
async def test_everything_on_the_page_of_waits_is_escaped(
    get: Get, metadata: Metadata, query: str
) -> None:
    """Hosts, classes and names of jobs, too."""
    triggerer = metadata.add_triggerer(f"h{EVIL}")
    arguments = {"run_id": None, "job_name": f"j{EVIL}"}
    trigger = metadata.add_trigger(f"k{EVIL}", arguments, triggerer_id=triggerer)
    metadata.add_task(f"d{EVIL}", f"t{EVIL}", state="deferred", dag_run="r", trigger_id=trigger)
    page = await get(f"waits{query}")
    assert page.status_code == 200
    assert problems_of(page.text, relative=True) == []
    assert "<script>" not in page.text
    assert "<img" not in page.text


@pytest.mark.parametrize("path", [*PAGES, "nothing", "static/page.css", "static/../app.py"])
async def test_headers_forbid_scripts_framing_and_caching(get: Get, path: str) -> None:
    """Should the escaping fail somewhere, the browser runs no foreign script."""
    headers = (await get(path)).headers
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    if not path.startswith("static"):
        assert headers["Cache-Control"] == "no-store"
        assert "script-src 'self'" in headers["Content-Security-Policy"]


async def test_static_files(get: Get) -> None:
    """Those of the page are served, and no others."""
    for name, kind in (("page.css", "text/css"), ("theme.js", "text/javascript")):
        answer = await get(f"static/{name}", user=None)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith(kind)
    for name in ("app.py", "..%2Fapp.py", "%2Fetc%2Fpasswd", ""):
        assert (await get(f"static/{name}")).status_code == 404
