"""``%sh`` and ``%pip`` cells: commands whose output goes into the notebook."""

from __future__ import annotations

import contextvars
import importlib
import io
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence

from airflow_jobs_provider.local.kernel.context import KernelContext
from airflow_jobs_provider.local.paths import data_file_in_root

__all__ = ["install_packages", "run_script"]

_LAST_OUTPUT_SECONDS = 1.0
_OF_WORKSPACE = ("/Workspace/", "/Volumes/", "/dbfs/", "dbfs:/")


def run_script(line: str, cell: str | None = None) -> None:
    """Run the script of a %sh cell.

    :param line: the rest of the magic's line; ``-e`` in it ends the script at its first error.
    :raises subprocess.CalledProcessError: with ``-e`` the exit code was not 0.
    """
    option, _, rest = line.strip().partition(" ")
    fails = option == "-e"
    first = rest if fails else line
    script = first if cell is None else f"{first}\n{cell}" if first.strip() else cell
    code = _run([shutil.which("bash") or "sh", *(["-e"] if fails else []), "-c", script])
    if code != 0 and fails:
        raise subprocess.CalledProcessError(code, script)
    if code != 0:
        sys.stdout.write(f"The script ended with exit code {code}.\n")


def install_packages(context: KernelContext, line: str) -> None:
    """Install packages into the run's own folder, for ``%pip install``.

    :raises ValueError: it is another command of pip.
    :raises subprocess.CalledProcessError: pip failed.
    """
    words = shlex.split(line)
    if words[:1] != ["install"]:
        raise ValueError("The local workspace runs no other command of %pip than install")
    given = [
        str(data_file_in_root(context.root, word)) if word.startswith(_OF_WORKSPACE) else word
        for word in words[1:]
    ]
    options = ["--disable-pip-version-check", "--no-input", "--upgrade"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", context.packages]
    code = _run([*command, *given])
    importlib.invalidate_caches()
    if code != 0:
        raise subprocess.CalledProcessError(code, f"pip {line}")


def _run(command: Sequence[str]) -> int:
    """Run a command, show what it prints, and return its exit code."""
    process = subprocess.Popen(  # noqa: S603  (its purpose)
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    output = process.stdout

    def show() -> None:
        with io.TextIOWrapper(output, encoding="utf-8", errors="replace") as text:
            for piece in text:
                sys.stdout.write(piece)

    # In the cell's context, so that the output is the cell's.
    reader = threading.Thread(target=contextvars.copy_context().run, args=(show,), daemon=True)
    reader.start()
    try:
        code = process.wait()
    except BaseException:
        process.kill()
        raise
    # A process that was started in the background may keep the output open.
    reader.join(_LAST_OUTPUT_SECONDS)
    return code
