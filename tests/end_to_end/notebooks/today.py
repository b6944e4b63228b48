# Databricks notebook source
dbutils.widgets.text("day", "none given")
dbutils.notebook.exit(dbutils.widgets.get("day"))
