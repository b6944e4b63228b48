"""Reading many runs from lists: which pages are read, and when lists are read at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.endpoints import list_runs
from airflow_jobs_provider.api.errors import BadRequestError, ConflictError, ServerError
from airflow_jobs_provider.triggers.polling import run_lists
from airflow_jobs_provider.triggers.polling.run_lists import RunLists

Asked = tuple[str, int | str, int]
BROKEN = ServerError(status=503)


class Workspace:
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
        self.asked: list[Asked] = []
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

    def pages(self) -> list[Asked]:
        """Return the pages that were asked for since the last call."""
        asked, self.asked = self.asked, []
        return asked


def refused(message: str = "Listing runs is not allowed.") -> BadRequestError:
    """Make the error of a list that is refused."""
    return BadRequestError(status=400, api_message=message)


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Workspace:
    """A workspace without runs, and its clock in place of the real one."""
    caplog.set_level("INFO", logger=run_lists.__name__)
    one = Workspace()
    monkeypatch.setattr(run_lists, "time", SimpleNamespace(monotonic=lambda: one.now))
    return one


def lists_of(workspace: Workspace) -> RunLists:
    """Make the reader of its lists."""
    client: Any = workspace
    return RunLists(client, workspace.read_page)


async def read(
    workspace: Workspace, lists: RunLists, due: Iterable[int], others: Iterable[int] = ()
) -> set[int]:
    """Read the due runs, while others are waited for, too; return those in no list."""
    due = set(due)
    workspace.waited_for = due | set(others)
    return await lists.read(due, workspace.waited_for, workspace.publish, 10)


def test_the_limits_of_lists() -> None:
    """Those of the reference, and what a page costs a triggerer."""
    assert (run_lists.MAX_PAGE_RUNS, run_lists.MAX_PAGE_RUNS_SINCE_2_1) == (1000, 25)
    assert (run_lists.MIN_PAGE_RUNS, run_lists.FIRST_PAGE_RUNS) == (25, 100)
    assert (run_lists.MIN_OVERLAP_RUNS, run_lists.MAX_OFFSET) == (10, 10_000)
    assert (run_lists.MAX_PAGE_BYTES, run_lists.BYTES_PER_UNIT_OF_COST) == (3_000_000, 1_000_000)
    assert (run_lists.ASSUMED_RUN_BYTES, run_lists.SEARCH_COST_FRACTION) == (1_500, 0.1)
    assert (run_lists.SUSPEND_SECONDS, run_lists.LONGEST_SUSPEND_SECONDS) == (10, 60)
    assert run_lists.REFUSED_SECONDS == 600


async def test_pages_grow_and_overlap(workspace: Workspace) -> None:
    """Each is twice the one before, up to a thousand runs, and repeats ten runs of it."""
    workspace.active = list(range(3000, 0, -1))
    assert await read(workspace, lists_of(workspace), workspace.active) == set()
    assert workspace.pages() == [
        ("active", 0, 100),
        ("active", 90, 200),
        ("active", 280, 400),
        ("active", 670, 800),
        ("active", 1460, 1000),
        ("active", 2450, 1000),
    ]
    assert workspace.calls[0].parameters == {"active_only": True, "limit": 100}


async def test_small_pages_overlap_by_half(workspace: Workspace) -> None:
    """At most: a page of fewer runs than the overlap still brings something new."""
    workspace.active, workspace.largest_page = list(range(20, 0, -1)), 15
    assert await read(workspace, lists_of(workspace), workspace.active) == set()
    assert workspace.pages() == [("active", 0, 100), ("active", 0, 15), ("active", 8, 15)]


async def test_the_overlap_follows_the_movement_of_the_list(workspace: Workspace) -> None:
    """It is twice as far as the list has moved, and shrinks by a tenth when it does not move."""
    workspace.active = everything = list(range(5000, 0, -1))
    moves = iter([8])

    def move() -> None:
        workspace.active = workspace.active[next(moves, 0) :]

    workspace.after_page = move
    lists = lists_of(workspace)
    assert await read(workspace, lists, everything) == set()
    assert workspace.pages() == [
        ("active", 0, 100),
        ("active", 90, 200),
        ("active", 274, 400),
        ("active", 660, 800),
        ("active", 1448, 1000),
        ("active", 2438, 1000),
        ("active", 3428, 1000),
        ("active", 4418, 1000),
    ]


async def test_a_gap_between_two_pages_is_read_again(workspace: Workspace) -> None:
    """From further back, so that no run is missed; the overlap stays large for the next pages."""
    workspace.active = everything = list(range(1500, 0, -1))
    moves = iter([20])

    def move() -> None:
        workspace.active = workspace.active[next(moves, 0) :]

    workspace.after_page = move
    lists = lists_of(workspace)
    assert await read(workspace, lists, everything) == set()
    assert workspace.pages() == [
        ("active", 0, 100),
        ("active", 90, 200),
        ("active", 60, 400),
        ("active", 420, 800),
        ("active", 1184, 1000),
    ]
    workspace.after_page = lambda: None
    await read(workspace, lists, everything)
    assert workspace.pages()[:2] == [("active", 0, 1000), ("active", 968, 1000)]


async def test_a_gap_that_no_overlap_can_close_is_left(workspace: Workspace) -> None:
    """Half a page is repeated at most; what is missed is returned."""
    workspace.active, workspace.largest_page = list(range(400, 0, -1)), 50
    everything = list(workspace.active)
    moves = iter([0, 90])

    def move() -> None:
        workspace.active = workspace.active[next(moves, 0) :]

    workspace.after_page = move
    missing = await read(workspace, lists_of(workspace), everything)
    assert workspace.pages()[:6] == [
        ("active", 0, 100),
        ("active", 0, 50),
        ("active", 40, 50),
        ("active", 80, 50),
        ("active", 65, 50),
        ("active", 90, 50),
    ]
    assert missing == set(everything[90:155])


async def test_the_list_is_read_up_to_its_largest_offset(workspace: Workspace) -> None:
    """The last page begins there, and reaches a thousand runs further."""
    workspace.active = list(range(12_000, 0, -1))
    missing = await read(workspace, lists_of(workspace), workspace.active)
    *_, before, last = [page for page in workspace.pages() if page[0] == "active"]
    assert (before, last) == (("active", 9380, 1000), ("active", 10_000, 1000))
    assert missing == set(range(1, 1001))


@pytest.mark.parametrize("error", [refused("start_time_to is unknown."), BROKEN])
async def test_the_list_is_read_beyond_its_largest_offset_from_a_later_version(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """By windows of 25 runs, which begin where 2.0 ends. If these fail, 2.0 is still read."""
    workspace.version, workspace.active = "", list(range(15_000, 0, -1))
    lists = lists_of(workspace)
    due = set(workspace.active)
    monkeypatch.setattr(lists, "_max_page_runs", 1000)
    workspace.run_bytes = 10.0
    assert await read(workspace, lists, due) == set()
    windows = [call for call in workspace.calls if "start_time_to" in call.parameters]
    assert {call.api_version() for call in windows} == {"2.2"}
    assert len(windows) == pytest.approx(4_000 / 25, abs=2)
    workspace.window_error = error
    assert len(await read(workspace, lists, due)) == 4_000
    assert lists.are_cheaper_than(len(due), 10)
    workspace.window_error, workspace.calls = None, []
    assert len(await read(workspace, lists, due)) == 4_000
    assert {call.api_version() for call in workspace.calls} == {"2.0"}


async def test_a_list_by_tokens_has_small_pages_that_do_not_overlap(workspace: Workspace) -> None:
    """As in API 2.1 and later; the tasks of runs that ended are asked for."""
    workspace.version, workspace.largest_page = "2.1", 25
    workspace.active, workspace.ended = list(range(260, 200, -1)), list(range(200, 0, -1))
    lists = lists_of(workspace)
    assert await read(workspace, lists, range(150, 261)) == {150}
    assert workspace.pages() == [
        ("active", 0, 25),
        ("active", "235", 25),
        ("active", "210", 25),
        ("ended", 0, 25),
        ("ended", "175", 25),
    ]
    assert "expand_tasks" not in workspace.calls[0].parameters
    assert workspace.calls[3].parameters == {
        "completed_only": True,
        "expand_tasks": True,
        "limit": 25,
    }


async def test_the_ended_list_of_the_oldest_version(workspace: Workspace) -> None:
    """It has no parameter for tasks; its pages do not overlap, since runs are only added to it."""
    workspace.ended = list(range(300, 0, -1))
    assert await read(workspace, lists_of(workspace), range(101, 301)) == set()
    assert workspace.pages() == [("active", 0, 100), ("ended", 0, 100), ("ended", 100, 200)]
    assert workspace.calls[1].parameters == {"completed_only": True, "limit": 100}


async def test_the_limit_grows_in_the_ended_list_too(workspace: Workspace) -> None:
    """As long as its pages have what is missing."""
    workspace.ended = list(range(400, 0, -1))
    assert await read(workspace, lists_of(workspace), range(381, 401)) == set()
    assert workspace.pages() == [("active", 0, 100), ("ended", 0, 40)]
    assert await read(workspace, lists_of(workspace), [*range(341, 401, 2), 300, 301]) == set()
    assert workspace.pages() == [("active", 0, 100), ("ended", 0, 64), ("ended", 64, 128)]


async def test_invalid_runs_of_a_page_are_published(workspace: Workspace) -> None:
    """Whoever publishes them checks those that are waited for."""
    got: list[Any] = []

    async def answer(call: Call[Any], *, waits_out_outages: bool) -> Any:
        assert waits_out_outages
        return call.parse({"runs": [{"run_id": 7, "state": "RUNNING"}, 5, {"run_id": 8}]})

    async def publish(runs: Any) -> set[int]:
        got.extend(runs)
        return {7, 8}

    client: Any = workspace
    lists = RunLists(client, answer)
    assert await lists.read({7, 8}, {7, 8}, publish, 10) == set()
    assert got == [{"run_id": 7, "state": "RUNNING"}, {"run_id": 8}]


async def test_ended_runs_are_searched_for_if_that_costs_less(workspace: Workspace) -> None:
    """One run that is missing is read by its id; of two, the list may have both."""
    workspace.ended = list(range(300, 0, -1))
    assert await read(workspace, lists_of(workspace), [300]) == {300}
    assert workspace.pages() == [("active", 0, 100)]
    assert await read(workspace, lists_of(workspace), [300, 299]) == set()
    assert workspace.pages() == [("active", 0, 100), ("ended", 0, 25)]


async def test_ended_runs_are_not_searched_for_if_that_costs_as_much(workspace: Workspace) -> None:
    """Two runs of half a megabyte cost a page of two requests, as read by their ids."""
    workspace.ended, workspace.run_bytes = list(range(300, 0, -1)), 500_000.0
    lists = lists_of(workspace)
    assert await read(workspace, lists, [300, 299]) == set()
    workspace.pages()
    assert await read(workspace, lists, [300, 299]) == {300, 299}
    assert workspace.pages() == [("active", 0, 100)]


async def test_what_is_not_due_is_looked_for_with_what_is(workspace: Workspace) -> None:
    """But not on its own, and not where the list of active runs was not read to its end."""
    workspace.ended = list(range(300, 0, -1))
    assert await read(workspace, lists_of(workspace), [300], others=[299]) == set()
    assert workspace.pages() == [("active", 0, 100), ("ended", 0, 25)]
    workspace.active = [301]
    assert await read(workspace, lists_of(workspace), [301], others=[300, 299]) == set()
    assert workspace.pages() == [("active", 0, 100)]
    workspace.active = list(range(900, 300, -1))
    assert await read(workspace, lists_of(workspace), [300], others=[299]) == {300}
    assert workspace.pages() == [("active", 0, 100)]


@pytest.mark.parametrize(
    ("run_bytes", "due", "found", "hidden", "pages"),
    [
        # The searches that have found little so far end first,
        (1_000.0, 10, 1, 0, 5),
        (1_000.0, 10, 1, 1975, 5),
        (1_000.0, 20, 15, 0, 6),
        (60_000.0, 20, 15, 0, 4),
        # the others when they have cost a tenth of what reading each run by its id costs.
        (1_000.0, 100, 1, 0, 10),
        (1_000.0, 100, 3, 0, 10),
        (60_000.0, 100, 3, 0, 5),
    ],
)
async def test_a_search_that_finds_little_ends(
    workspace: Workspace, run_bytes: float, due: int, found: int, hidden: int, pages: int
) -> None:
    """The first page has some of the due runs, the further ones have none, or no run at all."""
    workspace.version, workspace.run_bytes, workspace.hidden = "2.1", run_bytes, hidden
    workspace.ended = list(range(2000, 0, -1))
    old = set(range(1, due - found + 1))
    new = set(range(2001 - found, 2001))
    assert await read(workspace, lists_of(workspace), new | old) == old
    assert [page[0] for page in workspace.pages()] == ["active", *["ended"] * pages]


@pytest.mark.parametrize(
    ("run_bytes", "left", "is_read"), [(20_000.0, 2, False), (40_000.0, 4, True)]
)
async def test_few_missing_runs_are_not_searched_for_with_another_page(
    workspace: Workspace, run_bytes: float, left: int, is_read: bool
) -> None:
    """Unless they are more than the requests that it costs, with twice as many runs."""
    workspace.ended, workspace.run_bytes = list(range(300, 0, -1)), run_bytes
    rest = set(range(270, 270 - left, -1))
    due = {*range(293, 301), *rest}
    assert await read(workspace, lists_of(workspace), due) == (set() if is_read else rest)
    pages = [("active", 0, 100), ("ended", 0, 25), ("ended", 25, 50)]
    assert workspace.pages() == (pages if is_read else pages[:2])


async def test_the_active_list_is_not_read_on_if_it_costs_too_much(workspace: Workspace) -> None:
    """More than to read each due run by its id."""
    workspace.active = list(range(3000, 0, -1))
    lists = lists_of(workspace)
    assert await read(workspace, lists, [1, 2, 3]) == {1, 2, 3}
    assert workspace.pages() == [
        ("active", 0, 100),
        ("active", 90, 200),
        ("active", 280, 400),
        ("ended", 0, 25),
    ]
    # As far as it was read, 700 runs, and one more page of a thousand: 2 pages, 1.7 megabytes.
    assert lists.are_cheaper_than(4, 10)
    assert not lists.are_cheaper_than(3, 10)


def test_one_run_is_cheaper_to_read_by_its_id(workspace: Workspace) -> None:
    """A page costs one request and its size; before it is known, 1.5 kB and 100 runs a page."""
    lists = lists_of(workspace)
    assert lists.are_cheaper_than(1, 10) is False
    assert lists.are_cheaper_than(2, 10) is True
    workspace.version = "2.1"
    assert not lists_of(workspace).are_cheaper_than(1, 10)
    assert lists_of(workspace).are_cheaper_than(2, 10)


def test_lists_are_read_on_a_machine_that_has_just_started(workspace: Workspace) -> None:
    """The monotonic clock of such a machine begins at 0."""
    workspace.now = 0.0
    assert lists_of(workspace).are_cheaper_than(2, 10)


async def test_the_measured_list_decides(workspace: Workspace) -> None:
    """Its length counts less each time, since runs end and nobody reads it meanwhile."""
    workspace.active, workspace.run_bytes = list(range(100, 0, -1)), 100_000.0
    lists = lists_of(workspace)
    await read(workspace, lists, workspace.active)
    # 4 pages of 30 runs and 10 megabytes.
    assert lists.are_cheaper_than(15, 10)
    assert not lists.are_cheaper_than(14, 10)
    # 95 runs by now.
    assert lists.are_cheaper_than(14, 10)
    assert not lists.are_cheaper_than(13, 10)
    assert lists.are_cheaper_than(14, 10)


async def test_pages_have_three_megabytes_at_most(workspace: Workspace) -> None:
    """A larger run counts at once, a smaller one by half; a page has 25 runs at least."""
    workspace.active, workspace.run_bytes = list(range(900, 0, -1)), 30_000.0
    sizes = iter([15_000.0, 60_000.0, 600_000.0, 600_000.0])

    def change() -> None:
        workspace.run_bytes = next(sizes, 600_000.0)

    workspace.after_page = change
    await read(workspace, lists_of(workspace), workspace.active)
    assert [limit for _, _, limit in workspace.pages()][:6] == [100, 100, 133, 50, 25, 25]


async def test_the_size_of_runs_is_measured_for_each_list(workspace: Workspace) -> None:
    """Ended runs may be larger than active ones, or smaller."""
    workspace.active, workspace.run_bytes = list(range(1100, 1000, -1)), 60_000.0
    workspace.ended = list(range(1000, 0, -1))

    def change() -> None:
        workspace.run_bytes = 6_000.0

    workspace.after_page = change
    lists = lists_of(workspace)
    for _ in range(2):
        await read(workspace, lists, range(900, 1101))
    active = [page for page in workspace.pages() if page[0] == "active"]
    assert active == [("active", 0, 100), ("active", 0, 50), ("active", 40, 90)]


async def test_no_page_is_kept_while_the_next_one_is_read(workspace: Workspace) -> None:
    """A page has up to three megabytes."""
    workspace.active = list(range(900, 0, -1))
    kept: list[bool] = []
    workspace.after_page = lambda: kept.append(any(workspace.published))
    await read(workspace, lists_of(workspace), workspace.active)
    assert kept == [False] * len(kept)
    assert len(workspace.published) == len(kept) == 4


async def test_empty_answers_do_no_harm(workspace: Workspace) -> None:
    """A list without runs says nothing of their size; one of no bytes has the largest pages."""
    lists = lists_of(workspace)
    assert await read(workspace, lists, [1]) == {1}
    assert workspace.pages() == [("active", 0, 100)]
    workspace.active, workspace.run_bytes = list(range(50, 0, -1)), 0.0
    await read(workspace, lists, workspace.active)
    await read(workspace, lists, workspace.active)
    assert workspace.pages() == [("active", 0, 100), ("active", 0, 1000)]


async def test_a_refused_page_size_is_not_asked_for_again(workspace: Workspace) -> None:
    """The one that the error names is the largest from then on."""
    workspace.active, workspace.largest_page = list(range(120, 0, -1)), 50
    lists = lists_of(workspace)
    for _ in range(2):
        assert await read(workspace, lists, workspace.active) == set()
    assert [limit for _, _, limit in workspace.pages()] == [100, 50, 50, 50, 50, 50, 50]


async def test_lists_that_are_refused_are_not_read_for_ten_minutes(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    """The runs are returned to be read by their ids; a line of the log says so."""
    lists = lists_of(workspace)
    workspace.errors = [refused()]
    assert await read(workspace, lists, [1, 2]) == {1, 2}
    assert workspace.pages() == [("active", 0, 100)]
    (line,) = caplog.messages
    assert line.startswith("Runs are read one by one, since listing them is refused: ")
    assert lists.are_cheaper_than(2, 10) is False
    workspace.now += 599
    assert not lists.are_cheaper_than(2, 10)
    workspace.now += 1
    assert lists.are_cheaper_than(2, 10)


async def test_a_refusal_after_the_first_page_ends_the_list(workspace: Workspace) -> None:
    """The offset may be too large, or the token may have expired: lists are read again."""
    for version in ("2.0", "2.1"):
        workspace.version = version
        workspace.active = list(range(300, 0, -1))
        lists = lists_of(workspace)
        workspace.errors = [None, refused()]
        first_page = 100 if version == "2.0" else 25
        assert len(await read(workspace, lists, workspace.active)) == 300 - first_page
        assert lists.are_cheaper_than(2, 10)


@pytest.mark.parametrize("error", [ConflictError(status=409), BROKEN])
@pytest.mark.parametrize("pages", [0, 1])
async def test_other_errors_are_raised(workspace: Workspace, pages: int, error: Exception) -> None:
    """They say nothing about whether lists may be read."""
    workspace.active = list(range(300, 0, -1))
    lists = lists_of(workspace)
    workspace.errors = [*[None] * pages, error]
    with pytest.raises(type(error)):
        await read(workspace, lists, workspace.active)
    assert lists.are_cheaper_than(2, 10)


async def test_lists_that_do_not_work_are_suspended_for_longer_each_time(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten seconds at first, a minute at most, with one line in the log; until they work again."""
    lists = lists_of(workspace)

    def suspended_seconds() -> float:
        lists.suspend(BROKEN)
        began = workspace.now
        while not lists.are_cheaper_than(2, 10):
            workspace.now += 1
        return workspace.now - began

    assert [suspended_seconds() for _ in range(5)] == [10, 20, 40, 60, 60]
    message = f"Runs are read one by one for now, since listing them does not work: {BROKEN}"
    assert caplog.messages == [message]
    workspace.has_failed = True
    await read(workspace, lists, [1])
    workspace.has_failed = False
    await read(workspace, lists, [1])
    assert suspended_seconds() == 10
    assert caplog.messages == [message, "The lists of runs can be read again.", message]


async def test_lists_are_read_for_many_runs_though_that_did_not_pay_for_few(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep for 20 runs among a thousand of others takes as long as to read each by its id."""
    workspace.version, workspace.largest_page = "2.1", 25
    lists = lists_of(workspace)
    monkeypatch.setattr(lists.changes, "are_wanted", lambda _period: True)
    windows = lists.changes._windows
    assert windows is not None
    windows.requests_per_run, windows.runs = 1.1, 20
    assert lists.are_cheaper_than(10_000, 10)
    # One run is read by its id in any case.
    assert not any(lists.are_cheaper_than(1, 10) for _ in range(100))
    assert [lists.are_cheaper_than(20, 10) for _ in range(5)] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("is_hidden", [True, False])
async def test_a_run_that_the_whole_list_of_active_runs_did_not_have(
    workspace: Workspace, is_hidden: bool
) -> None:
    """Its start is forgotten if it is active all the same: the lists do not show it."""
    workspace.active = [8, 7]
    lists = lists_of(workspace)
    run: Any = {"run_id": 7, "start_time": 7, "state": {"life_cycle_state": "RUNNING"}}
    lists.changes.record_starts([run], {7})
    workspace.hidden = 7 if is_hidden else 0
    await read(workspace, lists, [8, 7])
    lists.changes.record_start_of_unlisted(run)
    assert (7 in lists.changes._starts) is not is_hidden
