"""The page on which ``make airflow`` opens: it leads to Airflow and to the local workspace.

It is a file that only this user can read, since it has Airflow's password and the key of the
workspace's pages.
"""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from scripts.airflow_env import write_private_file

__all__ = ["can_open_browser", "open_in_browser", "write_start_page"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Airflow and its local workspace</title>
<style>
:root {{ color-scheme: light dark; --line: light-dark(#d0d7de, #30363d);
  --quiet: light-dark(#57606a, #9da7b3); --link: light-dark(#0550ae, #6cb6ff); }}
body {{ margin: 0; font: 16px/1.5 system-ui, sans-serif; background: light-dark(#ffffff, #0d1117);
  color: light-dark(#1f2328, #e6edf3); }}
main {{ max-width: 58rem; margin: 0 auto; padding: 1.5rem 1.2rem 4rem; }}
a {{ color: var(--link); }}
a:focus-visible {{ outline: 3px solid var(--link); outline-offset: 2px; }}
h1 {{ font-size: 1.5rem; }}
h2 {{ margin: 1.8rem 0 .5rem; font-size: 1.2rem; }}
section h2 {{ margin-top: 0; }}
.doors {{ display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }}
section {{ border: 1px solid var(--line); border-radius: 8px; padding: 1rem 1.2rem; }}
dl {{ display: grid; grid-template-columns: auto 1fr; gap: .2rem 1rem; margin: 1rem 0 0; }}
dt, .quiet {{ color: var(--quiet); }}
dd {{ margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .9rem; }}
li {{ margin: .3rem 0; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<main>
<h1>Airflow and its local workspace</h1>
<div class="doors">
<section>
<h2><a href="{airflow}">Airflow</a></h2>
<p>Trigger a DAG, and follow its tasks. A task's link "See Databricks Job Run" opens the run in the
workspace.</p>
<dl><dt>User</dt><dd>{user}</dd><dt>Password</dt><dd>{password}</dd></dl>
</section>
<section>
<h2><a href="{pages}">Local workspace</a></h2>
<p>See the jobs and runs that the DAGs launch, with their logs and notebooks.
Cancel, repair and launch runs.</p>
<dl><dt>Connection</dt><dd>databricks_default</dd><dt>Notebooks</dt><dd>{root}</dd></dl>
</section>
</div>
<h2 id="dags">DAGs to begin with</h2>
<ul aria-labelledby="dags">
{dags}
</ul>
<p class="quiet">Ctrl-C in the terminal stops both.
The logs of Airflow's components are in {home}.</p>
</main>
</body>
</html>
"""


def write_start_page(
    file: Path,
    *,
    airflow: str,
    user: str,
    password: str,
    pages: str,
    root: Path,
    dags: Mapping[str, str],
) -> None:
    """Write the page into a file that only this user can read.

    :param airflow: the URL of Airflow.
    :param pages: the URL of the workspace's pages, with their key.
    :param root: the workspace's folder.
    :param dags: what each DAG does, by its id.
    """
    lines = [
        f'<li><a href="{escape(airflow)}/dags/{escape(dag)}">{escape(dag)}</a>: {escape(text)}</li>'
        for dag, text in dags.items()
    ]
    texts = {
        "airflow": airflow,
        "user": user,
        "password": password,
        "pages": pages,
        "root": str(root),
        "home": str(file.parent),
    }
    escaped = {name: escape(text) for name, text in texts.items()}
    write_private_file(file, _PAGE.format(dags="\n".join(lines), **escaped))


def open_in_browser(file: Path) -> None:
    """Open a page if a user sits at a desktop; a browser in the terminal would block it."""
    if can_open_browser(sys.platform, os.environ, is_terminal=sys.stdout.isatty()):
        webbrowser.open(file.as_uri())


def can_open_browser(platform: str, environment: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Return whether there is a desktop with a browser.

    :param is_terminal: whether a user reads what is printed.
    """
    desktops: Sequence[str] = ("DISPLAY", "WAYLAND_DISPLAY")
    has_desktop = platform in {"darwin", "win32"} or any(map(environment.get, desktops))
    return is_terminal and has_desktop and "SSH_CONNECTION" not in environment
