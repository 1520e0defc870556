"""Have a node start with settings that only a tuning can set."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime

from edgeserve.config.settings import NodeSettings
from node.hardware.sample import Sampler
from node.planning.prepare import prepared
from node.planning.tunings import Figures, Result, Tuned, save, tunings_of

UNKNOWN = Figures(prefill=1.0, decode=1.0, aggregate=1.0)


@contextmanager
def tuned(what: Tuned, settings: NodeSettings) -> Generator[None]:
    """Keep `what` as if a tuning had found it, for the length of the block."""
    if not what.changes:
        yield
        return
    hardware = Sampler()()
    found = prepared(settings, hardware, untuned=True)
    if found.engine is None or not found.plan.engines:
        raise RuntimeError("; ".join(found.plan.problems))
    placed = found.plan.engines[0]
    here = tunings_of(found.engine, hardware, found.devices, settings)
    facts = placed.load.facts
    key = here.key(placed.spec.variant, facts.file_bytes, placed.spec.role)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    result = Result(
        key=key, tuned=what, untuned=UNKNOWN, best=UNKNOWN, gain=0.0, made=made
    )
    file = save(settings.state_dir, result)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
