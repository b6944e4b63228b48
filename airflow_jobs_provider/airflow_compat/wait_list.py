"""What the triggers of this package wait for, and in which triggerer, from Airflow's database.

Only the API server imports this (Airflow 3.1 and later). Of a trigger's stored arguments, which
Airflow encrypts, only those in :data:`SHOWN_ARGUMENTS` leave this module.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.jobs.job import Job
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from sqlalchemy import and_, false, func, or_, select
from sqlalchemy.orm import lazyload

from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.xcom import RUN_ID_KEY

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = [
    "SHOWN_ARGUMENTS",
    "ListedTriggerer",
    "ListedWait",
    "WaitFilter",
    "find_triggerers",
    "find_waits",
]

log = logging.getLogger(__name__)

_CLASSES = "airflow_jobs_provider."
_IDS = ("run_id", "workflow_run_id", "job_id")
_NAMES = ("job_name", "task_key")
# What names a run, a job or a task of a run. All else stays here, the connection's name too.
SHOWN_ARGUMENTS = (*_IDS, *_NAMES)
_MAX_NAME = 200


@dataclass(frozen=True)
class WaitFilter:
    """Which triggers to list.

    :ivar reads_assets: whether the user may read assets, and so sees the triggers that watch for
        asset events.
    :ivar dag_id: those of one DAG; empty (default) for all.
    :ivar triggerer_id: those of one triggerer; None (default) for all.
    :ivar before: those that are older than the trigger with this id; default None.
    :ivar after: those that are newer than it; default None.
    """

    reads_assets: bool = False
    dag_id: str = ""
    triggerer_id: int | None = None
    before: int | None = None
    after: int | None = None


@dataclass(frozen=True)
class ListedWait:
    """A trigger in the list.

    :ivar trigger_id: its id.
    :ivar kind: name of its class.
    :ivar created: when the task was deferred.
    :ivar triggerer_id: the triggerer that it runs in; None while it is in none.
    :ivar dag_id: the DAG; None for a trigger that watches for asset events.
    :ivar dag_run: id of the DAG run; likewise.
    :ivar task_id: the task; likewise.
    :ivar map_index: -1 for a task that is not mapped.
    :ivar assets: names of the assets, for a trigger that watches for asset events.
    :ivar target: what it waits for: those of :data:`SHOWN_ARGUMENTS` that are known.
    """

    trigger_id: int
    kind: str
    created: datetime
    triggerer_id: int | None
    dag_id: str | None
    dag_run: str | None
    task_id: str | None
    map_index: int
    assets: tuple[str, ...] = ()
    target: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class ListedTriggerer:
    """A triggerer, and how many of the triggers run in it.

    :ivar triggerer_id: id of its job in Airflow; None for triggers that are in no triggerer.
    :ivar hostname: where it runs; None if unknown.
    :ivar heartbeat: its last heartbeat; None if unknown.
    :ivar is_alive: whether Airflow takes it for alive.
    :ivar waits: number of triggers.
    """

    triggerer_id: int | None
    hostname: str | None
    heartbeat: datetime | None
    is_alive: bool
    waits: int


def find_waits(
    session: Session, wanted: WaitFilter, dag_ids: Collection[str], limit: int
) -> list[ListedWait]:
    """Return triggers, newest first.

    :param session: a session of the metadata database.
    :param wanted: which triggers.
    :param dag_ids: the DAGs that the user may read.
    :param limit: so many, at most.
    """
    task = TaskInstance
    query = (
        select(Trigger, task.dag_id, task.run_id, task.task_id, task.map_index, XComModel.value)
        # Airflow would read each task instance as a whole, too, and unpickle its executor_config.
        .options(lazyload(Trigger.task_instance))
        .outerjoin(task, task.trigger_id == Trigger.id)
        .outerjoin(
            XComModel,
            and_(
                XComModel.dag_id == task.dag_id,
                XComModel.run_id == task.run_id,
                XComModel.task_id == task.task_id,
                XComModel.map_index == task.map_index,
                XComModel.key == RUN_ID_KEY,
            ),
        )
        .where(*_conditions(wanted, dag_ids))
    )
    if wanted.triggerer_id is not None:
        query = query.where(Trigger.triggerer_id == wanted.triggerer_id)
    if wanted.after is not None:
        query = query.where(Trigger.id > wanted.after).order_by(Trigger.id)
    else:
        if wanted.before is not None:
            query = query.where(Trigger.id < wanted.before)
        query = query.order_by(Trigger.id.desc())
    found = [_listed(*row) for row in session.execute(query.limit(limit))]
    return found[::-1] if wanted.after is not None else found


def find_triggerers(
    session: Session, wanted: WaitFilter, dag_ids: Collection[str]
) -> list[ListedTriggerer]:
    """Return the triggerers that the triggers run in, and their numbers.

    :param session: a session of the metadata database.
    :param wanted: which triggers; those of all triggerers, whatever it says.
    :param dag_ids: the DAGs that the user may read.
    """
    number = func.count()
    query = (
        select(Trigger.triggerer_id, number)
        .outerjoin(TaskInstance, TaskInstance.trigger_id == Trigger.id)
        .where(*_conditions(wanted, dag_ids))
        .group_by(Trigger.triggerer_id)
        .order_by(Trigger.triggerer_id)
    )
    counts = [(row[0], row[1]) for row in session.execute(query)]
    ids = [triggerer_id for triggerer_id, _ in counts if triggerer_id is not None]
    jobs = {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(ids)))}
    return [
        ListedTriggerer(
            triggerer_id=triggerer_id,
            hostname=job.hostname if job else None,
            heartbeat=job.latest_heartbeat if job else None,
            is_alive=bool(job and job.is_alive()),
            waits=waits,
        )
        for triggerer_id, waits in counts
        for job in [jobs.get(triggerer_id or 0)]
    ]


def _conditions(wanted: WaitFilter, dag_ids: Collection[str]) -> list[Any]:
    readable = {wanted.dag_id} & set(dag_ids) if wanted.dag_id else set(dag_ids)
    of_readable = TaskInstance.dag_id.in_(readable) if readable else false()
    # Not each trigger without a task: that of a task that was cleared stays for some seconds, and
    # nothing tells any more which DAG it was of.
    watches = Trigger.assets.any()
    shows_watches = wanted.reads_assets and not wanted.dag_id
    return [
        Trigger.classpath.startswith(_CLASSES, autoescape=True),
        or_(of_readable, watches) if shows_watches else of_readable,
    ]


def _listed(
    trigger: Trigger,
    dag_id: str | None,
    dag_run: str | None,
    task_id: str | None,
    map_index: int | None,
    run_id: Any,
) -> ListedWait:
    return ListedWait(
        trigger_id=trigger.id,
        kind=trigger.classpath.rpartition(".")[2],
        created=trigger.created_date,
        triggerer_id=trigger.triggerer_id,
        dag_id=dag_id,
        dag_run=dag_run,
        task_id=task_id,
        map_index=-1 if map_index is None else map_index,
        assets=() if dag_id else tuple(sorted(asset.name for asset in trigger.assets)),
        target=_target(trigger, parse_id(run_id)),
    )


def _target(trigger: Trigger, launched: int | None) -> dict[str, int | str]:
    """Return what a trigger waits for: of its arguments only what may be shown."""
    try:
        stored: Mapping[str, Any] = trigger.kwargs
    except Exception:  # noqa: BLE001  (encrypted with a key that is gone, or of another version)
        log.warning("The arguments of trigger %s cannot be read", trigger.id)
        stored = {}
    target: dict[str, int | str] = {}
    if launched is not None:
        target["run_id"] = launched
    for name in _IDS:
        if (number := parse_id(stored.get(name))) is not None:
            target[name] = number
    for name in _NAMES:
        if isinstance(value := stored.get(name), str) and value:
            target[name] = value[:_MAX_NAME]
    return target
