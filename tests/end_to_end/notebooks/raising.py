# Databricks notebook source
stock = {"apples": 3}

# COMMAND ----------

if stock["apples"] < 5:
    raise ValueError("only 3 apples are left, 5 are needed")
