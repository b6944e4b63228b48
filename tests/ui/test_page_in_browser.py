"""The page in a browser: small and dark screens, the keyboard, Airflow's choice of colours."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import airflow
import pytest

from tests.helpers.browser import POOR_CONTRAST, open_browser
from tests.helpers.metadata import Metadata

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        tuple(map(int, airflow.__version__.split(".")[:2])) < (3, 1),
        reason="Airflow has no pages of plugins before 3.1",
    ),
    # Of Airflow's API, when it is imported.
    pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`"),
]


@pytest.fixture
def url(application: tuple[Any, Any], metadata: Metadata) -> Iterator[str]:
    """Serve the application on loopback."""
    import uvicorn

    config = uvicorn.Config(application[0], port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/databricks-jobs/"
    server.should_exit = True
    thread.join()


async def test_the_page_on_all_screens(
    url: str, application: tuple[Any, Any], metadata: Metadata
) -> None:
    """It fits a phone, has enough contrast, works by keyboard, and keeps its own policy."""
    triggerer = metadata.add_triggerer("host-1")
    for state in ("success", "failed", "skipped", "up_for_retry", None):
        metadata.add_run("a_dag_with_a_long_name_" * 5, 10**15, state=state, dag_run=f"r{state}")
    trigger = metadata.add_trigger("triggers.jobs.X", {"run_id": 1}, triggerer_id=triggerer)
    metadata.add_run("etl", 7001, state="deferred", trigger_id=trigger)
    async with open_browser() as browser:
        await browser.send(
            "Network.setCookie", name="_token", value=application[1].token("viewer"), url=url
        )
        for width in (360, 1300):
            for dark in (False, True):
                await browser.show(width=width, dark=dark)
                for path in ("", "waits"):
                    await browser.goto(url + path)
                    assert await browser.value("document.querySelectorAll('tbody tr').length") > 1
                    assert await browser.value("document.documentElement.scrollWidth") <= width
                    assert await browser.value(POOR_CONTRAST) == []
        # The theme that a user has chosen in Airflow's UI, which is on the same origin.
        await browser.value("localStorage.setItem('theme', 'light')")
        await browser.goto(url)
        colour = "getComputedStyle(document.body).backgroundColor"
        assert await browser.value(colour) == "rgb(255, 255, 255)"
        for _ in range(5):  # the links at the top, and the field of the DAG
            await browser.press("Tab", 9)
        await browser.type("etl")
        await browser.press("Enter", 13, "\r")
        await browser.until("location.search.includes('dag=etl')")
        await browser.until("document.querySelectorAll('tbody tr').length === 1")
        assert browser.problems == []
