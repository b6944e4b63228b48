"""Remake constraints/*.txt: the newest versions that install together, for each Airflow line.

    python3 scripts/constraints.py                all that there are
    python3 scripts/constraints.py 3.3            one line, also a new one
    python3 scripts/constraints.py docs           the packages of the extra ``docs``
    python3 scripts/constraints.py --keep         keep the pins there are, add what is missing

Each file of a line pins every package of the extras ``dev`` (which includes ``local``),
``distributed`` and ``release``. ``docs.txt`` pins those of the extra ``docs``, which is installed
without Airflow. So installing with a file gives the same environment tomorrow. The oldest Python
that is found sets the versions; each other one that the line is tested with adds what only it
needs. Run the test-suite on all lines before committing what changed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs"
OWN_NAME = "airflow-jobs-provider"
PYTHONS = ("3.11", "3.12", "3.13")
# soupsieve 3 wants Python 3.11.5, and Debian 12 has 3.11.2.
HELD_EVERYWHERE = ("soupsieve<3",)
# Airflow 3.0 names no upper bounds, but its execution API answers 422 to every task with the
# FastAPI and cadwyn of later years.
# Airflow 3.2 cannot make that API with them, either. Its tasks and triggerer lose the services of
# the API in their own process with svcs 26, which ends them when the object of the API is dropped.
HELD = {
    "3.0": ("fastapi==0.116.1", "cadwyn==5.4.4"),
    "3.2": ("fastapi==0.136.3", "cadwyn==7.0.0", "svcs==25.1.0"),
}


def pins(freeze: Iterable[str]) -> dict[str, str]:
    """Keep the plain ``name==version`` lines of a freeze; a path or an address is no pin."""
    kept = {}
    for line in freeze:
        name, equals, _ = line.strip().partition("==")
        if equals and "@" not in line and name.lower() != OWN_NAME:
            kept[name.lower()] = line.strip()
    return kept


def installed(python: str, line: str, known: dict[str, str]) -> dict[str, str]:
    """Install the newest of everything that ``known`` does not pin, and tell what came."""
    with tempfile.TemporaryDirectory() as directory:
        constraints = Path(directory) / "known.txt"
        constraints.write_text("\n".join(known.values()))
        subprocess.run([python, "-m", "venv", f"{directory}/venv"], check=True)
        pip = [f"{directory}/venv/bin/python", "-m", "pip"]
        install = [*pip, "install", "-q", "-c", str(constraints)]
        subprocess.run([*install, "--upgrade", "pip"], check=True)
        subprocess.run([*install, *requirements(line)], check=True)
        # "all" is what is installed and pip itself.
        command = [*pip, "freeze", "--all", "--exclude", "setuptools", "--exclude", "wheel"]
        freeze = subprocess.run(command, check=True, capture_output=True, text=True)
    return pins(freeze.stdout.splitlines())


def requirements(line: str) -> list[str]:
    """Return what is installed for an Airflow line, or for the documentation."""
    if line == DOCS:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return list(project["optional-dependencies"][DOCS])
    held = [*HELD_EVERYWHERE, *HELD.get(line, ())]
    return [f"apache-airflow=={line}.*", *held, f"{ROOT}[dev,distributed,release]"]


def find_python(line: str, version: str) -> str | None:
    """Return the interpreter of this version, if there is one and the line is tested with it."""
    airflow = "none" if line == DOCS else line
    finder = ["sh", f"{ROOT}/scripts/find-python.sh", airflow, version]
    found = subprocess.run(finder, check=False, stdout=subprocess.PIPE, text=True)
    return found.stdout.strip() or None


def content(line: str, known: dict[str, str]) -> str:
    """Put a constraints file together."""
    purpose = (
        "that the documentation is built with"
        if line == DOCS
        else f"that this package is tested with on Airflow {line}"
    )
    return (
        f"# Versions {purpose}.\n# Made by: make constraints (scripts/constraints.py {line})\n"
    ) + "".join(f"{known[name]}\n" for name in sorted(known))


def remake(line: str, *, keep: bool) -> None:
    """Write the constraints file of one Airflow line anew, or add to it; or that of the docs."""
    name = f"{DOCS}.txt" if line == DOCS else f"airflow-{line}.txt"
    target = ROOT / "constraints" / name
    known = pins(target.read_text().splitlines()) if keep else {}
    for version in PYTHONS:
        if python := find_python(line, version):
            known = installed(python, line, known) | known
    if not known:
        sys.exit(1)
    target.write_text(content(line, known))
    print(f"{target.relative_to(ROOT)}: {len(known)} packages")


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--keep"]
    there_are = [path.stem.removeprefix("airflow-") for path in ROOT.glob("constraints/*.txt")]
    for chosen in arguments or sorted(there_are):
        remake(chosen, keep="--keep" in sys.argv)
