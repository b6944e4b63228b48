"""What the package adds to Airflow's UI: links of tasks, and a page that lists runs."""
