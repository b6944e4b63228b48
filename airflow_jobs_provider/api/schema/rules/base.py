"""The registry of rules, their application to a payload, and checks that rules share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_jobs_provider.api.problems import Problem, field_path
from airflow_jobs_provider.api.schema import request_types as types
from airflow_jobs_provider.api.schema.introspection import structure_fields
from airflow_jobs_provider.api.versions import API_VERSIONS

__all__ = [
    "MAX_INT32",
    "ONLY_2_0",
    "RULES",
    "SETTINGS",
    "SINCE_2_1",
    "Location",
    "Node",
    "Problems",
    "Rule",
    "check_ascii_list",
    "check_ascii_map",
    "check_exactly_one",
    "check_forbidden_options",
    "check_mutually_exclusive",
    "check_range",
    "check_size",
    "find_violations",
    "get_integer",
    "get_list",
    "get_mapping",
    "get_number",
    "get_string",
    "is_true",
    "join_names",
    "present_fields",
    "rule",
]

Node = Mapping[Any, Any]
Problems = Iterator[Problem]

MAX_INT32 = 2**31 - 1
ONLY_2_0 = ("2.0",)
SINCE_2_1 = ("2.1", "2.2")
SETTINGS = ("JobSettings", "CreateRequest", "RunsSubmitRequest")


class Location(NamedTuple):
    """The location of a structure in a payload.

    :ivar path: names and indices from the top of the payload; default the top.
    :ivar settings: the settings of the job or run that the structure belongs to; default None.
    :ivar partial: whether the payload updates a job's settings, so that any field may be absent;
        default False.
    """

    path: tuple[str | int, ...] = ()
    settings: Node | None = None
    partial: bool = False

    def child(self, *parts: str | int) -> Location:
        """Return the location of a value inside."""
        return Location((*self.path, *parts), self.settings, self.partial)

    def field(self, *parts: str | int) -> str:
        """Return the path of a field inside, as text."""
        return field_path((*self.path, *parts))


class Rule(NamedTuple):
    """One rule.

    :ivar name: name of the function.
    :ivar structures: names of the structures that it checks.
    :ivar check: the function; yields the problems of one structure.
    :ivar versions: versions of the API that it applies to; default all.
    :ivar only_azure: whether it applies on Azure only; default False.
    """

    name: str
    structures: tuple[str, ...]
    check: Callable[[Node, Location], Problems]
    versions: tuple[str, ...] = API_VERSIONS
    only_azure: bool = False

    def applies_to(self, api_version: str, *, is_azure: bool) -> bool:
        """Return whether the rule applies to a request.

        :param api_version: version of the API that the request is sent to.
        :param is_azure: whether the workspace is known to be on Azure.
        """
        return api_version in self.versions and (is_azure or not self.only_azure)

    @property
    def text(self) -> str:
        """The rule and its section of the reference, as text."""
        return " ".join((self.check.__doc__ or "").partition("\n\n")[0].split())


RULES: list[Rule] = []
_BY_STRUCTURE: dict[str, list[Rule]] = {}


def rule(
    *structures: str, versions: tuple[str, ...] = API_VERSIONS, only_azure: bool = False
) -> Callable[[Callable[[Node, Location], Problems]], Callable[[Node, Location], Problems]]:
    """Register the decorated function as a rule.

    :param structures: names of the structures that it checks.
    :param versions: versions of the API that it applies to; default all.
    :param only_azure: whether it applies on Azure only; default False.
    """

    def register(
        check: Callable[[Node, Location], Problems],
    ) -> Callable[[Node, Location], Problems]:
        registered = Rule(check.__name__, structures, check, versions, only_azure)
        RULES.append(registered)
        for structure in structures:
            _BY_STRUCTURE.setdefault(structure, []).append(registered)
        return check

    return register


def find_violations(node: Node, structure: Any) -> list[tuple[Rule, Problem]]:
    """Return all problems of a payload at any depth, each with its rule.

    The rules of all versions are applied; see :meth:`Rule.applies_to`.

    :param node: the payload.
    :param structure: its structure, of :mod:`.types`.
    """
    broken: list[tuple[Rule, Problem]] = []
    _walk(node, structure, Location(), broken)
    return broken


def _walk(
    node: Node, structure: Any, location: Location, broken: list[tuple[Rule, Problem]]
) -> None:
    name = structure.__name__
    if name in SETTINGS:
        location = Location(location.path, node, location.partial)
    elif name == "UpdateRequest":
        location = location._replace(partial=True)
    for one in _BY_STRUCTURE.get(name, ()):
        if found := list(one.check(node, location)):
            broken += [(one, problem) for problem in found]
    for field in structure_fields(structure):
        value = node.get(field.name)
        if value is None:
            continue
        if not field.is_list:
            if isinstance(value, Mapping):
                _walk(value, field.structure, location.child(field.name), broken)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    _walk(item, field.structure, location.child(field.name, index), broken)


# -- fields of a structure ------------------------------------------------------------------------


def present_fields(node: Node, *names: str) -> list[str]:
    """Return the names of the fields that are present."""
    return [name for name in names if node.get(name) is not None]


def get_mapping(node: Node, name: str) -> Node:
    """Return a field that is a map; an empty map if it is not."""
    value = node.get(name)
    return value if isinstance(value, Mapping) else {}


def get_list(node: Node, name: str) -> list[Any] | tuple[Any, ...]:
    """Return a field that is a list; an empty list if it is not."""
    value = node.get(name)
    return value if isinstance(value, (list, tuple)) else ()


def get_string(node: Node, name: str) -> str | None:
    """Return a field that is text; None if it is not."""
    value = node.get(name)
    return value if isinstance(value, str) else None


_NUMBER = types.NumberCheck()


def get_number(node: Node, name: str) -> float | None:
    """Return a field that is a number; None if it is not."""
    value = node.get(name)
    return float(value) if value is not None and _NUMBER.allows(value) else None


_WHOLE = types.IntegerCheck(-(2**63), 2**63 - 1)


def get_integer(node: Node, name: str) -> int | None:
    """Return a field that is a whole number; None if it is not."""
    value = node.get(name)
    return int(value) if value is not None and _WHOLE.allows(value) else None


def is_true(value: Any) -> bool:
    """Return whether a boolean, or its text, is true."""
    return value is True or value in ("true", "True")


def _not_ascii(texts: Any) -> str | None:
    """Describe the first character that is not ASCII; None if all are."""
    for text in texts:
        if isinstance(text, str) and not text.isascii():
            position = next(i for i, character in enumerate(text) if not character.isascii())
            return f"it has a U+{ord(text[position]):04X} at character {position + 1}"
    return None


def check_ascii_map(node: Node, name: str, location: Location) -> Problems:
    """Yield a problem for each entry of a map that is not ASCII."""
    for key, value in get_mapping(node, name).items():
        if found := _not_ascii((key, value)):
            yield Problem(location.field(name, str(key)), "must be ASCII only", found)


def check_ascii_list(node: Node, name: str, location: Location) -> Problems:
    """Yield a problem for each element of a list that is not ASCII."""
    for index, item in enumerate(get_list(node, name)):
        if found := _not_ascii((item,)):
            yield Problem(location.field(name, index), "must be ASCII only", found)


def check_size(limit: int, what: str, size: int, location: Location, *parts: str | int) -> Problems:
    """Yield a problem if a size exceeds a limit."""
    if size > limit:
        must = f"must have at most {limit:,} {what}"
        yield Problem(location.field(*parts), must, f"it has {size:,}")


def check_range(node: Node, name: str, location: Location, low: int, high: int) -> Problems:
    """Yield a problem if a whole number is out of range."""
    number = get_integer(node, name)
    if number is not None and not low <= number <= high:
        bounds = f"at least {low}" if high >= MAX_INT32 else f"from {low} to {high}"
        yield Problem(location.field(name), f"must be {bounds}", f"it is {number}")


def join_names(names: Any, last: str = "and") -> str:
    """Join names for a sentence: ``a, b and c``."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def check_mutually_exclusive(given: Sequence[str], location: Location) -> Problems:
    """Yield a problem if more than one of these fields is present."""
    if len(given) > 1:
        yield Problem(
            join_names(location.field(name) for name in given),
            "exclude each other",
            "both are given" if len(given) == 2 else f"{len(given)} of them are given",
        )


def check_exactly_one(node: Node, location: Location, known: tuple[str, ...]) -> Problems:
    """Yield a problem unless exactly one field is present; an unknown field counts, too."""
    given = present_fields(node, *known)
    yield from check_mutually_exclusive(given, location)
    if not given and not present_fields(node, *(set(node) - set(known))):
        yield Problem(
            location.field() or join_names(known, "or"),
            f"must have one of {join_names(known, 'or')}",
            "it has none of them",
        )


_SET_BY_SERVICE = ("--master", "--deploy-mode", "--executor-cores")
_WITHOUT_VALUE = frozenset(
    {"--verbose", "-v", "--supervise", "--help", "-h", "--version", "--usage-error"}
)


def check_forbidden_options(node: Node, name: str, location: Location) -> Problems:
    """Yield a problem for each spark-submit option that the service sets itself."""
    index, given = 0, get_list(node, name)
    while index < len(given) and isinstance(given[index], str) and given[index].startswith("-"):
        option, assigned, _ = given[index].partition("=")
        if option in _SET_BY_SERVICE:
            yield Problem(
                location.field(name, index),
                f"must not be {option}, which the service sets itself",
                f"it is {option}",
            )
        index += 1 if assigned or option in _WITHOUT_VALUE else 2
