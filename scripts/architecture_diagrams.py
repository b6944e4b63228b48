"""Draw the pictures of docs/architecture.md.

    python -m scripts.architecture_diagrams

A test fails if the pictures are not what this draws, or if a part of the package is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).parents[1] / "docs"
LAYERS_PICTURE = DOCS / "architecture-layers.svg"
RUN_PICTURE = DOCS / "architecture-run.svg"

FONT = 'font-family="DejaVu Sans, Verdana, sans-serif"'
LINE, GREY, BLUE, GREEN, ORANGE = "#555555", "#f2f2f2", "#dce9f7", "#e0f0df", "#fbe9d3"
# Rows of parts from the top to the bottom: a part imports parts of the rows below it.
LAYERS = (
    (
        ("plugin", "Airflow's plugin: preloads, links, page"),
        ("preload", "imports what task processes need"),
    ),
    (
        ("sensors/", "wait for a run of something else"),
        ("decorators/", "@task.databricks_..."),
        ("migrate/", "changes official DAG files"),
        ("testing/", "pytest plugin for DAGs"),
    ),
    (("operators/", "launch a run, wait for it, push XComs"),),
    (
        ("triggers/", "wait in the triggerer; polling/: one poller for all runs"),
        ("ui/", "links of tasks, page in Airflow's UI"),
    ),
    (
        ("run_result", "an ended run: output or error"),
        ("hooks/", "connections, methods"),
        ("links", "button of a task"),
    ),
    (("metrics", "what is sent to StatsD or OpenTelemetry"),),
    (("airflow_compat/", "Airflow's versions"),),
    (
        ("exceptions", "what a task raises"),
        ("xcom", "keys of XComs"),
        ("official_names", "what is outside this package"),
    ),
)
API_LAYERS = (
    ("api/client", "a blocking and an asyncio client: send calls, run workflows"),
    ("api/workflows/", "several requests as a generator: launch once, follow, find, repair"),
    ("api/endpoints", "each endpoint as a value: what is sent, how the response is read"),
    ("api/schema/", "types, rules, validation"),
    ("api/auth, api/retry, api/states, api/errors, ...", "one rule each, without imports above"),
)
LOCAL = (
    "local/",
    ("a workspace on this machine:", "serves the API over HTTP", "and runs notebooks"),
)

PARTICIPANTS = (
    ("Worker", "operator"),
    ("Airflow", "database, scheduler"),
    ("Triggerer", "trigger"),
    ("Triggerer", "poller"),
    ("Databricks", "Jobs API"),
)
# From, to (by index), text; None as a note above a participant.
RUN = (
    (0, 0, "token = SHA-256 of the task's identity"),
    (0, 4, "runs/submit with the token"),
    (4, 0, "run_id: a new run, or the run of an earlier try"),
    (0, 4, "runs/get: state, job_id, run_page_url"),
    (0, 1, "XComs run_id, job_id, run_page_url"),
    (0, 1, "defer: class and arguments of the trigger"),
    (0, 0, "the process ends: no worker is used"),
    (1, 2, "start the trigger"),
    (2, 3, "join: run_id, period"),
    (3, 3, "one list for all triggers"),
    (3, 4, "runs/list, every 10 s"),
    (4, 3, "states"),
    (3, 2, "the run has ended"),
    (3, 4, "runs/get-output"),
    (2, 1, "event: ids, state, page, tasks, short output"),
    (1, 0, "a new process: execute_complete(event)"),
    (0, 1, "XCom return_value; or the exception with the run's error"),
)


def _text(x: float, y: float, text: str, *, size: int = 13, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" {more}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" '
        f'fill="{fill}" stroke="{LINE}"/>'
    )


def _picture(width: int, height: int, title: str, parts: Iterator[str]) -> str:
    # Without a viewBox a browser cuts off what does not fit into a narrow page.
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT}>',
            f"<title>{escape(title)}</title>",
            '<marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">',
            f'<path d="M0,0 L9,4 L0,8 z" fill="{LINE}"/></marker>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *parts,
            "</svg>\n",
        )
    )


def layers() -> str:
    """Return the picture of the layers."""
    return _picture(900, 752, "Layers: each part imports parts below it", _layers())


def _layers() -> Iterator[str]:
    left, width, height, gap = 20.0, 860.0, 54.0, 10.0
    bold = 'font-weight="bold"'
    yield _text(
        left, 30, "Airflow imports these (each part imports only parts below it)", more=bold
    )
    y = 44.0
    for boxes in LAYERS:
        each = (width - gap * (len(boxes) - 1)) / len(boxes)
        for index, (name, what) in enumerate(boxes):
            x = left + index * (each + gap)
            yield _box(x, y, each, height, BLUE)
            yield _text(x + 12, y + 22, name, more=bold)
            yield _text(x + 12, y + 42, what, size=12)
        y += height + gap
    y += 14
    yield f'<path d="M{left:g},{y:g} h{width:g}" stroke="{LINE}" stroke-dasharray="6 4"/>'
    y += 22
    yield _text(left, y, "These never import Airflow", more=bold)
    y += 14
    top, api_width = y, 560.0
    for name, what in API_LAYERS:
        yield _box(left, y, api_width, height, GREEN)
        yield _text(left + 12, y + 22, name, more=bold)
        yield _text(left + 12, y + 42, what, size=12)
        y += height + gap
    x = left + api_width + 60
    yield _box(x, top, width - api_width - 60, y - gap - top, ORANGE)
    yield _text(x + 12, top + 22, LOCAL[0], more=bold)
    for index, line in enumerate(LOCAL[1]):
        yield _text(x + 12, top + 44 + 18 * index, line, size=12)
    middle = (top + y - gap) / 2
    yield (
        f'<path d="M{x:g},{middle:g} H{left + api_width + 4:g}" stroke="{LINE}" '
        f'marker-end="url(#head)"/>'
    )
    yield _text(left + api_width + 6, middle - 8, "imports", size=11)


def one_run() -> str:
    """Return the picture of one deferred run."""
    height = 90 + 40 * len(RUN) + 30
    return _picture(1000, height, "One deferred run, from launch to XCom", _one_run(height))


def _one_run(height: int) -> Iterator[str]:
    places = [110 + 195 * index for index in range(len(PARTICIPANTS))]
    for x, (name, what) in zip(places, PARTICIPANTS, strict=True):
        yield f'<path d="M{x},62 V{height - 16}" stroke="{LINE}" stroke-dasharray="3 4"/>'
        yield _box(x - 80, 14, 160, 48, GREY if name == "Airflow" else BLUE)
        yield _text(x, 34, name, more='font-weight="bold" text-anchor="middle"')
        yield _text(x, 52, what, size=12, more='text-anchor="middle"')
    for index, (source, target, text) in enumerate(RUN):
        y = 100 + 40 * index
        number = f"{index + 1}. {text}"
        if source == target:
            yield _box(places[source] - 90, y - 18, 9 + 7.1 * len(number), 26, ORANGE)
            yield _text(places[source] - 82, y, number, size=12)
            continue
        start, end = places[source], places[target]
        inset = 3 if end > start else -3
        label = min(start, end) + 8
        width = 6 + 6.9 * len(number)
        yield f'<rect x="{label - 2:g}" y="{y - 19}" width="{width:g}" height="16" fill="white"/>'
        yield _text(label, y - 6, number, size=12)
        yield (
            f'<path d="M{start},{y} H{end - inset}" stroke="{LINE}" fill="none" '
            f'marker-end="url(#head)"/>'
        )


if __name__ == "__main__":
    LAYERS_PICTURE.write_text(layers())
    RUN_PICTURE.write_text(one_run())
