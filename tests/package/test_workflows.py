"""The workflow files of the forge and the hooks of pre-commit call the same tools as make."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from scripts.airflow_env import ROOT


def load(path: Path) -> Any:
    """Read a YAML file."""
    return yaml.safe_load(path.read_text())


def make_targets() -> set[str]:
    """Return the targets of the Makefile."""
    database = subprocess.run(
        ["make", "--print-data-base", "--dry-run", "help"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout
    (names,) = re.findall(r"^\.PHONY: (.*)$", database, re.MULTILINE)
    return set(names.split())


def called_targets(workflow: Path) -> set[str]:
    """Return the make targets that a workflow calls."""
    targets: set[str] = set()
    for job in load(workflow)["jobs"].values():
        for step in job["steps"]:
            command = step.get("run", "")
            if command.startswith("make ") and "$" not in command:
                targets |= set(command.split()[1:])
        matrix = job.get("strategy", {}).get("matrix", {})
        targets |= {entry["target"] for entry in matrix.get("include", ())}
        targets |= set(matrix.get("target", ()))
    return targets


def test_ci_calls_every_target_that_tests_or_lints() -> None:
    """A new line of Airflow or of Python is tested on the forge, too."""
    tests = {name for name in make_targets() if name.startswith("test")} - {"test-all"}
    assert called_targets(ROOT / ".github" / "workflows" / "ci.yml") == tests | {"docs", "lint"}


def test_a_release_calls_targets_that_exist() -> None:
    """The tag's commit is linted, tested and built by make."""
    targets = called_targets(ROOT / ".github" / "workflows" / "release.yml")
    assert {"lint", "test", "dist", "docs"} == targets
    assert targets <= make_targets()


def test_actions_are_pinned_by_commit() -> None:
    """A tag can be moved to other code."""
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        for action in re.findall(r"uses: (\S+)", workflow.read_text()):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action


def test_pre_commit_calls_the_tools_of_make_lint() -> None:
    """Nothing is installed for the hooks, so no other version of a tool is used."""
    (repo,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    lint = subprocess.run(
        ["make", "--dry-run", "lint"], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    tools = {
        " ".join(re.findall(r"^(\.venv/bin/\S+(?: -m \w+)?)", line)) for line in lint.splitlines()
    } - {""}
    hooks = {re.match(r"\.venv/bin/\S+(?: -m \w+)?", hook["entry"]) for hook in repo["hooks"]}
    assert {match.group() for match in hooks if match} == tools
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
