"""Detects processes from which Airflow forks those that execute tasks or parse DAG files.

What such a process has imported, the forked ones do not have to import. The answer is by the
command line, since Airflow has no hook for it:

==============================  ==================================================================
Executor                        Process
==============================  ==================================================================
LocalExecutor, also beside      ``airflow scheduler``. A plugin's ``on_load`` runs there before the
others                          workers are forked, but also in each task process, in the API
                                server and in the DAG processor.
CeleryExecutor                  ``airflow celery worker``. It loads no plugins; Celery sends the
                                signal ``import_modules`` before the pool is forked.
KubernetesExecutor and others   none: each task starts in a fresh process
==============================  ==================================================================

On Airflow 3 ``airflow dag-processor`` forks a process for each parse of a DAG file, and for the
callbacks of tasks. Its main process loads the plugins before. Airflow imports there what a DAG file
imports from ``airflow``, but not what it imports from this package.

With the start methods ``spawn`` and ``forkserver`` there is no such process: what the scheduler has
imported is not passed on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

__all__ = [
    "call_before_celery_forks",
    "forks_parsing_processes",
    "forks_task_processes",
    "import_for_parsing_processes",
    "import_for_task_processes",
]

# What Airflow 3 imports in each task process, and not before: a third of the processor time of an
# empty task. Lines of Airflow that have no such module skip it.
_OF_AIRFLOW = (
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.cache",
    "jinja2.ext",
)
# What Airflow 3 imports in each process that has parsed a DAG file, and not before.
_OF_AIRFLOW_FOR_PARSING = (
    "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.providers.standard.sensors.external_task",
    "jinja2.ext",
    "jinja2.meta",
)

# LocalKubernetesExecutor is Airflow 2's.
_LOCAL_EXECUTOR = re.compile(r"\bLocal(Kubernetes)?Executor\b")


def forks_task_processes() -> bool:
    """Return whether this is a scheduler whose executor forks the task processes."""
    if not _is_command("scheduler") or _start_method() != "fork":
        return False
    from airflow.providers.common.compat.sdk import conf

    return _LOCAL_EXECUTOR.search(conf.get("core", "executor", fallback="")) is not None


def forks_parsing_processes() -> bool:
    """Return whether this is a DAG processor that forks a process for each DAG file (Airflow 3)."""
    return _is_command("dag-processor")


def call_before_celery_forks(function: Callable[[], object]) -> None:
    """In the main process of a Celery worker, let it call a function before it forks its pool.

    :param function: the function, without arguments.
    """
    if not _is_command("celery", "worker"):
        return
    from celery.signals import import_modules

    def call(**_arguments: object) -> None:
        function()

    import_modules.connect(call, weak=False, dispatch_uid=function.__qualname__)


def import_for_task_processes() -> None:
    """Import what task processes need of Airflow itself."""
    _import_of_airflow(_OF_AIRFLOW)


def import_for_parsing_processes() -> None:
    """Import what processes that parse DAG files need of Airflow itself."""
    _import_of_airflow(_OF_AIRFLOW_FOR_PARSING)
    from airflow_jobs_provider.airflow_compat.triggerer_values import storable

    # The first template takes Jinja two milliseconds. Many DAGs have this one.
    storable("{{ ds }}")


def _import_of_airflow(names: tuple[str, ...]) -> None:
    from airflow_jobs_provider.airflow_compat.lines import airflow_line

    airflow_line()
    for name in names:
        with suppress(ImportError):
            import_module(name)
    from jinja2 import Environment

    # Jinja keeps its lexer for all environments with the same delimiters.
    Environment(autoescape=False).from_string("{{ ds }}")  # noqa: S701 - nothing is rendered


def _is_command(*words: str) -> bool:
    if tuple(sys.argv[1 : 1 + len(words)]) != words:
        return False
    # Imported here, since this module is imported at every start of Airflow.
    import multiprocessing

    # A child of multiprocessing has its parent's arguments.
    return multiprocessing.parent_process() is None


def _start_method() -> str:
    import multiprocessing

    # Without fixing it, as get_start_method() alone does.
    chosen: str | None = multiprocessing.get_start_method(allow_none=True)
    return chosen or multiprocessing.get_all_start_methods()[0]
