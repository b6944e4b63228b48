"""Runs tasks try by try as Airflow 3 does, so that their processes can be killed at will.

    python task_tries.py DAG_FILE VICTIM_FILE < orders > results

Each line of the orders is a JSON object: ``dag_id``, ``run_id``, and ``kills``. For each, the DAG's
one task is run to its end and a line of JSON tells what became of it.

What is Airflow's own: the DAG run and its scheduling decisions, the supervisor with the task's
process and the API between them, what a process that dies leads to, the metadata database, the
stored trigger, the event's way back. What is not: a loop of a few lines in the place of the
scheduler and the triggerer, which does what they do one step after the other. The victim file
holds kind ("task", "resumed", "trigger") and pid of the process at work, for whoever else wants to
kill it.

A kill is a JSON object:

* ``{"message": "SetXCom", "key": "run_id", "moment": "received"}``: when the task sends this to its
  supervisor, once, before it is obeyed, or after (``"handled"``). ``"resumed": true`` means only a
  process that resumes after a deferral.
* ``{"event": true}``: the trigger has fired, and its process dies before that is stored.
* ``{"seconds": 0.2}``: so long after the next process has started.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

# What this writes to stdout is for the one who gives the orders; all else goes to stderr.
RESULTS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

from airflow.callbacks.database_callback_sink import DatabaseCallbackSink  # noqa: E402
from airflow.dag_processing.bundles.manager import DagBundlesManager  # noqa: E402
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db  # noqa: E402
from airflow.executors.base_executor import BaseExecutor  # noqa: E402
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner  # noqa: E402
from airflow.models.dagbag import DBDagBag  # noqa: E402
from airflow.models.taskinstance import TaskInstance  # noqa: E402
from airflow.models.trigger import Trigger  # noqa: E402
from airflow.models.xcom import XComModel  # noqa: E402
from airflow.sdk.api.datamodels._generated import TaskInstance as TaskToRun  # noqa: E402
from airflow.sdk.execution_time import supervisor  # noqa: E402
from airflow.triggers.base import TriggerEvent  # noqa: E402
from airflow.utils.session import create_session  # noqa: E402
from airflow.utils.state import DagRunState, TaskInstanceState  # noqa: E402
from airflow.utils.types import DagRunTriggeredByType, DagRunType  # noqa: E402

BUNDLE = "dags-folder"
MAX_PROCESSES = 60
# How long the supervisor may take to see that a process is gone; Airflow's own is 5 s.
supervisor.MIN_HEARTBEAT_INTERVAL = 0.05  # type: ignore[assignment]


class Victim:
    """The process at work, and how it is to die."""

    def __init__(self, pid_file: Path) -> None:
        self._pid_file = pid_file
        self._process: psutil.Process | None = None
        self.kills: list[dict[str, Any]] = []
        self.deaths = 0
        signal.signal(signal.SIGALRM, lambda *_: self.kill())

    def started(self, kind: str, pid: int) -> None:
        """Take note of a process."""
        # Knows when the process began, and so never kills another one that was given its number.
        self._process = psutil.Process(pid)
        # Replaced whole, so that nobody ever reads half of it.
        new = self._pid_file.with_suffix(".new")
        new.write_text(f"{kind} {pid}")
        new.replace(self._pid_file)
        for kill in self.kills:
            if "seconds" in kill:
                self.kills.remove(kill)
                signal.setitimer(signal.ITIMER_REAL, kill["seconds"])
                break

    def ended(self, exit_code: int) -> None:
        """It is gone, by itself or killed."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._process = None
        self.deaths += exit_code == -signal.SIGKILL

    def kill(self) -> None:
        """Kill it, if it is there.

        The timer may run out when the process has just ended by itself, in the middle of what its
        supervisor does then: nothing may be raised there.
        """
        if self._process is not None:
            with suppress(psutil.NoSuchProcess):
                self._process.kill()

    def must_die(self, **facts: Any) -> bool:
        """Whether a kill is wanted here; each is wanted once."""
        for kill in self.kills:
            if all(facts.get(name) == value for name, value in kill.items()):
                self.kills.remove(kill)
                return True
        return False


class Supervisor(supervisor.ActivitySubprocess):
    """Airflow's supervisor of a task's process, with a murderer at its ear."""

    victim: Victim
    resumed: bool

    def _handle_request(self, msg: Any, log: Any, req_id: int) -> None:
        facts = {"message": type(msg).__name__, "key": getattr(msg, "key", None)}
        for moment in ("received", "handled"):
            if moment == "handled":
                super()._handle_request(msg, log, req_id)
            if self.victim.must_die(moment=moment, **facts) or (
                self.resumed and self.victim.must_die(moment=moment, resumed=True, **facts)
            ):
                self.victim.kill()
                return


def run_try(ti: TaskInstance, rel_path: str, victim: Victim, client: Any) -> None:
    """Run a queued task's process under Airflow's supervisor, to its end."""
    from airflow.executors.workloads import BundleInfo

    assert ti.dag_version_id is not None
    Supervisor.victim, Supervisor.resumed = victim, ti.next_method is not None
    process = Supervisor.start(
        what=TaskToRun(
            id=ti.id,
            task_id=ti.task_id,
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            try_number=ti.try_number,
            map_index=ti.map_index,
            dag_version_id=ti.dag_version_id,
        ),
        dag_rel_path=rel_path,
        bundle_info=BundleInfo(name=BUNDLE, version=None),
        client=client,
    )
    victim.started("resumed" if Supervisor.resumed else "task", process.pid)
    exit_code = process.wait()
    victim.ended(exit_code)
    executor = BaseExecutor()
    executor.callback_sink = DatabaseCallbackSink()
    (executor.success if exit_code == 0 else executor.fail)(ti.key)
    with create_session() as session:
        SchedulerJobRunner.process_executor_events(
            executor=executor, job_id=None, scheduler_dag_bag=DBDagBag(), session=session
        )


def run_trigger(trigger_id: int, victim: Victim) -> None:
    """Run a stored trigger in a process until it fires; store the event. A triggerer does both."""
    with create_session() as session:
        stored = session.get_one(Trigger, trigger_id)
        classpath, arguments = stored.classpath, stored.kwargs
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            os.write(writing, pickle.dumps(_first_event(classpath, arguments)))
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        os._exit(code)
    os.close(writing)
    victim.started("trigger", pid)
    with os.fdopen(reading, "rb") as pipe:
        event = pipe.read()
    exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    victim.ended(exit_code)
    if exit_code == 1:
        raise RuntimeError("the trigger broke")
    if exit_code == 0:
        if victim.must_die(event=True):
            victim.deaths += 1
            return
        with create_session() as session:
            Trigger.submit_event(trigger_id, TriggerEvent(pickle.loads(event)), session=session)


def _first_event(classpath: str, arguments: dict[str, Any]) -> Any:
    import asyncio
    from importlib import import_module

    module, _, name = classpath.rpartition(".")
    trigger = getattr(import_module(module), name)(**arguments)

    async def first() -> Any:
        async for event in trigger.run():
            return event.payload
        return None

    return asyncio.run(first())


def run(order: dict[str, Any], rel_path: str, victim: Victim, client: Any) -> dict[str, Any]:
    """Run a DAG's one task to its end, through all retries."""
    victim.kills, victim.deaths = list(order["kills"]), 0
    now = datetime.now(UTC)
    with create_session() as session:
        dag = DBDagBag().get_latest_version_of_dag(order["dag_id"], session=session)
        assert dag is not None
        dag.create_dagrun(
            run_id=order["run_id"],
            logical_date=now,
            data_interval=(now, now),
            run_after=now,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            start_date=now,
            session=session,
        )
    processes = {"task": 0, "trigger": 0}
    while sum(processes.values()) < MAX_PROCESSES:
        trigger_id, ready = _schedule(dag, order)
        if trigger_id is not None:
            processes["trigger"] += 1
            run_trigger(trigger_id, victim)
        elif ready is not None:
            processes["task"] += 1
            run_try(ready, rel_path, victim, client)
        else:
            break
    with create_session() as session:
        ti = session.query(TaskInstance).filter_by(run_id=order["run_id"]).one()
        xcoms = session.query(XComModel).filter_by(run_id=order["run_id"])
        return {
            "state": str(ti.state),
            "tries": ti.try_number,
            "processes": processes,
            "deaths": victim.deaths,
            "kills_left": victim.kills,
            "xcoms": {xcom.key: xcom.value for xcom in xcoms},
        }


def _schedule(dag: Any, order: dict[str, Any]) -> tuple[int | None, TaskInstance | None]:
    """Do what the scheduler does: say what is to be run next, a trigger or a task."""
    from airflow.models.dagrun import DagRun

    while True:
        with create_session() as session:
            run = session.query(DagRun).filter_by(run_id=order["run_id"]).one()
            run.dag = dag
            schedulable, _ = run.update_state(session=session)
            run.schedule_tis(schedulable, session=session)
            session.commit()
            session.expire_all()
            ti = session.query(TaskInstance).filter_by(run_id=order["run_id"]).one()
            if ti.state == TaskInstanceState.DEFERRED:
                return ti.trigger_id, None
            if ti.state == TaskInstanceState.SCHEDULED:
                ti.state = TaskInstanceState.QUEUED
                session.commit()
                session.refresh(ti)
                session.expunge(ti)
                return None, ti
            if ti.state in (TaskInstanceState.SUCCESS, TaskInstanceState.FAILED):
                return None, None
            if ti.state != TaskInstanceState.UP_FOR_RETRY:
                raise RuntimeError(f"the task is {ti.state}, with no process at work")


def main(dag_file: Path, victim_file: Path) -> None:
    """Read the DAGs, then carry out one order after the other."""
    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    bag = BundleDagBag(dag_folder=str(dag_file), bundle_path=dag_file.parent, bundle_name=BUNDLE)
    if bag.import_errors:
        sys.exit(str(bag.import_errors))
    sync_bag_to_db(bag, BUNDLE, None)
    # Processes are forked off this one, so what they need is loaded once.
    import aiohttp  # noqa: F401
    import requests  # noqa: F401

    client = supervisor.InProcessTestSupervisor._api_client()
    victim = Victim(victim_file)
    for line in sys.stdin:
        result = run(json.loads(line), dag_file.name, victim, client)
        RESULTS.write(json.dumps(result) + "\n")
    # Without waiting for the threads of Airflow's API.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
