"""An executor that runs each task in a fresh process, as the KubernetesExecutor's pods do.

The process runs the same command as a pod, ``airflow.sdk.execution_time.execute_workload``, in a
process group of its own. A process that SIGKILL has ended tells nothing, like a lost node: Airflow
finds out by the missing heartbeats. Any other end is told, as the Kubernetes API tells a pod's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.executors.base_executor import BaseExecutor

__all__ = ["FreshProcessExecutor"]


class FreshProcessExecutor(BaseExecutor):
    """Starts a process for each task; notes its pid in ``$AIRFLOW_HOME/RUN_ID.main_pid``."""

    is_local = True

    def start(self) -> None:
        """Begin with no process."""
        self._processes: dict[Any, subprocess.Popen[bytes]] = {}

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        home = Path(os.environ["AIRFLOW_HOME"])
        for workload in workload_items:
            del self.queued_tasks[workload.key]
            self.running.add(workload.key)
            command = [sys.executable, "-m", "airflow.sdk.execution_time.execute_workload"]
            with (home / "fresh_processes.log").open("ab") as log:
                process = subprocess.Popen(
                    [*command, "--json-string", workload.model_dump_json()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._processes[workload.key] = process
            (home / f"{workload.ti.run_id}.main_pid").write_text(str(process.pid))

    def sync(self) -> None:
        """Tell the end of each process that has ended by itself or by a signal it could handle."""
        for key, process in list(self._processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self._processes[key]
            if code == 0:
                self.success(key)
            elif code != -signal.SIGKILL:
                self.fail(key)

    def end(self) -> None:
        """Leave the processes alone, as pods are."""

    def terminate(self) -> None:
        """Leave the processes alone, as pods are."""
