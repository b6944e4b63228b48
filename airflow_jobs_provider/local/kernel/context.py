"""What the kernel of a run is told by the workspace, and how it talks back."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from airflow_jobs_provider.local.paths import RUN_SUFFIXES, notebook_in_root

__all__ = ["CONTEXT_VARIABLE", "KernelContext", "restart_mark", "too_large_mark"]

_REDACTED = "[REDACTED]"
CONTEXT_VARIABLE = "AIRFLOW_JOBS_PROVIDER_KERNEL_CONTEXT"


def too_large_mark(exit_file: Path) -> Path:
    """Return the file that says why a kernel ended itself: its output was too large."""
    return exit_file.with_name("too-large")


def restart_mark(exit_file: Path) -> Path:
    """Return the file with which a kernel asks to be started again."""
    return exit_file.with_name("restart")


@dataclass(slots=True)
class KernelContext:
    """What the kernel of one run knows about it.

    :param root: the workspace's root folder.
    :param code_root: the folder that the notebook's path begins at: the workspace's root, or the
        checkout of a Git repository.
    :param import_path: folders to import from, beside the notebook's own.
    :param folder: the folder of the notebook that is being read; ``%run`` changes it for a while.
    :param parameters: the run's parameters, which override the widgets' defaults.
    :param exit_file: where ``dbutils.notebook.exit`` leaves its value for the workspace.
    :param callback_url: where ``dbutils`` asks for runs of other notebooks and for task values.
    :param secret: the key for that, good for this run only.
    :param widgets: the widgets' values from before Python was restarted.
    :param about: the run, the job and the notebook, as the notebook's context returns them.
    :param warehouse: the file of the workspace's SQL warehouse.
    :param spark_folder: the folder of the tables that Spark saves.
    :param packages: the folder for what ``%pip install`` installs; empty if it does nothing.
    :param redacted: the secrets that the notebook has read.
    """

    root: Path
    code_root: Path
    import_path: list[str]
    folder: Path
    parameters: dict[str, str]
    exit_file: Path
    callback_url: str
    secret: str = field(repr=False)
    widgets: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    warehouse: str = ""
    spark_folder: str = ""
    packages: str = ""
    redacted: set[str] = field(default_factory=set, repr=False)

    @classmethod
    def from_environment(cls) -> KernelContext:
        """Read the context from the file the workspace named, and forget where it was."""
        file = Path(os.environ.pop(CONTEXT_VARIABLE))
        data = json.loads(file.read_text(encoding="utf-8"))
        file.unlink()
        return cls(
            root=Path(data["root"]),
            code_root=Path(data["code_root"]),
            import_path=data["import_path"],
            folder=Path(data["folder"]),
            parameters=data["parameters"],
            exit_file=Path(data["exit_file"]),
            callback_url=data["callback_url"],
            secret=data["secret"],
            widgets=data["widgets"],
            about=data["about"],
            warehouse=data["warehouse"],
            spark_folder=data["spark_folder"],
            packages=data["packages"],
        )

    def leave_exit_value(self, value: str) -> None:
        """Hand the exit value to the workspace; whole or not at all."""
        _write_whole(self.exit_file, self.redact(value))

    def leave_restart(self, widgets: dict[str, str]) -> None:
        """Ask the workspace to start this kernel again; whole or not at all."""
        _write_whole(restart_mark(self.exit_file), json.dumps({"widgets": widgets}))

    def leave_excess(self, words: str) -> None:
        """Tell the workspace that the notebook's output is too large; whole or not at all."""
        _write_whole(too_large_mark(self.exit_file), words)

    def workspace_path(self, path: str) -> str:
        """Return the workspace path that ``path``, as written in the notebook, means.

        It begins with a slash, unless it is of a notebook in a Git repository.
        """
        if path.startswith("/"):
            return path
        folder = self.folder.relative_to(self.code_root.resolve()).as_posix()
        start = "/" if self.code_root == self.root else ""
        return os.path.normpath(PurePosixPath(start, folder, path))

    def notebook_file(self, path: str) -> Path | None:
        """Return the file of a notebook that ``path``, as written in the notebook, means.

        :returns: None if there is no such notebook.
        :raises PathRefusedError: the path leads out of the workspace.
        """
        full_path = self.workspace_path(path)
        root = self.root if full_path.startswith("/") else self.code_root
        return notebook_in_root(root, full_path, RUN_SUFFIXES)

    def run_notebook(self, path: str, timeout_seconds: int, arguments: dict[str, str]) -> Any:
        """Have the workspace run another notebook, and return how that run ended."""
        body = {"notebook_path": path, "timeout_seconds": timeout_seconds, "arguments": arguments}
        return self._ask("notebook-run", body, f"run {path}")

    def set_task_value(self, key: str, value: Any) -> None:
        """Set a value that other tasks of the job run may read."""
        self._ask("task-values", {"key": key, "value": value}, f"set the task value {key}")

    def task_values(self, task_key: str) -> dict[str, Any] | None:
        """Return the values that a task of the job run has set; None if there is no such task."""
        answer = self._ask("task-values", {"task_key": task_key}, "return task values")
        values: dict[str, Any] | None = answer["values"]
        return values

    def secret_value(self, scope: str, key: str) -> bytes:
        """Return a secret; it is redacted in outputs from now on."""
        answer = self._ask("secrets", {"scope": scope, "key": key}, f"return {scope}/{key}")
        value = base64.b64decode(answer["value"])
        text = value.decode("utf-8", errors="replace")
        if text.strip():
            # A key of several lines looks different in repr() and JSON, and others do in HTML.
            self.redacted |= {text, text.strip(), repr(text)[1:-1], json.dumps(text)[1:-1]}
            self.redacted |= {html.escape(text), html.escape(text, quote=False)}
        return value

    def secret_names(self, scope: str | None) -> list[str]:
        """Return the keys of a scope; the scopes if none is given."""
        names: list[str] = self._ask("secrets", {"scope": scope}, "list secrets")["names"]
        return names

    def redact(self, value: Any) -> Any:
        """Return texts in any structure with the secrets that the notebook has read redacted."""
        if isinstance(value, str):
            if self.redacted:
                value = self._secrets().sub(_REDACTED, value)
        elif isinstance(value, dict):
            return {name: self.redact(one) for name, one in value.items()}
        elif isinstance(value, list):
            return [self.redact(one) for one in value]
        return value

    def complete_chars(self, text: str) -> int:
        """Return how much of a text can be shown now: its end may be the beginning of a secret."""
        if not self.redacted or not text:
            return len(text)
        held = 0
        for secret in self.redacted:
            for size in range(min(len(secret) - 1, len(text)), held, -1):
                if secret[size - 1] == text[-1] and text.endswith(secret[:size]):
                    held = size
                    break
        complete = len(text) - held
        for found in self._secrets().finditer(text):
            # The whole secret that is there is redacted now.
            if found.start() < complete < found.end():
                return found.end()
        return complete

    def _secrets(self) -> re.Pattern[str]:
        # The longest first: a secret may be the beginning of another one.
        longest = sorted(self.redacted, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest)))

    def _ask(self, path: str, body: dict[str, Any], what: str) -> Any:
        request = urllib.request.Request(  # noqa: S310  (the URL is the workspace's own)
            self.callback_url + path,
            data=json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.secret}",
                "Content-Type": "application/json",
            },
        )
        # A proxy of the environment has no business between a kernel and its own machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            message = json.load(error).get("message", str(error))
            raise RuntimeError(f"The workspace refused to {what}: {message}") from None


def _write_whole(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8", errors="surrogatepass")
    partial.replace(file)
