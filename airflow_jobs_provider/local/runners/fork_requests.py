"""Constants of the requests to the fork server (``fork_server.py``)."""

from __future__ import annotations

__all__ = ["CLIENT", "KERNEL", "MARKER_CHARS", "MAX_REQUEST_BYTES"]

# The programs that it forks.
CLIENT = "client"
KERNEL = "kernel"
MAX_REQUEST_BYTES = 64 * 1024
# The length of the marker in the fork server's own environment; that of a run is written over it.
MARKER_CHARS = 128
