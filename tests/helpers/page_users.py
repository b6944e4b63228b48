"""The users of the tests of the page: Airflow's simple auth manager, with rights for each DAG."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

__all__ = ["PageUsers"]


class PageUsers(SimpleAuthManager):
    """The simple auth manager, in which some users have fewer rights.

    A user named "only-DAG" may read that DAG only, and "no-TASK_INSTANCE" or "no-XCOM" may not read
    what the name says.
    """

    def is_authorized_dag(
        self, *, user: Any, access_entity: Any = None, details: Any = None, **asked: Any
    ) -> bool:
        """Ask the simple auth manager, too."""
        kind, _, name = user.username.partition("-")
        if kind == "only" and details is not None and details.id not in (None, name):
            return False
        if kind == "no" and access_entity is not None and access_entity.value == name:
            return False
        return super().is_authorized_dag(
            user=user, access_entity=access_entity, details=details, **asked
        )

    def token(self, username: str, role: str | None = "viewer") -> str:
        """Return the token of a user."""
        return str(self.generate_jwt(SimpleAuthManagerUser(username=username, role=role)))
