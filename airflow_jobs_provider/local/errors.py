"""Error responses with the service's codes and texts."""

from __future__ import annotations

from http import HTTPStatus

__all__ = [
    "ApiError",
    "invalid",
    "job_does_not_exist",
    "malformed",
    "run_does_not_exist",
]


class ApiError(Exception):
    """A request that is answered with an error.

    :param status: the HTTP status.
    :param error_code: the API's code; a few of the service's answers carry a number here.
    :param message: the API's message.
    """

    def __init__(self, status: int, error_code: str | int, message: str) -> None:
        super().__init__(message)
        self.status = int(status)
        self.error_code = error_code
        self.message = message


def invalid(message: str) -> ApiError:
    """Return the answer to a request whose parameters break a rule."""
    return ApiError(HTTPStatus.BAD_REQUEST, "INVALID_PARAMETER_VALUE", message)


def malformed(message: str) -> ApiError:
    """Return the answer to a request that could not be read."""
    return ApiError(HTTPStatus.BAD_REQUEST, "MALFORMED_REQUEST", message)


def run_does_not_exist(run_id: int) -> ApiError:
    """Return the error for a run that does not exist."""
    return invalid(f"Run {run_id} does not exist.")


def job_does_not_exist(job_id: int) -> ApiError:
    """Return the error for a job that does not exist."""
    return invalid(f"Job {job_id} does not exist.")
