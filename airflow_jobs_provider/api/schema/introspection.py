"""The structures of :mod:`.types` as data: their fields and the types of the fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Required, get_args, get_origin

from typing_extensions import get_type_hints, is_typeddict

from airflow_jobs_provider.api.schema import request_types as types

__all__ = [
    "Field",
    "belongs_to_clusters_api",
    "enum_values",
    "fields_of",
    "is_open_enum",
    "named_types",
    "structure_fields",
    "structures",
]

_PLAIN = {
    types.String: "STRING",
    types.Bool: "BOOL",
    types.Int32: "INT32",
    types.Int64: "INT64",
    types.Double: "DOUBLE",
}


class Field(NamedTuple):
    """One field of a structure.

    :ivar name: name of the field.
    :ivar hint: the type of its value, with what the reference says of it.
    :ivar type_name: the reference's name of its type: ``STRING``, ``array of Library``.
    :ivar required: whether the field is required.
    :ivar is_later: whether the 2.0 reference does not list it.
    :ivar min_version: lowest version of the API that is known to take it.
    :ivar structure: structure of the value, or of the elements of a list; None for plain values.
    :ivar is_list: whether the value is a list.
    """

    name: str
    hint: Any
    type_name: str
    required: bool
    is_later: bool
    min_version: str
    structure: Any
    is_list: bool


@cache
def fields_of(structure: Any) -> Mapping[str, Field]:
    """Return the fields of a structure by name.

    :param structure: a typed dict of :mod:`.types`.
    """
    return {
        name: _field(name, hint)
        for name, hint in get_type_hints(structure, include_extras=True).items()
    }


@cache
def structure_fields(structure: Any) -> tuple[Field, ...]:
    """Return the fields of a structure whose values are structures, or lists of them.

    :param structure: a typed dict of :mod:`.types`.
    """
    return tuple(field for field in fields_of(structure).values() if field.structure is not None)


# The Jobs API passes these on to the Clusters and Libraries APIs, in all versions.
_OF_OTHER_SERVICES = frozenset(
    {
        types.NewCluster,
        types.AutoScale,
        types.AzureAttributes,
        types.ClusterLogConf,
        types.InitScriptInfo,
        types.WorkspaceStorageInfo,
        types.DbfsStorageInfo,
        types.FileStorageInfo,
        types.ABFSSStorageInfo,
        types.Library,
        types.MavenLibrary,
        types.PythonPyPiLibrary,
        types.RCranLibrary,
    }
)


def belongs_to_clusters_api(structure: Any) -> bool:
    """Whether a structure belongs to the Clusters or Libraries API.

    Such a structure does not depend on the version of the Jobs API.

    :param structure: a typed dict of :mod:`.types`.
    """
    return structure in _OF_OTHER_SERVICES


def structures() -> dict[str, Any]:
    """Return all structures by name."""
    from airflow_jobs_provider.api.schema import types as all_types

    return {name: value for name, value in vars(all_types).items() if is_typeddict(value)}


def named_types() -> dict[str, Any]:
    """Return the maps and enumerations of :mod:`.types` by the reference's name."""
    return {
        named.name: value
        for value in vars(types).values()
        for named in _marks(value, types.ReferenceName)
    }


def enum_values(enumeration: Any) -> tuple[str, ...]:
    """Return the known values of an enumeration; empty for a map.

    :param enumeration: an annotated type of :mod:`.types`.
    """
    for named in _marks(enumeration, types.ReferenceName):
        if named.values:
            return tuple(named.values)
    inner = get_args(enumeration)[0]
    return get_args(inner) if get_origin(inner) is Literal else ()


def is_open_enum(enumeration: Any) -> bool:
    """Whether an enumeration accepts other values than the known ones.

    :param enumeration: an annotated type of :mod:`.types`.
    """
    return any(named.values for named in _marks(enumeration, types.ReferenceName))


def _marks(hint: Any, kind: Any) -> Iterator[Any]:
    if get_origin(hint) is Annotated:
        yield from (mark for mark in get_args(hint)[1:] if isinstance(mark, kind))


def _field(name: str, hint: Any) -> Field:
    required = get_origin(hint) is Required
    if required:
        hint = get_args(hint)[0]
    is_later = next(_marks(hint, types.NotIn20), None)
    if is_later is not None:
        held, *marks = get_args(hint)
        kept = [mark for mark in marks if not isinstance(mark, types.NotIn20)]
        hint = Annotated[(held, *kept)] if kept else held
    inner, is_list = hint, get_origin(hint) is list
    if is_list:
        inner = get_args(hint)[0]
    type_name = _type_name(inner)
    return Field(
        name=name,
        hint=hint,
        type_name=f"array of {type_name}" if is_list else type_name,
        required=required,
        is_later=is_later is not None,
        min_version="2.0" if is_later is None else is_later.min_version,
        structure=inner if is_typeddict(inner) else None,
        is_list=is_list,
    )


def _type_name(hint: Any) -> str:
    if hint in _PLAIN:
        return _PLAIN[hint]
    for named in _marks(hint, types.ReferenceName):
        return str(named.name)
    if get_origin(hint) is Literal:
        return "STRING"
    return str(hint.__name__)
