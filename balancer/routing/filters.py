"""Filters: which engines can serve a request, and why the others cannot. Pure.

`filter_engines` applies every filter. Every candidate gets a verdict, so that each
choice can be explained afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from balancer.fleet.engines import EngineCandidate
from balancer.routing.abilities import able_to
from balancer.routing.decision import Refuse, Resumes, RoutingRequest, Verdict
from edgeserve.errors import EdgeserveError, NoNode
from edgeserve.quantization import serves
from edgeserve.wire import EngineReport


@dataclass(frozen=True)
class Filtered:
    """The engines that may serve a request (`open`), and the others (`out`).

    `temporary`: one that is out may come back by itself soon.
    """

    open: tuple[EngineCandidate, ...]
    out: tuple[Verdict, ...]
    temporary: bool


def filter_engines(
    candidates: Sequence[EngineCandidate], routing: RoutingRequest
) -> Filtered | Refuse:
    """Apply every filter but free slots; Refuse where waiting would not help."""
    try:
        able = able_to(candidates, routing)
    except EdgeserveError as error:
        return Refuse(error)
    weighed = [(each, *_ruled_out(each, routing)) for each in able]
    weighed = _less_worse_ranks(_less_short_contexts(weighed, routing))
    weighed = _less_those_that_failed_it(weighed, routing)
    chosen = tuple(each for each, why, _ in weighed if why is None)
    out = tuple(
        Verdict(candidate=each, busy=each.engine.busy, reason=why)
        for each, why, _ in weighed
        if why is not None
    )
    temporary = any(temporary for _, _, temporary in weighed)
    if not chosen and not temporary:
        return Refuse(_no_engine(routing, out), out)
    return Filtered(chosen, out, temporary)


NOT_SHOWN = "it was not seen to go on with an answer"


def goes_on(engine: EngineReport, resumes: Resumes) -> bool:
    """Whether an engine may get the rest of an answer."""
    if engine.kind != "server":
        return True
    return engine.served is not None and resumes in engine.served.resumes


_Weighed = tuple[EngineCandidate, str | None, bool]
"""A candidate, why it is out, and whether that may change by itself."""


def _ruled_out(
    candidate: EngineCandidate, routing: RoutingRequest
) -> tuple[str | None, bool]:
    if (routing.tried or routing.left) and candidate.engine.state in {"ready", "busy"}:
        if candidate.incarnation in routing.tried:
            return "tried already", False
        if candidate.incarnation in routing.left and not routing.relents:
            return "it was left for a faster one", False
    if not serves(candidate.engine.variant, routing.floor):
        # Before what may pass: type and context stay the same once it has loaded.
        return f"{candidate.engine.variant} is not as good as {routing.floor}", False
    if routing.resumes and not goes_on(candidate.engine, routing.resumes):
        return NOT_SHOWN, False
    if candidate.context <= routing.too_short:
        return "its context is too short", False
    if candidate.unavailable:
        return candidate.unavailable, candidate.temporary
    return None, False


def _less_worse_ranks(weighed: list[_Weighed]) -> list[_Weighed]:
    """Rule out engines that failed lately, as long as others have not."""
    best = min((each.rank for each, why, _ in weighed if why is None), default=0)
    return [
        (each, why, temporary)
        if why is not None or each.rank == best
        else (each, "it failed a moment ago, and others did not", False)
        for each, why, temporary in weighed
    ]


def _less_those_that_failed_it(
    weighed: list[_Weighed], routing: RoutingRequest
) -> list[_Weighed]:
    """Rule out engines that failed it before a restart, where another has not yet.

    But not for ever: the other may be busy for long.
    """
    if routing.relents:
        return weighed
    failed = {incarnation[:2] for incarnation in routing.tried}
    if not any(why is None and each.key not in failed for each, why, _ in weighed):
        return weighed
    return [
        (each, "it failed this request before it started anew", False)
        if why is None and each.key in failed
        else (each, why, temporary)
        for each, why, temporary in weighed
    ]


def _less_short_contexts(
    weighed: list[_Weighed], routing: RoutingRequest
) -> list[_Weighed]:
    """Rule out contexts that look too short, unless no engine has a longer one.

    The length is an estimate; the engine with the longest context decides exactly.
    """
    longest = max(each.context for each, _, _ in weighed)
    wanted = min(routing.tokens, longest)
    return [
        (each, why, temporary)
        if each.context >= wanted
        else (
            each,
            f"its context of {each.context} tokens looks too short",
            False,
        )
        for each, why, temporary in weighed
    ]


def _no_engine(routing: RoutingRequest, out: Sequence[Verdict]) -> NoNode:
    reasons = "; ".join(
        f"{each.candidate.node}/{each.candidate.engine.variant}: {each.reason}"
        for each in out
    )
    return NoNode(
        f"no engine can serve {routing.model or routing.ability or 'this'} now:"
        f" {reasons}"
    )
