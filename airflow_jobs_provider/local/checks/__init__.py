"""What the service refuses: its own checks of a request, whatever a client may have checked.

They are written from the API's reference a second time, apart from the client's rules, so that a
mistake in either shows. All refusals are answered with 400 and a message that names the field.
"""

from airflow_jobs_provider.local.checks.parameters import check_overriding
from airflow_jobs_provider.local.checks.request_fields import (
    MAX_BODY_BYTES,
    as_query,
    check_token,
    read_body,
    read_flag,
    read_integer,
    read_task_keys,
    required_integer,
    too_large,
)
from airflow_jobs_provider.local.checks.settings import (
    check_fields_to_remove,
    check_settings,
    read_queue,
)

__all__ = [
    "MAX_BODY_BYTES",
    "as_query",
    "check_fields_to_remove",
    "check_overriding",
    "check_settings",
    "check_token",
    "read_body",
    "read_flag",
    "read_integer",
    "read_queue",
    "read_task_keys",
    "required_integer",
    "too_large",
]
