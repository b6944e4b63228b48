"""A DAG run with one mapped task in a whole Airflow 3.3, whose instances need no worker."""

from __future__ import annotations

import re
from collections import defaultdict

from tests.end_to_end.eventually import PATIENCE_SECONDS, eventually
from tests.end_to_end.scenarios import Scenario
from tests.fakes.fake_service import Run

__all__ = ["all_launched", "all_succeeded", "end_all", "index_of", "runs_by_index"]


def index_of(run: Run) -> int:
    """Return the map index of the instance that launched a run, by the run's name."""
    found = re.search(r"\[(\d+)\] ", run.name)
    assert found, run.name
    return int(found[1])


def runs_by_index(scenario: Scenario) -> dict[int, list[Run]]:
    """Return the runs of each instance, in order."""
    found: dict[int, list[Run]] = defaultdict(list)
    for run in scenario.runs:
        found[index_of(run)].append(run)
    return dict(found)


def all_launched(scenario: Scenario, count: int) -> list[Run]:
    """Wait until so many runs were launched in all, each by an instance that is deferred with it.

    :param scenario: the scenario.
    :param count: how many.
    """

    def are_stored() -> bool:
        last = {index: runs[-1].run_id for index, runs in runs_by_index(scenario).items()}
        xcoms = scenario.dag_run.xcoms()
        return all(xcoms.get(index, {}).get("run_id") == run_id for index, run_id in last.items())

    try:
        eventually(lambda: len(scenario.runs) >= count, f"{count} runs are launched")
        eventually(are_stored, "each instance has stored the id of its run")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{scenario.dag_run.logs()}") from None
    assert len(scenario.runs) == count, scenario.dag_run.logs()
    return scenario.runs


def end_all(scenario: Scenario) -> None:
    """Let all active runs end well."""
    for run in scenario.runs:
        if run.is_active:
            scenario.workspace.end(run)


def all_succeeded(
    scenario: Scenario,
    *,
    instances: int,
    runs: int,
    cancels: int,
    seconds: float = PATIENCE_SECONDS,
) -> None:
    """Wait until each instance has succeeded with its last run, and check the counts."""
    scenario.dag_run.until_over_with({"success": instances}, seconds)
    by_index = runs_by_index(scenario)
    assert sorted(by_index) == list(range(instances))
    xcoms = scenario.dag_run.xcoms()
    for index, of_index in by_index.items():
        last = of_index[-1]
        wanted = {
            "run_id": last.run_id,
            "job_id": last.job_id,
            "run_page_url": f"http://workspace.invalid/#job/{last.job_id}/run/{last.run_id}",
            "return_value": f"output of {last.run_id}",
        }
        found = {key: xcoms[index].get(key) for key in wanted}
        assert found == wanted, f"instance {index}\n{scenario.dag_run.logs()}"
        path = last.request["notebook_task"]["notebook_path"]
        assert path == f"/Shared/long{index}"
    scenario.saw(runs=runs, cancels=cancels)
