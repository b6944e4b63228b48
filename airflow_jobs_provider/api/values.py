"""The base of values that a task process needs, and that must not be tuples.

A dataclass takes a millisecond to make, in each process. A NamedTuple takes a tenth of that, but
tools that report errors, such as Sentry, show the items of a tuple and not its repr.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, ClassVar, dataclass_transform

__all__ = ["Value"]


@dataclass_transform(frozen_default=True)
class Value:
    """A value whose fields do not change, equal to another one of its class with the same fields.

    A subclass names its fields in ``__match_args__``, in the order of the arguments of its
    constructor, which sets them by :meth:`_set`.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()
    # Fields that the repr does not show.
    _secret: ClassVar[tuple[str, ...]] = ()
    # Fields that do not count for equality.
    _not_compared: ClassVar[tuple[str, ...]] = ()
    _key: ClassVar[attrgetter[Any]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._key = attrgetter(*(n for n in cls.__match_args__ if n not in cls._not_compared))

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of a {type(self).__name__} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} of a {type(self).__name__} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(self._key(self) == self._key(other))

    def __hash__(self) -> int:
        return hash(self._key(self))

    def __repr__(self) -> str:
        names = (name for name in self.__match_args__ if name not in self._secret)
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, name) for name in self.__match_args__)
