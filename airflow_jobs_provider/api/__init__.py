"""The Databricks Jobs API, without Airflow.

A call is a value: ``endpoints.get_run(7)`` says everything about the request and how its answer is
read, and touches no network. A client sends it, blocking or from asyncio::

    from airflow_jobs_provider.api import auth, endpoints
    from airflow_jobs_provider.api.client import JobsClient

    with JobsClient("https://example.cloud.databricks.com", auth.Token("...")) as client:
        run = client.send(endpoints.get_run(7))

Nothing is imported here, so that a DAG file that needs the states does not pay for the clients.
"""
