"""The lists of runs of a workspace in memory, as the poller reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.endpoints import list_runs
from airflow_jobs_provider.api.errors import BadRequestError
from airflow_jobs_provider.triggers.polling.run_lists import RunLists

__all__ = ["ListedWorkspace", "PageRequest", "read", "refused", "run_lists_of"]

# A list, its offset or token, and its limit.
PageRequest = tuple[str, int | str, int]


class ListedWorkspace:
    """The lists of a workspace in memory, and the pages that were asked for.

    :ivar active: ids of the active runs, latest start first; ``ended``: of those that ended.
    :ivar run_bytes: the size of a run.
    :ivar largest_page: a larger limit is refused.
    :ivar hidden: the largest id of the runs that the caller may not see; pages leave them out.
    :ivar window_error: is raised for a request with a filter of later versions.
    :ivar after_page: called after each page; it may change all of this.
    :ivar errors: are raised instead of a page, one for each request; None for a page.
    :ivar has_failed: whether lists were suspended, and have not been read since.
    """

    def __init__(self, active: Iterable[int] = (), ended: Iterable[int] = ()) -> None:
        self.active, self.ended = list(active), list(ended)
        self.version, self.run_bytes, self.largest_page = "2.0", 1_000.0, 1000
        self.hidden = 0
        self.window_error: Exception | None = None
        self.after_page: Callable[[], None] = lambda: None
        self.errors: list[Exception | None] = []
        self.has_failed = False
        self.asked: list[PageRequest] = []
        self.calls: list[Call[Any]] = []
        self.published: list[list[Any]] = []
        self.waited_for: set[int] = set()
        self.last_response_bytes = 0.0
        self.now = 1_000.0

    def version_of(self, call: Call[Any]) -> str:
        """Return the version of the API, as a client does that is bound to one."""
        return call.api_version(self.version or None)

    async def read_page(self, call: Call[Any], *, waits_out_outages: bool) -> Any:
        """Answer ``runs/list``."""
        parameters = dict(call.parameters)
        # All runs wait for a list, unless there is another way to read them.
        assert waits_out_outages is not (
            self.has_failed
            or (self.version_of(list_runs()) == "2.0" and self.version_of(call) != "2.0")
        )
        which = "active" if parameters.get("active_only") else "ended"
        assert which == "active" or parameters["completed_only"]
        ids = self.active if which == "active" else self.ended
        if (until := parameters.get("start_time_to")) is not None:
            if self.window_error is not None:
                raise self.window_error
            ids = [run_id for run_id in ids if run_id <= until]
        limit, token = parameters["limit"], parameters.get("page_token")
        offset = ids.index(int(token)) if token else parameters.get("offset", 0)
        self.calls.append(call)
        self.asked.append((which, token or offset, limit))
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        if limit > self.largest_page:
            raise refused(f"The limit is at most {self.largest_page}.")
        page, rest = ids[offset : offset + limit], ids[offset + limit :]
        shown = [run_id for run_id in page if run_id > self.hidden]
        runs = [{"run_id": run_id, "start_time": run_id} for run_id in shown]
        answer: dict[str, Any] = {"runs": runs}
        if self.version_of(call) == "2.0":
            answer["has_more"] = bool(rest)
        elif rest:
            answer["next_page_token"] = str(rest[0])
        self.last_response_bytes = len(shown) * self.run_bytes
        self.after_page()
        return call.parse(answer)

    async def publish(self, runs: Any) -> set[int]:
        """Take the runs of a page."""
        self.published.append(runs)
        return {run["run_id"] for run in runs} & self.waited_for

    def pages(self) -> list[PageRequest]:
        """Return the pages that were asked for since the last call."""
        asked, self.asked = self.asked, []
        return asked


def refused(message: str = "Listing runs is not allowed.") -> BadRequestError:
    """Make the error of a list that is refused."""
    return BadRequestError(status=400, api_message=message)


def run_lists_of(workspace: ListedWorkspace) -> RunLists:
    """Make what reads the lists of a workspace."""
    client: Any = workspace
    return RunLists(client, workspace.read_page)


async def read(
    workspace: ListedWorkspace, lists: RunLists, due: Iterable[int], others: Iterable[int] = ()
) -> set[int]:
    """Read the due runs, while others are waited for, too; return those in no list."""
    due = set(due)
    workspace.waited_for = due | set(others)
    return await lists.read(due, workspace.waited_for, workspace.publish, 10)
