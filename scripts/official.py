"""An environment of its own for the official provider, to compare with side by side.

    python -m scripts.official [.venv-official]

Makes it with pip where it is not there yet, with the Airflow that this project pins, and prints the
path of its Python.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AIRFLOW = "apache-airflow==3.3.2"
PROVIDER = "apache-airflow-providers-databricks==7.23.0"
# What the official provider needs in another version than Airflow's newest.
OTHER_VERSIONS = re.compile(r"^(python-dateutil)==", re.IGNORECASE)


def python(venv: Path = ROOT / ".venv-official", *, more: Sequence[str] = ()) -> str:
    """Return the path of the environment's Python; make the environment first, if need be.

    :param venv: folder of the environment.
    :param more: packages beside Airflow and the official provider.
    """
    binary, made = venv / "bin" / "python", venv / ".made"
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pins = (ROOT / "constraints" / "airflow-3.3.txt").read_text().splitlines()
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
            constraints.write("\n".join(pin for pin in pins if not OTHER_VERSIONS.match(pin)))
            constraints.flush()
            install = [str(binary), "-m", "pip", "install", "--quiet", AIRFLOW, PROVIDER, *more]
            subprocess.run([*install, "--constraint", constraints.name], check=True)
        made.touch()
    return str(binary)


if __name__ == "__main__":
    print(python(*(Path(name).absolute() for name in sys.argv[1:])))
