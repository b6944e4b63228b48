"""HTML pages of the local workspace: jobs, runs, requests, and what their buttons do."""
