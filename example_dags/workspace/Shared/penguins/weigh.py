# Databricks notebook source
# MAGIC %md
# MAGIC # How heavy are the penguins of an island?
# MAGIC The mean body mass by species, from `penguins.csv` beside this notebook.

# COMMAND ----------

import csv
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean

dbutils.widgets.text("island", "Dream", "Island (Biscoe, Dream or Torgersen)")
island = dbutils.widgets.get("island")

# COMMAND ----------

# A notebook runs in its own folder, here and on Databricks (Runtime 14 and later).
grams = defaultdict(list)
with Path("penguins.csv").open(newline="") as file:
    for row in csv.DictReader(file):
        if row["island"] == island and row["body_mass_g"] != "NA":
            grams[row["species"]].append(int(row["body_mass_g"]))

if not grams:
    raise ValueError(f"No penguin was weighed on the island {island!r}")

# COMMAND ----------

mean_grams = {species: round(mean(found)) for species, found in sorted(grams.items())}
print(f"Weighed {sum(map(len, grams.values()))} penguins on {island}")
dbutils.notebook.exit(json.dumps({"island": island, "mean_grams": mean_grams}))
