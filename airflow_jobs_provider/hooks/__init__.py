"""Airflow hooks for the Databricks Jobs API."""
