"""The agent: what a node is made of, in the order in which it starts."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, closing

from edgeserve.auth import Guard, is_loopback, read_token
from edgeserve.background import failures
from edgeserve.config import EVERYWHERE, LOOPBACK, NodeSettings
from edgeserve.errors import SettingsError
from edgeserve.listening import ALONE, ASKED_FOR, lines, shown_at, this_machine_only
from edgeserve.relay import Origin, bound, limits_of, listen, upstream
from edgeserve.relay.upstream import origin_of
from edgeserve.saying import say
from node.api import routes
from node.front import Front, handled
from node.hardware import Sampler, first, measuring
from node.hosting import hosted
from node.identity import identified
from node.machine import this_machine
from node.presence import present
from node.ready import saying_when_ready
from node.state import NodeState

log = logging.getLogger(__name__)

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
        sock = stack.enter_context(closing(bound(host, settings.port)))
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
        await stack.enter_async_context(hosted(state, settings, ask))
        state.port = await stack.enter_async_context(
            listen(
                sock,
                Front(state, ask, guard),
                handled,
                routes(state, guard),
                body_limit=settings.body_limit_mib * MIB,
                limits=limits_of(settings),
                admit=guard.check,
            )
        )
        stack.callback(state.feed.close)
        await stack.enter_async_context(drained(state, settings.drain_seconds))
        listening = Origin(sock.getsockname()[0], state.port)
        await stack.enter_async_context(present(state, settings, listening, ask, token))
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
