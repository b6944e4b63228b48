"""The CPU time of a tree of processes, whatever became of each of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.process_cpu import Keeper, ProcessTimes, seconds_by_level, tree_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

BURNED = 0.1
# Starting Python and forking it, and ticks of 0.01 s.
MORE, LESS = 0.08, 0.02
# Each process burns as much. The command stays, and so does one child.
PROGRAM = """
import os, signal, sys, threading, time

def burn():
    end = time.process_time() + float(sys.argv[1])
    while time.process_time() < end:
        pass

def fork(*steps):
    child = os.fork()
    if not child:
        for step in steps:
            step()
        os._exit(0)
    return child

def wait_for(child):
    os.waitpid(child, 0)

def tell(word):
    with open(sys.argv[2], "w") as fifo:
        fifo.write(word)

if sys.argv[3] == "orphan":
    # Its parent ends first, and it leaves the session.
    wait_for(fork(lambda: fork(os.setsid, burn, lambda: tell("burned"))))
elif sys.argv[3] == "waited":
    wait_for(fork(burn, lambda: wait_for(fork(burn))))
    tell("burned")
elif sys.argv[3] == "zombie":
    os.waitid(os.P_PID, fork(burn), os.WEXITED | os.WNOWAIT)
    tell("burned")
elif sys.argv[3] == "living":
    fork(burn, lambda: tell("burned"), signal.pause)
elif sys.argv[3] == "thread":
    ended = threading.Thread(target=burn)
    ended.start()
    ended.join()
    tell("burned")
signal.pause()
"""


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[str], Keeper]:
    """Return what runs PROGRAM, of a kind, under a keeper."""

    def make(kind: str) -> Keeper:
        os.mkfifo(tmp_path / "fifo")
        arguments = [str(BURNED), str(tmp_path / "fifo"), kind]
        command = [sys.executable, "-S", "-c", PROGRAM, *arguments]
        return Keeper(command, dict(os.environ), tmp_path, tmp_path / "log")

    return make


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("thread", [BURNED]),
        ("living", [0, BURNED]),
        ("zombie", [0, BURNED]),
        ("waited", [0, 2 * BURNED]),
        ("orphan", [BURNED]),
    ],
)
def test_no_cpu_time_is_lost(
    keep: Callable[[str], Keeper], tmp_path: Path, kind: str, expected: list[float]
) -> None:
    """Living, ended, unreaped and orphaned processes and ended threads are counted, once each."""
    with keep(kind) as keeper:
        assert (tmp_path / "fifo").read_text() == "burned", (tmp_path / "log").read_text()
        levels = keeper.seconds_by_level()
    for level, seconds in enumerate(expected):
        assert seconds - LESS <= levels[level] <= seconds + MORE, levels
    assert sum(levels) <= sum(expected) + MORE


def test_nothing_outlives_the_keeper(keep: Callable[[str], Keeper], tmp_path: Path) -> None:
    """The end of the keeper is the end of all that its command has started."""
    with keep("living") as keeper:
        (tmp_path / "fifo").read_text()
        below = set(tree_of(keeper.pid)) - {keeper.pid}
        assert len(below) == 2
        assert keeper.is_running()
    assert not keeper.is_running()
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)


def test_levels_of_a_tree() -> None:
    """What a process keeps for its ended children counts one level below it."""
    ticks = os.sysconf("SC_CLK_TCK")
    tree = {
        10: ProcessTimes(parent=1, started=0, own=7 * ticks, children=1 * ticks),
        11: ProcessTimes(parent=10, started=0, own=2 * ticks, children=3 * ticks),
        12: ProcessTimes(parent=11, started=0, own=5 * ticks, children=0),
    }
    assert seconds_by_level(tree, 10) == [3.0, 8.0, 0.0]
