"""Composition root of the node: its parts, in the order in which they start.

Whatever is missing leaves the node up, with the reason in its report and in the log.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing

from edgeserve.auth import Guard, is_loopback, read_token
from edgeserve.config.settings import EVERYWHERE, LOOPBACK, NodeSettings
from edgeserve.errors import SettingsError
from edgeserve.http import Origin, bind, limits_of, listen, upstream
from edgeserve.http.server.listening import (
    ALONE,
    ASKED_FOR,
    lines,
    shown_at,
    this_machine_only,
)
from edgeserve.http.types import Upstream, origin_of
from edgeserve.openai import ROUTES
from edgeserve.runtime.background import background, declared, failures
from edgeserve.runtime.log import say
from edgeserve.wire import EngineReport
from node.api.admin import routes
from node.api.inference import InferenceHandler
from node.discovery.announce import be_discoverable
from node.discovery.identity import identified, this_machine
from node.hardware.sample import Sampler, first, measuring
from node.planning.plan import PlannedEngine
from node.planning.prepare import Prepared, prepared, standby
from node.state import NodeState
from node.supervision.restart import StartupFallbacks
from node.supervision.run import supervised
from node.supervision.supervisor import Supervisor

log = logging.getLogger(__name__)

ENGINES = declared("engines")


@asynccontextmanager
async def run_engines(
    state: NodeState, settings: NodeSettings, upstream: Upstream
) -> AsyncGenerator[None]:
    """Run every engine while the block runs, which begins before they are ready.

    Reading model files and trying llama.cpp takes seconds on a slow card, so it happens
    behind the block's back.
    """
    async with background() as tasks:
        tasks.start(ENGINES, lambda: _host(state, settings, upstream))
        yield


async def _host(state: NodeState, settings: NodeSettings, upstream: Upstream) -> None:
    found = await asyncio.to_thread(prepared, settings, state.hardware.latest)
    for problem in found.plan.problems:
        log.warning("%s", problem)
    state.problems = found.plan.problems
    for each in found.plan.engines:
        if each.tuning and (each.fitted.tuned or each.tuning.failed):
            log.info("%s: %s", each.spec.id, each.tuning.summary)
        if other := found.others.get(each.spec.id):
            log.warning("%s: %s", each.spec.id, other.why)
    async with AsyncExitStack() as stack:
        supervisors: list[Supervisor] = []
        for each in found.plan.engines:
            remedies = _remedies(found, each, settings, state)
            engine, changed = found.engine_of(each), _teller(state, each.spec.id)
            one = supervised(
                engine, each.spec, settings, upstream, changed, remedies=remedies
            )
            supervisors.append(await stack.enter_async_context(one))
        state.serve(supervisors)
        await asyncio.Event().wait()  # until the block ends


def _remedies(
    found: Prepared, placed: PlannedEngine, settings: NodeSettings, state: NodeState
) -> StartupFallbacks:
    other = found.others.get(placed.spec.id)
    ways = standby(found, placed, settings, state.hardware.latest)
    return StartupFallbacks(ways, other.why if other else None)


def _teller(state: NodeState, id_: str) -> Callable[[], None]:
    return lambda: state.feed.engine_changed(id_)


ANSWERING = frozenset(("ready", "busy"))
STARTING = frozenset(("loading",))

READY = declared("ready line", "on-failure")


@asynccontextmanager
async def saying_when_ready(
    state: NodeState, url: str, say: Callable[[str], None]
) -> AsyncGenerator[None]:
    """Say the line, once, as soon as no engine is still loading and one answers."""
    async with background() as tasks:
        tasks.start(READY, lambda: _wait(state, url, say))
        yield


async def _wait(state: NodeState, url: str, say: Callable[[str], None]) -> None:
    async with aclosing(state.feed.follow()) as news:
        async for _ in news:
            if said := line(state.name, url, state.engines().values()):
                say(said)
                return


def line(name: str, url: str, engines: Iterable[EngineReport]) -> str | None:
    """Name what is served, or return None while there is more to come. Pure."""
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


CONNECT_SECONDS = 5.0
MIB = 2**20


async def serve(settings: NodeSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drain and leave. What starts first stops last."""
    token = read_token(settings.token_file)
    host = address(settings, token)
    check_balancers(settings, host)
    guard = Guard([token] if token else [], "the fleet token is")
    async with AsyncExitStack() as stack:
        identity = stack.enter_context(identified(settings.state_dir, this_machine()))
        sock = stack.enter_context(closing(bind(host, settings.port)))
        ask = await stack.enter_async_context(upstream(connect_seconds=CONNECT_SECONDS))
        sample = Sampler()
        state = NodeState(
            name=settings.name,
            identity=identity,
            instance=secrets.token_hex(8),
            hardware=await first(sample),
        )
        stack.enter_context(failures.heard_by(state.feed.report_changed))
        await stack.enter_async_context(
            measuring(state.hardware, sample, state.feed.report_changed)
        )
        await stack.enter_async_context(run_engines(state, settings, ask))
        state.port = await stack.enter_async_context(
            listen(
                sock,
                InferenceHandler(state, ask, guard),
                ROUTES.__contains__,
                routes(state, guard),
                body_limit=settings.body_limit_mib * MIB,
                limits=limits_of(settings),
                admit=guard.check,
            )
        )
        stack.callback(state.feed.close)
        await stack.enter_async_context(drained(state, settings.drain_seconds))
        listening = Origin(sock.getsockname()[0], state.port)
        await stack.enter_async_context(
            be_discoverable(state, settings, listening, ask, token)
        )
        say(lines(listening.host, state.port, who(settings, host, token)))
        url = Origin(shown_at(listening.host)[0], state.port).url
        await stack.enter_async_context(saying_when_ready(state, url, say))
        await stop.wait()
        state.leave()
        say("draining: running requests may end, no new ones")


def address(settings: NodeSettings, token: str | None) -> str:
    """Return where to listen; past loopback only with a fleet token."""
    if settings.host is None:
        return EVERYWHERE if token else LOOPBACK
    if token is None and not is_loopback(settings.host):
        raise SettingsError(
            f"node.host is {settings.host}, which others can reach, and there is no"
            " fleet token; make one with `edgeserve token new`"
        )
    return settings.host


def who(settings: NodeSettings, host: str, token: str | None) -> str:
    """Say who may come to where we listen, and what lets others in. Pure."""
    if not is_loopback(host):
        return "balancers that have the fleet token"
    return this_machine_only(ASKED_FOR if settings.host and token else ALONE)


def check_balancers(settings: NodeSettings, host: str) -> None:
    """Refuse to register where nobody could follow: past loopback, from loopback."""
    for url in () if settings.announce_url else settings.balancers:
        if is_loopback(host) and not is_loopback(origin_of(url, 0).host):
            raise SettingsError(
                f"{url} cannot reach this node, which listens on {host} alone; a fleet"
                " token (`edgeserve token new`) opens it to others"
            )


@asynccontextmanager
async def drained(state: NodeState, seconds: float) -> AsyncGenerator[None]:
    """At the end of the block, let running requests finish for so many seconds."""
    yield
    state.leave()
    try:
        async with asyncio.timeout(seconds):
            for supervisor in state.supervisors:
                await supervisor.drained()
    except TimeoutError:
        log.warning("cutting off what still runs after %g s", seconds)
