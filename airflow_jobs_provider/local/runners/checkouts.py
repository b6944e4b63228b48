"""Checkouts of Git repositories for job runs (reference of later versions: "GitSource").

All tasks of a job run use one commit, which is chosen when the job run starts. Repositories are
clones on this machine; nothing is fetched.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_jobs_provider.local.engine.runner import Outcome

__all__ = ["CheckoutError", "Checkouts", "is_in_git"]

REPOSITORIES_FOLDER = "Repos"
_COMMIT = re.compile(r"[0-9a-fA-F]{4,64}")
# Kinds of task whose code is in the repository of the job unless their ``source`` says otherwise.
_IN_GIT_BY_DEFAULT = frozenset({"dbt_task", "notebook_task", "sql_task"})
_OPTIONS = (
    # No code and no server of the repository has a part in its checkout.
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "protocol.allow=never",
    "-c",
    "protocol.file.allow=always",
    "-c",
    "advice.detachedHead=false",
)
_KEPT_VARIABLES = frozenset({"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_EXEC_PATH"})


class CheckoutError(Exception):
    """The repository of a job run cannot be checked out; the text says why."""

    @property
    def outcome(self) -> Outcome:
        """The outcome of a run that needs it."""
        message = f"Failed to checkout Git repository: {self}"
        return Outcome.not_started(message, termination_code="REPOSITORY_CHECKOUT_FAILED")


def is_in_git(task: Mapping[str, Any]) -> bool:
    """Return whether the code of a task is in the repository of its job, if that has one."""
    for kind, fields in task.items():
        source = fields.get("source") or (fields.get("file") or {}).get("source")
        if source:
            return str(source).upper() == "GIT"
        return kind in _IN_GIT_BY_DEFAULT
    return False


class Checkouts:
    """Makes a checkout for each job run that has a ``git_source``, and removes it.

    :param root: the workspace's root; clones are looked for below its folder ``Repos``.
    :param folder: where checkouts are made.
    :param repositories: folders of clones, by the URL of the repository.
    """

    def __init__(self, root: Path, folder: Path, repositories: Mapping[str, Path]) -> None:
        self._root = root
        self._folder = folder
        self._repositories = {_plain(url): path for url, path in repositories.items()}
        self._commits: dict[int, asyncio.Task[tuple[Path, str]]] = {}
        self._checkouts: dict[int, asyncio.Task[Path]] = {}
        self._folders: dict[int, Path] = {}

    async def used_commit(self, run_id: int, git_source: Mapping[str, Any]) -> str:
        """Return the commit that a job run uses; it stays the same until :meth:`remove`.

        :raises CheckoutError: there is no such repository or commit on this machine.
        """
        return (await asyncio.shield(self._commit(run_id, git_source)))[1]

    async def checkout(self, run_id: int, git_source: Mapping[str, Any]) -> Path:
        """Return the folder with the files of a job run's commit.

        :raises CheckoutError: it cannot be made.
        """
        if run_id not in self._checkouts:
            # A repair may begin while the checkout of the run before it is being removed.
            folder = Path(tempfile.mkdtemp(prefix="git-", dir=self._folder))
            self._folders[run_id] = folder
            work = asyncio.create_task(self._check_out(run_id, git_source, folder))
            self._checkouts[run_id] = _quiet(work)
        return await asyncio.shield(self._checkouts[run_id])

    async def remove(self, run_id: int) -> None:
        """Remove the checkout of a job run, if there is one."""
        works = [self._checkouts.pop(run_id, None), self._commits.pop(run_id, None)]
        folder = self._folders.pop(run_id, None)
        await _cancel([work for work in works if work is not None])
        if folder is not None:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def close(self) -> None:
        """End all work."""
        await _cancel([*self._checkouts.values(), *self._commits.values()])

    def _commit(self, run_id: int, git_source: Mapping[str, Any]) -> asyncio.Task[tuple[Path, str]]:
        if run_id not in self._commits:
            self._commits[run_id] = _quiet(asyncio.create_task(self._resolve(git_source)))
        return self._commits[run_id]

    async def _resolve(self, git_source: Mapping[str, Any]) -> tuple[Path, str]:
        """Return the clone and the commit."""
        clone = self._clone(git_source["git_url"])
        names = _revisions(git_source)
        for name in names:
            code, said = await _git(
                "-C", str(clone), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"
            )
            if code == 0:
                return clone, said
            if said:
                raise CheckoutError(said)
        raise CheckoutError(f"{clone} has no {' or '.join(names)}. Nothing is fetched")

    async def _check_out(self, run_id: int, git_source: Mapping[str, Any], folder: Path) -> Path:
        clone, commit = await asyncio.shield(self._commit(run_id, git_source))
        for command in (
            # It borrows the objects of the clone.
            ("clone", "--quiet", "--shared", "--no-checkout", "--template=", clone, folder),
            ("-C", folder, "checkout", "--quiet", "--detach", commit),
        ):
            code, said = await _git(*map(str, command))
            if code != 0:
                raise CheckoutError(said or f"git {command[0]} ended with exit code {code}")
        return folder

    def _clone(self, url: str) -> Path:
        """Return the folder of the clone of a repository."""
        folder = Path(unquote(urlsplit(url).path) if url.startswith("file://") else url)
        if folder.is_absolute():
            return folder
        plain = _plain(url)
        if plain in self._repositories:
            return self._repositories[plain]
        owner, _, name = plain.replace(":", "/").rpartition("/")
        repositories = self._root / REPOSITORIES_FOLDER
        named = [repositories / owner.rpartition("/")[2] / name, repositories / name]
        found = [folder for folder in named if _is_clone(folder)][:1]
        if not found:
            others = [folder / name for folder in repositories.glob("*")]
            found = [folder for folder in others if _is_clone(folder)]
        if len(found) == 1:
            return found[0]
        problem = "several clones" if found else "no clone"
        raise CheckoutError(
            f"The local workspace has {problem} of {url}. Clone it to {named[0]}, or start the "
            f"workspace with --repository {url}=FOLDER"
        )


def _is_clone(folder: Path) -> bool:
    return (folder / ".git").exists()


def _plain(url: str) -> str:
    return url.rstrip("/").removesuffix(".git")


def _revisions(git_source: Mapping[str, Any]) -> list[str]:
    """Return the names by which Git may know the commit, the first one before the others."""
    if snapshot := git_source.get("git_snapshot"):
        return [snapshot["used_commit"]]
    if branch := git_source.get("git_branch"):
        return [f"refs/heads/{branch}", f"refs/remotes/origin/{branch}"]
    if tag := git_source.get("git_tag"):
        return [f"refs/tags/{tag}"]
    if commit := git_source.get("git_commit"):
        if not _COMMIT.fullmatch(commit):
            raise CheckoutError(f"git_commit is not the hash of a commit: {commit[:100]!r}")
        return [commit]
    return ["HEAD"]


async def _git(*arguments: str) -> tuple[int, str]:
    """Run git, and return its exit code and what it said."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name in _KEPT_VARIABLES
    }
    # It asks nobody, and gets no large files from elsewhere.
    env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_NO_LAZY_FETCH": "1"}
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            *_OPTIONS,
            *arguments,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError:
        raise CheckoutError("git is not on the PATH of this machine: install it") from None
    except ValueError as error:  # a null character
        raise CheckoutError(str(error)) from None
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, said.decode("utf-8", "replace").strip()


def _quiet(work: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """Return a task whose exception is not reported if nobody asks for its result."""
    work.add_done_callback(lambda done: done.cancelled() or done.exception())
    return work


async def _cancel(works: list[asyncio.Task[Any]]) -> None:
    for work in works:
        work.cancel()
    await asyncio.gather(*works, return_exceptions=True)
