"""Inference routes: choose an engine, hold a slot, pass bytes both ways."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from edgeserve.errors import BadRequest, Draining, NoNode, UnknownModel, WrongMethod
from edgeserve.http.types import Answer, Request, Response, Upstream
from edgeserve.openai import ROUTES, Route, asking, names_of, normal, read
from edgeserve.security.tokens import Guard
from edgeserve.wire import (
    BALANCER_HEADER,
    REQUEST_HEADER,
    VARIANT_HEADER,
    Ability,
    EngineReport,
)
from node.state import NodeState
from node.supervision.supervisor import Supervisor

log = logging.getLogger(__name__)

STATE_ORDER = (
    *("ready", "busy", "loading", "absent", "leaving"),
    *("stuck", "failed", "quarantined"),
)
"""States of engines, the best first."""


def by_name(
    engines: Sequence[EngineReport], name: str, needs: Ability | None
) -> EngineReport:
    """Return the engine whose id, variant or model is `name`; "" means the only one.

    Of several, the one with the largest share of idle slots. Raises UnknownModel, or
    BadRequest where the model lacks the ability that the route `needs`.
    """
    if not engines:
        raise NoNode("this node serves no model")
    if not name:
        return _only(engines, needs)
    wanted = normal(name)
    named = [each for each in engines if name == each.id or wanted in names_of(each)]
    if not named:
        raise UnknownModel(name, known(engines))
    able = [each for each in named if _can(each, needs)]
    if not able:
        can = sorted({ability for each in named for ability in each.abilities})
        raise BadRequest(f"{name!r} is served for {', '.join(can)}, not for {needs}")
    return min(able, key=_rank)


def known(engines: Iterable[EngineReport]) -> list[str]:
    """List the models and variants, as clients may name them."""
    return sorted({name for each in engines for name in (each.model, each.variant)})


def _only(engines: Sequence[EngineReport], needs: Ability | None) -> EngineReport:
    able = [each for each in engines if _can(each, needs)]
    able = [each for each in able if each.state != "absent"] or able
    models = sorted({each.model for each in able})
    if not models:
        raise BadRequest(f"no model here is served for {needs}")
    if len(models) > 1:
        raise BadRequest(f"name the `model`, one of {', '.join(models)}")
    return min(able, key=_rank)


def _can(engine: EngineReport, needs: Ability | None) -> bool:
    return needs is None or needs in engine.abilities


def _rank(engine: EngineReport) -> tuple[int, float, str]:
    share = engine.busy / engine.slots if engine.slots else 1.0
    return STATE_ORDER.index(engine.state), share, engine.id


NOT_SENT = frozenset(
    ("authorization", "x-api-key", "cookie", "origin", "x-conversation-id",
     "accept", "accept-encoding", "range", "if-range", VARIANT_HEADER,
     BALANCER_HEADER)
)  # fmt: skip
"""Header fields that are not sent to an engine. With `X-Conversation-Id` a generation
goes on after its client has left; with `Origin` the engine lets pages of any origin
read the answer. It does not use `Accept` and `Range`, but refuses values that it cannot
parse."""

FIELD_BYTES = 8000
MOST_FIELDS = 90
"""llama.cpp refuses, without a reason, longer fields and a hundred fields."""


class InferenceHandler:
    """The handler of every route that reaches an engine."""

    def __init__(self, state: NodeState, upstream: Upstream, guard: Guard) -> None:
        self._state = state
        self._upstream = upstream
        self._guard = guard

    async def __call__(self, request: Request, reply: Response) -> None:
        """Answer one request. Cancelling it closes the engine's connection at once."""
        self._guard.check(request.headers)
        route = ROUTES[request.path]
        if request.method != route.method:
            raise WrongMethod(request.method, request.path, [route.method])
        if self._state.draining:
            raise Draining
        supervisor, body = self._chosen(request, route)
        name = request.headers.get(REQUEST_HEADER, "a request")
        log.debug("%s: %s to %s", name, request.path, supervisor.spec.id)
        by = request.headers.get(BALANCER_HEADER, "")
        with supervisor.claim(by, beside=not route.slot):
            async with self._upstream.ask(
                supervisor.origin,
                route.method,
                request.target,
                _to_engine(request, supervisor.api_key),
                body,
            ) as answer:
                await _pass(answer, reply)

    def _chosen(self, request: Request, route: Route) -> tuple[Supervisor, bytes]:
        """Return the engine that the header, or else the body, names, and the body."""
        name, body = request.headers.get(VARIANT_HEADER), request.body
        if name is None:
            asked, body = read(asking(route, request.query, body))
            name = asked.model or ""
        sent = body if route.method == "POST" else b""
        return self._named(name, route.needs), sent

    def _named(self, name: str, needs: Ability | None) -> Supervisor:
        # Balancers name the id; then there is no need to look at every engine.
        supervisor = self._state.supervisor(name)
        if supervisor is not None and _can(supervisor.report, needs):
            return supervisor
        chosen = by_name(tuple(self._state.engines().values()), name, needs)
        supervisor = self._state.supervisor(chosen.id)
        if supervisor is None:
            raise NoNode(f"{chosen.variant} is not loaded here: {chosen.reason}")
        return supervisor


def _to_engine(request: Request, api_key: str) -> dict[str, str]:
    passed = {
        name: value
        for name, value in request.headers.items()
        if name not in NOT_SENT and len(name) + len(value) < FIELD_BYTES
    }
    if len(passed) > MOST_FIELDS:
        passed = dict(list(passed.items())[:MOST_FIELDS])
    return {**passed, "authorization": f"Bearer {api_key}"}


async def _pass(answer: Answer, reply: Response) -> None:
    if "content-length" in answer.headers:
        await reply.send(answer.status, answer.headers, await answer.read())
        return
    await reply.start(answer.status, answer.headers)
    await answer.pump(reply, unseen)
    await reply.finish()


def unseen(data: bytes) -> None:
    """Observe nothing: the bytes pass unchanged."""
