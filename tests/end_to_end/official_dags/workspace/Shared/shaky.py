# Databricks notebook source
# Fails the first time that it runs with a key.
from pathlib import Path

dbutils.widgets.text("key", "")
mark = Path(f"ran-{dbutils.widgets.get('key')}")
if not mark.exists():
    mark.touch()
    raise ValueError("the first time")
dbutils.notebook.exit("the second time")
