"""The HTTP side of the local workspace: connections, endpoints, pages."""
