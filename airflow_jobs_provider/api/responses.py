"""What an answer must be: checked once, when it is read, so that all who use it can rely on it.

Ids, numbers, texts, objects and lists that this package uses must have the type that the reference
gives them. A missing field, or a null, is no error, and a field that is not listed here is kept as
it came. Whole numbers may come as decimal text; the answer then holds the number. What does not fit
raises :class:`InvalidResponseError`, which the client turns into
:class:`~airflow_jobs_provider.api.errors.UnexpectedResponseError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from airflow_jobs_provider.api.ids import MAX_ID, parse_id
from airflow_jobs_provider.api.problems import field_path
from airflow_jobs_provider.api.text import safe_url

__all__ = [
    "InvalidResponseError",
    "NotJSONError",
    "parse_items",
    "parse_items_with_id",
    "parse_job",
    "parse_json_object",
    "parse_output",
    "parse_page_token",
    "parse_required_id",
    "parse_run",
    "parse_states",
    "parse_view",
    "parse_views",
]

Answer: TypeAlias = "dict[str, Any]"
Reader: TypeAlias = "Callable[[Any], Any]"

_WHOLE = re.compile(r"-?[0-9]{1,19}")


class InvalidResponseError(ValueError):
    """An answer lacks what the API promises, or has it with another type.

    :ivar problem: what is wrong with it, such as ``tasks[3].state is not an object``.
    """

    def __init__(self, what: str, path: tuple[str | int, ...] = ()) -> None:
        self._what = what
        self._path = path
        self.problem = f"{field_path(path)} {what}" if path else what
        super().__init__(self.problem)

    def within(self, part: str | int) -> InvalidResponseError:
        """Return the same problem, seen from the object or list that holds the faulty part."""
        return InvalidResponseError(self._what, (part, *self._path))


class NotJSONError(ValueError):
    """An answer is not JSON: a page or a text of somebody else's."""


# Calls into Python, between which other threads have their turn: the event loop's among them, where
# a large answer is parsed beside it. Without them the json module keeps the interpreter to itself.
_IN_TURNS_FROM_BYTES = 128 * 1024
_IN_TURNS: dict[str, Any] = {
    "object_hook": lambda value: value,
    "parse_int": lambda text: int(text),  # noqa: PLW0108 - int itself would not be such a call
    "parse_float": lambda text: float(text),  # noqa: PLW0108
}


def parse_json_object(body: bytes) -> Answer | None:
    """Parse a body that should be a JSON object; None where it is not JSON, but a page or a text.

    An empty body counts as an empty object: some endpoints answer success with no body.

    :raises InvalidResponseError: it is JSON, but not an object, or nested or long beyond what can
        be read.
    """
    if not body.strip():
        return {}
    try:
        value = json.loads(body, **(_IN_TURNS if len(body) > _IN_TURNS_FROM_BYTES else {}))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    except RecursionError:
        raise InvalidResponseError("the JSON is nested too deeply") from None
    except ValueError:
        # Python does not convert numbers of thousands of digits.
        raise InvalidResponseError("a number has too many digits") from None
    if not isinstance(value, dict):
        raise InvalidResponseError("the JSON is not an object")
    return value


# -- the types of fields -------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidResponseError("is not text")
    return value


def _web_address(value: Any) -> str | None:
    # One that no browser should be sent to counts as missing, so that no log or link shows it.
    return safe_url(_text(value))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidResponseError("is not true or false")
    return value


def _whole(value: Any) -> int:
    is_whole_float = isinstance(value, float) and value.is_integer()
    if is_whole_float or (isinstance(value, str) and _WHOLE.fullmatch(value)):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_ID:
        raise InvalidResponseError("is not a whole number")
    return value


def _id(value: Any) -> int:
    if (read := parse_id(value)) is None:
        raise InvalidResponseError("is not an id")
    return read


def _id_or_zero(value: Any) -> int:
    # Where there is none, a service may say so with a 0.
    return 0 if value == 0 and type(value) is int else _id(value)


def _object(fields: Mapping[str, Reader]) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise InvalidResponseError("is not an object")
        _check(value, fields)
        return value

    return read


def _list(reader: Reader) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, list):
            raise InvalidResponseError("is not a list")
        for place, item in enumerate(value):
            try:
                reader(item)
            except InvalidResponseError as error:
                raise error.within(place) from None
        return value

    return read


def _check(answer: Answer, fields: Mapping[str, Reader]) -> None:
    """Check the fields that an object has; a number given as text is replaced by the number."""
    for name, reader in fields.items():
        if (value := answer.get(name)) is None:
            continue
        try:
            read = reader(value)
        except InvalidResponseError as error:
            raise error.within(name) from None
        if read is not value:
            answer[name] = read


# -- the structures ------------------------------------------------------------------------------

_STATE = _object({"life_cycle_state": _text, "result_state": _text, "state_message": _text})
_ANY_OBJECT = _object({})
_OF_ANY_RUN: dict[str, Reader] = {
    "state": _STATE,
    "start_time": _whole,
    "end_time": _whole,
    "attempt_number": _whole,
    "run_page_url": _web_address,
}
_OF_TASK: dict[str, Reader] = {
    **_OF_ANY_RUN,
    "run_id": _id,
    "original_attempt_run_id": _id_or_zero,
    "task_key": _text,
    "for_each_task": _object(
        {"stats": _object({"task_run_stats": _object({"total_iterations": _whole})})}
    ),
}
_OF_REPAIR: dict[str, Reader] = {**_OF_ANY_RUN, "id": _id_or_zero, "type": _text}
_OF_RUN: dict[str, Reader] = {
    **_OF_TASK,
    "job_id": _id_or_zero,
    "run_type": _text,
    "run_name": _text,
    "format": _text,
    "has_more": _flag,
    "next_page_token": _text,
    "tasks": _list(_object(_OF_TASK)),
    "iterations": _list(_object(_OF_TASK)),
    "repair_history": _list(_object(_OF_REPAIR)),
    "overriding_parameters": _ANY_OBJECT,
    "job_parameters": _list(_object({"name": _text})),
}
_OF_JOB: dict[str, Reader] = {
    "job_id": _id,
    "settings": _object(
        {
            "name": _text,
            "max_retries": _whole,
            "retry_on_timeout": _flag,
            "min_retry_interval_millis": _whole,
        }
    ),
}
_OF_OUTPUT: dict[str, Reader] = {
    "metadata": _object(_OF_RUN),
    "notebook_output": _object({"result": _text, "truncated": _flag}),
    "error": _text,
    "error_trace": _text,
}
_OF_VIEW: dict[str, Reader] = {"content": _text, "name": _text, "type": _text}


def parse_required_id(answer: Answer, name: str) -> int:
    """Return the id that an answer consists of.

    :param answer: the answer.
    :param name: the field, such as ``run_id``.
    :raises InvalidResponseError: it is missing, or not an id.
    """
    if answer.get(name) is None:
        raise InvalidResponseError(f"there is no {name}")
    _check(answer, {name: _id})
    return int(answer[name])


def parse_run(run: Any, run_id: int | None = None) -> Answer:
    """Check a run, as ``runs/get`` and ``runs/list`` answer it, and return it.

    :param run: what came.
    :param run_id: the run that was asked for; None where any may come. It is put in where the
        answer leaves it out.
    :raises InvalidResponseError: it is not a run, or not the one that was asked for.
    """
    if not isinstance(run, dict):
        raise InvalidResponseError("is not an object")
    if run.get("run_id") is None:
        if run_id is None or not run.get("state"):
            raise InvalidResponseError("there is no run_id")
        run["run_id"] = run_id
    _check(run, _OF_RUN)
    # Asked for the run of a task, a service may show the run that the task belongs to.
    shown = (run["run_id"], *(task.get("run_id") for task in run.get("tasks") or ()))
    if run_id is not None and run_id not in shown:
        raise InvalidResponseError(f"run_id is not {run_id}, the run that was asked for")
    return run


def parse_states(run: Answer) -> tuple[str | None, str | None]:
    """Return a run's life cycle state and result state, None where there is none.

    Checks no more than these, for runs of long lists of which nothing else is used.

    :raises InvalidResponseError: one of them is not text.
    """
    state = run.get("state")
    if type(state) is dict:
        states = (state.get("life_cycle_state"), state.get("result_state"))
        if type(states[0]) is str and (states[1] is None or type(states[1]) is str):
            return states
    _check(run, {"state": _STATE})
    state = state or {}
    return state.get("life_cycle_state"), state.get("result_state")


def parse_job(job: Any, job_id: int | None = None) -> Answer:
    """Check a job, as ``get`` and ``list`` answer it, and return it.

    :param job: what came.
    :param job_id: the job that was asked for; None where any may come. It is put in where the
        answer leaves it out.
    :raises InvalidResponseError: it is not a job, or not the one that was asked for.
    """
    if not isinstance(job, dict):
        raise InvalidResponseError("is not an object")
    if job.get("job_id") is None:
        if job_id is None or not job.get("settings"):
            raise InvalidResponseError("there is no job_id")
        job["job_id"] = job_id
    _check(job, _OF_JOB)
    if job_id is not None and job["job_id"] != job_id:
        raise InvalidResponseError(f"job_id is not {job_id}, the job that was asked for")
    return job


def parse_output(answer: Answer) -> Answer:
    """Check the answer of ``runs/get-output`` and return it.

    :raises InvalidResponseError: a part of it has another type than the reference gives it.
    """
    _check(answer, _OF_OUTPUT)
    return answer


def parse_view(view: Answer) -> Answer:
    """Check one view of ``runs/export`` and return it.

    :raises InvalidResponseError: a part of it has another type than the reference gives it.
    """
    _check(view, _OF_VIEW)
    return view


def parse_views(answer: Answer) -> list[Answer]:
    """Return the views of ``runs/export``.

    :raises InvalidResponseError: they are not a list of objects, or a part of one has another type.
    """
    _check(answer, {"views": _list(_object(_OF_VIEW))})
    return answer.get("views") or []


def parse_items(answer: Answer, name: str, parse: Callable[[Any], Answer]) -> list[Answer]:
    """Return the items on a page of a list.

    :param answer: the page.
    :param name: the field that holds the items.
    :param parse: checks one of them.
    :raises InvalidResponseError: they are not a list, or one of them does not fit.
    """
    _check(answer, {name: _list(parse)})
    return answer.get(name) or []


def parse_items_with_id(answer: Answer, name: str, id_name: str) -> list[Answer]:
    """Return the items on a page of a list that have an id, and check nothing else of them.

    For long pages of which little is used: who uses an item checks it then.

    :param answer: the page.
    :param name: the field that holds the items.
    :param id_name: the field of an item that holds its id.
    :raises InvalidResponseError: they are not a list.
    """
    items = answer.get(name) or []
    if not isinstance(items, list):
        raise InvalidResponseError("is not a list", (name,))
    identified = []
    for item in items:
        if isinstance(item, dict) and (read := parse_id(item.get(id_name))) is not None:
            item[id_name] = read
            identified.append(item)
    return identified


def parse_page_token(answer: Answer) -> tuple[str | None, bool]:
    """Return a page's ``next_page_token``, None where there is none, and its ``has_more``.

    :raises InvalidResponseError: one of them has another type.
    """
    _check(answer, {"next_page_token": _text, "has_more": _flag})
    return answer.get("next_page_token") or None, bool(answer.get("has_more"))
