"""Composition root of the node: its parts, in the order in which they start.

When a part is missing, the node still runs, with the reason in its report and log.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from functools import partial

from edgeserve.config.paths import admin_key_file
from edgeserve.config.settings import EVERYWHERE, LOOPBACK, NodeSettings
from edgeserve.errors import SettingsError
from edgeserve.http import Origin, bind, limits_of, listen, upstream
from edgeserve.http.channel.accepting import Proving
from edgeserve.http.channel.opening import FleetChannel
from edgeserve.http.listening import (
    ALONE,
    ASKED_FOR,
    lines,
    shown_at,
    this_machine_only,
)
from edgeserve.http.types import Handler, Upstream, origin_set
from edgeserve.network import own_names
from edgeserve.openai import ROUTES
from edgeserve.runtime.background import background, declared, failures
from edgeserve.security.certificates import fleet_context
from edgeserve.security.hosts import HostCheck
from edgeserve.security.tokens import FleetTokens, Guard, is_loopback
from edgeserve.wire import EngineReport
from node.adoption.finding import finding
from node.adoption.places import ServerPlace, places
from node.api.admin import routes
from node.api.caches import CacheRoutes
from node.api.files import BEGIN, FileHandler, FindFile
from node.api.inference import InferenceHandler
from node.api.orders import order_routes
from node.api.pulls import PullRoutes
from node.api.removal import removal_routes
from node.api.servers import RELAY, ServerRelay
from node.caches.running import caching, settled
from node.caches.slots import SlotCaches
from node.discovery.announce import be_discoverable
from node.discovery.client import FleetClient
from node.discovery.identity import identified, this_machine
from node.hardware.sample import LatestHardware, Sampler, measuring
from node.kept_log import keeping
from node.pulls.running import pulling
from node.shelf import run_engines
from node.state import NodeState

log = logging.getLogger(__name__)

ANSWERING = frozenset(("ready", "busy"))
STARTING = frozenset(("loading",))

READY = declared("ready line", "on-failure")


@asynccontextmanager
async def announcing_readiness(
    state: NodeState, url: str, say: Callable[[str], None]
) -> AsyncGenerator[None]:
    """Print one line as soon as no engine is loading and at least one is ready."""
    async with background() as tasks:
        tasks.start(READY, lambda: _wait(state, url, say))
        yield


async def _wait(state: NodeState, url: str, say: Callable[[str], None]) -> None:
    async with aclosing(state.feed.follow()) as news:
        async for _ in news:
            if text := ready_line(state.name, url, state.engines().values()):
                say(text)
                return


def ready_line(name: str, url: str, engines: Iterable[EngineReport]) -> str | None:
    """Return what is served, or None while an engine is loading. Pure."""
    engines = tuple(engines)
    if any(each.state in STARTING for each in engines):
        return None
    answering = [each for each in engines if each.state in ANSWERING]
    if not answering:
        return None
    served = ", ".join(f"{each.id} ({_slots(each.slots)})" for each in answering)
    return f"{name} at {url} serves {served}"


def _slots(number: int) -> str:
    return f"{number} slot" if number == 1 else f"{number} slots"


PIPED = (BEGIN, RELAY)
"""What paths begin with whose answers are passed on as they come."""

CONNECT_SECONDS = 5.0
MIB = 2**20


async def serve(settings: NodeSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drain. The parts stop in reverse order."""
    tokens = FleetTokens(settings.token_file)
    host = address(settings, joined=bool(tokens))
    check_balancers(settings, host)
    guard = Guard((), "")
    instance = secrets.token_hex(8)
    async with AsyncExitStack() as stack:
        kept = stack.enter_context(keeping(instance))
        identity = stack.enter_context(identified(settings.state_dir, this_machine()))
        sock = stack.enter_context(closing(bind(host, settings.port)))
        ask = await stack.enter_async_context(upstream(connect_seconds=CONNECT_SECONDS))
        client = await stack.enter_async_context(fleet_client(tokens))
        sample = Sampler()
        state = NodeState(
            name=settings.name,
            identity=identity,
            instance=instance,
            hardware=LatestHardware(await asyncio.to_thread(sample)),
        )
        stack.enter_context(failures.subscribed(state.feed.report_changed))
        await stack.enter_async_context(
            measuring(state.hardware, sample, state.feed.report_changed)
        )
        caches = await stack.enter_async_context(
            caching(state, settings, ask, client.nodes)
        )
        orders = await stack.enter_async_context(run_engines(state, settings, ask))
        pulls = await stack.enter_async_context(
            pulling(settings, client.nodes, lambda: identity.id, state.pulled)
        )
        state.port = await stack.enter_async_context(
            listen(
                sock,
                _handler(state, ask, guard, (pulls.library.path, caches.path)),
                lambda path: path in ROUTES or path.startswith(PIPED),
                [
                    *routes(state, guard, kept),
                    *order_routes(orders, guard),
                    *PullRoutes(pulls.jobs, pulls.library, guard).routes(),
                    *removal_routes(state, settings.models_dir, guard, caches.store),
                    *CacheRoutes(caches, guard).routes(),
                ],
                body_limit=settings.body_limit_mib * MIB,
                limits=limits_of(settings),
                admit=guard.check,
                check_host=HostCheck(own_names(), applies=lambda: not tokens),
                tls=(lambda: identity.context) if tokens else None,
                greeting=Proving(tokens, identity.shown) if tokens else None,
            )
        )
        stack.callback(state.feed.close)
        await stack.enter_async_context(
            finding(places(settings), ask, state.adopt, partial(_ours, state, settings))
        )
        await stack.enter_async_context(drained(state, caches, settings.drain_seconds))
        listening = Origin(sock.getsockname()[0], state.port, tls=bool(tokens))
        await stack.enter_async_context(
            be_discoverable(state, settings, listening, client)
        )
        who = allowed_clients(settings, host, joined=bool(tokens))
        kept.say(lines(listening, who))
        url = Origin(shown_at(listening.host)[0], state.port, tls=bool(tokens)).url
        await stack.enter_async_context(announcing_readiness(state, url, kept.say))
        await stop.wait()
        state.leave()
        kept.say("draining: running requests may finish, new ones are refused")


def _handler(
    state: NodeState, ask: Upstream, guard: Guard, find: Sequence[FindFile]
) -> Handler:
    """Answer for files, for servers of other programs and for engines."""
    engines = InferenceHandler(state, ask, guard)
    return FileHandler(find, guard, ServerRelay(state, ask, guard, engines))


def _ours(state: NodeState, settings: NodeSettings, place: ServerPlace) -> str:
    """Say which process of ours listens at a place, "" for none."""
    port = place.origin.port
    engines = (each.origin.port for each in (*state.supervisors, *state.leaving))
    if port == state.port or port in engines:
        return "this node's own"
    # A balancer that was killed leaves its file behind.
    if not place.named and admin_key_file(settings.state_dir, port).exists():
        return "a balancer's of this machine; if not, name it with --adopt-url"
    return ""


@asynccontextmanager
async def fleet_client(tokens: FleetTokens) -> AsyncGenerator[FleetClient]:
    """Hold the connections to balancers and to other nodes."""
    async with (
        upstream(connect_seconds=CONNECT_SECONDS, tls=fleet_context()) as balancers,
        upstream(
            connect_seconds=CONNECT_SECONDS,
            channel=FleetChannel(tokens) if tokens else None,
        ) as nodes,
    ):
        yield FleetClient(balancers=balancers, nodes=nodes, tokens=tokens)


def address(settings: NodeSettings, *, joined: bool) -> str:
    """Return the address to listen on; beyond loopback only with a fleet token."""
    if settings.host is None:
        return EVERYWHERE if joined else LOOPBACK
    if not joined and not is_loopback(settings.host):
        raise SettingsError(
            f"node.host is {settings.host}, which other machines can reach, and"
            " there is no fleet token; make one with `edgeserve token new`"
        )
    return settings.host


def allowed_clients(settings: NodeSettings, host: str, *, joined: bool) -> str:
    """Return who may use the listening port, for the start message. Pure."""
    if not is_loopback(host):
        return "balancers that have the fleet token"
    return this_machine_only(ASKED_FOR if settings.host and joined else ALONE)


def check_balancers(settings: NodeSettings, host: str) -> None:
    """Raise SettingsError for a balancer that cannot reach a loopback address."""
    for url in () if settings.announce_url else settings.balancers:
        if is_loopback(host) and not is_loopback(origin_set(url, 0, "--balancer").host):
            raise SettingsError(
                f"{url} cannot reach this node, which listens on {host} only; with the"
                f" fleet's token (`edgeserve join {url}` asks for it) it listens for"
                " other machines"
            )


@asynccontextmanager
async def drained(
    state: NodeState, caches: SlotCaches, seconds: float
) -> AsyncGenerator[None]:
    """At the end of the block, give running requests `seconds` to finish.

    What slots hold may move to other nodes meanwhile.
    """
    yield
    state.leave()
    try:
        async with asyncio.timeout(seconds):
            for supervisor in (*state.supervisors, *state.leaving):
                await supervisor.drained()
            await state.relayed.drained()
            await settled(caches, state)
    except TimeoutError:
        log.warning("cutting off requests that still run after %g s", seconds)
