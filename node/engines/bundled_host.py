"""Bundled engine's process: apply the parameters, then serve until killed.

llama.cpp aborts the whole process on some errors, so it never runs in the agent.
SIGTERM keeps its default: there is nothing to save.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from enum import Enum
from functools import reduce
from typing import Any

from edgeserve.runtime.tether import PARENT, tie
from node.engines.bundled import PARAMETERS

LOOK_SECONDS = 1.0


def main() -> None:
    """Serve the parameters in the environment."""
    parent = int(os.environ.pop(PARENT, os.getppid()))
    tie(parent)  # again: an interpreter with capabilities was untied at its start
    given = json.loads(os.environ.pop(PARAMETERS))
    xllamacpp: Any = importlib.import_module("xllamacpp")
    chosen = xllamacpp.CommonParams()
    for path, value in given.items():
        put(chosen, path, value)
    try:
        server = xllamacpp.Server(chosen)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    _outlast(parent)
    del server


def put(target: Any, path: str, value: Any) -> None:
    """Set an attribute by its dotted path.

    Enums are given by name, alone or in lists, and sets as lists; `tensor_split` is as
    long as llama.cpp's array, whatever number of GPUs there is.
    """
    *way, name = path.split(".")
    holder = reduce(getattr, way, target)
    current = getattr(holder, name)
    if isinstance(current, Enum):
        value = type(current)[value]
    elif isinstance(current, set):
        value = set(value)
    elif name == "tensor_split":
        value = [*value, *current[len(value) :]]
    elif isinstance(current, list) and current and isinstance(current[0], Enum):
        value = [type(current[0])[each] for each in value]
    setattr(holder, name, value)


def _outlast(parent: int) -> None:
    """Wait for a signal. Without a signal at the parent's end, poll for it."""
    while os.getppid() == parent:
        if sys.platform == "linux":
            signal.pause()
        else:
            time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
