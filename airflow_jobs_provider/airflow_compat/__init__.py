"""The only part of the package that knows Airflow's versions and internals."""
