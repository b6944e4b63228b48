"""Moves DAG files from the official Databricks provider to this one.

    python -m airflow_jobs_provider.migrate DIR            # shows a diff
    python -m airflow_jobs_provider.migrate --write DIR    # changes the files

It rewrites import statements with libcst (extra ``[migrate]``). It executes no DAG code, needs no
Airflow and opens no connection.
"""
