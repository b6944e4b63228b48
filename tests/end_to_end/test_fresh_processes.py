"""Each task in a fresh process that is asked to stop or is lost, as pods on Kubernetes are.

Kubernetes sends SIGTERM to a pod's first process (or, with ``DUMB_INIT_SETSID``, to its whole
process group) and kills what is left after the termination grace period. A lost node says nothing.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.airflow_versions import AIRFLOW_2, AIRFLOW_3_0
from tests.end_to_end.eventually import eventually
from tests.end_to_end.processes import is_alive, send
from tests.end_to_end.scenarios import Scenario, concluded, failed_and_canceled, of

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(AIRFLOW_2 or AIRFLOW_3_0, reason="its executors have another interface"),
]

HERE = Path(__file__).parent
# Kubernetes' own default, and Airflow's.
GRACE_SECONDS = 30
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "tests.end_to_end.fresh_process_executor.FreshProcessExecutor",
    # All begin at once: on a busy machine a live one may be silent for some time.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
}


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Tasks in fresh processes, and an Airflow that soon takes a silent one for dead."""
    return SETTINGS


class Pod:
    """The processes of a task."""

    def __init__(self, scenario: Scenario) -> None:
        scenario.running()
        scenario.dag_run.xcom("run_page_url")
        home, run_id = scenario.dag_run.cluster.home, scenario.dag_run.run_id
        self.first = int((home / f"{run_id}.main_pid").read_text())
        self._all = [psutil.Process(self.first), psutil.Process(scenario.dag_run.pid())]

    def stop(self, *, group: bool) -> None:
        """Stop as Kubernetes does: SIGTERM, and SIGKILL to what is left after the grace period."""
        (os.killpg if group else os.kill)(self.first, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while any(map(is_alive, self._all)) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.lose()

    def lose(self) -> None:
        """Kill all processes at once."""
        send(self._all, signal.SIGSTOP, signal.SIGKILL)
        eventually(lambda: not any(map(is_alive, self._all)), "the processes are dead")


# Beside its siblings: the group is signaled with a retry left, the first process at the last try.
thorough = pytest.mark.thorough


@of("blocking_steady")
@pytest.mark.parametrize(
    "group", [pytest.param(False, marks=thorough), True], ids=["first process", "process group"]
)
def test_pod_stopped(scenario: Scenario, group: bool) -> None:
    """A drained node, with a retry left: the run goes on, and the next try follows it."""
    Pod(scenario).stop(group=group)
    scenario.followed()
    concluded(scenario)


@of("blocking")
@pytest.mark.parametrize(
    "group", [False, pytest.param(True, marks=thorough)], ids=["first process", "process group"]
)
def test_pod_stopped_with_no_retry_left(scenario: Scenario, group: bool) -> None:
    """The same at the last try: the run is canceled."""
    Pod(scenario).stop(group=group)
    failed_and_canceled(scenario)


@of("blocking_steady")
def test_pod_lost(scenario: Scenario) -> None:
    """A lost node, with a retry left: the next try follows the run."""
    Pod(scenario).lose()
    scenario.followed()
    concluded(scenario)


@of("blocking")
def test_pod_lost_with_no_retry_left(scenario: Scenario) -> None:
    """The same at the last try: the run is canceled."""
    Pod(scenario).lose()
    failed_and_canceled(scenario)
