# Databricks notebook source
dbutils.widgets.text("who", "")
dbutils.notebook.exit(f"steady for {dbutils.widgets.get('who')}")
