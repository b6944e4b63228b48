"""Answers of the fake service: a status and a body."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["TRACE", "bad_request", "no_endpoint", "run_output"]

TRACE = "Traceback (most recent call last): line 1"


def bad_request(message: str) -> tuple[int, dict[str, Any]]:
    """Answer that a request is wrong."""
    return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": message}


def no_endpoint(endpoint: str) -> tuple[int, dict[str, Any]]:
    """Answer that there is no such endpoint."""
    message = f"No API found for {endpoint}"
    return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": message}


def run_output(
    run: dict[str, Any],
    name: object,
    result: str | None,
    *,
    full: bool = True,
    of_function: bool = False,
    exit_value: str | None = None,
) -> dict[str, Any]:
    """Return the body of an answer to ``runs/get-output``.

    :param run: the run as ``runs/get`` answers it.
    :param name: what its text names: the run's id or its task's key.
    :param result: its result state.
    :param full: whether its notebook gives an exit value.
    :param of_function: whether it executes a function of ``@task.databricks_python``.
    :param exit_value: the exit value; default None for one that names the run.
    """
    if result == "SUCCESS":
        text = f"output of {name}" if exit_value is None else exit_value
        if of_function:
            text = json.dumps({"return_value": text})
        return {"metadata": run, "notebook_output": {"result": text} if full else {}}
    return {"metadata": run, "error": f"error of {name}", "error_trace": TRACE}
