"""The addresses of the project, for the metadata of the distributions. A hook of the build.

They are known where a release is built, and not in the code: the release workflow sets PROJECT_URL
to its own repository. Airflow shows the address of the documentation beside the provider.

    PROJECT_URL=https://forge.example/team/project make dist
    PROJECT_DOCUMENTATION_URL    where the documentation is served; default PROJECT_URL's README

Without PROJECT_URL the distributions name no address.
"""

from __future__ import annotations

import os
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

__all__ = ["ProjectUrls"]


class ProjectUrls(MetadataHookInterface):
    """Adds the project's addresses to the metadata."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add ``urls`` if PROJECT_URL is set.

        :param metadata: the table ``project`` of ``pyproject.toml``; it is changed.
        """
        if url := os.environ.get("PROJECT_URL", "").rstrip("/"):
            metadata["urls"] = {
                "Documentation": os.environ.get("PROJECT_DOCUMENTATION_URL") or f"{url}#readme",
                "Source": url,
                "Issues": f"{url}/issues",
            }
