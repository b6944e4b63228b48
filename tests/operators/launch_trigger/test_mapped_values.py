"""The values of a mapped task, as they are stored for the triggerer."""

from __future__ import annotations

import base64
import bz2
import hashlib
import json
import pickle
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from airflow_jobs_provider.airflow_compat import stored_text
from airflow_jobs_provider.operators.jobs import DatabricksRunNowOperator
from tests.fakes.fake_service import FakeService
from tests.helpers.launch_trigger import succeeded
from tests.helpers.mapped_tasks import COMMON, Expand, mapped, over_literal_values, sent
from tests.helpers.triggerer import Attempt

VALUES = [{"day": f"day {index}", "text": f"{index * 7919 % 10007}"} for index in range(1000)]


@pytest.mark.parametrize("number", [1000, 20_000])
def test_a_thousand_instances_fit_into_the_arguments_of_each(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler stores all values for each instance. Too many of them start on workers."""
    values = [{"day": f"day {index}", "text": f"{index * 7919 % 10007}"} for index in range(number)]
    with DAG("sales", schedule=None, catchup=False):
        task: Any = DatabricksRunNowOperator.partial(job_id=1, **COMMON).expand(
            notebook_params=values
        )
    if number == 1000:
        assert len(str(task.start_trigger_args.trigger_kwargs)) < 12_000
    else:
        (reason,) = task.worker_start_reasons()
        assert reason.startswith("a request of ")


@pytest.mark.parametrize(
    ("expand", "instances"),
    [
        (lambda partial, values: partial.expand(notebook_params=values), 1_000),
        (
            lambda partial, values: partial.expand(
                notebook_params=values, dbt_commands=[["a"]] * 2
            ),
            2_000,
        ),
        (
            lambda partial, values: partial.expand_kwargs(
                [{"notebook_params": one} for one in values]
            ),
            1_000,
        ),
    ],
    ids=["expand", "two arguments", "expand_kwargs"],
)
@pytest.mark.parametrize("starts_in_triggerer", [True, False])
def test_the_serialized_dag_has_the_number_of_the_values_only(
    starts_in_triggerer: bool, expand: Expand, instances: int
) -> None:
    """The triggerer reads it twice for each instance; the scheduler needs their number."""
    arguments = {**COMMON, "start_from_trigger": starts_in_triggerer}
    values = [{"table": f"table_{number}"} for number in range(1_000)]
    with DAG("sales", schedule=None, catchup=False) as dag:
        expand(DatabricksRunNowOperator.partial(**arguments, job_id=1, validate=False), values)
    stored = json.dumps(DagSerialization.to_dict(dag)["dag"]["tasks"][0]["__var"]["expand_input"])
    assert ("table_999" in stored) is not starts_in_triggerer
    task = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("etl")
    assert task.start_from_trigger is starts_in_triggerer
    assert task.get_parse_time_mapped_ti_count() == instances
    mapped_task: Any = dag.get_task("etl")
    context = {"ti": SimpleNamespace(map_index=instances - 1)}
    on_worker, _ = mapped_task._expand_mapped_kwargs(context)
    assert on_worker["notebook_params"] == values[-1]


def test_a_pickled_dag_has_the_same_mapped_task() -> None:
    """Airflow pickles a DAG for a function in a virtual environment that takes ``dag``."""
    with DAG("sales", schedule=None, catchup=False) as dag:
        over_literal_values(DatabricksRunNowOperator.partial(job_id=1, **COMMON), None)
    copied = pickle.loads(pickle.dumps(dag)).get_task("etl")
    assert copied.start_trigger_args == dag.get_task("etl").start_trigger_args
    assert copied.start_from_trigger


def test_many_instances_start_without_blocking_the_triggerer(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow renders each in the event loop. The values of all are decoded once, not for each."""
    text = "text that is long enough to be compressed"
    values = [{"number": f"{index}, {text}"} for index in range(20)]
    triggerer = mapped(
        service, monkeypatch, lambda partial, _: partial.expand(notebook_params=values)
    )
    decoded: list[bytes] = []
    decompress = bz2.decompress

    def counting(*arguments: Any, **options: Any) -> bytes:
        text = decompress(*arguments, **options)
        if text.startswith(b'{"product":'):  # Others decompress, too.
            decoded.append(text)
        return text

    monkeypatch.setattr(bz2, "decompress", counting)
    for index in range(20):
        assert succeeded(triggerer.start(Attempt(map_index=index)))
    assert sent(service) == values
    assert len(decoded) == 1


def test_the_stored_values_do_not_depend_on_how_zlib_was_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two DAG processors with different builds would make new versions of the DAG in turn."""

    def other_build(data: bytes, *_: Any, **__: Any) -> bytes:
        return compress(data, 1)

    compress = zlib.compress
    texts = []
    for used in (compress, other_build):
        monkeypatch.setattr(zlib, "compress", used)
        stored_text.compressed.cache_clear()
        with DAG("sales", schedule=None, catchup=False):
            task: Any = DatabricksRunNowOperator.partial(job_id=1, **COMMON).expand(
                notebook_params=VALUES
            )
        texts.append(task.start_trigger_args.trigger_kwargs["mapped"])
    first, second = texts
    assert first == second
    # In no environment of the tests is it another text.
    assert hashlib.sha256(first.encode()).hexdigest() == (
        "1276efa83c67e52176243321441850b276b08330c854a93c6a9203dcafbe88bb"
    )


def test_few_values_are_stored_as_they_are(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed, they would take more."""
    triggerer = mapped(service, monkeypatch, over_literal_values)
    trigger = triggerer.trigger(Attempt(map_index=0))
    assert json.loads(trigger.mapped) == {
        "product": [["notebook_params", [{"a": "0"}, {"a": "1"}]]]
    }


def test_values_that_an_earlier_version_has_stored(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compressed them with zlib."""
    triggerer = mapped(service, monkeypatch, over_literal_values)
    text = json.dumps({"product": [["notebook_params", [{"a": "x"}, {"a": "y"}]]]})
    arguments: Any = triggerer._dag.get_task("etl").start_trigger_args
    stored = base64.b85encode(zlib.compress(text.encode())).decode()
    arguments.trigger_kwargs["__var"]["mapped"] = stored
    triggerer.start_with(arguments)
    assert succeeded(triggerer.start(Attempt(map_index=1)))
    assert sent(service) == [{"a": "y"}]
