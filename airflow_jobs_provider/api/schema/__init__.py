"""The structures of the Jobs API and its rules, for checks before a request is sent."""
