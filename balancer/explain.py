"""Why a request went where it went, in words and numbers for JSON. Pure."""

from __future__ import annotations

from typing import Any

from balancer.parts import Parts
from balancer.schedule import Verdict


def shown(verdict: Verdict) -> dict[str, Any]:
    """One candidate: chosen or why not, and what was predicted of it."""
    engine, parts = verdict.candidate.engine, verdict.parts
    usual = "costs least" if parts else "fewest busy slots"
    return {
        "node": verdict.candidate.node,
        "engine": engine.id,
        "variant": engine.variant,
        "slots": engine.slots,
        "busy": verdict.busy,
        "chosen": verdict.reason is None,
        "reason": verdict.reason or usual,
        "predicted": None if parts is None else predicted(parts),
    }


def predicted(parts: Parts) -> dict[str, Any]:
    """Predicted seconds, as `weights` explains them; see `Parts`."""
    return {
        "wait_seconds": round(parts.wait, 4),
        "ahead_seconds": round(parts.ahead, 4),
        "read_seconds": round(parts.read, 4),
        "write_seconds": round(parts.write, 4),
        "first_token_seconds": round(parts.first, 4),
        "cost_seconds": round(parts.cost, 4),
        "prompt_tokens": round(parts.tokens),
        "cached_tokens": round(parts.cached),
        "exact": parts.exact,
    }
