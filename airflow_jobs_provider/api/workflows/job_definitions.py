"""Keeping the jobs of a name, one for each definition that is in use.

Several callers may define a job of the same name at the same moment, with the same definition or
with different ones. Nobody's run may begin with the definition of another one. The service has no
conditional write, so:

* The job's description names its definition, by a digest.
* A job of the same definition is used as it is. It is reset only if its settings have changed.
* Otherwise a job of the same name that has no active run is reset. The caller first claims it in
  the description, waits, and goes on only if the claim still stands and no run has begun. So no
  other caller uses the old definition there, and of two claims only the later one holds. The claim
  stands beside the old description: if its caller dies, the job still has its definition once the
  claim has expired.
* Otherwise a job is created. Where two callers create a job of the same definition, the later one
  is deleted.

So there is one job of a name as long as one definition of it is in use at a time.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from airflow_jobs_provider.api.endpoints import (
    delete_job,
    get_job,
    list_jobs,
    list_runs,
    update_job,
)
from airflow_jobs_provider.api.errors import NotFoundError
from airflow_jobs_provider.api.pagination import read_all_items
from airflow_jobs_provider.api.run_summary import latest_attempts
from airflow_jobs_provider.api.versions import LATEST_API_VERSION
from airflow_jobs_provider.api.workflows.base import Wait, Workflow
from airflow_jobs_provider.api.workflows.follow import whole_run
from airflow_jobs_provider.api.workflows.permissions import (
    create_with_permissions,
    reset_with_permissions,
    without_permissions,
)

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Job, Run
    from airflow_jobs_provider.api.workflows.progress import Log

__all__ = [
    "CLAIM_SECONDS",
    "definition_digest",
    "ensure_job",
    "has_definition",
    "has_settings",
    "has_tasks",
    "is_defined_as",
    "job_change",
    "whole_job",
]

# Between a claim of a job and its reset. A caller that has found the job's old definition before
# the claim launches its run meanwhile. If that took longer, it compares the run's tasks.
CLAIM_SECONDS = 2.0
# A claim that is older was left by a process that has died.
CLAIM_EXPIRES_SECONDS = 30.0
# How often the jobs are looked at anew, after others have changed them.
MAX_ROUNDS = 20

_DEFINITION = re.compile(r"\[airflow definition ([0-9a-f]{16})\]")
_CLAIM = re.compile(r"\[airflow claim ([0-9a-f]{16}) by ([0-9a-f]+) at ([0-9.]+)\]")
# By these, entries of a list are compared whatever their order.
_KEYS = ("task_key", "job_cluster_key", "environment_key", "name")


def definition_digest(settings: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that tell one definition of a job from another.

    :param settings: the job's settings, with its permissions.
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def ensure_job(
    settings: Mapping[str, Any],
    *,
    nonce: str,
    log: Log,
    clock: Callable[[], float] = time.time,
) -> Workflow[int]:
    """Find, reset or create a job with these settings, and return its id.

    :param settings: the job's settings, with its name and, if any, its permissions.
    :param nonce: hexadecimal digits that no other caller has.
    :param log: the task's logger.
    :param clock: returns the seconds since the epoch.
    :raises RuntimeError: other callers have changed the jobs each time.
    """
    name, digest = str(settings["name"]), definition_digest(settings)
    defined = _with_digest(settings, digest)
    for _ in range(MAX_ROUNDS):
        jobs = yield from _jobs_of(name)
        same = [job for job in jobs if _is_free_and_defined(job, digest, clock())]
        if same:
            try:
                job = yield from whole_job(same[0]["job_id"])
            except NotFoundError:
                continue
            if not _is_free_and_defined(job, digest, clock()):
                continue
            if not has_settings(job, settings):
                log.info("Resetting job %s, %r: its settings were changed.", job["job_id"], name)
                yield from _reset(job["job_id"], defined)
            elif (known := _description(job)) != _unclaimed(known):
                # The caller that has claimed it has died.
                yield update_job(job["job_id"], {"description": _unclaimed(known)})
            return int(job["job_id"])
        claimed_for = {_claimed_for(job, clock()) for job in jobs}
        if digest in claimed_for:
            # Another caller is about to define the job in the same way.
            yield Wait(CLAIM_SECONDS)
            continue
        # Callers at the same moment begin at different jobs, so that each finds one of its own.
        start = int(nonce, 16) % len(jobs) if jobs else 0
        for job in (*jobs[start:], *jobs[:start]):
            if _claimed_for(job, clock()) or (yield from _is_active(job["job_id"])):
                continue
            claimed_at = clock()
            claim = f"[airflow claim {digest} by {nonce} at {claimed_at:.3f}]"
            claim = "\n".join(filter(None, (_unclaimed(_description(job)), claim)))
            # Not where others may take the claim for expired soon.
            if (yield from _claim(job, claim)) and (
                clock() - claimed_at < CLAIM_EXPIRES_SECONDS / 2
            ):
                log.info("Resetting job %s, %r: its definition has changed.", job["job_id"], name)
                yield from _reset(job["job_id"], defined)
            # Look at the jobs anew: another caller may have claimed this one, or reset it since.
            break
        else:
            job_id: int = yield create_with_permissions(defined)
            # Of several jobs of one definition all callers use the oldest.
            jobs = yield from _jobs_of(name)
            same = [job for job in jobs if _is_free_and_defined(job, digest, clock())]
            if not same or same[0]["job_id"] == job_id:
                log.info("Created job %s, %r.", job_id, name)
                return job_id
            with suppress(NotFoundError):
                yield delete_job(job_id)
    raise RuntimeError(f"the jobs named {name!r} were changed by others {MAX_ROUNDS} times")


def is_defined_as(job: Job, digest: str) -> bool:
    """Whether a job has the definition with this digest.

    :param job: the job.
    :param digest: the result of :func:`definition_digest`.
    """
    return _digest_of(job) == digest


def has_settings(job: Job, settings: Mapping[str, Any]) -> bool:
    """Whether a job has these settings; it may have others beside, such as defaults.

    :param job: the job, with all its tasks.
    :param settings: the settings. Description and permissions are not compared.
    """
    compared = {**without_permissions(settings), "description": None}
    return _contains(job.get("settings") or {}, compared)


def has_tasks(run: Run, settings: Mapping[str, Any], keys: Collection[str] | None = None) -> bool:
    """Whether the latest attempts of a run's tasks are as these settings say.

    :param run: the run, with all its tasks.
    :param settings: the job's settings.
    :param keys: keys of the tasks to compare; default all.
    """
    latest = latest_attempts(run)
    return all(
        _contains(latest.get(task["task_key"]), task)
        for task in settings["tasks"]
        if keys is None or task["task_key"] in keys
    )


def has_definition(run: Run, settings: Mapping[str, Any]) -> Workflow[bool]:
    """Return whether a run has the tasks of these settings, rather than of others.

    It has others where its job was reset after :func:`ensure_job` and before the run was launched.

    :param run: the run.
    :param settings: the settings that the job was given by :func:`ensure_job`.
    """
    if (yield from job_change(int(run["job_id"]), settings)) is None:
        return True
    found = yield from whole_run(int(run["run_id"]), api_version=LATEST_API_VERSION)
    return has_tasks(found, settings)


def job_change(job_id: int, settings: Mapping[str, Any]) -> Workflow[str | None]:
    """Return how a job differs from these settings; None if it does not.

    :param job_id: the job.
    :param settings: the settings that the job was given by :func:`ensure_job`.
    """
    try:
        job = yield from whole_job(job_id)
    except NotFoundError:
        return f"job {job_id} does not exist any more"
    if is_defined_as(job, definition_digest(settings)) and has_settings(job, settings):
        return None
    return f"job {job_id} was changed since the run was launched"


def whole_job(job_id: int) -> Workflow[Job]:
    """Read a job with all its tasks. API 2.2 lists at most 100 on a page.

    :param job_id: the job.
    """
    job: Any = yield get_job(job_id)._replace(default_api_version=LATEST_API_VERSION)
    settings = dict(job.get("settings") or {})
    token, tokens = job.get("next_page_token"), set[str]()
    while token and token not in tokens:
        tokens.add(token)
        call = get_job(job_id, page_token=token)
        page: Any = yield call._replace(default_api_version=LATEST_API_VERSION)
        more = page.get("settings") or {}
        for part in ("tasks", "job_clusters", "environments", "parameters"):
            known = list(settings.get(part) or ())
            known += [item for item in more.get(part) or () if item not in known]
            if known:
                settings[part] = known
        token = page.get("next_page_token")
    return cast("Job", {**job, "settings": settings})


def _jobs_of(name: str) -> Workflow[list[Job]]:
    """Return the jobs of a name, the oldest first, each with its description."""
    listed: list[Job] = yield from read_all_items(list_jobs(name=name))
    jobs: list[Job] = []
    for job in listed:
        settings = job.get("settings") or {}
        if settings.get("name") != name:
            continue
        if "description" not in settings:
            try:
                job = yield get_job(job["job_id"])._replace(  # noqa: PLW2901
                    default_api_version=LATEST_API_VERSION
                )
            except NotFoundError:
                continue
        jobs.append(job)
    return sorted(jobs, key=lambda job: (job.get("created_time") or 0, job["job_id"]))


def _is_free_and_defined(job: Job, digest: str, now: float) -> bool:
    """Whether a job has this definition, and nobody is about to reset it."""
    return _digest_of(job) == digest and _claimed_for(job, now) is None


def _claimed_for(job: Job, now: float) -> str | None:
    """Return the digest of the definition that a job is claimed for; None if it is not claimed."""
    claim = _CLAIM.search(_description(job))
    is_valid = claim is not None and now - float(claim[3]) < CLAIM_EXPIRES_SECONDS
    return claim[1] if claim is not None and is_valid else None


def _claim(job: Job, claim: str) -> Workflow[bool]:
    """Claim a job that has no active run; return whether the claim stands.

    :param job: the job.
    :param claim: its description with the claim.
    """
    job_id = job["job_id"]
    try:
        yield update_job(job_id, {"description": claim})
        yield Wait(CLAIM_SECONDS)
        claimed: Job = yield get_job(job_id)._replace(default_api_version=LATEST_API_VERSION)
    except NotFoundError:
        return False
    if _description(claimed) != claim:
        return False
    if not (yield from _is_active(job_id)):
        return True
    # Somebody who found it before the claim has launched a run.
    yield update_job(job_id, {"description": _unclaimed(_description(job))})
    return False


def _is_active(job_id: int) -> Workflow[bool]:
    runs: Any = yield list_runs(job_id=job_id, active_only=True, limit=1)
    return bool(runs.items)


def _reset(job_id: int, settings: Mapping[str, Any]) -> Workflow[None]:
    for call in reset_with_permissions(job_id, settings):  # noqa: UP028  (a list takes no responses)
        yield call


def _with_digest(settings: Mapping[str, Any], digest: str) -> dict[str, Any]:
    description = str(settings.get("description") or "")
    parts = filter(None, (description, f"[airflow definition {digest}]"))
    return {**settings, "description": "\n".join(parts)}


def _description(job: Job) -> str:
    return str((job.get("settings") or {}).get("description") or "")


def _unclaimed(description: str) -> str:
    """Return a description without claims."""
    return "\n".join(line for line in description.split("\n") if not _CLAIM.fullmatch(line))


def _digest_of(job: Job) -> str | None:
    found = _DEFINITION.findall(_description(job))
    return found[-1] if found else None


def _contains(found: Any, wanted: Any) -> bool:
    """Whether a value of a job has what is wanted. Empty values count as missing."""
    if wanted in (None, "", 0, False) or (hasattr(wanted, "__len__") and not len(wanted)):
        return not found or wanted is None
    if isinstance(wanted, Mapping):
        known = found or {}
        return isinstance(known, Mapping) and all(
            _contains(known.get(name), value) for name, value in wanted.items()
        )
    if isinstance(wanted, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(wanted):
            return False
        pairs = zip(_ordered(found), _ordered(wanted), strict=True)
        return all(_contains(one, other) for one, other in pairs)
    return bool(found == wanted or _text(found) == _text(wanted))


def _ordered(items: Sequence[Any]) -> list[Any]:
    for key in _KEYS:
        if all(isinstance(item, Mapping) and item.get(key) for item in items):
            return sorted(items, key=lambda item: str(item[key]))
    return list(items)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
