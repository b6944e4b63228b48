"""A whole Airflow is upgraded from an earlier version's wheel while tasks wait.

UPGRADE_FROM names the commit or tag to upgrade from; default the latest release.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import airflow_jobs_provider
from tests.end_to_end.airflow_cluster import AirflowCluster
from tests.end_to_end.scenarios import Scenario, concluded
from tests.fakes.fake_service import FakeService
from tests.helpers.earlier_version import EARLIER_VERSION, earlier_commit, unpack_wheel

pytestmark = [pytest.mark.standalone, pytest.mark.thorough]

ROOT = Path(airflow_jobs_provider.__file__).parent.parent


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The earlier version's wheel, unpacked."""
    return unpack_wheel(earlier_commit(), tmp_path_factory.mktemp("earlier"))


@pytest.fixture(scope="module")
def outdated(
    earlier: Path, dags: Path, connections: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowCluster]:
    """A whole Airflow with the earlier version."""
    settings = {"PYTHONPATH": f"{earlier}:{ROOT}"}
    home = tmp_path_factory.mktemp("cluster")
    with AirflowCluster(home, dags, connections, settings) as cluster:
        yield cluster


def test_tasks_wait_while_the_package_is_upgraded(
    outdated: AirflowCluster,
    workspace: FakeService,
    record_property: Callable[[str, object], None],
) -> None:
    """One is deferred, one waits on a worker, which dies. Each ends with its only run."""
    workspace.seen.clear()  # of fixtures, which have the current version
    deferred, blocking = (
        Scenario(outdated.trigger(name), workspace, record_property)
        for name in ("deferred_steady", "blocking_steady")
    )
    deferred.deferred()
    blocking.running()
    assert versions(workspace) == {EARLIER_VERSION}
    stopped = outdated.components
    outdated.kill_worker(blocking.dag_run.pid())
    for name in stopped:
        outdated.terminate(name)
    workspace.seen.clear()
    outdated.env["PYTHONPATH"] = str(ROOT)
    outdated.restart(*stopped)
    blocking.followed()
    concluded(deferred, blocking)
    assert versions(workspace) == {airflow_jobs_provider.__version__}


def versions(workspace: FakeService) -> set[str]:
    """Return the versions of the package that have sent requests."""
    agents = " ".join(seen.headers["User-Agent"] for seen in workspace.seen)
    return set(re.findall(r"airflow-jobs-provider/(\S+)", agents))
