"""Find the tools that `edgeserve engine build` makes, such as llama-imatrix."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edgeserve.config import NodeSettings, resolve


def native_tool(name: str) -> Path | None:
    """Return the path of a tool: of the build that nodes use, else on PATH, else None.

    Raises SettingsError where the settings that name the state folder are wrong.
    """
    state_dir = resolve(NodeSettings).settings.state_dir
    built = state_dir / "engines" / "current" / name
    if os.access(built, os.X_OK):
        return built
    found = shutil.which(name)
    return Path(found) if found else None
