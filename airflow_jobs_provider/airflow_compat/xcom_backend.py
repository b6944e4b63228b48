"""Whether Airflow stores XComs in its own database."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import conf

__all__ = ["stores_xcoms_in_database"]


def stores_xcoms_in_database() -> bool:
    """Return whether the XCom backend is Airflow's own."""
    backend: str = conf.get("core", "xcom_backend", fallback="")
    # Its module differs between the lines of Airflow.
    return backend.startswith("airflow.") and backend.endswith(".BaseXCom")
