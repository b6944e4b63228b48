"""The kill matrix: where a task's process is killed, and what the service counted in the end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.airflow_env import ROOT, airflow_environment
from tests.fakes.fake_service import LAUNCHES, FakeService, Plan, Seen

__all__ = [
    "FUNCTION_POINTS",
    "LAUNCHING",
    "POINTS",
    "Account",
    "Killer",
    "Point",
    "killer",
    "random_plans",
]

HERE = Path(__file__).parent
DAG_FILE = HERE / "kill_dags" / "kills.py"
BLOCKING, DEFERRABLE = "blocking", "deferrable"


@dataclass(frozen=True)
class Point:
    """A moment at which a process is killed.

    :ivar name: the moment, in words.
    :ivar mode: how the task waits.
    :ivar order: the kill as ``task_tries.py`` takes it, where that one is to do it.
    :ivar endpoints: else the service does it at a request of these,
    :ivar moment: as it comes in, or once what it asks is done,
    :ivar kind: from a process of this kind,
    :ivar count: at so many such requests.
    """

    name: str
    mode: str
    order: dict[str, Any] = field(default_factory=dict)
    endpoints: tuple[str, ...] = ()
    moment: str = "received"
    kind: str = "task"
    count: int = 1

    def __str__(self) -> str:
        return f"{self.mode}: {self.name}"


def _launching(mode: str) -> list[Point]:
    xcom = {"message": "SetXCom", "key": "run_id"}
    return [
        Point("before the launch", mode, endpoints=LAUNCHES),
        Point("run started, answer not read", mode, endpoints=LAUNCHES, moment="handled"),
        Point("answer read, before the first XCom", mode, {**xcom, "moment": "received"}),
        Point("after the first XCom", mode, {**xcom, "moment": "handled"}),
    ]


def _concluding(mode: str, kind: str) -> list[Point]:
    output: dict[str, Any] = {"endpoints": ("runs/get-output",), "kind": kind}
    return [
        Point("before the output is read", mode, **output),
        Point("while the output is read", mode, **output, moment="handled"),
        Point(
            "before the success is stored", mode, {"message": "SucceedTask", "moment": "received"}
        ),
    ]


# Those until the run's id is stored.
LAUNCHING = [*_launching(BLOCKING), *_launching(DEFERRABLE)]
POINTS = [
    *_launching(BLOCKING),
    Point("while waiting", BLOCKING, endpoints=("runs/get",), count=2),
    *_concluding(BLOCKING, "task"),
    *_launching(DEFERRABLE),
    Point(
        "before the deferral is stored", DEFERRABLE, {"message": "DeferTask", "moment": "received"}
    ),
    Point("after deferring, in the triggerer", DEFERRABLE, endpoints=("runs/get",), kind="trigger"),
    Point("trigger fired, event not stored", DEFERRABLE, {"event": True}),
    Point(
        "while resuming",
        DEFERRABLE,
        {"message": "SetRenderedFields", "moment": "received", "resumed": True},
    ),
    *_concluding(DEFERRABLE, "trigger"),
]

# Those of a function that runs on Databricks: it is stored before the launch.
FUNCTION_POINTS = [
    Point("before the function is stored", BLOCKING, endpoints=("workspace/import",)),
    Point(
        "function stored, answer not read",
        BLOCKING,
        endpoints=("workspace/import",),
        moment="handled",
    ),
    *(
        point
        for point in POINTS
        if point.name in ("run started, answer not read", "before the output is read")
    ),
]


@dataclass(frozen=True)
class Account:
    """What became of a task.

    :ivar state: the task's, as Airflow has it.
    :ivar tries: how many there were.
    :ivar kills: how many of its processes were killed.
    :ivar xcoms: what it left to the next task.
    :ivar launched: runs on the service.
    :ivar succeeded: ids of those that ended well.
    :ivar lost: ids of those whose end the task was never told of.
    :ivar at_once: the most that were live at the same time.
    """

    state: str
    tries: int
    kills: int
    xcoms: dict[str, Any]
    launched: int
    succeeded: list[int]
    lost: list[int]
    at_once: int


class Killer:
    """Runs tasks in a real Airflow, and kills their processes.

    :param home: the AIRFLOW_HOME, its database migrated.
    :param python: the Python that has Airflow.
    :param provider: ``ours``, or ``official``.
    """

    def __init__(self, home: Path, *, python: str = sys.executable, provider: str = "ours") -> None:
        self.service = FakeService()
        self.log = home / "task_tries.log"
        self._victim = home / "victim"
        self._count = 0
        # In the one way that both providers understand.
        address = urlsplit(self.service.url)
        connection = {
            "conn_type": "databricks",
            "schema": "http",
            "host": address.hostname,
            "port": address.port,
            "password": "a-token",
        }
        env = airflow_environment(home, DAG_FILE.parent, connection=json.dumps(connection))
        env |= {"PYTHONPATH": str(ROOT), "KILLS_PROVIDER": provider}
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [python, str(HERE / "task_tries.py"), str(DAG_FILE), str(self._victim)],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def close(self) -> None:
        """End Airflow."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def kill_at(self, operator: str, point: Point, *, seconds: float) -> Account:
        """Run a task that is killed at a point; its run takes so many seconds."""
        self.service.forget()
        self.service.plan = Plan(seconds=seconds, looks=2)
        killed = self._kill_from_service(point) if point.endpoints else []
        return self._run(f"{operator}_{point.mode}", [point.order] if point.order else [], killed)

    def kill_after(self, dag_id: str, seconds: Sequence[float], plans: Sequence[Plan]) -> Account:
        """Run a task whose processes are killed one after the other, each after some time."""
        self.service.forget()
        self.service.plans.extend(plans)
        return self._run(dag_id, [{"seconds": one} for one in seconds], [])

    def _kill_from_service(self, point: Point) -> list[int]:
        seen = 0
        killed: list[int] = []

        def hook(request: Seen, moment: str) -> bool:
            nonlocal seen
            if killed or moment != point.moment or request.endpoint not in point.endpoints:
                return False
            kind, pid = self._victim.read_text().split()
            seen += kind == point.kind
            if kind != point.kind or seen < point.count:
                return False
            os.kill(int(pid), signal.SIGKILL)
            killed.append(int(pid))
            return True

        self.service.hook = hook
        return killed

    def _run(self, dag_id: str, kills: list[dict[str, Any]], killed: list[int]) -> Account:
        assert self._process.stdin
        assert self._process.stdout
        self._count += 1
        order = {"dag_id": dag_id, "run_id": f"run_{self._count}", "kills": kills}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{order} went wrong:\n{self.log.read_text()[-5000:]}")
        result = json.loads(line)
        runs = self.service.runs.values()
        return Account(
            state=result["state"],
            tries=result["tries"],
            kills=max(result["deaths"], len(killed)),
            xcoms=result["xcoms"],
            launched=len(runs),
            succeeded=[run.run_id for run in runs if run.plan.result == "SUCCESS"],
            lost=[run.run_id for run in runs if not run.end_was_told],
            at_once=self.service.most_at_once,
        )


def random_plans(dice: random.Random) -> list[Plan]:
    """Up to two runs that fail, then one that succeeds, each of 50 to 300 ms."""
    results = ["FAILED"] * dice.choice((0, 0, 0, 1, 1, 2)) + ["SUCCESS"]
    return [Plan(result, seconds=dice.uniform(0.05, 0.3)) for result in results]


@contextlib.contextmanager
def killer(migrated_home: Path, home: Path, **options: Any) -> Iterator[Killer]:
    """Lend a Killer, in a copy of an AIRFLOW_HOME."""
    shutil.copytree(migrated_home, home)
    one = Killer(home, **options)
    with one.service:
        try:
            yield one
        finally:
            one.close()
