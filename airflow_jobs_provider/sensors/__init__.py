"""Airflow sensors for the Databricks Jobs API."""
