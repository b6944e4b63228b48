"""Following many runs with few requests: poller, run lists, rate limiter, outages."""
