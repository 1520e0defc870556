"""Engine lookup: which engine runs on this machine, and which flags it knows."""

from __future__ import annotations

import logging
import re

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import EngineUnavailable
from node.engines.base import Engine
from node.engines.bundled import bundled
from node.engines.devices import output_of
from node.engines.native import HINT, NAME, Native, find, native

log = logging.getLogger(__name__)


def find_engine(settings: NodeSettings) -> Engine:
    """Return the engine that the settings ask for, `auto` preferring a native one.

    Starts a short-lived process or two, so call it off the event loop. Raises
    EngineUnavailable: one sentence, with what to do.
    """
    if settings.engine == "bundled":
        return bundled()
    path = find(settings.llama_server, settings.state_dir)
    if settings.engine == "native" or settings.llama_server is not None:
        if path is None:
            raise EngineUnavailable(f"no {NAME} here or on PATH; {HINT}")
        return native(path)
    if path is not None:
        try:
            return native(path)
        except EngineUnavailable as error:
            log.warning("%s; using the bundled engine", error)
    return bundled()


BUNDLED = frozenset(("--spec-type", "--spec-draft-model"))
"""Optional flags that the wheel's parameters have, too."""


def options_of(engine: Engine) -> frozenset[str]:
    """Return the engine's long flags; runs a native engine with `--help`."""
    if not isinstance(engine, Native):
        return BUNDLED
    return flags_in(output_of(engine.path, "--help"))


def flags_in(text: str) -> frozenset[str]:
    """Return the flags in the output of `--help`."""
    return frozenset(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))
