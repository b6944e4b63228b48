"""Workflows: exchanges of several requests with the Jobs API, each written once as a generator."""
