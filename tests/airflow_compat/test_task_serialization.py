"""What Airflow stores of a task does not depend on which fields it is offered."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, BaseOperator, MappedOperator

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
