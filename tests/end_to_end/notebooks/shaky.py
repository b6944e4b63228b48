# Databricks notebook source
# Keeps count of its attempts, and fails before the one at which it succeeds.
import os
from pathlib import Path

dbutils.widgets.text("who", "")
dbutils.widgets.text("succeeds_at", "1")
who = dbutils.widgets.get("who")
count = Path(os.environ["ATTEMPTS_FOLDER"]) / who
attempt = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(attempt))

# COMMAND ----------

if attempt < int(dbutils.widgets.get("succeeds_at")):
    raise ValueError(f"attempt {attempt} is too early")
dbutils.notebook.exit(f"attempt {attempt} for {who}")
