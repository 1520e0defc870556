"""llama.cpp's own server and tools, where `make check-native` has built them.

Nothing else counts: what happens to be on a developer's PATH is some other version.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

STATE = os.environ.get("NATIVE_STATE_DIR")
"""The state folder of `edgeserve engine build`, if it was run."""

native = pytest.mark.skipif(
    STATE is None, reason="needs what `edgeserve engine build` makes: make check-native"
)


def state_dir() -> Path:
    """Return the folder whose `engines` holds the build."""
    assert STATE, "mark the test `native`"
    return Path(STATE)


def tool(name: str) -> Path:
    """Return the path of one of llama.cpp's programs."""
    return state_dir() / "engines" / "current" / name


def engine_flags() -> tuple[str, ...]:
    """Return the flags by which a node runs that build; without one, the bundled."""
    if STATE is None:
        return ("--engine", "bundled")
    return ("--llama-server", str(tool("llama-server")))
