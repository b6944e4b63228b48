"""Rules about the parameters of a run."""

from __future__ import annotations

import json
from typing import Any

from airflow_jobs_provider.api.schema.rules.base import (
    ONLY_2_0,
    SINCE_2_1,
    Location,
    Node,
    Problems,
    check_ascii_list,
    check_ascii_map,
    check_forbidden_options,
    check_mutually_exclusive,
    check_size,
    rule,
)

__all__ = ["MAX_PARAMETER_BYTES", "parameter_bytes"]  # each rule registers itself

MAX_PARAMETER_BYTES = 10_000
PARAMETER_KINDS = ("notebook_params", "jar_params", "python_params", "spark_submit_params")
_PARAMETERS = ("RunParameters", "RunNowRequest")


@rule(*_PARAMETERS, versions=ONLY_2_0)
def one_kind_of_parameters(node: Node, location: Location) -> Problems:
    """Only one kind of parameters is given (reference: "RunParameters")."""
    yield from check_mutually_exclusive(
        [name for name in PARAMETER_KINDS if node.get(name)], location
    )


@rule(*_PARAMETERS, versions=SINCE_2_1)
def notebook_or_jar_parameters(node: Node, location: Location) -> Problems:
    """``notebook_params`` and ``jar_params`` exclude each other (reference: "Run now")."""
    both = ("notebook_params", "jar_params")
    yield from check_mutually_exclusive([name for name in both if node.get(name)], location)


@rule(*_PARAMETERS)
def parameters_size(node: Node, location: Location) -> Problems:
    """Each kind of parameters, with its name, has at most 10,000 bytes as JSON
    (reference: "RunParameters", "Run now").
    """
    for name in PARAMETER_KINDS:
        if node.get(name):
            try:
                size = parameter_bytes(name, node[name])
            except (TypeError, ValueError):
                continue
            yield from check_size(MAX_PARAMETER_BYTES, "bytes as JSON", size, location, name)


def parameter_bytes(name: str, value: Any) -> int:
    """Return how many bytes one kind of parameters has as JSON, with its name.

    :param name: such as ``notebook_params``.
    :param value: the parameters.
    """
    text = json.dumps({name: value}, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode(errors="replace"))


@rule(*_PARAMETERS)
def ascii_parameters(node: Node, location: Location) -> Problems:
    """``python_params`` and ``spark_submit_params`` are ASCII only (reference: "RunParameters")."""
    for name in ("python_params", "spark_submit_params"):
        yield from check_ascii_list(node, name, location)


@rule(*_PARAMETERS, versions=ONLY_2_0)
def ascii_notebook_parameters(node: Node, location: Location) -> Problems:
    """``notebook_params`` are ASCII only (reference: "ParamPair")."""
    yield from check_ascii_map(node, "notebook_params", location)


@rule("NotebookTask", versions=ONLY_2_0)
def ascii_base_parameters(node: Node, location: Location) -> Problems:
    """A notebook's ``base_parameters`` are ASCII only (reference: "ParamPair")."""
    yield from check_ascii_map(node, "base_parameters", location)


@rule(*_PARAMETERS)
def spark_submit_params_options(node: Node, location: Location) -> Problems:
    """``spark_submit_params`` set neither ``--master`` nor ``--deploy-mode`` nor
    ``--executor-cores`` (reference: "SparkSubmitTask").
    """
    yield from check_forbidden_options(node, "spark_submit_params", location)
