"""The pages for people are readable without the token, and harmless whatever a notebook prints."""

from __future__ import annotations

import requests

from tests.local.api import Api

EVIL = "<script>alert(1)</script>"


def test_run_page(api: Api) -> None:
    """A run's page shows its state, parameters, result and notebook, all of it escaped."""
    cell = f"print('printed')\ndisplayHTML('''{EVIL}''')\ndbutils.notebook.exit('''{EVIL}''')"
    run, _ = api.run_notebook(cell, evil=EVIL)
    page = requests.get(run["run_page_url"], timeout=10)
    assert page.status_code == 200
    assert EVIL not in page.text
    assert page.text.count("&lt;script&gt;") >= 2
    assert "TERMINATED / SUCCESS" in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "Access-Control-Allow-Origin" not in page.headers
    assert f'<iframe sandbox src="/runs/{run["run_id"]}/notebook"' in page.text
    notebook = requests.get(run["run_page_url"] + "/notebook", timeout=10)
    assert "printed" in notebook.text
    policy = notebook.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "allow-" not in policy


def test_page_of_a_failed_run(api: Api) -> None:
    """A failed run's page shows its error and where it came from."""
    run, _ = api.run_notebook(f"raise ValueError('''{EVIL}''')")
    page = requests.get(run["run_page_url"], timeout=10).text
    assert EVIL not in page
    assert "ValueError: &lt;script&gt;" in page
    assert "INTERNAL_ERROR / FAILED" in page


def test_page_of_a_python_run(api: Api) -> None:
    """A Python file's page shows what it wrote."""
    run_id = api.submit_python(f"print('''{EVIL}''')", "first")
    run = api.wait(run_id)
    page = requests.get(run["run_page_url"], timeout=10).text
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert "first" in page
    assert requests.get(run["run_page_url"] + "/notebook", timeout=10).status_code == 404


def test_list_of_runs(api: Api) -> None:
    """The first page lists the latest runs, with links to theirs."""
    run_id = api.submit_python("print(1)", run_name="<i>name</i>")
    api.wait(run_id)
    page = requests.get(api.workspace.url, timeout=10).text
    assert f'href="/runs/{run_id}"' in page
    assert "&lt;i&gt;name&lt;/i&gt;" in page


def test_page_of_no_run(api: Api) -> None:
    """A run that is not there has a page that says so; a page takes GET only."""
    assert requests.get(f"{api.workspace.url}/runs/987654", timeout=10).status_code == 404
    assert requests.get(f"{api.workspace.url}/runs/x", timeout=10).status_code == 404
    assert requests.post(f"{api.workspace.url}/runs/1", timeout=10).status_code == 404
