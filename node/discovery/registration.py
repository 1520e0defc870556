"""Registration: tell the configured balancers where this node listens."""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from edgeserve.config.settings import EVERYWHERE, BalancerSettings
from edgeserve.errors import BadRequest, EdgeserveError, NodeLost
from edgeserve.http.types import Origin, origin_set
from edgeserve.network import EVERY_IPV4
from edgeserve.runtime.background import background, declared
from edgeserve.security.proof import FleetKey, registration_mac
from edgeserve.security.registration import Challenge, Registered, Registration
from edgeserve.wire import decode, encode
from node.discovery.client import ASK_SECONDS, FleetClient

log = logging.getLogger(__name__)

T = TypeVar("T")

EVERY = 10.0
FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0

REGISTER = declared("register")

PATH = "/edgeserve/v1/register"

OTHER_TOKEN = "it has another fleet token"  # noqa: S105 - a sentence
NO_TOKEN = "it has a fleet token, and this node has none"  # noqa: S105 - a sentence
NO_PROOF = "it does not prove that it holds the fleet token"


@dataclass(frozen=True, kw_only=True)
class ListenAddress:
    """Where this node listens, and the URL that it registers.

    The origin `::` stands for the address from which the balancer is reached.
    `announced` is registered instead, where it is set. `id` returns the node's id.
    """

    origin: Origin
    announced: str = ""
    id: Callable[[], str | None] = lambda: None


@asynccontextmanager
async def registered(
    balancers: Iterable[str],
    listening: ListenAddress,
    client: FleetClient,
    every: float = EVERY,
) -> AsyncGenerator[None]:
    """Register with each balancer every `every` seconds while the block runs."""
    async with background() as tasks:
        for url in balancers:
            register = partial(_registering, url, listening, client, every)
            tasks.start(REGISTER, register, url)
        yield


async def _registering(
    url: str, listening: ListenAddress, client: FleetClient, every: float
) -> None:
    balancer = origin_set(url, BalancerSettings.port, "--balancer")
    logged: str | None = None
    failures = 0
    while True:
        problem = await _register(balancer, listening, client)
        if problem is None and logged != "":
            log.info("registered with the balancer at %s", url)
        elif problem is not None and logged != problem:
            log.warning("cannot register with the balancer at %s: %s", url, problem)
        logged = problem or ""
        failures = failures + 1 if problem else 0
        await asyncio.sleep(pause(failures, every))


def pause(failures: int, every: float) -> float:
    """Return the seconds until the next try: 1, 2, 4, … 30 after failures. Pure."""
    if failures == 0:
        return every
    return min(FIRST_RETRY * 2.0 ** min(failures - 1, 10), LONGEST_RETRY)


async def _register(
    balancer: Origin, listening: ListenAddress, client: FleetClient
) -> str | None:
    """Register once; return what went wrong, or None."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            url = (
                listening.announced
                or (await _reachable(listening.origin, balancer)).url
            )
            return await _proved(balancer, url, listening.id(), client)
    except (OSError, EdgeserveError) as error:
        return str(error) or type(error).__name__


async def _proved(
    balancer: Origin, url: str, id_: str | None, client: FleetClient
) -> str | None:
    """Register with a proof for each token in turn, as in `_register`."""
    problem: str | None = NO_TOKEN
    for key in client.tokens.keys() or (None,):
        unproved = Registration(url=url, id=id_)
        if key is not None:
            status, answer = await client.ask(balancer, "GET", PATH)
            if status != 200:
                return _refusal(status, answer)
            unproved = replace(unproved, nonce=_decoded(answer, Challenge).nonce)
        status, answer = await client.ask(
            balancer, "POST", PATH, encode(_with_proof(unproved, key))
        )
        if status < 300:
            return _problem(_decoded(answer, Registered), unproved, key)
        problem = _refusal(status, answer)
        if status != 401:
            break
        problem = OTHER_TOKEN if key else NO_TOKEN
    return problem


def _with_proof(unproved: Registration, key: FleetKey | None) -> Registration:
    if key is None:
        return unproved
    proof = registration_mac(key, "node", unproved.nonce, unproved.content)
    return replace(unproved, proof=proof)


def _problem(
    answer: Registered, registration: Registration, key: FleetKey | None
) -> str | None:
    """Return what is wrong, by the balancer's answer; None if nothing is."""
    if key is not None:
        nonce, content = registration.nonce, registration.content
        proof = registration_mac(key, "balancer", nonce, content)
        if not hmac.compare_digest(proof.encode(), answer.proof.encode()):
            return NO_PROOF
    return answer.problem


def _decoded(body: bytes, shape: type[T]) -> T:
    """Decode an answer. Raises NodeLost where it is not of a balancer."""
    try:
        return decode(body, shape)
    except BadRequest as error:
        raise NodeLost("it answered 200, but it is no EdgeServe balancer") from error


def _refusal(status: int, body: bytes) -> str:
    try:
        return f"it answered {status}: {decode(body, _Refusal).error.message}"
    except BadRequest:
        return f"it answered {status}, but it is no EdgeServe balancer"


class _Error(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    """The body of an error."""

    error: _Error


async def _reachable(listening: Origin, balancer: Origin) -> Origin:
    """Return where the balancer can reach this node: the address it would send from."""
    if listening.host not in {EVERYWHERE, EVERY_IPV4}:
        return listening
    loop = asyncio.get_running_loop()
    family, _, _, _, where = (
        await loop.getaddrinfo(balancer.host, balancer.port, type=socket.SOCK_DGRAM)
    )[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(where)  # a datagram socket sends nothing to do this
        return Origin(probe.getsockname()[0], listening.port, listening.tls)
