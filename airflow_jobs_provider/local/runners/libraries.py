"""Libraries of a task and dependencies of its environment, on the run's own import path.

Wheels are unpacked into a temporary folder of the run. Nothing is installed: packages are those of
the workspace's Python. The run is told which of its dependencies that Python does not have.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.runner import Outcome
from airflow_jobs_provider.local.paths import PathRefusedError, data_file_in_root

__all__ = ["Libraries", "LibraryError", "load_libraries"]

# Also of a package that is looked up in the metadata of those that are installed.
_IMPORT_ERROR = re.compile(r"\b(?:Import|ModuleNotFound|PackageNotFound)Error\b")
_OPTION_OF_FILE = ("-r ", "--requirement ", "--requirement=")


class LibraryError(Exception):
    """A library cannot be used; the text is the service's message with the reason."""

    def __init__(self, kind: str, name: str, reason: str) -> None:
        super().__init__(
            f'Library installation failed for library due to user error for {kind}: "{name}". '
            f"Error messages: {reason}"
        )

    @property
    def outcome(self) -> Outcome:
        """The outcome of the run."""
        return Outcome.not_started(str(self), termination_code="LIBRARY_INSTALLATION_ERROR")


@dataclass(frozen=True, slots=True)
class Libraries:
    """What a run can import beside the packages of the workspace's Python.

    :ivar folders: folders for the import path.
    :ivar missing: requirements that are not fulfilled, in the form of pip, each with the reason.
    """

    folders: Sequence[Path] = ()
    missing: Sequence[tuple[str, str]] = ()

    def add_to(self, outcome: Outcome) -> Outcome:
        """Return an outcome that tells what is missing: in ``info``, and where an import failed."""
        if not self.missing:
            return outcome
        output = replace(outcome.output, info=self.note)
        if output.error is not None and _IMPORT_ERROR.search(output.error):
            output = replace(output, error=f"{output.error} ({self.note})")
        return replace(outcome, output=output)

    @property
    def note(self) -> str:
        """What is missing and how to install it, in one line."""
        reasons = "; ".join(f"{requirement}: {reason}" for requirement, reason in self.missing)
        names = " ".join(f"'{requirement}'" for requirement, _ in self.missing)
        return (
            "The local workspace installs no libraries. Missing in its Python: "
            f"{reasons}. To install: {sys.executable} -m pip install {names}"
        )


def load_libraries(
    libraries: Iterable[Mapping[str, Any]],
    environment: Mapping[str, Any],
    root: Path,
    folder: Path,
) -> Libraries:
    """Unpack the wheels of a run and find out what is missing. Call it in a thread.

    :param libraries: the task's ``libraries``; other kinds than wheels and PyPI are left out.
    :param environment: the ``spec`` of the task's environment.
    :param root: the workspace's root.
    :param folder: where wheels are unpacked.
    :raises LibraryError: a wheel or a file of requirements cannot be read.
    """
    lines: list[str] = [*environment.get("dependencies", ())]
    for library in libraries:
        if "whl" in library:
            lines.append(library["whl"])
        elif "pypi" in library:
            lines.append(library["pypi"]["package"])
        elif "requirements" in library:
            lines.append(f"-r {library['requirements']}")
    folders: list[Path] = []
    requirements: list[str] = []
    for line in _lines(lines, root):
        if line.endswith(".whl"):
            folders += _unpack(line, root, folder / str(len(folders)))
        else:
            requirements.append(line)
    found = metadata.distributions(path=[str(one) for one in folders])
    own = [one for one in found if _has_name(one)]
    for one in own:
        requirements += one.requires or ()
    return Libraries(folders, [*_missing(requirements, own)])


def _lines(lines: Iterable[str], root: Path, above: Sequence[str] = ()) -> Iterator[str]:
    """Yield lines of requirements, those of the files among them instead of the files.

    :param above: the files that lead to these lines.
    """
    for raw in lines:
        line = raw.partition(" #")[0].strip()
        for option in _OPTION_OF_FILE:
            if line.startswith(option):
                name = line.removeprefix(option).strip()
                if name in above:
                    raise LibraryError("requirements", name, "the file leads to itself")
                text = _file("requirements", name, root).read_text("utf-8", "replace")
                yield from _lines(text.splitlines(), root, (*above, name))
                break
        else:
            # Other options, such as the address of an index, matter to pip only.
            if line and not line.startswith(("-", "#")):
                yield line


def _file(kind: str, name: str, root: Path) -> Path:
    try:
        file = data_file_in_root(root, name)
    except PathRefusedError as error:
        raise LibraryError(kind, name, str(error)) from None
    if not file.is_file():
        raise LibraryError(kind, name, f"there is no file {file}")
    return file


def _unpack(name: str, root: Path, folder: Path) -> list[Path]:
    """Unpack a wheel into a folder; return what of it belongs on the import path."""
    from packaging.tags import sys_tags
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    file = _file("whl", name, root)
    try:
        tags = parse_wheel_filename(file.name)[3]
    except InvalidWheelFilename as error:
        raise LibraryError("whl", name, str(error)) from None
    if tags.isdisjoint(sys_tags()):
        reason = f"{file.name} is not a supported wheel on this platform"
        raise LibraryError("whl", name, reason)
    try:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)  # leaves out what leads out of the folder
    except Exception as error:  # noqa: BLE001  (of any kind where the content is broken)
        raise LibraryError("whl", name, f"{file.name} cannot be unpacked: {error}") from None
    return [folder, *folder.glob("*.data/purelib"), *folder.glob("*.data/platlib")]


def _has_name(distribution: metadata.Distribution) -> bool:
    try:
        return all(field in distribution.metadata for field in ("Name", "Version"))
    except FileNotFoundError:  # later versions of importlib.metadata: there are no metadata
        return False


def _missing(
    requirements: Iterable[str], own: Sequence[metadata.Distribution]
) -> Iterator[tuple[str, str]]:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    versions = {canonicalize_name(one.metadata["Name"]): one.version for one in own}
    for text in dict.fromkeys(requirements):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # an address or a folder: what it would install is not known
        version = versions.get(canonicalize_name(requirement.name))
        # Neither a marker nor a version need be one that can be compared.
        with suppress(KeyError, ValueError):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            if version is None:
                try:
                    version = metadata.version(requirement.name)
                except metadata.PackageNotFoundError:
                    yield text.partition(";")[0].strip(), "not installed"
                    continue
            if not requirement.specifier.contains(version, prereleases=True):
                yield text.partition(";")[0].strip(), f"{version} is installed"
