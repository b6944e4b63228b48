"""In which order those get a turn that wait for one, and what a canceled wait leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

import pytest

from airflow_jobs_provider.airflow_compat.turns import Turns


class One(NamedTuple):
    """What waits for a turn.

    :ivar name: its DAG's name and its own number.
    """

    name: str
    is_urgent: bool = False
    since: float = 0.0


async def take(turns: Turns, one: One, taken: list[str]) -> None:
    """Wait for a turn, and record the name in it."""
    async with turns.turn(one.name[0], is_urgent=one.is_urgent, since=one.since):
        taken.append(one.name)
        await asyncio.sleep(0)


async def order(*waiting: One, canceled: Iterable[str] = ()) -> str:
    """Return in which order those get a turn that have begun to wait during another one.

    :param waiting: in the order in which they begin.
    :param canceled: the names of those that are canceled before the turn of the first one.
    """
    turns, taken = Turns(), list[str]()
    async with asyncio.timeout(10), turns.turn("x"):
        tasks = [asyncio.create_task(take(turns, one, taken), name=one.name) for one in waiting]
        await asyncio.sleep(0)
        assert turns.waiting == len(waiting)
        assert turns.dag_ids == {one.name[0] for one in waiting}
        for task in tasks:
            if task.get_name() in canceled:
                task.cancel()
        await asyncio.sleep(0)
        assert turns.waiting == len(waiting) - len(list(canceled))
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (turns.waiting, turns.dag_ids) == (0, set())
    return " ".join(taken)


async def test_the_next_one_of_each_dag_gets_a_turn() -> None:
    """However many of another DAG wait; those of a DAG keep their order."""
    waiting = [One("a1"), One("a2"), One("a3"), One("a4"), One("b1"), One("b2"), One("c1")]
    assert await order(*waiting) == "a1 b1 c1 a2 b2 a3 a4"


async def test_those_of_a_dag_come_in_the_order_of_their_number() -> None:
    """Such as that of their launches, whichever has begun to wait first."""
    waiting = [One("a1", since=3), One("a2", since=1), One("b1", since=9), One("a3", since=2)]
    assert await order(*waiting) == "a2 b1 a3 a1"


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        ("a1 a2 a3 A4 A5 A6", "A4 a1 A5 a2 A6 a3"),
        ("a1 A2 A3 A4", "A2 a1 A3 A4"),
        ("a1 a2 a3 A4", "A4 a1 a2 a3"),
        ("a1 a2 A3 A4 b1 b2 b3", "A3 b1 a1 b2 A4 b3 a2"),
    ],
)
async def test_urgent_ones_and_others_of_a_dag_take_turns(waiting: str, expected: str) -> None:
    """The urgent ones, whose letters are capital here, begin. DAGs take turns all the same."""
    ones = [One(name.lower(), is_urgent=name.isupper()) for name in waiting.split()]
    assert await order(*ones) == expected.lower()


@pytest.mark.parametrize(
    ("canceled", "left"),
    [
        ("a1", "a2 b1 a3 b2"),
        ("a2", "a1 b1 a3 b2"),
        ("a3", "a1 b1 a2 b2"),
        ("b1", "a1 b2 a2 a3"),
        ("b1 b2", "a1 a2 a3"),
        ("a1 a2 a3 b1 b2", ""),
    ],
)
@pytest.mark.parametrize("is_urgent", [False, True])
async def test_a_canceled_wait_leaves_nothing(canceled: str, left: str, is_urgent: bool) -> None:
    """The others come as if it had never begun."""
    waiting = [One(name, is_urgent=is_urgent) for name in ("a1", "a2", "a3", "b1", "b2")]
    assert await order(*waiting, canceled=canceled.split()) == left


async def test_a_turn_that_comes_together_with_a_cancellation_is_passed_on() -> None:
    """The next one gets it, or whoever comes later."""
    turns, taken = Turns(), list[str]()
    async with asyncio.timeout(10):
        async with turns.turn("x"):
            tasks = [
                asyncio.create_task(take(turns, One(name), taken)) for name in ("a1", "a2", "b1")
            ]
            await asyncio.sleep(0)
        # The turn of the first one has come, and the one has not noticed it yet.
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[0].cancelled()
        async with turns.turn("x"):
            only = asyncio.create_task(take(turns, One("c1"), taken))
            await asyncio.sleep(0)
        only.cancel()
        await asyncio.gather(only, return_exceptions=True)
        await take(turns, One("d1"), taken)
    assert taken == ["b1", "a2", "d1"]


async def test_an_error_in_a_turn_ends_it() -> None:
    """The next one gets its turn."""
    turns, taken = Turns(), list[str]()
    async with asyncio.timeout(10):
        with pytest.raises(ValueError, match="in the turn"):
            async with turns.turn("a"):
                raise ValueError("in the turn")
        await take(turns, One("b1"), taken)
    assert taken == ["b1"]


async def test_only_one_has_the_turn_at_a_time() -> None:
    """Also of those that come as it ends."""
    turns, inside, most = Turns(), 0, 0

    async def hold(dag_id: str, rounds: int) -> None:
        nonlocal inside, most
        for _ in range(rounds):
            async with turns.turn(dag_id):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

    async with asyncio.timeout(10):
        await asyncio.gather(*(hold(dag_id, 5) for dag_id in "abca"))
    assert most == 1
