"""The pages in a browser: following a run, buttons, foreign pages, small and dark screens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from airflow_jobs_provider.local.engine.scripted_results import ScriptedEnd, ScriptedResult
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.helpers.browser import POOR_CONTRAST, Browser, open_browser
from tests.local.api import CLUSTER, Api

pytestmark = pytest.mark.slow

NOTEBOOK = {"notebook_task": {"notebook_path": "/Shared/etl"}, **CLUSTER}
TASKS = [
    {"task_key": "load", **NOTEBOOK},
    {"task_key": "a_task_with_a_very_long_name_" * 3, **NOTEBOOK},
    {"task_key": "report", "depends_on": [{"task_key": "load"}], **NOTEBOOK},
]


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Return a workspace whose runs end at once, but those that are named "stuck"."""
    with LocalWorkspace(tmp_path_factory.mktemp("dry"), dry_run=True) as workspace:
        workspace.simulation.results.add(ScriptedResult("stuck", ScriptedEnd.NEVER))
        yield Api(workspace)


def is_shown(text: str) -> str:
    """Return the expression that is true when the page's head has a text."""
    return f"document.getElementById('head').textContent.includes('{text}')"


def is_logged(text: str) -> str:
    """Return the expression that is true when the log on the page has a text."""
    return f"document.getElementById('log').textContent.includes('{text}')"


async def test_a_process_is_followed(api: Api, tmp_path: Path) -> None:
    """The log fills while a process writes it; its end and a repair are shown without a reload."""
    assert isinstance(api.workspace, LocalWorkspace)
    go_on, succeed = tmp_path / "go-on", tmp_path / "succeed"
    run_id = api.submit_python(
        "import sys, time, os\n"
        "print('early', flush=True)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.02)\n"
        "print('<b>late</b>')\n"
        "sys.exit(not os.path.exists(sys.argv[2]))",
        str(go_on),
        str(succeed),
    )
    is_followed = "'follows' in document.getElementById('log').dataset"
    async with open_browser() as browser:
        await browser.goto(api.workspace.pages_url)
        await browser.goto(f"{api.workspace.url}/runs/{run_id}")
        await browser.value("window.isSame = true")
        for end in ("Failed", "Succeeded"):
            await browser.until(f"{is_followed} && {is_logged('early')}")
            assert not await browser.value(is_logged("late"))
            assert await browser.value("document.querySelector('[data-action$=cancel]') !== null")
            go_on.touch()
            await browser.until(is_logged("<b>late</b>"))
            await browser.until(is_shown(end))
            assert await browser.value(f"window.isSame && document.title.startsWith('{end}')")
            assert await browser.value("document.querySelector('[data-action$=cancel]') === null")
            if end == "Failed":
                go_on.unlink()
                succeed.touch()
                await browser.value("document.querySelector('[data-action$=repair]').click()")
        assert browser.problems == []


async def test_a_notebook_is_followed(api: Api, tmp_path: Path) -> None:
    """Its cells fill while they run; then comes its frame, fitted in height, without scripts."""
    go_on = tmp_path / "go-on"
    script = "<script>parent.document.title = 'taken over'</script><p>end of the notebook"
    notebook = api.notebook(
        "print('early')",
        f"import os, time\nwhile not os.path.exists({str(go_on)!r}): time.sleep(0.02)",
        "for line in range(100): print('line', line)",
        f"displayHTML('''{script}''')",
    )
    run_id = api.submit(notebook_task={"notebook_path": notebook})
    async with open_browser() as browser:
        await browser.goto(f"{api.workspace.url}/runs/{run_id}")
        await browser.until("document.querySelector('#cells pre + pre')?.textContent == 'early\\n'")
        await browser.until(
            "document.querySelector('#cells li.running')?.textContent.includes('import os')"
        )
        go_on.touch()
        await browser.until("document.querySelector('iframe') !== null")
        frame = "document.querySelector('iframe')"
        await browser.until(
            f"{frame}.contentDocument.body?.textContent.includes('end of the notebook')"
        )
        await browser.until(f"{frame}.clientHeight >= {frame}.contentDocument.body.scrollHeight")
        assert await browser.value(f"{frame}.clientHeight > 1500")
        assert await browser.value("document.title.startsWith('Succeeded')")
        # The notebook's own page runs no scripts either.
        await browser.goto(f"{api.workspace.url}/runs/{run_id}/notebook")
        assert "taken over" not in await browser.value("document.title")
        assert all("Blocked script execution" in one for one in browser.problems)


async def test_buttons_by_keyboard(dry: Api) -> None:
    """Tab reaches a button; it asks for the token once; then the other buttons work at once."""
    run_id = dry.submit(run_name="stuck", **NOTEBOOK)
    async with open_browser() as browser:
        await browser.goto(f"{dry.workspace.url}/runs/{run_id}")
        await _tab_to(browser, "document.activeElement.dataset.action?.endsWith('/cancel')")
        await browser.press("Enter", 13, "\r")
        await browser.until("document.activeElement.id == 'key-token'")
        await browser.type("wrong")
        await browser.press("Enter", 13, "\r")
        await browser.until("!document.getElementById('message').hidden")
        assert dry.run(run_id)["state"]["life_cycle_state"] == "RUNNING"
        await browser.until("document.activeElement.id == 'key-token'")
        await browser.type(dry.workspace.token)
        await browser.press("Enter", 13, "\r")
        await browser.until(is_shown("Canceled"))
        assert await browser.value("document.getElementById('message').hidden")
        await browser.value("document.querySelector('[data-action$=repair]').click()")
        await browser.until(is_shown("Running"))
        await browser.value("document.querySelector('[data-action$=run-again]').click()")
        await browser.until(f"location.pathname != '/runs/{run_id}'")
        again = int((await browser.value("location.pathname")).removeprefix("/runs/"))
        assert dry.run(again)["run_name"] == "stuck"
        # The wrong token was refused.
        assert [one for one in browser.problems if "403 (Forbidden)" not in one] == []
        assert len(browser.problems) == 1
        await browser.until("document.querySelector('#request pre') !== null")
        copied = "document.querySelector('[data-copy=curl]').textContent == 'Copied'"
        selected = "getSelection().toString().startsWith('curl --request POST')"
        await browser.value("document.querySelector('[data-copy=curl]').click()")
        await browser.until(f"{copied} || {selected}")
        # The list of requests is shown at once, and has no token in it.
        await browser.goto(f"{dry.workspace.url}/requests")
        await browser.until("document.querySelector('.requests') !== null")
        assert dry.workspace.token not in await browser.value("document.body.textContent")
        assert dry.workspace.token not in await browser.value("JSON.stringify(localStorage)")


async def _tab_to(browser: Browser, condition: str) -> None:
    for _ in range(30):
        await browser.press("Tab", 9)
        if await browser.value(condition):
            return
    raise AssertionError("The keyboard does not reach it")


async def test_a_foreign_page_cannot_press_buttons(dry: Api) -> None:
    """A page of another origin cancels nothing, though the user has the key in this browser."""
    assert isinstance(dry.workspace, LocalWorkspace)
    run_id = dry.submit(run_name="stuck", **NOTEBOOK)
    target = f"{dry.workspace.url}/actions/runs/{run_id}/cancel"
    page = f"""<!doctype html><title>foreign</title>
      <iframe id="frame" src="{dry.workspace.url}/runs/{run_id}"></iframe>
      <iframe id="result" name="result"></iframe>
      <form method="post" action="{target}" target="result"></form>
      <script>
        const sent = new Promise((done) => (document.getElementById("result").onload = done));
        document.forms[0].submit();
        Promise.allSettled([
          fetch("{target}", {{method: "POST", mode: "no-cors", credentials: "include"}}),
          fetch("{target}", {{method: "POST", headers: {{Authorization: "Bearer x"}}}}),
          fetch("{dry.workspace.url}/runs/{run_id}").then((answer) => answer.text()),
          sent,
        ]).then((all) => (window.outcomes = all.map((one) => one.status)));
      </script>"""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        [(_, port)] = runner.addresses
        async with open_browser() as browser:
            await browser.goto(dry.workspace.pages_url)
            await browser.until("localStorage.getItem('local-workspace-key') !== null")
            assert await browser.value("location.hash") == ""
            await browser.goto(f"http://127.0.0.1:{port}/")
            # The first one was sent, and refused: its answer cannot be read.
            outcomes = ["fulfilled", "rejected", "rejected", "fulfilled"]
            assert await browser.until("window.outcomes") == outcomes
            assert await browser.value("document.getElementById('frame').contentDocument") is None
            assert any("frame-ancestors" in one for one in browser.problems)
    finally:
        await runner.cleanup()
    assert dry.run(run_id)["state"]["life_cycle_state"] == "RUNNING"


async def test_phone_and_dark_screens(dry: Api) -> None:
    """No page is wider than a phone, and all texts are readable in both colour schemes."""
    job_id = dry.create(name="a job with an extremely-long-name-" * 4, version="2.1", tasks=TASKS)
    for _ in range(20):
        done = dry.wait(dry.run_now(job_id))["run_id"]
    stuck = dry.submit(run_name="stuck", **NOTEBOOK)
    assert isinstance(dry.workspace, LocalWorkspace)
    async with open_browser() as browser:
        await browser.goto(dry.workspace.pages_url)
        paths = ("/", "/jobs", f"/jobs/{job_id}", f"/runs/{done}", f"/runs/{stuck}", "/requests")
        for path in paths:
            await browser.goto(dry.workspace.url + path)
            # With the key in the browser these are shown without a question.
            await browser.until("document.querySelector('[data-load]') === null")
            for width, dark in ((390, False), (390, True), (1200, True), (1200, False)):
                await browser.show(width=width, dark=dark)
                assert await browser.value(POOR_CONTRAST) == [], (path, dark)
                wide = await browser.value("document.documentElement.scrollWidth")
                assert wide <= width, path
            if path == f"/jobs/{job_id}":
                await browser.show(width=390)
                await browser.goto(dry.workspace.url + path)
                # A word is not broken into letters, and the latest run is in sight.
                assert await browser.value("document.querySelector('tbody th').clientHeight < 40")
                latest = "[...document.querySelectorAll('.matrix thead a')].at(-1)"
                await browser.until(f"{latest}.getBoundingClientRect().right <= 390")
        assert browser.problems == []
