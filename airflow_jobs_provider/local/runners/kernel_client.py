"""The kernel of a notebook, and nbclient's client for it.

Only the process that executes the notebook uses it (``notebook_program.py``): what it imports takes
13 MB. Two things are done differently from nbclient's ``execute()``: cells are run one by one,
because ``dbutils.notebook.exit`` ends a notebook early; and the kernel is started without
nbclient's signal handlers.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from queue import Empty
from typing import Any

from airflow_jobs_provider.local.kernel import launch
from airflow_jobs_provider.local.output_limits import OutputMeter
from airflow_jobs_provider.local.runners.kernel_processes import KernelForks
from airflow_jobs_provider.local.runners.notebook_task import last_line, start_failure
from airflow_jobs_provider.local.runners.process_markers import kill_marked
from airflow_jobs_provider.local.runners.processes import (
    end_process_tree,
    environment_of_runs,
    request_end,
    supervised,
)

__all__ = ["Kernel", "KernelStartError", "load_kernel_support"]

_START_SECONDS = 60
# The fields of outputs in a notebook of format 4, by the kernel's messages.
_OUTPUT_FIELDS = {
    "display_data": ("data", "metadata"),
    "error": ("ename", "evalue", "traceback"),
    "execute_result": ("data", "execution_count", "metadata"),
    "stream": ("name", "text"),
}
_LAUNCH = str(Path(launch.__file__))


class KernelStartError(Exception):
    """A kernel did not start; the text says why."""


class Kernel:
    """A kernel that executes the cells of a notebook.

    :param notebook: the notebook, which gets the outputs.
    :param folder: an empty folder for the kernel's files.
    :param marker: the run's marker.
    :param forks: what kernels are forked by; None to start a program.
    :param meter: counts the notebook's outputs.
    """

    def __init__(
        self,
        notebook: Any,
        folder: Path,
        marker: str,
        forks: KernelForks | None,
        meter: OutputMeter,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._marker = marker
        self._forks = forks
        manager_class, client_class = _classes()
        self._manager = manager_class(connection_file=str(folder / "kernel.json"))
        if os.name == "posix":
            # Sockets in a folder of ours: no port that another process could take or knock at.
            self._manager.transport = "ipc"
            self._manager.ip = str(folder / "k")  # the path of a socket must be short
        self._client = client_class(
            notebook,
            km=self._manager,
            startup_timeout=_START_SECONDS,
            ipython_hist_file=":memory:",
            timeout=None,
            record_timing=False,
        )
        self._client.meter = meter
        self._is_started = False

    @property
    def error_is_truncated(self) -> bool:
        """Whether the text of the last cell's error was cut off."""
        return bool(self._client.error_is_truncated)

    async def start(self, cwd: Path, environment: Mapping[str, str]) -> None:
        """Start the kernel.

        :param environment: what it has in addition to the environment of all runs.
        :raises KernelStartError: it did not start.
        """
        extra = {
            **environment,
            # No start-up files, profile or history of the user's own IPython.
            "IPYTHONDIR": str(self._folder / "ipython"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        self._manager.use_forks(self._forks, extra, self._marker)
        self._is_started = True
        log = self._folder / "kernel.log"
        try:
            # A kernel copies what its child processes print to its own standard streams. It must
            # not be the workspace's, which nobody may read: a full pipe would stop the notebook.
            with log.open("wb") as errors:
                await self._client.async_start_new_kernel(
                    cwd=str(cwd),
                    env=environment_of_runs(self._marker, extra),
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                )
            await self._client.async_start_new_kernel_client()
        except RuntimeError as error:
            raise KernelStartError(start_failure(str(error), last_line(log))) from error

    async def execute(self, cell: Any, index: int) -> None:
        """Execute a cell of the notebook; raises nbclient's exceptions."""
        await self._client.async_execute_cell(cell, index)

    async def end(self) -> None:
        """Kill the kernel and its descendants."""
        process = _process_of(self._manager)
        if process is not None:
            await end_process_tree(process.pid, process.poll, self._marker)
        elif self._is_started:
            # The start was interrupted, so the process id is not known.
            await asyncio.to_thread(kill_marked, self._marker)
        if self._client.kc is not None:
            self._client.kc.stop_channels()
        with suppress(Exception):
            await self._manager.shutdown_kernel(now=True)
        with suppress(Exception):
            await self._manager.cleanup_resources()


def load_kernel_support() -> None:
    """Import jupyter_client and nbclient, which takes a moment."""
    _classes()


def _classes() -> tuple[Any, Any]:
    if not _made:
        _made.append(_make_classes())
    return _made[0]


_made: list[tuple[Any, Any]] = []


def _make_classes() -> tuple[Any, Any]:
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning.local_provisioner import LocalProvisioner
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionComplete
    from traitlets import Type

    as_node: Any = import_module("nbformat.notebooknode").from_dict

    class Provisioner(LocalProvisioner):
        """Forks the kernel where there is a fork server."""

        forked_by: tuple[KernelForks | None, dict[str, str], str]

        async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
            forks, environment, marker = self.forked_by
            process: Any = forks and await forks.fork(
                cmd[cmd.index(_LAUNCH) + 1 :],
                environment=environment,
                cwd=kwargs["cwd"],
                marker=marker,
                errors=kwargs["stderr"].fileno(),
            )
            if process is None:
                return await super().launch_kernel(cmd, **kwargs)
            self.process = process
            self.pid = self.pgid = process.pid
            self.cwd = kwargs["cwd"]
            return self.connection_info

    class ReadyClient(AsyncKernelClient):
        """Waits for the kernel as jupyter_client does, without the 0.2 s for its last messages.

        nbclient tells the messages of a cell from others by their parent.
        """

        async def wait_for_ready(
            self,
            timeout: float | None = None,  # noqa: ASYNC109  (the interface)
        ) -> None:
            deadline = time.monotonic() + (timeout or _START_SECONDS)
            reply: dict[str, Any] | None = None
            self.kernel_info()
            while True:
                try:
                    if reply is None:
                        message = await self.get_shell_msg(timeout=1)
                        if message["msg_type"] == "kernel_info_reply":
                            reply = message
                    else:
                        # What the kernel publishes arrives.
                        await self.get_iopub_msg(timeout=0.2)
                        self._handle_kernel_info_reply(reply)
                        return
                except Empty:
                    if not await self.is_alive():
                        raise RuntimeError("Kernel died before replying to kernel_info") from None
                    if time.monotonic() > deadline:
                        raise RuntimeError(f"Kernel did not reply in {timeout} s") from None
                    self.kernel_info()

    class Manager(AsyncKernelManager):
        """Starts the workspace's own kernel, not one that the user has installed."""

        client_factory = Type(klass=AsyncKernelClient, default_value=ReadyClient)

        @property
        def kernel_spec(self) -> KernelSpec:
            command = supervised([sys.executable, _LAUNCH, "-f", "{connection_file}"])
            return KernelSpec(argv=command, display_name="Python 3", language="python")

        def use_forks(
            self, forks: KernelForks | None, environment: dict[str, str], marker: str
        ) -> None:
            self.kernel_id = str(uuid.uuid4())
            self.provisioner = Provisioner(
                kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
            )
            self.provisioner.forked_by = (forks, environment, marker)

    class Client(NotebookClient):
        """Stops a kernel whose notebook exceeds Databricks' output limits.

        A second look: the kernel ends itself before, except where processes that the notebook has
        forked print past the kernel's own count.
        """

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.meter = OutputMeter()
            self.error_is_truncated = False
            self.metered_cell = -1

        def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
            if cell_index != self.metered_cell:
                self.metered_cell = cell_index
                self.meter.begin_cell()
                self.error_is_truncated = False
            self.meter.add(msg["msg_type"], msg["content"], msg.get("buffers") or ())
            if self.meter.excess:
                process = _process_of(self.km)
                if process is not None and process.poll() is None:
                    request_end(process.pid)
                # Nothing more of it is read: there may be a lot still under way.
                raise CellExecutionComplete
            if msg["msg_type"] == "error" and msg["content"].get("truncated"):
                self.error_is_truncated = True
            return super().process_message(msg, cell, cell_index)

        def output(
            self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int
        ) -> Any:
            """Add an output to a cell.

            nbclient's own method validates it against the JSON schema of notebooks, which takes
            10 MB.
            """
            if self.output_hook_stack.get(msg["parent_header"].get("msg_id")):
                # A widget takes it.
                return super().output(outs, msg, display_id, cell_index)
            kind, content = msg["header"]["msg_type"], msg["content"]
            if kind not in _OUTPUT_FIELDS:
                return None
            if self.clear_before_next_output:
                outs.clear()
                self.clear_display_id_mapping(cell_index)
                self.clear_before_next_output = False
            if display_id:
                shown_in = self._display_id_map.setdefault(display_id, {})
                shown_in.setdefault(cell_index, []).append(len(outs))
            outs.append(
                as_node(
                    {"output_type": kind, **{name: content[name] for name in _OUTPUT_FIELDS[kind]}}
                )
            )
            return outs[-1]

    return Manager, Client


def _process_of(manager: Any) -> Any:
    """Return the process of a kernel; None where it has not started, or was reaped already."""
    return None if manager.provisioner is None else manager.provisioner.process
