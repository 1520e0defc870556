"""Filters: which engines can serve a request, and why the others cannot. Pure.

`filter_engines` applies every filter. Every candidate gets a verdict, so that each
choice can be explained afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from balancer.fleet.engines import EngineCandidate
from balancer.routing.abilities import able_to
from balancer.routing.decision import Refuse, RoutingRequest, Verdict
from edgeserve.errors import EdgeserveError, NoNode
from edgeserve.quantization import serves


@dataclass(frozen=True)
class Filtered:
    """The engines that may serve a request (`open`), and the others (`out`).

    `passing`: one that is out may come back by itself soon.
    """

    open: tuple[EngineCandidate, ...]
    out: tuple[Verdict, ...]
    passing: bool


def filter_engines(
    candidates: Sequence[EngineCandidate], need: RoutingRequest
) -> Filtered | Refuse:
    """Apply every filter but free slots; Refuse where waiting would not help."""
    try:
        able = able_to(candidates, need)
    except EdgeserveError as error:
        return Refuse(error)
    weighed = [(each, *_ruled_out(each, need)) for each in able]
    weighed = _less_worse_ranks(_less_short_contexts(weighed, need))
    weighed = _less_those_that_failed_it(weighed, need)
    chosen = tuple(each for each, why, _ in weighed if why is None)
    out = tuple(
        Verdict(candidate=each, busy=each.engine.busy, reason=why)
        for each, why, _ in weighed
        if why is not None
    )
    passing = any(passing for _, _, passing in weighed)
    if not chosen and not passing:
        return Refuse(_no_engine(need, out), out)
    return Filtered(chosen, out, passing)


_Weighed = tuple[EngineCandidate, str | None, bool]
"""A candidate, why it is out, and whether that may change by itself."""


def _ruled_out(
    candidate: EngineCandidate, need: RoutingRequest
) -> tuple[str | None, bool]:
    if candidate.life in need.tried and candidate.engine.state in {"ready", "busy"}:
        return "tried already", False
    if not serves(candidate.engine.variant, need.floor):
        # Before what may pass: its type stays the same once it has loaded.
        return f"{candidate.engine.variant} is not as good as {need.floor}", False
    if candidate.barred:
        return candidate.barred, candidate.passing
    if candidate.engine.context <= need.too_short:
        return "its context is too short", False
    return None, False


def _less_worse_ranks(weighed: list[_Weighed]) -> list[_Weighed]:
    """Rule out engines that failed lately, as long as others have not."""
    best = min((each.rank for each, why, _ in weighed if why is None), default=0)
    return [
        (each, why, passing)
        if why is not None or each.rank == best
        else (each, "it failed a moment ago, and others did not", False)
        for each, why, passing in weighed
    ]


def _less_those_that_failed_it(
    weighed: list[_Weighed], need: RoutingRequest
) -> list[_Weighed]:
    """Rule out engines that failed it before a restart, where another has not yet."""
    failed = {life[:2] for life in need.tried}
    if not any(why is None and each.key not in failed for each, why, _ in weighed):
        return weighed
    return [
        (each, "it failed this request before it started anew", False)
        if why is None and each.key in failed
        else (each, why, passing)
        for each, why, passing in weighed
    ]


def _less_short_contexts(
    weighed: list[_Weighed], need: RoutingRequest
) -> list[_Weighed]:
    """Rule out contexts that look too short, unless no engine has a longer one.

    The length is an estimate; the engine with the longest context decides exactly.
    """
    longest = max(each.engine.context for each, _, _ in weighed)
    wanted = min(need.tokens, longest)
    return [
        (each, why, passing)
        if each.engine.context >= wanted
        else (
            each,
            f"its context of {each.engine.context} tokens looks too short",
            False,
        )
        for each, why, passing in weighed
    ]


def _no_engine(need: RoutingRequest, out: Sequence[Verdict]) -> NoNode:
    reasons = "; ".join(
        f"{each.candidate.node}/{each.candidate.engine.variant}: {each.reason}"
        for each in out
    )
    return NoNode(
        f"no engine can serve {need.model or need.ability or 'this'} now: {reasons}"
    )
