"""Who asks for the page, and what they may read: Airflow's own authentication and permissions.

Only the API server imports this (Airflow 3.1 and later). FastAPI reads the annotations when the
application is made, so what they name is imported here and not in functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import (
    AssetDetails,
    DagAccessEntity,
    DagDetails,
)
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, HTTPException

__all__ = ["Reader", "ReaderDep", "SessionDep"]


@dataclass(frozen=True)
class Reader:
    """What the user of a request may read.

    :ivar dag_ids: the DAGs.
    :ivar reads_assets: whether the user may read assets.
    """

    dag_ids: frozenset[str]
    reads_assets: bool


def _reader(user: GetUserDep) -> Reader:
    """Return what the user may read; refuse who may read no task instances or no XComs.

    Airflow's REST API asks the same for what the page shows.
    """
    manager = get_auth_manager()
    for entity in (DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM):
        if not manager.is_authorized_dag(
            method="GET", access_entity=entity, details=DagDetails(), user=user
        ):
            raise HTTPException(403, f"You may not read {entity.value}")
    return Reader(
        dag_ids=frozenset(manager.get_authorized_dag_ids(user=user, method="GET")),
        reads_assets=manager.is_authorized_asset(method="GET", details=AssetDetails(), user=user),
    )


ReaderDep = Annotated[Reader, Depends(_reader)]
