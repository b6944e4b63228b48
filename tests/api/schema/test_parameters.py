"""A run's parameters are sent as text."""

from __future__ import annotations

from airflow_jobs_provider.api.endpoints import create_job, run_now, submit_run


def test_numbers_and_booleans_become_text() -> None:
    """In every place where the reference has parameters."""
    call = run_now(
        {
            "job_id": 3,
            "notebook_params": {"n": 1, "x": 0.5, "yes": True, "no": False, "text": "a"},
            "jar_params": [1, True],
            "python_params": (2,),
            "spark_submit_params": ["--n", 3],
            "idempotency_token": "t",
        }
    )
    assert call.parameters == {
        "job_id": 3,
        "notebook_params": {"n": "1", "x": "0.5", "yes": "true", "no": "false", "text": "a"},
        "jar_params": ["1", "true"],
        "python_params": ["2"],
        "spark_submit_params": ["--n", "3"],
        "idempotency_token": "t",
    }


def test_those_of_later_versions_become_text() -> None:
    """The later reference takes maps and lists of text there, too."""
    given = {"n": 1, "yes": True}
    sent = {"n": "1", "yes": "true"}
    for name in ("job_parameters", "python_named_params", "sql_params"):
        assert run_now({"job_id": 3, name: given}).parameters[name] == sent


def test_parameters_inside_tasks() -> None:
    """Base parameters of a task, also of one of several, are parameters too."""
    task = {"notebook_task": {"notebook_path": "/a", "base_parameters": {"n": 1}}}
    expected = {"notebook_task": {"notebook_path": "/a", "base_parameters": {"n": "1"}}}
    assert submit_run({**task, "idempotency_token": "t"}).parameters == {
        **expected,
        "idempotency_token": "t",
    }
    assert create_job({"tasks": [task]}).parameters == {"tasks": [expected]}


def test_below_a_for_each_task() -> None:
    """The task of a loop has parameters as any has."""
    inner = {"notebook_task": {"notebook_path": "/a", "base_parameters": {"n": 1, "yes": True}}}
    (task,) = create_job(
        {"tasks": [{"for_each_task": {"inputs": "[1]", "concurrency": 2, "task": inner}}]}
    ).parameters["tasks"]
    assert task["for_each_task"] == {
        "inputs": "[1]",
        "concurrency": 2,
        "task": {
            "notebook_task": {"notebook_path": "/a", "base_parameters": {"n": "1", "yes": "true"}}
        },
    }


def test_tags_variables_and_spark_settings() -> None:
    """Numbers become text wherever a cluster is described; a true of Spark's settings stays."""
    cluster = {
        "num_workers": 2,
        "custom_tags": {"cost": 5, "on": True},
        "spark_env_vars": {"N": 0.5},
        "spark_conf": {"spark.n": 7, "spark.speculation": True},
    }
    sent = {
        "num_workers": 2,
        "custom_tags": {"cost": "5", "on": "true"},
        "spark_env_vars": {"N": "0.5"},
        "spark_conf": {"spark.n": "7", "spark.speculation": True},
    }
    settings = {
        "new_cluster": cluster,
        "tasks": [{"new_cluster": cluster}],
        "job_clusters": [{"job_cluster_key": "c", "new_cluster": cluster}],
        "tags": {"team": 5},
    }
    assert create_job(settings).parameters == {
        "new_cluster": sent,
        "tasks": [{"new_cluster": sent}],
        "job_clusters": [{"job_cluster_key": "c", "new_cluster": sent}],
        "tags": {"team": "5"},
    }


def test_all_else_stays_as_it_is() -> None:
    """Numbers and booleans elsewhere are numbers and booleans; the given dict is not changed."""
    settings = {
        "timeout_seconds": 60,
        "new_cluster": {"num_workers": 2, "spark_conf": {"spark.speculation": True}},
        "notebook_task": {"notebook_path": "/a", "base_parameters": {"n": 1}},
    }
    sent = create_job(settings).parameters
    assert sent["timeout_seconds"] == 60
    assert sent["new_cluster"] == settings["new_cluster"]
    assert settings["notebook_task"] == {"notebook_path": "/a", "base_parameters": {"n": 1}}
