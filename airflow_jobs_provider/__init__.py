"""Airflow provider for the Databricks Jobs API.

Airflow calls ``get_provider_info`` at every start, so this module and what the function imports
need nothing but the standard library.
"""

from __future__ import annotations

from airflow_jobs_provider._version import __version__

__all__ = ["__version__", "get_provider_info"]

_INTEGRATION = "Databricks Jobs"
# Paths in the repository, as Airflow's own providers name theirs.
_HOW_TO_GUIDES = (
    "/docs/quickstart.md",
    "/docs/connections.md",
    "/docs/submit-run.md",
    "/docs/run-now.md",
    "/docs/wait-for-run.md",
    "/docs/several-tasks.md",
    "/docs/workflows.md",
    "/docs/taskflow.md",
    "/docs/deferrable.md",
    "/docs/without-workers.md",
    "/docs/event-driven.md",
    "/docs/migrating.md",
    "/docs/testing.md",
)


def get_provider_info() -> dict[str, object]:
    """Tell Airflow what this distribution brings (the ``apache_airflow_provider`` entry point).

    In a Celery worker it also asks Celery to preload the package's modules. A Celery worker loads
    no plugins, but asks for this before it forks its pool.
    """
    from airflow_jobs_provider.airflow_compat.forking_processes import call_before_celery_forks
    from airflow_jobs_provider.preload import preload

    call_before_celery_forks(preload)
    return {
        "package-name": "airflow-jobs-provider",
        "name": _INTEGRATION,
        "description": "Run Databricks jobs through the Jobs API.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.databricks.com/api/workspace/jobs",
                "how-to-guide": list(_HOW_TO_GUIDES),
                "tags": ["service"],
            }
        ],
        "connection-types": _connection_types(),
        "hooks": _modules("airflow_jobs_provider.hooks.jobs"),
        "operators": _modules("airflow_jobs_provider.operators.jobs"),
        "task-decorators": [
            {
                "name": "databricks_notebook",
                "class-name": "airflow_jobs_provider.decorators.jobs.databricks_notebook",
            },
            {
                "name": "databricks_python",
                "class-name": "airflow_jobs_provider.decorators.jobs.databricks_python",
            },
        ],
        "sensors": _modules("airflow_jobs_provider.sensors.jobs"),
        "triggers": _modules(
            "airflow_jobs_provider.triggers.jobs",
            "airflow_jobs_provider.triggers.sensor",
            "airflow_jobs_provider.triggers.workflow",
            "airflow_jobs_provider.operators.launch_trigger",
            "airflow_jobs_provider.operators.workflow_launch_trigger",
            "airflow_jobs_provider.operators.workflow_member_trigger",
        ),
        "extra-links": [
            "airflow_jobs_provider.links.DatabricksJobRunLink",
            "airflow_jobs_provider.ui.links.DatabricksJobLink",
            "airflow_jobs_provider.ui.links.DatabricksWorkflowRunLink",
            "airflow_jobs_provider.ui.links.DatabricksTaskRunLink",
        ],
        "config": {"databricks_jobs": _configuration()},
    }


def _modules(*modules: str) -> list[dict[str, object]]:
    return [{"integration-name": _INTEGRATION, "python-modules": list(modules)}]


def _configuration() -> dict[str, object]:
    return {
        "description": "Settings of the Databricks Jobs provider.",
        "options": {
            "launches_per_second": {
                "description": (
                    "Runs that one triggerer launches in a workspace per second, at most, through "
                    "each of runs/submit and run-now. The launches of several DAGs take turns. The "
                    "service allows a workspace 35 runs/submit and 20 run-now per second, for all "
                    "its clients together. Default: a quarter of that, 8.75 and 5."
                ),
                "version_added": None,
                "type": "float",
                "example": "5",
                "default": None,
            },
            "billing_tags": {
                "description": (
                    "Whether operators add tags with the DAG, the task and its owner to the "
                    "clusters and jobs that they define, for billing reports. An operator's own "
                    "billing_tags takes precedence."
                ),
                "version_added": None,
                "type": "boolean",
                "example": None,
                "default": "False",
            },
            "run_name_template": {
                "description": (
                    "The name of a run that is given none, with the placeholders dag_id, task_id, "
                    "task (the task_id, with the index of a mapped task in brackets), map_index, "
                    "run_id and try_number in curly braces. Empty: DAG, task, DAG run and try."
                ),
                "version_added": None,
                "type": "string",
                "example": None,
                "default": "",
            },
            "start_from_trigger": {
                "description": (
                    "auto: each task that launches a run, and needs no worker, starts and ends in "
                    "the triggerer, as with start_from_trigger=True and end_from_trigger=True. It "
                    "needs Airflow 3.3. An operator's own start_from_trigger takes precedence."
                ),
                "version_added": None,
                "type": "string",
                "example": "auto",
                "default": "",
            },
        },
    }


def _connection_types() -> list[dict[str, object]]:
    from airflow_jobs_provider.hooks import form

    hooks = "airflow_jobs_provider.hooks"
    types = [
        form.connection_type(
            "databricks_jobs", "Databricks Jobs", f"{hooks}.jobs.DatabricksJobsHook"
        )
    ]
    # Airflow takes the provider whose name comes first, which would be this one.
    if not form.is_official_provider_installed():
        hook_class = f"{hooks}.databricks.DatabricksConnectionHook"
        types.append(form.connection_type("databricks", "Databricks", hook_class))
    return types
