"""What a package of operators and hooks offers: its classes, arguments, template fields and XComs.

As a script, for an environment in which this package is not installed:

    python -P tests/helpers/surface.py airflow.providers.databricks

It prints the surface as JSON. It imports nothing of this project.
"""

from __future__ import annotations

import ast
import enum
import functools
import importlib
import inspect
import json
import pkgutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions, version
from types import ModuleType
from typing import Any

REQUIRED = "(required)"
PROPERTIES = (property, functools.cached_property)


def surface(
    package: str, modules: Iterable[ModuleType] | None = None, *, with_airflows: bool = False
) -> dict[str, Any]:
    """Return what a package offers.

    :param package: its name; only what it defines itself counts.
    :param modules: the modules that a user imports from; default all of the package.
    :param with_airflows: list what operators have of Airflow's ``BaseOperator`` with their own;
        default False.
    """
    searched = list(all_modules(package) if modules is None else modules)
    classes: dict[str, Any] = {}
    for module in searched:
        for name in dir(module):
            kind = getattr(module, name)
            if (
                inspect.isclass(kind)
                and not name.startswith("_")
                and kind.__module__.startswith(f"{package}.")
            ):
                classes[name] = described(kind, package, with_airflows=with_airflows)
    return {"classes": dict(sorted(classes.items())), "xcoms": sorted(xcom_keys(searched))}


def all_modules(package: str) -> Iterator[ModuleType]:
    """Yield the modules of a package."""
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        yield importlib.import_module(found.name)


def described(kind: Any, package: str, *, with_airflows: bool) -> dict[str, Any]:
    """Return what a class offers: to a DAG an operator, to Python code any other class."""
    names = {base.__name__ for base in kind.__mro__}
    own = [base for base in kind.__mro__ if base.__module__.startswith(f"{package}.")]
    facts: dict[str, Any] = {
        "arguments": constructor_arguments(own),
        "attributes": [],
    }
    if issubclass(kind, BaseException):
        # They are caught, not made.
        return {"arguments": {}, "attributes": sorted(attributes(own))}
    if "BaseTrigger" not in names:
        facts["attributes"] = sorted(attributes(own))
    if "BaseOperator" in names:
        links = getattr(kind, "operator_extra_links", ())
        facts |= {
            "template_fields": sorted(kind.template_fields),
            "template_ext": sorted(kind.template_ext),
            "links": [] if isinstance(links, property) else sorted(link.name for link in links),
        }
        if with_airflows:
            (base,) = (one for one in kind.__mro__ if one.__name__ == "BaseOperator")
            facts["arguments"] = constructor_arguments([base]) | facts["arguments"]
            facts["attributes"] += [*facts["arguments"], *dir(kind)]
    elif "BaseTrigger" not in names:
        facts["methods"] = {
            name: {
                parameter.name: default(parameter)
                for parameter in inspect.signature(getattr(kind, name)).parameters.values()
                if parameter.name not in ("self", "cls")
            }
            for name in sorted(public_methods(own))
        }
    return facts


def attributes(classes: Iterable[type]) -> set[str]:
    """Return the names of the public attributes that the methods of classes set, and properties."""
    names: set[str] = set()
    for one in classes:
        names |= {name for name, value in vars(one).items() if isinstance(value, PROPERTIES)}
        if issubclass(one, enum.Enum):
            names |= set(one.__members__)
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(one)))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names |= {node.attr} if ast.unparse(node.value) == "self" else set()
    return {name for name in names if not name.startswith("_")}


def public_methods(classes: Iterable[type]) -> set[str]:
    """Return the names of the public methods that these classes define."""
    return {
        name
        for one in classes
        for name, value in vars(one).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod)))
    }


def constructor_arguments(classes: Iterable[type]) -> dict[str, Any]:
    """Return the arguments by name, with their defaults, that the constructors of classes list."""
    found: dict[str, Any] = {}
    for one in classes:
        if "__init__" not in vars(one):
            continue
        for parameter in inspect.signature(one.__init__).parameters.values():  # type: ignore[misc]
            if parameter.name != "self" and parameter.kind not in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            ):
                found.setdefault(parameter.name, default(parameter))
    return found


def default(parameter: inspect.Parameter) -> Any:
    """Return a parameter's default, as JSON has it."""
    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        return "(any)"
    if parameter.default is parameter.empty:
        return REQUIRED
    is_json = isinstance(parameter.default, (str, int, float, bool, type(None)))
    return parameter.default if is_json else type(parameter.default).__name__


def xcom_keys(modules: Iterable[ModuleType]) -> set[str]:
    """Return the keys that calls of ``xcom_push`` name, and constants ``XCOM_..._KEY``."""
    keys: set[str] = set()
    for module in modules:
        keys |= {
            value
            for name, value in vars(module).items()
            if name.startswith("XCOM_") and isinstance(value, str)
        }
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".xcom_push"):
                keys |= {
                    word.value.value
                    for word in node.keywords
                    if word.arg == "key"
                    and isinstance(word.value, ast.Constant)
                    and isinstance(word.value.value, str)
                }
    return keys


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Return what a user of the other package finds missing or different here.

    ============================  ============================================
    ``Class``                     the class is missing
    ``Class(argument)``           the argument of the constructor is missing
    ``Class(argument=3)``         its default is another one than 3
    ``Class.method()``            the method is missing
    ``Class.method(argument)``    the method's argument is missing or has another place
    ``Class.method(argument=3)``  its default is another one than 3
    ``Class.attribute``           an object has no such attribute
    ``Class.template_fields.x``   the field ``x`` is no template; likewise the others
    ``XCom x``                    the XCom's key is not pushed
    ============================  ============================================
    """
    return [*_class_differences(theirs["classes"], ours["classes"])] + [
        f"XCom {key}" for key in theirs["xcoms"] if key not in ours["xcoms"]
    ]


def _class_differences(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    for name, facts in theirs.items():
        here = ours.get(name)
        if here is None:
            yield name
            continue
        yield from _arguments(name, facts["arguments"], here["arguments"])
        offered = {*here["attributes"], *here["arguments"]}
        yield from (f"{name}.{one}" for one in facts["attributes"] if one not in offered)
        for group in ("template_fields", "template_ext", "links"):
            for item in facts.get(group, ()):
                if item not in here.get(group, ()):
                    yield f"{name}.{group}.{item}"
        for method, arguments in facts.get("methods", {}).items():
            if method not in here.get("methods", {}):
                yield f"{name}.{method}()"
                continue
            found = here["methods"][method]
            yield from _arguments(f"{name}.{method}", arguments, found)
            shared = [one for one in arguments if one in found]
            for place, one in enumerate(shared):
                if list(found)[place] != one:
                    yield f"{name}.{method}({one})"


def _arguments(name: str, theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    for argument, value in theirs.items():
        if argument not in ours:
            yield f"{name}({argument})"
        # An argument that may be left out is not missed where it must be given.
        elif value not in (ours[argument], REQUIRED):
            yield f"{name}({argument}={json.dumps(value)})"


def main(package: str) -> None:
    """Print a package's surface, with the version of its distribution."""
    distributions = packages_distributions().get(package.partition(".")[0], [])
    wanted = package.replace(".", "-")
    (found,) = {one for one in distributions if one.endswith(wanted)}
    sys.stdout.write(json.dumps({"version": version(found), **surface(package)}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
