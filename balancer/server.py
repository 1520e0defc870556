"""The balancer as a list of context managers, in the order in which it starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass

import click

from balancer.api import Api
from balancer.current import Current
from balancer.discover import discovering
from balancer.doorkeeper import Doorkeeper
from balancer.exposure import listening_host
from balancer.front import Front, handled
from balancer.ledger import Ledger
from balancer.metrics import Metrics
from balancer.record import Records
from balancer.register import Register
from balancer.schedule import choose
from balancer.waiting import WaitingRoom
from balancer.watch import Pace, pace_of, watching
from edgeserve import relay
from edgeserve.auth import Guard, read_api_keys, read_token
from edgeserve.config import EVERYWHERE, LOOPBACK, BalancerSettings
from edgeserve.relay.upstream import Origin

log = logging.getLogger(__name__)

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Balancer:
    """A running balancer: where it listens, and its parts that others may ask."""

    origin: Origin
    current: Current
    room: WaitingRoom
    doorkeeper: Doorkeeper


async def serve(settings: BalancerSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drain and leave. Raises SettingsError."""
    async with running(settings, say=click.echo) as balancer:
        await stop.wait()
        click.echo("draining: no new requests; those that run may end")
        if not await balancer.doorkeeper.drained(settings.drain_seconds):
            log.warning("%d requests were cut off", balancer.doorkeeper.inside)


@asynccontextmanager
async def running(
    settings: BalancerSettings,
    *,
    say: Callable[[str], None],
    pace: Pace | None = None,
) -> AsyncGenerator[Balancer]:
    """Run a balancer for the length of the block. Raises SettingsError."""
    token = read_token(settings.token_file)
    api_keys = read_api_keys(settings.api_key_file)
    host = listening_host(
        settings.host,
        token=token is not None,
        api_keys=bool(api_keys),
        anonymous=settings.anonymous,
    )
    current, ledger, doorkeeper = Current(say), Ledger(), Doorkeeper()
    records, metrics = Records(), Metrics()
    room = WaitingRoom(
        lambda need, busy: choose(current.candidates, need, busy),
        ledger,
        limit=settings.queue,
        seconds=settings.queue_seconds,
    )
    current.listen(lambda: ledger.told(current.candidates))
    current.listen(room.changed)
    clients = Guard(() if settings.anonymous else api_keys, "API key")
    async with (
        relay.upstream(connect_seconds=settings.connect_seconds) as upstream,
        watching(current, upstream, token, pace or pace_of(settings)) as on_event,
    ):
        front = Front(
            current=current,
            room=room,
            upstream=upstream,
            guard=clients,
            token=token,
            attempts=settings.attempts,
            records=records,
            metrics=metrics,
            doorkeeper=doorkeeper,
        )
        with closing(Register(on_event)) as register:
            api = Api(
                current=current,
                room=room,
                doorkeeper=doorkeeper,
                records=records,
                metrics=metrics,
                register=register,
                clients=clients,
                nodes_guard=Guard((token,) if token else (), "fleet token"),
            )
            async with relay.listen(
                relay.bound(host, settings.port),
                front,
                handled,
                api.routes(),
                body_limit=settings.body_limit_mib * MIB,
            ) as port:
                origin = Origin(LOOPBACK if host == EVERYWHERE else host, port)
                say(f"listening on {origin.url}")
                async with discovering(settings, on_event, loopback_only=token is None):
                    yield Balancer(
                        origin=origin,
                        current=current,
                        room=room,
                        doorkeeper=doorkeeper,
                    )
