# Databricks notebook source
dbutils.widgets.text("name", "nobody")
dbutils.notebook.exit("hello " + dbutils.widgets.get("name"))
