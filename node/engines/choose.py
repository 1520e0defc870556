"""Which engine this machine runs."""

from __future__ import annotations

import logging

from edgeserve.config import NodeSettings
from edgeserve.errors import EngineUnavailable
from node.engines.bundled import bundled
from node.engines.native import NAME, REMEDY, find, native
from node.engines.protocol import Engine

log = logging.getLogger(__name__)


def find_engine(settings: NodeSettings) -> Engine:
    """Return the engine that the settings ask for, `auto` preferring a native one.

    Starts a short-lived process or two, so call it off the event loop. Raises
    EngineUnavailable: one sentence, with the remedy.
    """
    if settings.engine == "bundled":
        return bundled()
    path = find(settings.llama_server, settings.state_dir)
    if settings.engine == "native" or settings.llama_server is not None:
        if path is None:
            raise EngineUnavailable(f"no {NAME} here or on PATH; {REMEDY}")
        return native(path)
    if path is not None:
        try:
            return native(path)
        except EngineUnavailable as error:
            log.warning("%s; using the bundled engine", error)
    return bundled()
