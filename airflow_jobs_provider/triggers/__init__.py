"""Airflow triggers for the Databricks Jobs API."""
