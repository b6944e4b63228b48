"""Tests of databricks_demo.py without a Databricks account, in seconds.

The fixture ``databricks_workspace`` is a workspace on this machine. A test decides how its runs end
and which of its requests fail.
"""

from __future__ import annotations

from pathlib import Path

import pytest

WORKSPACE = Path(__file__).parent.parent / "workspace"
NOTEBOOK = "/Shared/penguins/weigh"
WEIGHTS = {"island": "Dream", "mean_grams": {"Adelie": 3688}}


def states(dag_run):
    return {ti.task_id: str(ti.state) for ti in dag_run.get_task_instances()}


def test_green(databricks_workspace, run_dag, capsys):
    """The notebook gets the island, and its exit value is printed."""
    databricks_workspace.returns(NOTEBOOK, WEIGHTS, seconds=300)
    dag_run = run_dag("databricks_demo", {"island": "Dream"})
    assert states(dag_run) == {"weigh_penguins": "success", "print_weights": "success"}
    databricks_workspace.assert_launched(NOTEBOOK, parameters={"island": "Dream"})
    assert "Adelie penguins weigh 3688 g on average" in capsys.readouterr().out


def test_red(databricks_workspace, run_dag):
    """A notebook that fails at every try fails the DAG run."""
    databricks_workspace.fails(NOTEBOOK, "ValueError: no penguins")
    dag_run = run_dag("databricks_demo")
    assert states(dag_run)["weigh_penguins"] == "failed"
    assert states(dag_run)["print_weights"] == "upstream_failed"
    databricks_workspace.assert_launched(NOTEBOOK, times=2)


def test_retried(databricks_workspace, run_dag):
    """After a failed run the retry launches a new one."""
    databricks_workspace.returns(NOTEBOOK, WEIGHTS)
    databricks_workspace.fails(NOTEBOOK, "cluster lost", times=1)
    assert set(states(run_dag("databricks_demo")).values()) == {"success"}
    databricks_workspace.assert_launched(NOTEBOOK, times=2)


def test_outage(databricks_workspace, run_dag):
    """The service is down at the launch and while the run is polled: one run, and it is found."""
    databricks_workspace.returns(NOTEBOOK, WEIGHTS)
    databricks_workspace.break_next("runs/submit", status=503, times=3)
    databricks_workspace.break_next("runs/submit", "response_lost")
    databricks_workspace.break_next("runs/[gl]*", "html", status=502, times=5)
    assert set(states(run_dag("databricks_demo")).values()) == {"success"}
    databricks_workspace.assert_launched(NOTEBOOK)
    databricks_workspace.assert_nothing_is_left()


@pytest.mark.databricks_workspace(root=WORKSPACE)
def test_with_the_real_notebook(databricks_workspace, run_dag):
    """The notebook is executed."""
    assert set(states(run_dag("databricks_demo")).values()) == {"success"}
    (run,) = databricks_workspace.runs_of(NOTEBOOK)
    assert '"Adelie": 3710' in run.result
