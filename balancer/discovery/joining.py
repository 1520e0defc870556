"""Joining: machines without the fleet token that ask this balancer to let them in.

The request comes by plain HTTP and holds no secret. The balancer connects by TLS to
the address that it came from, and exchanges nonces; see `edgeserve.security.join`. The
connection waits until a person approves or denies, and then carries the fleet token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from edgeserve.errors import EdgeserveError, FleetBusy, SettingsError, in_words
from edgeserve.http.channel.proved import Revoked
from edgeserve.http.types import Origin
from edgeserve.runtime.background import Started, Tasks, background, declared
from edgeserve.security.certificates import (
    SERVER_NAME,
    fleet_context,
    id_of,
    peer_fingerprint,
)
from edgeserve.security.join import (
    APPROVED,
    DENIED,
    EXPIRED,
    NONCE,
    RECEIVED,
    BalancerJoin,
    JoinError,
    verdict,
)
from edgeserve.security.registration import JoinRequest
from edgeserve.security.tokens import FleetTokens

WAIT_SECONDS = 900.0
"""How long a machine waits for approval."""

MEET_SECONDS = 10.0
"""How long the exchange may take, and the delivery of the token."""

MOST = 16
"""Machines that wait at once."""

MOST_AT_ONCE = 4
"""Exchanges at once."""

PAUSE_SECONDS = 2.0
"""Least time between two requests of one address."""

REMEMBERED = 1024
"""Addresses whose latest request is remembered."""

WAITING = declared("join request", "never")


class JoinRefused(EdgeserveError):
    """The machine cannot join, or not in this way."""

    status = 409
    code = "join_refused"
    kind = "invalid_request_error"


NO_FLEET = (
    "this balancer has no fleet token, so that there is no fleet to join; run"
    " `edgeserve token new` there, and start it again with --approve"
)
NO_APPROVAL = (
    "this balancer does not let machines ask to join; start it with --approve, or copy"
    " the fleet token to this machine"
)
KEPT_OUT = "this machine was revoked; `edgeserve nodes allow {}` lets it in again"


@dataclass(eq=False, kw_only=True)
class AskingNode:
    """A machine that waits for approval, and the connection to it."""

    id: str
    name: str
    origin: Origin
    code: str
    reader: asyncio.StreamReader = field(repr=False)
    writer: asyncio.StreamWriter = field(repr=False)
    received: asyncio.Future[bool] = field(repr=False)
    task: Started | None = field(default=None, repr=False)


class JoinRequests:
    """The machines that wait for approval, by id."""

    def __init__(
        self,
        tokens: FleetTokens,
        tasks: Tasks,
        revoked: Revoked,
        *,
        allowed: bool,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens, self._tasks, self._revoked = tokens, tasks, revoked
        self._allowed, self._say, self._clock = allowed, say, clock
        self._context = fleet_context()
        self._waiting: dict[str, AskingNode] = {}
        self._latest: dict[str, float] = {}
        self._meeting = 0

    @property
    def waiting(self) -> tuple[AskingNode, ...]:
        """The machines that wait, in order of arrival."""
        return tuple(self._waiting.values())

    async def ask(self, peer: str, request: JoinRequest) -> None:
        """Meet a machine that asks from the address `peer`, and keep it waiting.

        Raises JoinRefused, FleetBusy.
        """
        self._check(peer, request)
        self._meeting += 1
        try:
            async with asyncio.timeout(MEET_SECONDS):
                node = await self._met(peer, request)
        except TimeoutError as error:
            where = Origin(peer, request.port, tls=True).url
            raise JoinRefused(f"{where} cannot be reached from the balancer") from error
        finally:
            self._meeting -= 1
        self._keep(node)

    def _check(self, peer: str, request: JoinRequest) -> None:
        if not self._tokens:
            raise JoinRefused(NO_FLEET)
        if not self._allowed:
            raise JoinRefused(NO_APPROVAL)
        if request.id in self._revoked():
            raise JoinRefused(KEPT_OUT.format(request.id))
        now, before = self._clock(), self._latest.get(peer)
        if before is not None and now - before < PAUSE_SECONDS:
            raise FleetBusy(2, "this address has asked to join a moment ago")
        others = [each for each in self.waiting if each.origin.host != peer]
        if len(others) >= MOST or self._meeting >= MOST_AT_ONCE:
            raise FleetBusy(60, "too many machines ask to join at once")
        self._latest.pop(peer, None)
        if len(self._latest) >= REMEMBERED:
            del self._latest[next(iter(self._latest))]
        self._latest[peer] = now

    async def _met(self, peer: str, request: JoinRequest) -> AskingNode:
        """Connect, and exchange nonces."""
        origin = Origin(peer, request.port, tls=True)
        try:
            reader, writer = await asyncio.open_connection(
                *(peer, request.port),
                ssl=self._context,
                server_hostname=SERVER_NAME,
            )
        except OSError as error:
            raise JoinRefused(
                f"the balancer cannot connect to {origin.url}: {in_words(error)}"
            ) from error
        try:
            code = await _code(reader, writer, request)
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, JoinError | OSError | EOFError):
                why = f"what answers at {origin.url} does not keep to the exchange"
                raise JoinRefused(why) from error
            raise
        return AskingNode(
            id=request.id,
            name=_plain(request.name),
            origin=origin,
            code=code,
            reader=reader,
            writer=writer,
            received=asyncio.get_running_loop().create_future(),
        )

    def _keep(self, node: AskingNode) -> None:
        """Let it wait; a new request replaces the earlier one of an address."""
        for each in self.waiting:
            if each.origin.host == node.origin.host or each.id == node.id:
                self.deny(each)
        self._waiting[node.id] = node
        node.task = self._tasks.start(WAITING, lambda: self._wait(node), node.name)
        # Also where the task is cancelled before it begins.
        node.task.task.add_done_callback(lambda _: self._end(node))
        self._say(
            f"{node.name} at {node.origin.host} asks to join with code {node.code};"
            f" where it shows the same, `edgeserve nodes approve {node.id[:8]}`"
        )

    async def _wait(self, node: AskingNode) -> None:
        """Wait until it has the token, leaves, or its time is over."""
        with suppress(OSError):
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    got = await node.reader.read(1)
            except TimeoutError:
                node.writer.write(verdict(EXPIRED))
            else:
                if not node.received.done():
                    node.received.set_result(got == RECEIVED)

    def _end(self, node: AskingNode) -> None:
        if self._waiting.get(node.id) is node:
            del self._waiting[node.id]
        if not node.received.done():
            node.received.set_result(False)
        node.writer.close()

    async def approve(self, node: AskingNode, code: str) -> None:
        """Send the machine the fleet token; `code` was compared. Raises JoinRefused."""
        if code != node.code:
            raise JoinRefused(
                f"{node.name} shows code {node.code} by now, not {code}; compare again"
            )
        left = f"{node.name} left before it had the fleet token"
        if node.writer.is_closing():
            raise JoinRefused(left)
        try:
            node.writer.write(verdict(APPROVED, self._tokens.newest()))
        except SettingsError as error:
            raise JoinRefused(str(error)) from error
        received = False
        with suppress(TimeoutError):
            async with asyncio.timeout(MEET_SECONDS):
                received = await asyncio.shield(node.received)
        if not received:
            raise JoinRefused(left)
        self._say(f"{node.name} was let in and has the fleet token")

    def deny(self, node: AskingNode) -> None:
        """Send the machine away."""
        self._waiting.pop(node.id, None)
        if not node.writer.is_closing():
            node.writer.write(verdict(DENIED))
        if node.task is not None:
            node.task.cancel()


async def _code(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: JoinRequest
) -> str:
    """Exchange nonces, and return the code. Raises JoinError, OSError, EOFError."""
    fingerprint = peer_fingerprint(writer.get_extra_info("ssl_object"))
    if id_of(fingerprint) != request.id:
        raise JoinError("it has another certificate")
    exchange = BalancerJoin(fingerprint, bytes.fromhex(request.knock))
    writer.write(exchange.opening)
    writer.write(exchange.reveal(await reader.readexactly(NONCE)))
    return exchange.code


def _plain(name: str) -> str:
    """Return a name that can stand in a log line and a table."""
    return "".join(each if each.isprintable() else "?" for each in name)


@asynccontextmanager
async def joining(
    tokens: FleetTokens,
    revoked: Revoked,
    *,
    allowed: bool,
    say: Callable[[str], None],
) -> AsyncGenerator[JoinRequests]:
    """Keep machines waiting for the length of the block; its end sends them away."""
    async with background() as tasks:
        yield JoinRequests(tokens, tasks, revoked, allowed=allowed, say=say)
