"""What a rule is, how the rules are applied to a payload, and what several of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_jobs_provider.api.problems import Problem, field_path
from airflow_jobs_provider.api.schema import types
from airflow_jobs_provider.api.schema.structures import nested
from airflow_jobs_provider.api.versions import API_VERSIONS

__all__ = [
    "MAX_INT32",
    "ONLY_2_0",
    "RULES",
    "SETTINGS",
    "SINCE_2_1",
    "Node",
    "Place",
    "Problems",
    "Rule",
    "ascii_list",
    "ascii_map",
    "at_most",
    "between",
    "broken_rules",
    "exclude_each_other",
    "forbidden_options",
    "given_of",
    "is_true",
    "list_of",
    "map_of",
    "number_of",
    "one_of",
    "rule",
    "text_of",
    "whole_of",
    "words",
]

Node = Mapping[Any, Any]
Problems = Iterator[Problem]

MAX_INT32 = 2**31 - 1
ONLY_2_0 = ("2.0",)
SINCE_2_1 = ("2.1", "2.2")
SETTINGS = ("JobSettings", "CreateRequest", "RunsSubmitRequest")


@dataclass(slots=True)
class Place:
    """Where in a payload a part stands.

    :ivar path: how to get there from the top, as names and indices.
    :ivar settings: the settings of the job or run that the part belongs to.
    :ivar partial: whether they change a job's settings, so that nothing need be there.
    """

    path: tuple[str | int, ...] = ()
    settings: Node | None = None
    partial: bool = False

    def below(self, *parts: str | int) -> Place:
        """Return the place of something below."""
        return Place((*self.path, *parts), self.settings, self.partial)

    def at(self, *parts: str | int) -> str:
        """Write the path of something below."""
        return field_path((*self.path, *parts))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, the structures that it is about, and where it binds.

    :ivar name: the function's name.
    :ivar structures: names of the structures.
    :ivar find: what finds the problems.
    :ivar versions: versions of the API whose requests it binds.
    :ivar only_azure: whether it binds on Azure only.
    """

    name: str
    structures: tuple[str, ...]
    find: Callable[[Node, Place], Problems]
    versions: tuple[str, ...] = API_VERSIONS
    only_azure: bool = False

    def binds(self, api_version: str, *, is_azure: bool) -> bool:
        """Whether the rule binds a request.

        :param api_version: version of the API that the request is sent to.
        :param is_azure: whether the workspace is known to be on Azure.
        """
        return api_version in self.versions and (is_azure or not self.only_azure)

    @property
    def text(self) -> str:
        """The rule in words, with the reference's section."""
        return " ".join((self.find.__doc__ or "").partition("\n\n")[0].split())


RULES: list[Rule] = []
_BY_STRUCTURE: dict[str, list[Rule]] = {}


def rule(
    *structures: str, versions: tuple[str, ...] = API_VERSIONS, only_azure: bool = False
) -> Callable[[Callable[[Node, Place], Problems]], Callable[[Node, Place], Problems]]:
    """Register the decorated function as a rule.

    :param structures: names of the structures that it is about.
    :param versions: versions of the API that it binds; default all.
    :param only_azure: whether it binds on Azure only; default False.
    """

    def register(
        find: Callable[[Node, Place], Problems],
    ) -> Callable[[Node, Place], Problems]:
        registered = Rule(find.__name__, structures, find, versions, only_azure)
        RULES.append(registered)
        for structure in structures:
            _BY_STRUCTURE.setdefault(structure, []).append(registered)
        return find

    return register


def broken_rules(node: Node, structure: Any) -> list[tuple[Rule, Problem]]:
    """Return the problems of a payload, all the way down, each with the rule that it breaks.

    All rules are applied, whatever version they bind: see :meth:`Rule.binds`.

    :param node: the payload.
    :param structure: its structure, of :mod:`.types`.
    """
    broken: list[tuple[Rule, Problem]] = []
    _walk(node, structure, Place(), broken)
    return broken


def _walk(node: Node, structure: Any, place: Place, broken: list[tuple[Rule, Problem]]) -> None:
    name = structure.__name__
    if name in SETTINGS:
        place = replace(place, settings=node)
    elif name == "UpdateRequest":
        place = replace(place, partial=True)
    for one in _BY_STRUCTURE.get(name, ()):
        if found := list(one.find(node, place)):
            broken += [(one, problem) for problem in found]
    for field in nested(structure):
        value = node.get(field.name)
        if value is None:
            continue
        if not field.is_list:
            if isinstance(value, Mapping):
                _walk(value, field.structure, place.below(field.name), broken)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    _walk(item, field.structure, place.below(field.name, index), broken)


# -- reading a part of any type -------------------------------------------------------------------


def given_of(node: Node, *names: str) -> list[str]:
    """Return those of the names whose field is given."""
    return [name for name in names if node.get(name) is not None]


def map_of(node: Node, name: str) -> Node:
    """Return a field that is a map; an empty one if it is none."""
    value = node.get(name)
    return value if isinstance(value, Mapping) else {}


def list_of(node: Node, name: str) -> list[Any] | tuple[Any, ...]:
    """Return a field that is a list; an empty one if it is none."""
    value = node.get(name)
    return value if isinstance(value, (list, tuple)) else ()


def text_of(node: Node, name: str) -> str | None:
    """Return a field that is text; None if it is none."""
    value = node.get(name)
    return value if isinstance(value, str) else None


_NUMBER = types.IsNumber()


def number_of(node: Node, name: str) -> float | None:
    """Return a field that is a number; None if it is none."""
    value = node.get(name)
    return float(value) if value is not None and _NUMBER.allows(value) else None


_WHOLE = types.IsWhole(-(2**63), 2**63 - 1)


def whole_of(node: Node, name: str) -> int | None:
    """Return a field that is a whole number; None if it is none."""
    value = node.get(name)
    return int(value) if value is not None and _WHOLE.allows(value) else None


def is_true(value: Any) -> bool:
    """Whether a flag is set."""
    return value is True or value in ("true", "True")


def _not_ascii(texts: Any) -> str | None:
    """Tell the first character that is not ASCII; None if all are."""
    for text in texts:
        if isinstance(text, str) and not text.isascii():
            position = next(i for i, character in enumerate(text) if not character.isascii())
            return f"it has a U+{ord(text[position]):04X} at character {position + 1}"
    return None


def ascii_map(node: Node, name: str, place: Place) -> Problems:
    """Find keys and values of a map that are not ASCII."""
    for key, value in map_of(node, name).items():
        if found := _not_ascii((key, value)):
            yield Problem(place.at(name, str(key)), "must be ASCII only", found)


def ascii_list(node: Node, name: str, place: Place) -> Problems:
    """Find elements of a list that are not ASCII."""
    for index, item in enumerate(list_of(node, name)):
        if found := _not_ascii((item,)):
            yield Problem(place.at(name, index), "must be ASCII only", found)


def at_most(limit: int, what: str, size: int, place: Place, *parts: str | int) -> Problems:
    """Find a size over a limit."""
    if size > limit:
        must = f"must have at most {limit:,} {what}"
        yield Problem(place.at(*parts), must, f"it has {size:,}")


def between(node: Node, name: str, place: Place, low: int, high: int) -> Problems:
    """Find a whole number out of bounds."""
    number = whole_of(node, name)
    if number is not None and not low <= number <= high:
        bounds = f"at least {low}" if high >= MAX_INT32 else f"from {low} to {high}"
        yield Problem(place.at(name), f"must be {bounds}", f"it is {number}")


def words(names: Any, last: str = "and") -> str:
    """Write names as a list in a sentence."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def exclude_each_other(given: Sequence[str], place: Place) -> Problems:
    """Find several fields of which only one may be given."""
    if len(given) > 1:
        yield Problem(
            words(place.at(name) for name in given),
            "exclude each other",
            "both are given" if len(given) == 2 else f"{len(given)} of them are given",
        )


def one_of(node: Node, place: Place, known: tuple[str, ...]) -> Problems:
    """Exactly one of some fields; a field that is not known here counts as one, too."""
    given = given_of(node, *known)
    yield from exclude_each_other(given, place)
    if not given and not given_of(node, *(set(node) - set(known))):
        yield Problem(
            place.at() or words(known, "or"),
            f"must have one of {words(known, 'or')}",
            "it has none of them",
        )


_SET_BY_SERVICE = ("--master", "--deploy-mode", "--executor-cores")
_WITHOUT_VALUE = frozenset(
    {"--verbose", "-v", "--supervise", "--help", "-h", "--version", "--usage-error"}
)


def forbidden_options(node: Node, name: str, place: Place) -> Problems:
    """Find options that the service sets itself, before the program's own file."""
    index, given = 0, list_of(node, name)
    while index < len(given) and isinstance(given[index], str) and given[index].startswith("-"):
        option, assigned, _ = given[index].partition("=")
        if option in _SET_BY_SERVICE:
            yield Problem(
                place.at(name, index),
                f"must not be {option}, which the service sets itself",
                f"it is {option}",
            )
        index += 1 if assigned or option in _WITHOUT_VALUE else 2
