"""The Databricks runs of this deployment's tasks, from Airflow's metadata database.

Only the API server imports this (Airflow 3.1 and later). A run is known by the XComs of its task.
The list is in the order of the primary key of the XComs, latest DAG run first, so that a page reads
only what it shows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import String, and_, cast, func, or_, select, tuple_
from sqlalchemy.orm import aliased

from airflow_jobs_provider.airflow_compat.stored_xcoms import decoded
from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.api.text import safe_url
from airflow_jobs_provider.xcom import (
    JOB_ID_KEY,
    RUN_ID_KEY,
    RUN_PAGE_URL_KEY,
    TASK_RUN_IDS_KEY,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["ListedRun", "Position", "RunFilter", "find_runs"]

# Database id of the DAG run, task id and map index.
Position = tuple[int, str, int]


@dataclass(frozen=True)
class RunFilter:
    """Which runs to list.

    :ivar days: those of DAG runs of the last days.
    :ivar dag_id: those of one DAG; empty (default) for all.
    :ivar states: those of tasks in one of these states, None among them for a task without a state;
        empty (default) for any.
    :ivar text: those whose DAG, task or DAG run has this in its id, or whose Databricks run or job
        has this id; empty (default) for any.
    :ivar before: those after this position in the list, which are older; default None.
    :ivar after: those before this position; default None.
    """

    days: int
    dag_id: str = ""
    states: Sequence[str | None] = ()
    text: str = ""
    before: Position | None = None
    after: Position | None = None


@dataclass(frozen=True)
class ListedRun:
    """A run in the list.

    :ivar run_id: id of the Databricks run; None if the XCom is no id.
    :ivar job_id: id of its job; None if unknown.
    :ivar page_url: its page; None if unknown or not a link to http or https.
    :ivar dag_id: the DAG.
    :ivar dag_run: id of the DAG run.
    :ivar task_id: the task.
    :ivar map_index: -1 for a task that is not mapped.
    :ivar try_number: number of the task's try.
    :ivar state: the task's state; None without one.
    :ivar began: when the run was launched, or the task was started if that was earlier.
    :ivar ended: when the task ended; None while it has not.
    :ivar position: place in the list.
    :ivar task_run_ids: the task runs of a run of several tasks, by task key, once it has ended.
    """

    run_id: int | None
    job_id: int | None
    page_url: str | None
    dag_id: str
    dag_run: str
    task_id: str
    map_index: int
    try_number: int
    state: str | None
    began: datetime
    ended: datetime | None
    position: Position
    task_run_ids: Mapping[str, int] = field(default_factory=dict)


def find_runs(
    session: Session, wanted: RunFilter, dag_ids: Collection[str], limit: int
) -> list[ListedRun]:
    """Return runs, latest DAG run first.

    :param session: a session of the metadata database.
    :param wanted: which runs.
    :param dag_ids: the DAGs that the user may read.
    :param limit: so many, at most.
    """
    readable = {wanted.dag_id} & set(dag_ids) if wanted.dag_id else set(dag_ids)
    if not readable:
        return []
    chosen = _chosen(wanted, readable, limit).subquery()
    page, run, job, task_runs = (aliased(XComModel) for _ in range(4))
    task = TaskInstance
    # Airflow pushes the page once more when a task's process ends.
    launched = func.coalesce(run.timestamp, page.timestamp)
    query = (
        select(
            *(run.value, job.value, page.value),
            *(task.dag_id, task.run_id, task.task_id, task.map_index, task.try_number, task.state),
            *(task.start_date, launched, task.end_date, page.dag_run_id, task_runs.value),
        )
        .join_from(chosen, page, _is_beside(page, chosen.c, RUN_PAGE_URL_KEY))
        .join(task, _is_task(task, page))
        .outerjoin(run, _is_beside(run, page, RUN_ID_KEY))
        .outerjoin(job, _is_beside(job, page, JOB_ID_KEY))
        .outerjoin(
            task_runs,
            and_(
                _is_beside(task_runs, page, TASK_RUN_IDS_KEY),
                # Not those of an earlier attempt, which earlier versions of this package have kept.
                task_runs.timestamp >= run.timestamp,
            ),
        )
        .order_by(*(column.desc() for column in _place(chosen.c)))
    )
    return [_listed(*row) for row in session.execute(query)]


def _chosen(wanted: RunFilter, dag_ids: Collection[str], limit: int) -> Any:
    """Return the query of the places of the runs to list.

    It reads task instances and other XComs only where the filter needs them. Without a filter they
    are read for the listed runs only.
    """
    page = aliased(XComModel)
    query = select(*_place(page)).where(
        page.key == RUN_PAGE_URL_KEY,
        # Airflow pushes an empty link for a task that has launched nothing. The values are JSON.
        cast(page.value, String) != '""',
        page.dag_run_id >= _first_dag_run(wanted.days),
        page.dag_id.in_(dag_ids),
    )
    if wanted.states:
        query = query.join(TaskInstance, _is_task(TaskInstance, page))
        named = TaskInstance.state.in_([one for one in wanted.states if one is not None])
        query = query.where(
            or_(named, TaskInstance.state.is_(None)) if None in wanted.states else named
        )
    if wanted.text:
        conditions = [
            func.lower(column).contains(wanted.text.lower(), autoescape=True)
            for column in (page.dag_id, page.task_id, page.run_id)
        ]
        if parse_id(wanted.text) is not None:
            for key in (RUN_ID_KEY, JOB_ID_KEY):
                other = aliased(XComModel)
                query = query.outerjoin(other, _is_beside(other, page, key))
                values = (wanted.text, f'"{wanted.text}"')
                conditions.append(cast(other.value, String).in_(values))
        query = query.where(or_(*conditions))
    place = _place(page)
    if wanted.after is not None:
        # The nearest ones, so in the opposite order.
        beyond = (place[0] >= wanted.after[0], tuple_(*place) > tuple_(*wanted.after))
        query = query.where(*beyond).order_by(*place)
    else:
        if wanted.before is not None:
            # MySQL finds the first row of a page by the first condition; by the second it does not.
            beyond = (place[0] <= wanted.before[0], tuple_(*place) < tuple_(*wanted.before))
            query = query.where(*beyond)
        query = query.order_by(*(column.desc() for column in place))
    return query.limit(limit)


def _place(xcom: Any) -> tuple[Any, Any, Any]:
    return (xcom.dag_run_id, xcom.task_id, xcom.map_index)


def _is_beside(other: Any, xcom: Any, key: str) -> Any:
    """Return the condition that an XCom is that of the same task instance under a key."""
    same = zip(_place(other), _place(xcom), strict=True)
    return and_(other.key == key, *(one == another for one, another in same))


def _is_task(task: Any, xcom: Any) -> Any:
    """Return the condition that a task instance is that of an XCom."""
    return and_(
        task.dag_id == xcom.dag_id,
        task.run_id == xcom.run_id,
        task.task_id == xcom.task_id,
        task.map_index == xcom.map_index,
    )


def _first_dag_run(days: int) -> Any:
    """Return the query of the lowest database id of the DAG runs of the last days."""
    since = datetime.now(UTC) - timedelta(days=days)
    return select(func.min(DagRun.id)).where(DagRun.run_after >= since).scalar_subquery()


def _listed(
    run_id: Any,
    job_id: Any,
    page_url: Any,
    dag_id: str,
    dag_run: str,
    task_id: str,
    map_index: int,
    try_number: int,
    state: str | None,
    started: datetime | None,
    pushed: datetime,
    ended: datetime | None,
    dag_run_id: int,
    task_runs: Any,
) -> ListedRun:
    page_url = decoded(page_url)
    return ListedRun(
        run_id=parse_id(decoded(run_id)),
        job_id=parse_id(decoded(job_id)),
        # A user may have pushed another XCom in its place.
        page_url=safe_url(page_url) if isinstance(page_url, str) else None,
        dag_id=dag_id,
        dag_run=dag_run,
        task_id=task_id,
        map_index=map_index,
        try_number=try_number,
        state=state,
        # A sensor pushes the XComs when the run has ended.
        began=min(pushed, started or pushed),
        ended=ended,
        position=(dag_run_id, task_id, map_index),
        task_run_ids=_task_run_ids(decoded(task_runs)),
    )


def _task_run_ids(value: Any) -> dict[str, int]:
    """Return the ids of task runs; nothing for what a user has pushed in their place."""
    if not isinstance(value, Mapping):
        return {}
    ids = {str(key): parse_id(one) for key, one in value.items()}
    return {key: one for key, one in ids.items() if one is not None}
