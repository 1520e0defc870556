"""Joining: ask a balancer for the fleet token; see `edgeserve.security.join`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from edgeserve.config.settings import EVERYWHERE, BalancerSettings
from edgeserve.errors import CommandError, EdgeserveError, SettingsError, in_words
from edgeserve.http import Limits, Origin, bind, upstream
from edgeserve.http.server.acceptor import accepting
from edgeserve.http.types import Upstream, origin_set
from edgeserve.openai import error_in
from edgeserve.runtime.background import Tasks, background, declared
from edgeserve.runtime.tasks import first_of
from edgeserve.security.certificates import fleet_context
from edgeserve.security.join import (
    NONCE,
    OPENING,
    RECEIVED,
    VERDICT,
    JoinError,
    NodeJoin,
    Refused,
)
from edgeserve.security.registration import JoinRequest
from node.discovery.identity import Identity

JOIN = "/edgeserve/v1/join"

ASK_SECONDS = 30.0
"""How long the balancer may take to answer; it connects to this machine first."""

CONNECT_SECONDS = 5.0

MEET_SECONDS = 10.0
"""How long the exchange of nonces may take."""

MOST = 16
"""Connections at once that have not begun the exchange."""

CLOSE_SECONDS = 5.0
"""How long the balancer may take to hear that this machine has the token."""

READ_BYTES = 4096

HEADERS: Mapping[str, str] = {"content-type": "application/json"}

EXCHANGE = declared("join exchange", "never")

NO_BALANCER = "{} is no edgeserve balancer of this version"


def balancer_at(url: str) -> Origin:
    """Read the URL of a balancer. Raises SettingsError."""
    plain = url.rstrip("/").removesuffix("/v1")
    origin = origin_set(plain, BalancerSettings.port, "URL")
    if urlsplit(plain).scheme not in {"http", "https"} or not origin.host:
        raise SettingsError(f"{url!r} is not a URL such as http://192.168.1.20:8080")
    return origin


@dataclass(eq=False)
class Joining:
    """One attempt to join. `met` is called with the code; `result` is the token."""

    exchange: NodeJoin
    met: Callable[[str], None]
    result: asyncio.Future[str]
    tasks: Tasks
    _strangers: set[asyncio.StreamWriter] = field(
        default_factory=set[asyncio.StreamWriter]
    )

    def connection(self) -> asyncio.Protocol:
        """Make the protocol of a connection that has completed its TLS handshake."""
        reader = asyncio.StreamReader(limit=READ_BYTES)
        return asyncio.StreamReaderProtocol(reader, self._accept)

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        started = self.tasks.start(EXCHANGE, lambda: self._serve(reader, writer))
        # Also where the task is cancelled before it begins.
        started.task.add_done_callback(lambda _: writer.close())

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError, EOFError, TimeoutError, JoinError):
            await self._begin(reader, writer)
            await self._conclude(reader, writer)

    async def _begin(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Exchange nonces, if this is the balancer that was asked."""
        if len(self._strangers) >= MOST:
            raise JoinError("too many connections")
        self._strangers.add(writer)
        try:
            async with asyncio.timeout(MEET_SECONDS):
                opening = await reader.readexactly(OPENING)
                writer.write(self.exchange.answer(opening))
                try:
                    code = self.exchange.check(await reader.readexactly(NONCE))
                except (JoinError, OSError, EOFError, TimeoutError) as error:
                    self._fail(f"the exchange broke off ({in_words(error)})")
                    raise
        finally:
            self._strangers.discard(writer)
        self.met(code)

    async def _conclude(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Wait for the verdict."""
        try:
            token = self.exchange.token(await reader.readexactly(VERDICT))
        except Refused as error:
            self._fail(f"the balancer does not let this machine in: {error}")
        except (OSError, EOFError):
            self._fail("the balancer ended, or closed the connection")
        except JoinError as error:
            self._fail(f"the balancer broke the protocol: {error}")
        else:
            writer.write(RECEIVED)
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await reader.read(1)  # it closes once it has heard
            if not self.result.done():
                self.result.set_result(token)

    def _fail(self, why: str) -> None:
        if not self.result.done():
            again = "run `edgeserve join` again to get another code"
            self.result.set_exception(CommandError(f"{why}; {again}"))


async def joined(
    balancer: Origin,
    *,
    port: int,
    name: str,
    identity: Identity,
    met: Callable[[str], None],
    stop: asyncio.Event,
) -> str | None:
    """Ask to join, and return the fleet token; None where `stop` is set before.

    `met` is called with the code once it is known. Raises CommandError.
    """
    result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    result.add_done_callback(lambda done: done.cancelled() or done.exception())
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(background())
        joining = Joining(NodeJoin(identity.fingerprint), met, result, tasks)
        sock = stack.enter_context(closing(bind(EVERYWHERE, port)))
        await stack.enter_async_context(
            accepting(sock, joining.connection, lambda: identity.context, Limits())
        )
        balancers = await stack.enter_async_context(
            upstream(connect_seconds=CONNECT_SECONDS, tls=fleet_context())
        )
        request = JoinRequest(
            port=sock.getsockname()[1],
            name=name[:64] or "node",
            id=identity.id,
            knock=joining.exchange.knock.hex(),
        )

        async def asking() -> str:
            await _ask(balancers, balancer, request)
            return await result

        async def stopped() -> None:
            await stop.wait()

        return await first_of(asking(), stopped())


async def _ask(balancers: Upstream, balancer: Origin, request: JoinRequest) -> None:
    """Send the request. Raises CommandError where it is refused."""
    body = msgspec.json.encode(request)
    try:
        async with (
            asyncio.timeout(ASK_SECONDS),
            balancers.ask(balancer, "POST", JOIN, HEADERS, body) as answer,
        ):
            status, content = answer.status, await answer.read()
    except (EdgeserveError, OSError, TimeoutError) as error:
        raise CommandError(
            f"no balancer answers at {balancer.url}: {in_words(error)}"
        ) from error
    if status != 200:
        raise CommandError(_refusal(balancer, status, content))


def _refusal(balancer: Origin, status: int, content: bytes) -> str:
    error: dict[str, Any] = error_in(content)
    if status == 404 or "message" not in error:
        return NO_BALANCER.format(balancer.url)
    return f"{balancer.url} refuses: {error['message']}"
