"""What the log says of a run's tasks and of its cost."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.api.run_summary import (
    ended_tasks,
    latest_attempts,
    lists_all_tasks,
    task_summary,
    usage_summary,
)


def task(key: str, life: str, result: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a task run as ``runs/get`` lists it."""
    state = {"life_cycle_state": life, "result_state": result}
    return {"task_key": key, "run_id": 1, "state": state, **fields}


SUCCEEDED = ("TERMINATED", "SUCCESS")


def test_the_tasks_of_a_run_are_counted_and_named() -> None:
    """Failures come first; what has not started is not named."""
    run = {
        "tasks": [
            task("a", *SUCCEEDED),
            task("b", "TERMINATED", "FAILED"),
            task("c", "RUNNING"),
            task("d", *SUCCEEDED),
            task("e", "TERMINATED", "UPSTREAM_CANCELED"),
            task("f", "SKIPPED"),
            *(task(f"later{number}", "BLOCKED") for number in range(4)),
        ]
    }
    assert task_summary(run) == (
        "5 of 10 tasks ended (50 %): failed: b; canceled: e; succeeded: a, d; skipped: f; "
        "running: c"
    )


def test_a_long_list_of_tasks_is_cut_off() -> None:
    """The line is for people; a run may have a thousand tasks."""
    run = {"tasks": [task(f"t{number}", *SUCCEEDED) for number in range(999)]}
    run["tasks"].append(task("last\n", "RUNNING"))
    names = ", ".join(f"t{number}" for number in range(10))
    assert task_summary(run) == (
        f"999 of 1000 tasks ended (99 %): succeeded: {names} and 989 more; running: last\\n"
    )


def test_the_latest_attempt_of_a_task_counts() -> None:
    """A task that a repair runs again has not ended."""
    failed = task("a", "TERMINATED", "FAILED", attempt_number=0)
    again = task("a", "RUNNING", attempt_number=1)
    other = task("b", *SUCCEEDED)
    for tasks in ([failed, again, other], [again, failed, other]):
        assert latest_attempts({"tasks": tasks})["a"] is again
        assert ended_tasks({"tasks": tasks}) == {("b", 0)}
    assert ended_tasks({"tasks": [failed, other]}) == {("a", 0), ("b", 0)}


@pytest.mark.parametrize("run", [{}, {"tasks": None}, {"tasks": [task("a", *SUCCEEDED)]}])
def test_a_run_of_one_task_has_no_progress(run: dict[str, Any]) -> None:
    """Its state says all."""
    assert ended_tasks(run) == frozenset()


CLUSTER: dict[str, Any] = {"cluster_instance": {"cluster_id": "0923-164208-meows279"}}
TIMES = {"setup_duration": 259_754, "execution_duration": 3_589_020, "cleanup_duration": 31_038}


@pytest.mark.parametrize(
    ("run", "text"),
    [
        ({}, ""),
        ({**TIMES}, "setup 4 min 20 s, execution 59 min 49 s, cleanup 31 s"),
        ({"execution_duration": 400}, "execution 0 s"),
        ({"setup_duration": 0, "execution_duration": 0, "cleanup_duration": 0}, ""),
        (CLUSTER, "cluster 0923-164208-meows279"),
        (
            {**CLUSTER, "cluster_spec": {"existing_cluster_id": "0923-164208-meows279"}},
            "cluster 0923-164208-meows279 (existing)",
        ),
        (
            {
                **CLUSTER,
                **TIMES,
                "cluster_spec": {"new_cluster": {"num_workers": 2, "node_type_id": "i3.xlarge"}},
                "queue_duration": 61_000,
                "attempt_number": 1,
                "repair_history": [{"type": "ORIGINAL"}, {"type": "REPAIR"}],
            },
            (
                "cluster 0923-164208-meows279 (new, 2 x i3.xlarge), queue 1 min 1 s, "
                "setup 4 min 20 s, execution 59 min 49 s, cleanup 31 s, attempt 2, 1 repair"
            ),
        ),
        (
            {**CLUSTER, "new_cluster": {"autoscale": {"min_workers": 1, "max_workers": 8}}},
            "cluster 0923-164208-meows279 (new, 1 to 8)",
        ),
        ({**CLUSTER, "new_cluster": {}}, "cluster 0923-164208-meows279 (new)"),
        (
            {**CLUSTER, "job_cluster_key": "shared"},
            "cluster 0923-164208-meows279 (job cluster shared)",
        ),
    ],
)
def test_what_decides_about_the_cost(run: dict[str, Any], text: str) -> None:
    """Missing fields are left out, and so is a queue that was not waited in."""
    assert usage_summary(run) == text
    assert usage_summary({"queue_duration": 0, **run}) == text


def test_the_cost_of_a_run_of_several_tasks_is_that_of_all_attempts() -> None:
    """The service gives such a run no setup, execution and cleanup of its own."""
    run: dict[str, Any] = {
        "setup_duration": 0,
        "execution_duration": 0,
        "cleanup_duration": 0,
        "tasks": [
            task("a", *SUCCEEDED, **CLUSTER, setup_duration=60_000, execution_duration=30_000),
            task("b", "TERMINATED", "FAILED", attempt_number=0, execution_duration=10_000),
            task("b", *SUCCEEDED, attempt_number=1, execution_duration=20_000),
        ],
    }
    assert usage_summary(run) == (
        "cluster 0923-164208-meows279, setup 1 min 0 s, execution 1 min 0 s"
    )
    run["tasks"][1]["cluster_instance"] = {"cluster_id": "other"}
    assert usage_summary(run).startswith("2 clusters, ")


@pytest.mark.parametrize("more", [{"next_page_token": "b"}, {"has_more": True}])
def test_the_first_hundred_tasks_are_not_the_whole_run(more: dict[str, Any]) -> None:
    """Their times and clusters are left out, since they would say too little."""
    run = {"tasks": [task(str(n), *SUCCEEDED, **CLUSTER, setup_duration=1000) for n in range(2)]}
    assert lists_all_tasks(run)
    assert usage_summary(run) == "cluster 0923-164208-meows279, setup 2 s"
    assert not lists_all_tasks({**run, **more})
    assert usage_summary({**run, **more}) == ""
