"""Install packages into the virtual environment of this Python, with uv if it is on PATH.

    .venv/bin/python scripts/install.py CONSTRAINTS REQUIREMENT...

uv takes a seventh of pip's processor time. pip is used where there is no uv, and where uv fails: uv
does not read pip's configuration, such as the address of a company's own index. The environment may
have been made without pip; it has pip afterwards.

Needs nothing but the standard library.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from os import PathLike, environ

__all__ = ["install"]


def install(
    python: str | PathLike[str], *requirements: str, constraints: str | PathLike[str] | None = None
) -> None:
    """Install packages into the virtual environment of a Python.

    :param python: path of the environment's Python.
    :param requirements: requirements, or any option that pip and uv share, such as ``--editable``.
    :param constraints: path of a file of constraints, if any.
    :raises subprocess.CalledProcessError: pip failed; its message is on standard error.
    """
    constrained = [] if constraints is None else ["--constraint", str(constraints)]
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--python", str(python), *constrained]
        # As pip does, uv trusts the certificates of the system, such as a company's own.
        env = {"UV_SYSTEM_CERTS": "true", **environ}
        if subprocess.run([*command, "pip", *requirements], check=False, env=env).returncode == 0:
            return
        print("uv could not install what is needed. pip is tried.", file=sys.stderr, flush=True)
    # Modules are compiled when they are first imported, which most of them never are.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", *constrained]
    env = environ | {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(
        [str(python), "-m", "ensurepip", "--default-pip"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    # The pip that comes with Python takes twice the processor time.
    subprocess.run([*pip, "--upgrade", "pip"], check=True, env=env)
    subprocess.run([*pip, *requirements], check=True, env=env)


if __name__ == "__main__":
    try:
        install(sys.executable, *sys.argv[2:], constraints=sys.argv[1])
    except subprocess.CalledProcessError:
        sys.exit("Error: pip could not install what is needed; its own message is above.")
