"""Runs commands one after the other, until one fails.

A program: ``python dbt_program.py COMMANDS``, with a JSON array of commands, each an array of its
words. It ends with the exit code of the last command that it ran. It imports the standard library
only.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

__all__ = ["run_commands"]


def run_commands(commands: list[list[str]]) -> int:
    """Run the commands, each announced in the log; return the exit code."""
    for command in commands:
        sys.stdout.write(f"+ dbt {shlex.join(command[1:])}\n")
        sys.stdout.flush()
        code = subprocess.run(command, check=False).returncode  # noqa: S603  (the user's own commands)
        if code != 0:
            # A process that was ended by a signal has a negative code.
            return code if code > 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(run_commands(json.loads(sys.argv[1])))
