"""``help()`` of ``dbutils`` and its parts."""

from __future__ import annotations

import inspect
import re
import sys

__all__ = ["Helpful"]


class Helpful:
    """Base of the parts of ``dbutils``, each of which has ``help``."""

    def help(self, name: str | None = None) -> None:
        """Print what there is, or what one method does.

        :param name: the method; default None: all.
        :raises ValueError: there is no such method.
        """
        if name is not None:
            found = getattr(type(self), name, None)
            if name.startswith("_") or found is None:
                raise ValueError(f"There is no {name!r} here; help() prints what there is")
            sys.stdout.write(f"{_signature(name, found)}\n\n{_text_of(found)}\n")
            return
        # A class's docstring ends with its constructor's parameters: a notebook calls none.
        lines = [_text_of(self).partition("\n:")[0].rstrip(), ""]
        for part, value in sorted(vars(self).items()):
            if isinstance(value, Helpful) and not part.startswith("_"):
                lines.append(f"{part}: {_first_line(value)}")
        for method in sorted(dir(type(self))):
            found = getattr(type(self), method)
            if not method.startswith("_") and callable(found):
                lines.append(f"{_signature(method, found)}: {_first_line(found)}")
        sys.stdout.write("\n".join(lines) + "\n")


def _signature(name: str, method: object) -> str:
    if not callable(method):
        return name
    parameters = [*inspect.signature(method).parameters.values()][1:]
    shown = [
        one.name if one.default is one.empty else f"{one.name}={one.default!r}"
        for one in parameters
    ]
    return f"{name}({', '.join(shown)})"


def _first_line(thing: object) -> str:
    return _text_of(thing).partition("\n")[0]


def _text_of(thing: object) -> str:
    """Return a docstring without the markup of reStructuredText."""
    text = re.sub(r"``(.+?)``", r"\1", inspect.getdoc(thing) or "")
    return re.sub(r"(?m)^:raises (\w+):", r"Raises \1:", text)
