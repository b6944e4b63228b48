"""Constructors of operators: Airflow's ``default_args``, and attributes that are set."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, TaskGroup

from airflow_jobs_provider.airflow_compat import default_arguments
from airflow_jobs_provider.operators.jobs import (
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.operators.launch import LaunchRunOperator
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

# One argument of each base class, with a value that is not the default.
OF_BASES: dict[str, Any] = {
    "databricks_conn_id": "other",
    "max_output_bytes": 99,
    "forward_dag_params": False,
    "cancel_on_kill": False,
    "queued_timeout_seconds": 600,
    "retries": 7,
}


@pytest.mark.parametrize("given_by", ["DAG", "group", "task"])
def test_default_args_reach_the_arguments_of_each_base_class(given_by: str) -> None:
    """Those of a group take precedence over those of the DAG, and the task's own over both."""
    others = dict.fromkeys(OF_BASES, 1)
    of_dag = OF_BASES if given_by == "DAG" else others
    of_group: Any = OF_BASES if given_by == "group" else {}
    with (
        DAG("sales", schedule=None, default_args=of_dag),
        TaskGroup("group", default_args=of_group),
    ):
        of_task: dict[str, Any] = {"default_args": OF_BASES} if given_by == "task" else {}
        task = DatabricksRunNowOperator(task_id="etl", job_id=1, **of_task)
    assert {name: getattr(task, name) for name in OF_BASES} == OF_BASES


def test_an_argument_takes_precedence_over_default_args() -> None:
    """Also one of a base class, and one that a subclass gives its base class."""
    with DAG("sales", schedule=None, default_args={**OF_BASES, "polling_period_seconds": 3}):
        one = DatabricksRunNowOperator(task_id="one", job_id=1, max_output_bytes=5)
        two = Custom(task_id="two", job_id=1)
    assert (one.max_output_bytes, one.polling_period_seconds) == (5, 3)
    assert (two.max_output_bytes, two.cancel_on_kill) == (11, False)


class Custom(DatabricksRunNowOperator):
    """A user's subclass, which decides one argument itself."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_output_bytes=11, **kwargs)


class WithoutConstructor(LaunchRunOperator):
    """A subclass of a base class that has no constructor of its own."""

    template_fields = ("json", "databricks_conn_id")


def test_a_subclass_without_a_constructor() -> None:
    """Airflow applies the defaults, and finds what the task depends on."""
    with DAG("sales", schedule=None, default_args=OF_BASES):
        first = BaseOperator(task_id="first")
        task = WithoutConstructor(task_id="etl", json={"job_id": first.output})
    assert {name: getattr(task, name) for name in OF_BASES} == OF_BASES
    assert task.upstream_task_ids == {"first"}


class Changing(LaunchRunOperator):
    """A user's subclass of a base class, which decides what Airflow prepares."""

    def __init__(self, changes: dict[str, Any], **kwargs: Any) -> None:
        kwargs.pop("default_args", None)
        super().__init__(**{**kwargs, **changes})


@pytest.mark.parametrize("changes", [{}, {"default_args": None}, {"params": {"day": 1}}])
def test_a_subclass_that_changes_what_airflow_has_prepared(changes: dict[str, Any]) -> None:
    """Airflow prepares it again for the base class, as with its own operators."""
    with DAG("sales", schedule=None, default_args=OF_BASES, params={"hour": 2}):
        task = Changing(task_id="etl", changes=changes)
    assert {name: getattr(task, name) for name in OF_BASES} == OF_BASES
    assert dict(task.params) == {"hour": 2} | changes.get("params", {})


def test_a_subclass_that_gives_its_base_class_a_dag() -> None:
    """The DAG's ``default_args`` are those of the task."""
    dag = DAG("sales", schedule=None, default_args=OF_BASES)
    task = Changing(task_id="etl", changes={"dag": dag})
    assert {name: getattr(task, name) for name in OF_BASES} == OF_BASES


def test_the_sensor_takes_default_args() -> None:
    """Its base classes are others."""
    with DAG("sales", schedule=None, default_args={"max_output_bytes": 9, "poke_interval": 7}):
        sensor = DatabricksJobRunSensor(task_id="wait", run_id=1)
    assert (sensor.max_output_bytes, sensor.poke_interval) == (9, 7)


def test_unknown_arguments_are_refused_also_of_mapped_tasks() -> None:
    """Airflow knows the arguments of each base class."""
    with DAG("sales", schedule=None):
        DatabricksRunNowOperator.partial(task_id="a", **OF_BASES).expand(job_id=[1])
        with pytest.raises(TypeError, match="cancel_on_kil'"):
            DatabricksRunNowOperator.partial(task_id="b", cancel_on_kil=True)


def test_the_signature_of_a_base_class_is_its_own() -> None:
    """Documentation and editors show it."""
    assert "reattach" in inspect.signature(LaunchRunOperator).parameters


def test_attributes_set_after_the_constructor_are_dependencies() -> None:
    """As with Airflow's own operators; nothing of this is left out."""
    with DAG("sales", schedule=None):
        first = BaseOperator(task_id="first")
        task = DatabricksSubmitRunOperator(
            task_id="etl", notebook_task={"notebook_path": "/x"}, existing_cluster_id="c"
        )
        task.run_name = first.output
    assert task.upstream_task_ids == {"first"}


def test_airflow_converts_attributes_that_the_constructor_sets() -> None:
    """Text becomes a number, seconds become a timedelta."""
    with DAG("sales", schedule=None, default_args={"retries": "3", "retry_delay": 60}):
        task = DatabricksNotebookOperator(
            task_id="etl", notebook_path="/x", source="WORKSPACE", existing_cluster_id="c"
        )
    assert task.retries == 3
    assert task.retry_delay.total_seconds() == 60


def test_a_copy_of_an_operator_is_like_it() -> None:
    """Airflow copies operators, for example for ``dag.partial_subset``."""
    with DAG("sales", schedule=None) as dag:
        DatabricksRunNowOperator(task_id="etl", job_id=1, max_output_bytes=5)
    copied = dag.partial_subset("etl").get_task("etl")
    assert (copied.job_id, copied.max_output_bytes) == (1, 5)


def test_an_airflow_with_other_attributes_does_everything_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A class keeps the constructor that Airflow has given it, and attributes are Airflow's."""
    monkeypatch.setattr(default_arguments, "KNOWS_INTERNALS", False)

    class Other(LaunchRunOperator):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    constructor = Other.__init__
    assert default_arguments.applies_defaults_once(Other).__init__ is constructor
    with DAG("sales", schedule=None, default_args=OF_BASES):
        first = BaseOperator(task_id="first")
        task = DatabricksRunNowOperator(task_id="etl", job_id=first.output)
    assert {name: getattr(task, name) for name in OF_BASES} == OF_BASES
    assert task.upstream_task_ids == {"first"}


class Converting(DatabricksRunNowOperator):
    """A user's subclass with a converter, which Airflow calls when the attribute is set."""

    @staticmethod
    def _convert_job_name(value: Any) -> Any:
        return None if value is None else value.upper()


@pytest.mark.skipif(
    not any(name.startswith("_convert_") for name in dir(BaseOperator)),
    reason="this Airflow has no converters",
)
def test_converters_of_a_users_subclass_are_called() -> None:
    """In the constructor and later."""
    task = Converting(task_id="etl", job_name="nightly")
    assert task.job_name == "NIGHTLY"
    task.job_name = "daily"
    assert task.job_name == "DAILY"
