"""No request of a client's makes the balancer break: every route, every odd shape."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.api.admin import AdminRoutes
from balancer.api.models.groups import GroupRoutes
from balancer.api.models.listing import ModelRoutes
from balancer.api.models.orders import OrderRoutes
from balancer.api.nodes import NodeRoutes
from balancer.clients.admission import admitting
from balancer.clients.store import store_in
from balancer.clients.usage import ClientUsage
from balancer.discovery.registration import Registrations
from balancer.lifecycle.events import LifecycleEvents
from balancer.lifecycle.replicas.limits import FleetLimits
from balancer.state import build_state
from edgeserve.config.settings import BalancerSettings
from edgeserve.openai import ROUTES
from tests.balancer.endpoint import endpoint
from tests.edgeserve.http.odd import TARGETS, answers, odd, request
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.fakes.tokens import GivenTokens


def own() -> list[tuple[str, str]]:
    """Ask the table of routes; the event stream is left out, as it never ends."""
    settings = BalancerSettings()
    with admitting(settings) as clients:
        state = build_state(settings, print)
        nodes: Any = NodeRoutes(
            state=state,
            nodes=None,  # type: ignore[arg-type]  # never asked
            requests=None,  # type: ignore[arg-type]  # never asked
            revocations=None,  # type: ignore[arg-type]
            manages=clients.manager,
            sweep=lambda: None,
            sleepers=None,  # type: ignore[arg-type]  # never asked
        )
        models = ModelRoutes(
            state=state,
            clients=clients,
            orders=OrderRoutes(
                state=state,
                nodes=None,  # type: ignore[arg-type]  # never asked
                limits=FleetLimits(settings.state_dir),
                manages=clients.manager,
            ),
            groups=GroupRoutes(
                state=state,
                forming=None,  # type: ignore[arg-type]  # never asked
                manages=clients.manager,
            ),
            events=LifecycleEvents(),
        )
        api = AdminRoutes(
            state=state,
            registrations=Registrations(lambda _: None, GivenTokens()),
            clients=clients,
            usage=ClientUsage(store_in(settings.state_dir)),
            models=models,
            nodes=nodes,
            servers=None,  # type: ignore[arg-type]  # never asked
        )
        routes = [(each.method, each.path) for each in api.routes()]
        return [each for each in routes if each[1] != "/edgeserve/v1/events"]


@pytest.mark.parametrize(("method", "path"), own())
async def test_a_page_of_ours_answers_whatever_comes(method: str, path: str) -> None:
    path = path.replace("{", "").replace("}", "")
    async with endpoint() as balancer:
        unfit = await answers(balancer.balancer.origin.port, odd(method, path))

    assert unfit == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize"])
async def test_an_engines_route_answers_whatever_comes(path: str) -> None:
    async with fake_node("pi", Behaviour()) as node, endpoint(node) as balancer:
        unfit = await answers(balancer.balancer.origin.port, odd("POST", path))

    assert unfit == []


async def test_every_engines_route_answers_an_odd_body() -> None:
    shapes = [request("POST", path, body=b"[" * 9_000) for path in ROUTES]
    shapes += [request("POST", path, body=b'{"model":"\\ud800"}') for path in ROUTES]
    shapes += [request("GET", path + "?%0d%0a") for path in ROUTES]
    async with fake_node("pi", Behaviour()) as node, endpoint(node) as balancer:
        unfit = await answers(balancer.balancer.origin.port, shapes)

    assert unfit == []


async def test_an_odd_target_is_answered() -> None:
    async with endpoint() as balancer:
        port = balancer.balancer.origin.port
        unfit = await answers(port, [request("GET", each) for each in TARGETS])

    assert unfit == []
