"""Registration: tell listed balancers where this node is, without multicast."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import msgspec

from edgeserve.auth import bearer
from edgeserve.config.settings import EVERYWHERE, BalancerSettings
from edgeserve.errors import BadRequest, EdgeserveError
from edgeserve.http.types import Origin, Upstream, origin_of
from edgeserve.runtime.background import background, declared
from edgeserve.wire import Registered, Registration, decode, encode

log = logging.getLogger(__name__)

EVERY = 10.0
FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0
ASK_SECONDS = 5.0

REGISTER = declared("register")

PATH = "/edgeserve/v1/register"

OTHER_TOKEN = "it has another fleet token"  # noqa: S105 - a sentence


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where this node listens, and what it says of that.

    The origin `::` stands for whichever of its addresses the balancer is reached from;
    `announced` is said instead, where it is set. `id` is the node's own, now.
    """

    origin: Origin
    announced: str = ""
    id: Callable[[], str | None] = lambda: None


@asynccontextmanager
async def registered(
    balancers: Iterable[str],
    listening: Listening,
    upstream: Upstream,
    token: str | None,
    every: float = EVERY,
) -> AsyncGenerator[None]:
    """Register with every balancer, again and again, while the block runs."""
    async with background() as tasks:
        for url in balancers:
            work = partial(_registering, url, listening, upstream, token, every)
            tasks.start(REGISTER, work, url)
        yield


async def _registering(
    url: str, listening: Listening, upstream: Upstream, token: str | None, every: float
) -> None:
    balancer = origin_of(url, BalancerSettings.port)
    said: str | None = None
    failures = 0
    while True:
        problem = await _register(balancer, listening, upstream, token)
        if problem is None and said != "":
            log.info("registered with the balancer at %s", url)
        elif problem is not None and said != problem:
            log.warning("cannot register with the balancer at %s: %s", url, problem)
        said = problem or ""
        failures = failures + 1 if problem else 0
        await asyncio.sleep(pause(failures, every))


def pause(failures: int, every: float) -> float:
    """Seconds until the next try: 1, 2, 4, … 30 while it fails. Pure."""
    if failures == 0:
        return every
    return min(FIRST_RETRY * 2.0 ** min(failures - 1, 10), LONGEST_RETRY)


async def _register(
    balancer: Origin, listening: Listening, upstream: Upstream, token: str | None
) -> str | None:
    """Register once; return what went wrong, or None."""
    headers = {"content-type": "application/json", **bearer(token)}
    try:
        async with asyncio.timeout(ASK_SECONDS):
            url = (
                listening.announced
                or (await _reachable(listening.origin, balancer)).url
            )
            body = encode(Registration(url=url, id=listening.id()))
            async with upstream.ask(balancer, "POST", PATH, headers, body) as answer:
                return _problem(answer.status, await answer.read(), token)
    except (OSError, EdgeserveError) as error:
        return str(error) or type(error).__name__


def _problem(status: int, body: bytes, token: str | None) -> str | None:
    """Say what is wrong by the balancer's answer; None where nothing is."""
    if status == 401:
        return OTHER_TOKEN if token else "it has a fleet token, and this node none"
    try:
        if status < 300:
            return decode(body, Registered).problem
        return f"it answered {status}: {decode(body, _Refusal).error.message}"
    except BadRequest:
        return f"it answered {status}, but not like a balancer of edgeserve"


class _Said(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    """The body of an error."""

    error: _Said


async def _reachable(listening: Origin, balancer: Origin) -> Origin:
    """Return where the balancer can reach us: the address we would send from."""
    if listening.host not in {EVERYWHERE, "0.0.0.0"}:  # noqa: S104 - only compared
        return listening
    loop = asyncio.get_running_loop()
    family, _, _, _, where = (
        await loop.getaddrinfo(balancer.host, balancer.port, type=socket.SOCK_DGRAM)
    )[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(where)  # a datagram socket sends nothing to do this
        return Origin(probe.getsockname()[0], listening.port, listening.tls)
