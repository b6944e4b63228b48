"""What Airflow stores of a task does not depend on which fields it is offered."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, BaseOperator, MappedOperator

from airflow_jobs_provider.airflow_compat.start_in_triggerer import renders_in_triggerer
from airflow_jobs_provider.airflow_compat.stored_arguments import of_text
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

REQUEST: dict[str, Any] = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/x"}}
DEFAULTS: dict[str, Any] = {
    "depends_on_past": False,
    "email_on_failure": True,
    "owner": "airflow",
    "pool": "default_pool",
    "retries": 0,
    "retry_delay": timedelta(minutes=5),
    "trigger_rule": "all_success",
    "weight_rule": "downstream",
}
OTHERS: dict[str, Any] = {
    "depends_on_past": True,
    "email_on_failure": False,
    "end_date": datetime(2027, 1, 1, tzinfo=UTC),
    "execution_timeout": timedelta(hours=1),
    "executor_config": {"a": {1, 2}},
    "max_retry_delay": timedelta(hours=1),
    "on_failure_callback": print,
    "outlets": [Asset("s3://sales")],
    "owner": "data",
    "params": {"day": 1},
    "pool": "other",
    "retries": 4,
    "retry_delay": timedelta(seconds=9),
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "trigger_rule": "all_done",
    "weight_rule": "upstream",
}
OF_INSTALLATION = {"owner": "platform", "retries": 3, "retry_delay": timedelta(seconds=9)}


class OfferingAll(DatabricksSubmitRunOperator):
    """An operator that offers all its fields to Airflow, as Airflow's own operators do."""

    get_serialized_fields = classmethod(BaseOperator.get_serialized_fields.__func__)  # type: ignore[attr-defined]


def stored_task(*, is_mapped: bool, offers_all: bool, **given: Any) -> dict[str, Any]:
    """Return what Airflow stores of a task, without the name of its class."""
    with DAG("sales", schedule=None, default_args=given.pop("default_args", {})) as dag:
        if is_mapped:
            DatabricksSubmitRunOperator.partial(task_id="etl", **REQUEST, **given).expand(
                run_name=["a", "b"]
            )
        else:
            DatabricksSubmitRunOperator(task_id="etl", **REQUEST, **given)
    if offers_all:
        task: Any = dag.get_task("etl")
        task.__class__ = MappedOperator if is_mapped else OfferingAll
    module: Any = importlib.import_module("airflow.serialization.serialized_objects")
    kind = module.DagSerialization if hasattr(module, "DagSerialization") else module.SerializedDAG
    (stored,) = kind.to_dict(dag)["dag"]["tasks"]
    fields: dict[str, Any] = stored["__var"]
    of_class = {"task_type", "_task_type", "_task_module"}
    return {name: value for name, value in fields.items() if name not in of_class}


@pytest.mark.parametrize("is_mapped", [False, True])
@pytest.mark.parametrize("of_installation", [{}, OF_INSTALLATION], ids=["airflow", "installation"])
@pytest.mark.parametrize("given_by", ["task", "default_args"])
@pytest.mark.parametrize("given", [{}, DEFAULTS, OTHERS], ids=["nothing", "defaults", "others"])
def test_fields_with_their_defaults_are_left_out_without_effect(
    given: dict[str, Any],
    given_by: str,
    of_installation: dict[str, Any],
    is_mapped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where a default of the schema is given in place of one of the installation."""
    module: Any = importlib.import_module(BaseOperator.__module__)
    for name, value in of_installation.items() if hasattr(module, "OPERATOR_DEFAULTS") else ():
        monkeypatch.setitem(module.OPERATOR_DEFAULTS, name, value)
    arguments = given if given_by == "task" else {"default_args": given}
    ours, whole = (
        stored_task(is_mapped=is_mapped, offers_all=offers_all, **arguments)
        for offers_all in (False, True)
    )
    assert ours == whole


class Failing(BaseOperator):
    """An operator that Airflow cannot serialize."""

    is_repaired = False

    @property
    def ui_color(self) -> str:  # type: ignore[override]
        """Return the color, if it is repaired."""
        if not self.is_repaired:
            raise ValueError("no color")
        return "#fff"


starts_in_triggerer = pytest.mark.skipif(
    not renders_in_triggerer(), reason="a worker launches every run"
)


def started(task_id: str, run_name: str) -> DatabricksSubmitRunOperator:
    """Make an operator that starts in the triggerer."""
    return DatabricksSubmitRunOperator(
        task_id=task_id, run_name=run_name, start_from_trigger=True, **REQUEST
    )


def stored_names(dag: DAG) -> dict[str, str]:
    """Return by task id the names of the runs that Airflow stores with the starts of a DAG."""
    module: Any = importlib.import_module("airflow.serialization.serialized_objects")
    tasks = [task["__var"] for task in module.DagSerialization.to_dict(dag)["dag"]["tasks"]]
    return {
        task["task_id"]: of_text(task["start_trigger_args"]["trigger_kwargs"]["__var"])["run_name"]
        for task in tasks
        if "start_trigger_args" in task
    }


@starts_in_triggerer
def test_a_serialization_that_fails_leaves_nothing_for_the_next_one() -> None:
    """Neither for another DAG with the same tasks, nor for the same DAG."""
    with DAG("first", schedule=None) as first:
        started("one", "a")
        failing = Failing(task_id="failing")
        two = started("two", "b")
    with DAG("second", schedule=None) as second:
        started("two", "c")
        started("one", "d")
    with pytest.raises(Exception, match="no color"):
        stored_names(first)
    assert stored_names(second) == {"one": "d", "two": "c"}
    with pytest.raises(Exception, match="no color"):
        stored_names(first)
    failing.is_repaired = True
    two.run_name = "e"
    assert stored_names(first) == {"one": "a", "two": "e"}


@starts_in_triggerer
def test_a_task_may_be_changed_between_serializations_of_single_tasks() -> None:
    """The start of the other task was not found out with that of the first one."""
    module: Any = importlib.import_module("airflow.serialization.serialized_objects")
    with DAG("sales", schedule=None):
        one, two = started("one", "a"), started("two", "b")
    assert "start_trigger_args" in module.OperatorSerialization.serialize_operator(one)
    two.pool = "other"
    assert "start_trigger_args" not in module.OperatorSerialization.serialize_operator(two)
