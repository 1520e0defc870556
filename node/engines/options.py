"""Which of llama.cpp's flags an engine understands."""

from __future__ import annotations

import re

from node.engines.devices import output_of
from node.engines.native import Native
from node.engines.protocol import Engine

BUNDLED = frozenset(("--spec-type",))
"""Of those that are not taken for granted, what the wheel's parameters have."""


def options_of(engine: Engine) -> frozenset[str]:
    """Return the long flags; starts a native engine for its help."""
    if not isinstance(engine, Native):
        return BUNDLED
    return flags_in(output_of(engine.path, "--help"))


def flags_in(text: str) -> frozenset[str]:
    """Read the output of `--help`."""
    return frozenset(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))
