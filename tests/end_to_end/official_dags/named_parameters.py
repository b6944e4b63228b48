from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators import databricks

with DAG("named_parameters", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
    python_run = databricks.DatabricksSubmitRunOperator(
        task_id="python_run",
        run_name="nightly rows",
        new_cluster={
            "spark_version": "15.4.x-scala2.12",
            "node_type_id": "i3.xlarge",
            "autoscale": {"min_workers": 1, "max_workers": 4},
            "spark_conf": {"spark.sql.shuffle.partitions": "8"},
            "custom_tags": {"team": "data"},
        },
        spark_python_task={"python_file": "dbfs:/etl.py", "parameters": ["{{ ds_nodash }}"]},
        libraries=[{"pypi": {"package": "simplejson"}}, {"jar": "dbfs:/lib/etl-0.1.jar"}],
        timeout_seconds=600,
        idempotency_token="{{ dag.dag_id }}-{{ ds }}",
        polling_period_seconds=1,
    )
    jar_run = databricks.DatabricksSubmitRunOperator(
        task_id="jar_run",
        databricks_conn_id="databricks_staging",
        existing_cluster_id="0923-164208-meows279",
        spark_jar_task={"main_class_name": "com.example.ProcessData", "parameters": ["--all"]},
        libraries=[{"jar": "dbfs:/lib/etl-0.1.jar"}],
        polling_period_seconds=1,
    )
    submit_run = databricks.DatabricksSubmitRunOperator(
        task_id="submit_run",
        databricks_conn_id="databricks_staging",
        new_cluster={
            "spark_version": "15.4.x-scala2.12",
            "node_type_id": "i3.xlarge",
            "num_workers": 2,
        },
        spark_submit_task={"parameters": ["--class", "org.apache.spark.examples.SparkPi"]},
        do_xcom_push=False,
        polling_period_seconds=1,
    )
    python_run >> jar_run >> submit_run
