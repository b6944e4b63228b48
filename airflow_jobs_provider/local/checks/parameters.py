"""The parameters of one run ("RunParameters", "ParamPair", "Run now"; later "Repair")."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_jobs_provider.local.checks.field_types import at, later_field, text_bytes
from airflow_jobs_provider.local.checks.request_fields import wrong_type
from airflow_jobs_provider.local.checks.spark_submit import check_options
from airflow_jobs_provider.local.engine.references import check_references
from airflow_jobs_provider.local.errors import invalid
from airflow_jobs_provider.local.versions import Version

__all__ = ["check_ascii", "check_overriding"]

_MAX_BYTES = 10_000
_MAPS = ("notebook_params", "python_named_params", "sql_params", "job_parameters")
_LISTS = ("jar_params", "python_params", "spark_submit_params", "dbt_commands")
# Of the others the reference does not ask it.
_ASCII = ("python_params", "spark_submit_params")
_ASCII_IN_2_0 = ("notebook_params", *_ASCII)
_IN_2_0 = frozenset({"job_id", "idempotency_token", *_LISTS[:3], "notebook_params"})
_OF_ONE_KIND = ("jar_params", "notebook_params", "python_params", "spark_submit_params")


def check_overriding(data: Mapping[str, Any], version: Version) -> dict[str, Any]:
    """Return the parameters that a request gives."""
    if not version.has_tasks:
        _refuse_later_fields(data)
    given = {name: data[name] for name in (*_MAPS, *_LISTS) if data.get(name) is not None}
    for name, value in given.items():
        texts = list(_texts(name, value))
        if name in (_ASCII if version.has_tasks else _ASCII_IN_2_0):
            for place, text in texts:
                check_ascii(place, text)
        _check_size(name, value)
        check_references(name, value)
    check_options("spark_submit_params", given.get("spark_submit_params") or [])
    _check_one_kind(given, version)
    return given


def _refuse_later_fields(data: Mapping[str, Any]) -> None:
    for name, value in data.items():
        if value is not None and name not in _IN_2_0:
            raise later_field(name)


def check_ascii(place: str, text: str) -> None:
    """Refuse what is not ASCII, in a text or in the name it has."""
    if not (place.isascii() and text.isascii()):
        raise invalid(f"{place} must consist of ASCII characters only")


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if name in _MAPS:
        if not isinstance(value, dict):
            raise wrong_type(name, "a map of text to text", value)
        places = {at(name, key): text for key, text in value.items()}
    else:
        if not isinstance(value, list):
            raise wrong_type(name, "an array of text", value)
        places = {f"{name}[{index}]": text for index, text in enumerate(value)}
    for place, text in places.items():
        if not isinstance(text, str):
            raise wrong_type(place, "text", text)
        yield place, text


def _check_size(name: str, value: Any) -> None:
    size = text_bytes(json.dumps({name: value}, separators=(",", ":"), ensure_ascii=False))
    if size > _MAX_BYTES:
        raise invalid(
            f"The JSON representation of {name} must have at most {_MAX_BYTES} bytes; it has {size}"
        )


def _check_one_kind(given: Mapping[str, Any], version: Version) -> None:
    kinds = [name for name in _OF_ONE_KIND if given.get(name)]
    if "jar_params" in kinds and "notebook_params" in kinds:
        raise invalid("notebook_params cannot be specified in conjunction with jar_params")
    if len(kinds) > 1 and not version.has_tasks:
        # Later, a job may have tasks of several kinds.
        raise invalid(f"Only one of {', '.join(kinds)} should be specified")
