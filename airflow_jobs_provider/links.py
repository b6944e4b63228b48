"""The link to a run's page in the Airflow UI."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Self

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_jobs_provider.xcom import RUN_PAGE_URL_KEY

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["DatabricksJobRunLink", "LinksToPush"]


class DatabricksJobRunLink(BaseOperatorLink):
    """Link to the page of the run that the task launched or waited for.

    It is shown as soon as the run is launched; for a sensor, when the run has ended.
    """

    name = "See Databricks Job Run"

    @property
    def xcom_key(self) -> str:
        """Return the key of the XCom from which Airflow 3 reads the link."""
        return RUN_PAGE_URL_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL; empty if the task has pushed none yet."""
        # At the end of a task's process Airflow 3 asks the object that executed the task.
        page_url = getattr(operator, "page_url_at_process_end", None)
        if page_url is not None and (url := page_url()):
            return str(url)
        return XCom.get_value(key=RUN_PAGE_URL_KEY, ti_key=ti_key) or ""


class LinksToPush(tuple[BaseOperatorLink, ...]):  # noqa: SLOT001 - it has an attribute
    """The links whose XComs Airflow 3 is to push at the end of a task's process.

    Airflow pushes the XCom of each link of the object that executed the task. For a link whose XCom
    the task has pushed, that is one more request to Airflow's API, and for a sensor in reschedule
    mode it is two for each poke.

    :param links: the operator's links; that to the run's page is left out.
    :param at_process_end: called when Airflow asks for the links, which it does once, at the end of
        the process.
    """

    _at_process_end: Callable[[], None]

    def __new__(cls, links: Iterable[BaseOperatorLink], at_process_end: Callable[[], None]) -> Self:
        """Leave out the link to the run's page."""
        remaining = super().__new__(
            # A user's subclass of the link may have another URL.
            cls,
            [link for link in links if type(link) is not DatabricksJobRunLink],
        )
        remaining._at_process_end = at_process_end
        return remaining

    def __iter__(self) -> Iterator[BaseOperatorLink]:
        """Return the links, after the call."""
        self._at_process_end()
        return super().__iter__()

    def __reduce__(self) -> tuple[type, tuple[list[BaseOperatorLink]]]:
        """Copy the links only."""
        return tuple, ([*super().__iter__()],)
