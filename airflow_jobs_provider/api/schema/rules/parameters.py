"""Rules about the parameters of a run."""

from __future__ import annotations

import json

from airflow_jobs_provider.api.schema.rules.base import (
    ONLY_2_0,
    SINCE_2_1,
    Node,
    Place,
    Problems,
    ascii_list,
    ascii_map,
    at_most,
    exclude_each_other,
    forbidden_options,
    rule,
)

MAX_PARAMETER_BYTES = 10_000
PARAMETER_KINDS = ("notebook_params", "jar_params", "python_params", "spark_submit_params")
_PARAMETERS = ("RunParameters", "RunNowRequest")


@rule(*_PARAMETERS, versions=ONLY_2_0)
def one_kind_of_parameters(node: Node, place: Place) -> Problems:
    """Only one kind of parameters is given (reference: "RunParameters")."""
    yield from exclude_each_other([name for name in PARAMETER_KINDS if node.get(name)], place)


@rule(*_PARAMETERS, versions=SINCE_2_1)
def notebook_or_jar_parameters(node: Node, place: Place) -> Problems:
    """``notebook_params`` and ``jar_params`` exclude each other (reference: "Run now")."""
    both = ("notebook_params", "jar_params")
    yield from exclude_each_other([name for name in both if node.get(name)], place)


@rule(*_PARAMETERS)
def parameters_size(node: Node, place: Place) -> Problems:
    """Each kind of parameters, with its name, has at most 10,000 bytes as JSON
    (reference: "RunParameters", "Run now").
    """
    for name in PARAMETER_KINDS:
        if node.get(name):
            try:
                text = json.dumps({name: node[name]}, ensure_ascii=False, separators=(",", ":"))
            except (TypeError, ValueError):
                continue
            size = len(text.encode(errors="replace"))
            yield from at_most(MAX_PARAMETER_BYTES, "bytes as JSON", size, place, name)


@rule(*_PARAMETERS)
def ascii_parameters(node: Node, place: Place) -> Problems:
    """``python_params`` and ``spark_submit_params`` are ASCII only (reference: "RunParameters")."""
    for name in ("python_params", "spark_submit_params"):
        yield from ascii_list(node, name, place)


@rule(*_PARAMETERS, versions=ONLY_2_0)
def ascii_notebook_parameters(node: Node, place: Place) -> Problems:
    """``notebook_params`` are ASCII only (reference: "ParamPair")."""
    yield from ascii_map(node, "notebook_params", place)


@rule("NotebookTask", versions=ONLY_2_0)
def ascii_base_parameters(node: Node, place: Place) -> Problems:
    """A notebook's ``base_parameters`` are ASCII only (reference: "ParamPair")."""
    yield from ascii_map(node, "base_parameters", place)


@rule(*_PARAMETERS)
def spark_submit_params_options(node: Node, place: Place) -> Problems:
    """``spark_submit_params`` set neither ``--master`` nor ``--deploy-mode`` nor
    ``--executor-cores`` (reference: "SparkSubmitTask").
    """
    yield from forbidden_options(node, "spark_submit_params", place)
