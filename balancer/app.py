"""Composition root of the balancer: its parts, in the order in which they start."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    closing,
    nullcontext,
)
from dataclasses import dataclass

from balancer.api.access import (
    AccessPolicy,
    access_policy,
    cors,
    greeting,
    host_check,
)
from balancer.api.admin import AdminRoutes
from balancer.api.client_tls import client_tls
from balancer.api.handling import inference_handler
from balancer.api.models.groups import GroupRoutes
from balancer.api.models.listing import ModelRoutes
from balancer.api.models.orders import OrderRoutes
from balancer.api.nodes import NodeRoutes
from balancer.clients.admission import Admission, admitting, local_admin
from balancer.clients.usage import counting
from balancer.dashboard.routes import dashboard_routes
from balancer.discovery.events import ReconnectPolicy, pace_of, watching
from balancer.discovery.hints import OnEvent
from balancer.discovery.joining import joining
from balancer.discovery.node_client import NodeClient
from balancer.discovery.registration import Registrations
from balancer.discovery.revocations import Revocations
from balancer.discovery.sources import discovering
from balancer.energy.sleepers import Sleepers, tending_sleepers
from balancer.lifecycle.loader import Loader, loading
from balancer.lifecycle.replicas.limits import FleetLimits
from balancer.lifecycle.replicas.wishes import wishes_of_limits
from balancer.lifecycle.scaling.live import FleetScaler
from balancer.ollama.inference import HANDLED, OllamaInference
from balancer.ollama.routes import OllamaRoutes
from balancer.persistence.handover import (
    Handover,
    clients_moved,
    handover_socket,
    offering,
)
from balancer.persistence.inheritance import follow_known, handed_over, take_over
from balancer.persistence.learned import file_in, remembering
from balancer.probes.calibration import calibrating
from balancer.probes.liveness import probing
from balancer.probes.waiting import telling
from balancer.servers.polling import Beside
from balancer.servers.reaching import reaching
from balancer.servers.registry import ServerRegistry
from balancer.state import BalancerState, build_state
from balancer.telemetry.recorder import Trace, tracing
from edgeserve import http
from edgeserve.config.paths import admin_key_file
from edgeserve.config.settings import EVERYWHERE, LOOPBACK, BalancerSettings
from edgeserve.http import Handoff
from edgeserve.http.channel.opening import FleetChannel
from edgeserve.http.types import Origin
from edgeserve.runtime.clock import ActiveClock
from edgeserve.runtime.log import say
from edgeserve.runtime.tasks import first

log = logging.getLogger(__name__)

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Balancer:
    """A running balancer, and where to reach it from this machine."""

    origin: Origin
    state: BalancerState
    loader: Loader
    leave: Handoff
    taken: asyncio.Event


@dataclass(frozen=True, kw_only=True)
class Tended:
    """What has engines loaded, and machines sleep, while the balancer runs."""

    loader: Loader
    sleepers: Sleepers


async def serve(
    settings: BalancerSettings, stop: asyncio.Event, handover: Handover | None = None
) -> None:
    """Serve until `stop` is set or another process takes over, then drain and leave.

    `handover`: what this process takes over itself. Raises SettingsError.
    """
    async with running(settings, say=say, handover=handover) as balancer:
        await first(stop, balancer.taken)
        in_flight = balancer.state.in_flight
        if balancer.taken.is_set():
            say(f"taken over: {counted(in_flight.inside)} end here")
            balancer.leave.begin()
            await clients_moved(balancer.leave, in_flight, stop, settings.drain_seconds)
        say(f"draining: {counted(in_flight.inside)} may end, no new ones")
        if not await in_flight.drained(settings.drain_seconds):
            log.warning("cut off: %s", counted(in_flight.inside))


def counted(count: int) -> str:
    """Say how many requests, in words."""
    return "1 request" if count == 1 else f"{count} requests"


@asynccontextmanager
async def running(
    settings: BalancerSettings,
    *,
    say: Callable[[str], None],
    pace: ReconnectPolicy | None = None,
    handover: Handover | None = None,
) -> AsyncGenerator[Balancer]:
    """Run a balancer for the length of the block. Raises SettingsError."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        clients = stack.enter_context(admitting(settings))
        access, tls = access_policy(settings, clients), client_tls(settings)
        shared, leave, taken = build_state(settings, say), Handoff(), asyncio.Event()
        trace = stack.enter_context(_recording(settings, shared))
        await enter(remembering(shared.predictive, file_in(settings.state_dir), taken))
        sock = handover.listening if handover else http.bind(access.host, settings.port)
        stack.enter_context(closing(sock))
        file = admin_key_file(settings.state_dir, sock.getsockname()[1])
        stack.enter_context(local_admin(clients, file, taken, inherits=bool(handover)))
        usage = await enter(counting(settings.state_dir))
        revoked = Revocations(settings.state_dir)
        channel = FleetChannel(access.tokens, revoked.nodes)
        pace = pace or pace_of(settings)
        reached = _reached(settings, shared, pace, channel if access.tokens else None)
        nodes, servers = await enter(reached)
        clock = stack.enter_context(closing(ActiveClock()))
        on_event = await enter(watching(shared.current, nodes, pace, clock))
        if handover:
            await follow_known(shared, take_over(shared, handover.learned), on_event)
        tended = await enter(_tending(settings, shared, nodes, on_event, taken))
        register = closing(Registrations(on_event, access.tokens))
        handling = inference_handler(
            settings, shared, nodes, clock, usage, trace, clients
        )
        handler = await enter(handling)
        changes = _changes(settings, shared, nodes, access, revoked, channel, tended)
        models = _models(settings, shared, clients, nodes, tended)
        api = AdminRoutes(
            state=shared,
            registrations=stack.enter_context(register),
            clients=clients,
            usage=usage,
            models=models,
            nodes=await enter(changes),
            servers=servers,
        )
        ollama = OllamaRoutes(models=models)
        watchdog = handler.retry.watchdog
        pages = dashboard_routes(api, ollama.root, watchdog, file, taken)
        port = await enter(
            http.listen(
                sock,
                OllamaInference(inner=handler, clients=clients, orders=models.orders),
                HANDLED.__contains__,
                [*api.routes(), *ollama.routes(), *pages],
                body_limit=settings.body_limit_mib * MIB,
                limits=http.limits_of(settings),
                admit=clients.check,
                check_host=host_check(settings, clients),
                cors=cors(settings, keys=bool(clients)),
                tls=tls.context if tls else None,
                leave=leave,
            )
        )
        origin = _reached_at(access.host, port, tls=tls is not None)
        if handover:
            handover.serving()
        say(greeting(settings, access, tls.note if tls else "", origin))
        await enter(_offering(settings, sock, shared, taken))
        await enter(discovering(settings, on_event, loopback_only=not access.tokens))
        yield Balancer(
            origin=origin, state=shared, loader=tended.loader, leave=leave, taken=taken
        )


@asynccontextmanager
async def _tending(
    settings: BalancerSettings,
    shared: BalancerState,
    nodes: NodeClient,
    on_event: OnEvent,
    taken: asyncio.Event,
) -> AsyncGenerator[Tended]:
    """Measure, probe and load engines, and let machines sleep, while the block runs."""
    async with AsyncExitStack() as stack:
        if settings.calibrate:
            await stack.enter_async_context(calibrating(shared, nodes))
        await stack.enter_async_context(probing(shared.breakers, nodes))
        await stack.enter_async_context(telling(shared, nodes))
        resting = tending_sleepers(shared, nodes, settings, on_event, taken)
        sleepers = await stack.enter_async_context(resting)
        loads = loading(shared, nodes, settings.queue_seconds)
        loader = await stack.enter_async_context(loads)
        yield Tended(loader=loader, sleepers=sleepers)


def _models(
    settings: BalancerSettings,
    shared: BalancerState,
    clients: Admission,
    nodes: NodeClient,
    tended: Tended,
) -> ModelRoutes:
    """Return the routes that list models, and change what is loaded."""
    limits = FleetLimits(settings.state_dir)
    loader = tended.loader
    tended.sleepers.least = lambda model: limits.bounds(model)[0]
    loader.wishes.append(lambda _: wishes_of_limits(shared.current, limits))
    if settings.autoscale:
        scaler = FleetScaler(shared, settings.wait_goal, loader.events, limits.bounds)
        loader.wishes.append(scaler.wishes)
    orders = OrderRoutes(
        state=shared, nodes=nodes, limits=limits, manages=clients.manager
    )
    groups = GroupRoutes(state=shared, forming=loader.groups, manages=clients.manager)
    return ModelRoutes(
        state=shared,
        clients=clients,
        orders=orders,
        groups=groups,
        events=loader.events,
    )


def _recording(
    settings: BalancerSettings, shared: BalancerState
) -> AbstractContextManager[Trace | None]:
    """Write a trace for the length of the block, if the settings ask for one."""
    if settings.record is None:
        return nullcontext()
    return tracing(settings.record, shared.key, shared.records.clock())


def _reached_at(host: str, port: int, *, tls: bool) -> Origin:
    return Origin(LOOPBACK if host == EVERYWHERE else host, port, tls)


def _reached(
    settings: BalancerSettings,
    shared: BalancerState,
    pace: ReconnectPolicy,
    channel: FleetChannel | None,
) -> AbstractAsyncContextManager[tuple[NodeClient, ServerRegistry]]:
    """Reach nodes and other servers; see `reaching`."""
    beside = Beside(shared.slot_counts, shared.predictive.fleet_model.servers)
    return reaching(settings, shared.current, pace, channel, beside)


def _offering(
    settings: BalancerSettings,
    sock: socket.socket,
    shared: BalancerState,
    taken: asyncio.Event,
) -> AbstractAsyncContextManager[None]:
    """Let another process take over; see `offering`."""
    path = handover_socket(settings.state_dir, sock.getsockname()[1])
    return offering(path, sock, lambda: handed_over(shared), taken)


@asynccontextmanager
async def _changes(
    settings: BalancerSettings,
    shared: BalancerState,
    nodes: NodeClient,
    access: AccessPolicy,
    revocations: Revocations,
    channel: FleetChannel,
    tended: Tended,
) -> AsyncGenerator[NodeRoutes]:
    """Hold the machines that ask to join; yields the routes that change nodes."""
    allowed, say = settings.approve, shared.current.say
    asking = joining(access.tokens, revocations.nodes, allowed=allowed, say=say)
    async with asking as requests:
        yield NodeRoutes(
            state=shared,
            nodes=nodes,
            requests=requests,
            revocations=revocations,
            manages=access.clients.manager,
            sweep=channel.sweep,
            sleepers=tended.sleepers,
        )
