"""Airflow operators for the Databricks Jobs API."""
