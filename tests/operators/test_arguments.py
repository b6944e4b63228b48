"""The types of the operators' arguments, which mypy checks in this module, and their docs."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, BaseSensorOperator

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.schema.types import NewCluster, NotebookTask
from airflow_jobs_provider.operators import arguments, jobs
from airflow_jobs_provider.operators.jobs import (
    DatabricksCancelRunsOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

OPERATORS = [getattr(jobs, name) for name in jobs.__all__ if name.endswith("Operator")]
CLASSES: list[Any] = [*OPERATORS, DatabricksJobRunSensor]
SHARED: dict[Any, Any] = {
    arguments.OperatorArguments: [arguments.ConnectionArguments],
    arguments.PayloadArguments: [arguments.ConnectionArguments, arguments.PayloadArguments],
    arguments.LaunchArguments: [
        arguments.ConnectionArguments,
        arguments.PayloadArguments,
        arguments.WaitArguments,
        arguments.RunArguments,
    ],
    arguments.TaskArguments: [
        arguments.ConnectionArguments,
        arguments.WaitArguments,
        arguments.RunArguments,
        arguments.TaskArguments,
    ],
    arguments.SensorArguments: [arguments.ConnectionArguments, arguments.WaitArguments],
}


def parameters_of(kind: Any) -> set[str]:
    """Return the names of the arguments that a class's own constructor lists."""
    return set(inspect.signature(kind.__init__).parameters) - {"self", "args", "kwargs"}


def documented(kind: Any) -> set[str]:
    """Return the names of the arguments that a class's docstring describes."""
    return set(re.findall(r"^ *:param (\w+):", kind.__doc__, re.MULTILINE))


@pytest.mark.parametrize(
    ("base", "listed"),
    [
        (BaseOperator, arguments.AirflowArguments),
        (BaseSensorOperator, arguments.AirflowSensorArguments),
    ],
)
def test_an_editor_completes_every_argument_of_airflow(base: Any, listed: Any) -> None:
    """Whatever this line of Airflow takes is accepted by a type checker, too."""
    assert parameters_of(base) <= listed.__annotations__.keys()


@pytest.mark.parametrize("kind", CLASSES)
def test_every_argument_is_described_once(kind: Any) -> None:
    """By the class that lists it, or by the type of the shared arguments that the class names."""
    assert documented(kind) == parameters_of(kind) | {"kwargs"}
    name = kind.__init__.__annotations__["kwargs"].removeprefix("Unpack[").removesuffix("]")
    assert f"operators.arguments.{name}`" in kind.__doc__
    parts = SHARED[getattr(arguments, name)]
    described = [word for part in parts for word in documented(part)]
    assert sorted(described) == sorted(set(described))
    own = getattr(arguments, name).__annotations__.keys()
    # Two of Airflow's arguments are described, too, since they say more here.
    airflows = arguments.AirflowSensorArguments.__annotations__.keys()
    assert own - airflows == set(described) - {"do_xcom_push", "multiple_outputs"}


def test_every_argument_takes_what_another_task_returns() -> None:
    """Whole, or within a structure; the task then comes after that one."""
    with DAG("d", schedule=None):
        first = DatabricksSubmitRunOperator(
            task_id="first",
            existing_cluster_id="c",
            notebook_task={"notebook_path": "/n"},
        )
        submit = DatabricksSubmitRunOperator(
            task_id="submit",
            existing_cluster_id=first.output,
            notebook_task=first.output,
            libraries=first.output,
            timeout_seconds=first.output,
        )
        run_now = DatabricksRunNowOperator(
            task_id="run_now", job_id=first.output, notebook_params={"day": first.output}
        )
        cancel = DatabricksCancelRunsOperator(task_id="cancel", run_id=first.output)
    assert first.downstream_task_ids == {submit.task_id, run_now.task_id, cancel.task_id}


def test_structures_of_the_reference_are_arguments() -> None:
    """With the editor's completion; a field that the reference does not know is passed on."""
    cluster: NewCluster = {
        "spark_version": "15.4.x-scala2.12",
        "node_type_id": "i3.xlarge",
        "num_workers": 2,
    }
    task: NotebookTask = {"notebook_path": "/n"}
    operator = DatabricksSubmitRunOperator(
        task_id="submit", new_cluster=cluster, notebook_task={**task, "of_tomorrow": True}
    )
    assert operator.request()["notebook_task"] == {"notebook_path": "/n", "of_tomorrow": True}
    with pytest.raises(InvalidRequestError, match="notebook_path"):
        DatabricksSubmitRunOperator(
            task_id="submit", new_cluster=cluster, notebook_task={"notebook_path": "n"}
        )
