"""A Databricks workspace on this machine: speaks the Jobs API and really runs the notebooks.

Start it with ``python -m airflow_jobs_provider.local --root DIR``, or in a test with
:class:`airflow_jobs_provider.local.workspace.LocalWorkspace`. It needs the ``[local]`` extra.
"""
