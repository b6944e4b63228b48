"""DatabricksExportRunOperator: writes the views of a notebook run to HTML files."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Unpack

from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.operators.argument_checks import check_id, check_text
from airflow_jobs_provider.operators.base import DatabricksJobsBaseOperator
from airflow_jobs_provider.operators.payload_validation import (
    check_before_sending,
    check_when_parsed,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.export_stream import ViewEvent
    from airflow_jobs_provider.operators.arguments import Id, OperatorArguments

Json = dict[str, Any]
__all__ = ["DatabricksExportRunOperator"]

# A file name has at most 255 bytes, with the view's type, a number and the extension.
_MAX_NAME_BYTES = 200
_MAX_TYPE_BYTES = 30
_UNSAFE = re.compile(r"[^\w.()\[\] -]+")


class DatabricksExportRunOperator(DatabricksJobsBaseOperator):
    """Write the HTML views of a notebook run to files, and return their paths.

    ::

        DatabricksExportRunOperator(
            task_id="export",
            run_id="{{ ti.xcom_pull('etl', key='run_id') }}",
            path="s3://my_aws@reports/{{ ds }}",
        )

    The service deletes a run after 60 days; the files stay. A file is named after its view, as
    ``my-notebook.html`` or ``my-dashboard.dashboard.html``. Running the task again writes the same
    files. An export of up to 256 MiB is written as it arrives, under temporary names. The files are
    renamed when all have arrived; where the task fails before, none is left. If the run has several
    tasks, each notebook is written to a folder named after its task. XCom ``return_value`` is the
    list of the files' paths. Reference: "Runs export", "ViewItem".

    :param run_id: the run; templated.
    :param path: folder to write to, created if it does not exist; templated. A local path, or
        object storage as Airflow's ``ObjectStoragePath`` takes it, such as
        ``s3://conn_id@bucket/folder``.
    :param views_to_export: ``CODE`` (default), ``DASHBOARDS`` or ``ALL``; templated.
    :param kwargs: the shared arguments; see
        :class:`~airflow_jobs_provider.operators.arguments.OperatorArguments`.
    :raises InvalidRequestError: when the DAG is parsed: the request cannot succeed.
    :raises AirflowFailException: the same after rendering, or the service says that the request is
        wrong: the run is no notebook run. Airflow does not retry.
    :raises AirflowException: the service refused the request for another reason, such as a run that
        does not exist. The DAG's ``retries`` decide.
    """

    template_fields: Sequence[str] = ("run_id", "path", "views_to_export", "databricks_conn_id")
    ui_color = "#1cb1c2"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        run_id: Id,
        path: str,
        views_to_export: str = "CODE",
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        _check_path(path)
        self.run_id = run_id
        self.path = path
        self.views_to_export = views_to_export
        check_id("run_id", run_id)
        check_when_parsed("runs/export", None, self._request(), validate=self.validate)

    def _request(self) -> dict[str, Any]:
        return {"run_id": self.run_id, "views_to_export": self.views_to_export}

    def execute(self, context: Context) -> list[str]:
        """Export the views and write each to its file."""
        from airflow_jobs_provider.api.endpoints import export_run_as_stream
        from airflow_jobs_provider.api.ids import require_id

        with airflow_exceptions():
            run_id = require_id("run_id", self.run_id)
            _check_path(self.path)
            client = self.hook.client
            check_before_sending(
                "runs/export", self._request(), validate=self.validate, client=client
            )
        base = str(self.path).rstrip("/")
        written: dict[tuple[str, str], str] = {}  # path by folder and name
        with ExitStack() as unfinished:
            received: list[tuple[str, _UnfinishedFile, Json]] = []
            with airflow_exceptions():
                for folder, task_run_id in self._exported(run_id):
                    # Joined as text: the path objects of Airflow 2 warn when they are joined.
                    place = f"{base}/{folder}" if folder else base
                    call = export_run_as_stream(
                        task_run_id, self.views_to_export, partial(_receive, place)
                    )
                    for file, view in client.send(call):
                        unfinished.callback(file.discard)
                        received.append((folder, file, view))
            # Not before all have arrived: a failure leaves no file, and replaces none.
            for folder, file, view in received:
                name = _file_name(view, taken=[n for f, n in written if f == folder])
                written[folder, name] = file.finish(name)
        paths = list(written.values())
        self.log.info("Run %s: wrote %s.", self.run_id, ", ".join(paths) or "nothing")
        return paths

    def _exported(self, run_id: int) -> list[tuple[str, int]]:
        """Return the run, or the runs of the notebooks among its tasks, each with its folder."""
        from airflow_jobs_provider.api.run_summary import latest_attempts

        tasks = {
            key: task
            for key, task in latest_attempts(self.hook.get_run(run_id)).items()
            if task.get("run_id") is not None
        }
        if len(tasks) > 1:
            return [
                (_safe(key), int(task["run_id"]))
                for key, task in tasks.items()
                if "notebook_task" in task
            ]
        return [("", int(task["run_id"])) for task in tasks.values()] or [("", run_id)]


class _UnfinishedFile:
    """A file under a temporary name, in the folder of its final name.

    :param place: the folder, created if it does not exist.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        folder = _storage_path(place)
        folder.mkdir(parents=True, exist_ok=True)
        self._path: Any = _storage_path(f"{place}/.{uuid.uuid4().hex}.part")
        self._stream: Any = self._path.open("wb")

    def write(self, text: str) -> None:
        # Half a surrogate pair, which JSON can express, is no character of UTF-8.
        self._stream.write(text.encode("utf-8", "replace"))

    def close(self) -> None:
        self._stream.close()

    def finish(self, name: str) -> str:
        """Rename the file to its final name; return its path."""
        path = f"{self._place}/{name}"
        self._path.fs.mv(self._path.path, _storage_path(path).path)
        self._path = None
        return path

    def discard(self) -> None:
        """Remove the file, unless it has its final name. Errors are ignored."""
        if self._path is not None:
            with suppress(Exception):
                self._stream.close()
            with suppress(Exception):
                self._path.unlink()


def _storage_path(path: str) -> Any:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    return ObjectStoragePath(path)


def _receive(place: str, events: Iterable[ViewEvent]) -> list[tuple[_UnfinishedFile, Json]]:
    """Write views to files in a folder as they arrive; return each with its other fields."""
    received: list[tuple[_UnfinishedFile, Json]] = []
    with ExitStack() as undo:
        file: _UnfinishedFile | None = None
        for event in events:
            if file is None:
                file = _UnfinishedFile(place)
                undo.callback(file.discard)
            if isinstance(event, str):
                file.write(event)
            else:
                file.close()
                received.append((file, event))
                file = None
        undo.pop_all()
    return received


def _check_path(path: Any) -> None:
    """Check the path: it is not empty, and no other value such as None."""
    check_text("path", str(path) if isinstance(path, PurePath) else path)


def _safe(name: str, most_bytes: int = _MAX_NAME_BYTES) -> str:
    """Return a name that is safe as a file's name: no slash, no leading dot, not too long."""
    safe = _UNSAFE.sub("_", name).lstrip(".") or "_"
    return safe.encode()[:most_bytes].decode(errors="ignore")


def _file_name(view: Mapping[str, Any], taken: Collection[str]) -> str:
    stem = _safe(str(view.get("name") or "view"))
    if view.get("type") not in (None, "NOTEBOOK"):
        stem += f".{_safe(str(view['type']).lower(), _MAX_TYPE_BYTES)}"
    name, count = f"{stem}.html", 1
    while name in taken:
        count += 1
        name = f"{stem}-{count}.html"
    return name
