"""Transitions: which engines were loaded, failed to load or left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.lifecycle.events import EventKind
from edgeserve.wire import EngineReport, EngineState

SERVES = frozenset(("ready", "busy"))
BEFORE = frozenset(("absent", "loading", "failed"))
BROKEN = frozenset(("failed", "quarantined"))
THERE = frozenset(("ready", "busy", "leaving", "stuck"))


@dataclass(frozen=True, slots=True)
class Transition:
    """What happened to an engine that was in the state `before`, and why.

    `kind` is None where its load has begun, or may be tried again.
    """

    to: EngineCandidate
    before: EngineState
    kind: EventKind | None
    reason: str


def transitions(
    before: Mapping[EngineKey, EngineReport], candidates: Iterable[EngineCandidate]
) -> list[Transition]:
    """Compare the engines with their earlier reports."""
    found: list[Transition] = []
    for each in candidates:
        old = before.get(each.key)
        if old is None or old is each.engine or old.state == each.engine.state:
            continue
        kind = _kind(old, each.engine)
        if kind is not None or each.engine.state in {"loading", "absent"}:
            why = _why(old, each.engine, kind)
            found.append(Transition(each, old.state, kind, why or ""))
    return found


def _why(old: EngineReport, new: EngineReport, kind: EventKind | None) -> str | None:
    """Return the reason of a transition; an absent engine's own is how it loads."""
    if old.state == "leaving":
        return old.reason
    return None if kind == "unloaded" else new.reason


def _kind(old: EngineReport, new: EngineReport) -> EventKind | None:
    if new.state in SERVES and old.state in BEFORE:
        return "loaded"
    if new.state in BROKEN and old.state in {"absent", "loading"}:
        return "load_failed"
    if new.state == "absent" and old.state == "loading":
        return "load_failed"
    return "unloaded" if new.state == "absent" and old.state in THERE else None
