"""The settings of a whole Airflow for the tests, and the commands of its components."""

from __future__ import annotations

from pathlib import Path

import airflow_jobs_provider
from scripts.airflow_env import airflow_environment
from tests.end_to_end.airflow_versions import AIRFLOW_2, AIRFLOW_3_0
from tests.end_to_end.cluster_database import DATABASE_OPTION

__all__ = ["API_SERVER", "COMMANDS", "COMPONENTS", "SHORT_SILENCE", "cluster_environment"]

API_SERVER = "webserver" if AIRFLOW_2 else "apiserver"
COMPONENTS = ["scheduler", *([] if AIRFLOW_2 else ["dagprocessor"]), API_SERVER]
COMMANDS = {
    "scheduler": "scheduler --skip-serve-logs",
    "triggerer": "triggerer --skip-serve-logs",
    "worker": (
        "celery worker --skip-serve-logs --without-gossip --without-mingle"
        " --celery-hostname {name}@airflow --pid {name}.pid"
    ),
    "dagprocessor": "dag-processor",
    "apiserver": "api-server",
    "webserver": "webserver --hostname 127.0.0.1 --port {port}",
}
# The DAG files do not change. To parse them takes a second of processor time, by default twice a
# minute. Airflow 3.0 takes DAGs for gone if a callback is executed so long after they were parsed.
_SECTION = "SCHEDULER" if AIRFLOW_2 else "DAG_PROCESSOR"
PARSING = {
    f"AIRFLOW__{_SECTION}__MIN_FILE_PROCESS_INTERVAL": "120",
    f"AIRFLOW__{_SECTION}__STALE_DAG_THRESHOLD": "86400",
    f"AIRFLOW__{'CORE' if AIRFLOW_2 else _SECTION}__DAG_FILE_PROCESSOR_TIMEOUT": "300",
}
# How long a triggerer may be silent before another one takes its triggers.
TRIGGERER_SILENCE_SECONDS = 12
# After so many seconds without a heartbeat Airflow takes a task or a scheduler for dead; by default
# these are minutes. On a busy machine a live task may be silent for 15 s. So may a scheduler, which
# takes itself for dead then, and begins its tasks anew.
SILENCE_SECONDS = "30"
SHORT_SILENCE = {
    # Sixteen processes that start at the same time send no heartbeats.
    "AIRFLOW__CORE__PARALLELISM": "8",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": SILENCE_SECONDS,
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
} | (
    {
        "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": SILENCE_SECONDS,
        "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "2",
    }
    if AIRFLOW_2
    else {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": SILENCE_SECONDS,
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        # A supervisor gives up after three heartbeats, by default of up to a minute each.
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "3",
    }
)


def cluster_environment(
    home: Path, dags: Path, connections: dict[str, str], *, port: int, database: str
) -> dict[str, str]:
    """Return the environment variables of all components.

    :param home: folder of the Airflow.
    :param dags: folder of the DAG files.
    :param connections: environment variables with the Airflow connections.
    :param port: of the API server.
    :param database: URL of the metadata database.
    """
    url = f"http://127.0.0.1:{port}"
    env = airflow_environment(home, dags, connection=None) | connections
    env |= {
        # Airflow shall see the same package as the tests, installed or not.
        "PYTHONPATH": str(Path(airflow_jobs_provider.__file__).parent.parent),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "16",
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "50",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        DATABASE_OPTION: database,
        "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
        **PARSING,
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(TRIGGERER_SILENCE_SECONDS),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
    }
    if AIRFLOW_2:
        (home / "webserver_config.py").write_text("AUTH_ROLE_PUBLIC = 'Admin'\n")
        return env | {
            # Airflow 2 refuses SQLite with any executor but the sequential one, since a
            # deployment's database would be locked too often; a few tasks are no deployment.
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
            # SQLite locks no rows. So the scheduler and the task process that schedules what
            # comes after its task would both count an attempt.
            "AIRFLOW__SCHEDULER__SCHEDULE_AFTER_TASK_EXECUTION": "False",
            "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
            "AIRFLOW__WEBSERVER__CONFIG_FILE": str(home / "webserver_config.py"),
            "AIRFLOW__WEBSERVER__WORKERS": "1",
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
        }
    if AIRFLOW_3_0:
        env["AIRFLOW__CORE__EXECUTOR"] = "tests.end_to_end.local_executor.LocalExecutor"
    return env | {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        # The tests see in the response that the database is locked.
        "AIRFLOW__API__EXPOSE_STACKTRACE": "True",
        # Airflow 3.0 names none, which newer versions of PyJWT refuse.
        "AIRFLOW__API_AUTH__JWT_ISSUER": "airflow",
        # The API server takes 20 ms of processor time for a heartbeat; many tasks wait at once.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
        # A task fails whose request to start is sent again after a time-out, 5 s by default.
        # Airflow 3.0 does not know the setting.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
    }
