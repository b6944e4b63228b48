"""An environment of its own for the official provider, to compare with side by side.

    python -m scripts.official [.venv-official]

Makes it where it is not there yet, with the Airflow that this project pins, and prints the path of
its Python.
"""

from __future__ import annotations

import re
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from scripts.install import install

ROOT = Path(__file__).resolve().parent.parent
AIRFLOW = "apache-airflow==3.3.2"
PROVIDER = "apache-airflow-providers-databricks==7.23.0"
# What Airflow emits lineage events with; see with_openlineage().
OPENLINEAGE = "apache-airflow-providers-openlineage==2.20.3"
# What the official provider needs in another version than Airflow's newest.
OTHER_VERSIONS = re.compile(r"^(python-dateutil)==", re.IGNORECASE)


def python(folder: Path = ROOT / ".venv-official", *, more: Sequence[str] = ()) -> str:
    """Return the path of the environment's Python; make the environment first, if need be.

    :param folder: folder of the environment.
    :param more: packages beside Airflow and the official provider.
    """
    binary, made = folder / "bin" / "python", folder / ".made"
    if not made.exists():
        venv.create(folder, clear=True, symlinks=True)
        pins = (ROOT / "constraints" / "airflow-3.3.txt").read_text().splitlines()
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
            constraints.write("\n".join(pin for pin in pins if not OTHER_VERSIONS.match(pin)))
            constraints.flush()
            install(binary, AIRFLOW, PROVIDER, *more, constraints=constraints.name)
        made.touch()
    return str(binary)


def with_openlineage() -> str:
    """Return the Python of an environment that has Airflow's OpenLineage provider as well.

    It has an environment of its own: with the provider's listener Airflow ends no task in the
    triggerer.
    """
    return python(ROOT / ".venv-official-openlineage", more=[OPENLINEAGE])


if __name__ == "__main__":
    print(python(*(Path(name).absolute() for name in sys.argv[1:])))
