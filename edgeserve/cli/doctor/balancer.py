"""Balancer: whether it answers, and agrees with this machine on clock, token and key.

Nothing is changed there: the token is compared by a registration without an address.
"""

from __future__ import annotations

import hmac
import http.client
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from edgeserve.cli.client import DEFAULT_URL, Endpoint, NoAnswer, endpoint
from edgeserve.cli.doctor.finding import Finding, ok, problem, quoted, unknown
from edgeserve.cli.doctor.here import Here
from edgeserve.config.paths import admin_key_file
from edgeserve.errors import SettingsError
from edgeserve.http.types import parts_of
from edgeserve.security.proof import FleetKey, registration_mac
from edgeserve.security.registration import Challenge, Registered, Registration
from edgeserve.security.tokens import is_loopback
from edgeserve.wire import MALFORMED, PROTOCOL

ASK_SECONDS = 2.0

MOST_SKEW = 10.0
"""Seconds that two clocks may differ; a Date header has whole seconds."""

Tokens = Literal["same", "other", "none", "not here", "not there", "unknown"]
"""Of the fleet tokens here and there; `none`: neither has one."""

Why = Literal["", "refused", "unreachable", "certificate", "tls", "stranger"]
T = TypeVar("T")

REGISTER = "/edgeserve/v1/register"
Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a balancer has answered. `named`: by an option or a setting.

    `expected`: it runs here. `skew` is how many seconds this clock is ahead of its one.
    `key` and `nodes` are the statuses of what a client and an admin may read, `keyed`
    whether a key was sent; `unusable`: why that of the key file was not.
    """

    url: str
    token_file: str = ""
    named: bool = False
    expected: bool = False
    why: Why = ""
    said: str = ""
    skew: float | None = None
    protocol: int | None = None
    tokens: Tokens = "unknown"
    keyed: bool = True
    unusable: str = ""
    key: int = 0
    nodes: int = 0
    rows: Sequence[Json] = ()


def places(here: Here) -> list[tuple[str, bool]]:
    """Return the URLs to ask, and whether each was named. Pure."""
    if here.url:
        return [(here.url, True)]
    settings = here.balancer.settings
    scheme = "https" if settings.tls or settings.tls_cert else "http"
    port = settings.port or urlsplit(DEFAULT_URL).port
    own = f"{scheme}://127.0.0.1:{port}"
    if "balancer" in here.running:
        return [(own, True)]
    listed = [(url, True) for url in here.node.settings.balancers]
    return listed or [(own, False)]


def answers(here: Here, url: str, *, named: bool) -> Asked:
    """Ask a balancer everything."""
    first = Asked(
        url=url,
        token_file=str(here.token_file),
        named=named,
        expected="balancer" in here.running,
    )
    try:
        place = _place(url, here)
    except SettingsError as error:
        place = Endpoint(parts_of(url)[0].geturl())
        first = replace(first, unusable=str(error))
    try:
        return _answered(first, place, here)
    except NoAnswer as error:
        return replace(first, why=_why(error), said=str(error).partition("; `")[0])


def _place(url: str, here: Here) -> Endpoint:
    """Return the balancer, with the key that one which runs here has left."""
    place = endpoint(url, here.api_key_file)
    port = urlsplit(place.url).port or here.balancer.settings.port
    left = admin_key_file(here.balancer.settings.state_dir, port)
    ours = "balancer" in here.running and is_loopback(urlsplit(url).hostname or "")
    return replace(place, key_file=left) if ours and not place.api_key else place


def _why(error: NoAnswer) -> Why:
    match error.__cause__:
        case ssl.SSLCertVerificationError():
            return "certificate"
        case ssl.SSLError():
            return "tls"
        case http.client.HTTPException() | None:
            return "stranger"
        case ConnectionRefusedError():
            return "refused"
        case _:
            return "unreachable"


def _answered(first: Asked, place: Endpoint, here: Here) -> Asked:
    """Ask, one after the other; raises NoAnswer where one is not answered."""
    began = time.time()
    _, headers, _ = place.exchange("GET", "/health", None, ASK_SECONDS)
    now = (began + time.time()) / 2
    challenge = _decoded(_got(place, REGISTER)[1], Challenge)
    if challenge is None:
        return replace(first, why="stranger", said=f"{first.url} is no balancer")
    status, content = _got(place, "/edgeserve/v1/nodes")
    return replace(
        first,
        skew=_skew(headers, now),
        protocol=challenge.protocol,
        tokens=_compared(place, here),
        keyed="authorization" in place.headers(),
        key=_got(place, "/v1/models")[0],
        nodes=status,
        rows=(_decoded(content, list[dict[str, Any]]) or []) if status == 200 else (),
    )


def _got(place: Endpoint, path: str) -> tuple[int, bytes]:
    status, _, content = place.exchange("GET", path, None, ASK_SECONDS)
    return status, content


def _decoded(content: bytes, shape: type[T]) -> T | None:
    try:
        return msgspec.json.decode(content, type=shape)
    except MALFORMED:
        return None


def _skew(headers: Mapping[str, str], now: float) -> float | None:
    """Return how many seconds `now` is ahead of a Date header. Pure."""
    told = {name.lower(): value for name, value in headers.items()}.get("date", "")
    try:
        return now - (parsedate_to_datetime(told).timestamp() + 0.5)
    except (TypeError, ValueError):
        return None


def _compared(place: Endpoint, here: Here) -> Tokens:
    """Compare the fleet tokens: both sides prove that they have it, none sends it."""
    try:
        tokens = here.tokens()
    except SettingsError:
        return "unknown"
    if tokens is None:
        status, _ = _proved(place, None)
        return "none" if status == 200 else "not here"
    for key in tokens.keys():  # noqa: SIM118 - no dictionary
        status, proof = _proved(place, key)
        if status == 200:
            return "same" if proof else "not there"
        if status == 400:  # older releases refuse the address, after the proof
            return "same"
    return "other"


def _proved(place: Endpoint, key: FleetKey | None) -> tuple[int, bool]:
    """Register no address; return the status, and whether the balancer proved, too."""
    registration = Registration(url="")
    if key is not None:
        challenge = _decoded(_got(place, REGISTER)[1], Challenge)
        nonce = challenge.nonce if challenge else ""
        proof = registration_mac(key, "node", nonce, registration.content)
        registration = Registration(url="", nonce=nonce, proof=proof)
    body = msgspec.to_builtins(registration)
    status, _, content = place.exchange("POST", REGISTER, body, ASK_SECONDS)
    answer = _decoded(content, Registered)
    if key is None or answer is None or status != 200:
        return status, False
    nonce, said = registration.nonce, registration.content
    expected = registration_mac(key, "balancer", nonce, said)
    return status, hmac.compare_digest(expected.encode(), answer.proof.encode())


def findings(found: Asked, *, sure: bool) -> Iterator[Finding]:
    """Judge the answers. Pure."""
    if found.why:
        yield _unanswered(found, sure=sure)
        return
    yield ok("balancer", f"{found.url} answers")
    yield _clock(found)
    yield _version(found)
    yield _token(found)
    yield _key(found)


def _unanswered(found: Asked, *, sure: bool) -> Finding:
    if not (found.named or found.expected) and found.why == "refused":
        said = f"no balancer is named, and none answers at {found.url}"
        again = "edgeserve doctor --url http://ADDRESS-OF-BALANCER:8080"
        if sure:
            return unknown("balancer", said, again)
        return problem("balancer", "none", said, "edgeserve up")
    host = urlsplit(found.url).hostname or ""
    remedies: dict[str, str] = {
        "refused": "edgeserve balancer start",
        "unreachable": f"ping -c 3 {host}",
        "certificate": f"edgeserve nodes --url {found.url}",
        "tls": f"edgeserve doctor --url http://{urlsplit(found.url).netloc}",
        "stranger": "edgeserve config show --section balancer",
    }
    said = found.said
    if found.why == "refused" and not is_loopback(host):
        said += "; none runs there, or it listens on its own machine only, without keys"
        return problem("balancer", "refused", said, f"{KEY_NEW}; {START}  # on {host}")
    return problem("balancer", found.why, said, remedies[found.why])


START = "edgeserve balancer start"
KEY_NEW = "edgeserve key new"


def _clock(found: Asked) -> Finding:
    if found.skew is None:
        return unknown("clock", f"{found.url} does not tell the time")
    off = abs(found.skew)
    if off <= MOST_SKEW:
        return ok("clock", "agrees with the balancer's")
    way = "ahead of" if found.skew > 0 else "behind"
    said = f"this clock is {off:,.0f} s {way} the balancer's"
    return problem("clock", "skew", said, "sudo timedatectl set-ntp true")


def _version(found: Asked) -> Finding:
    if found.protocol is None:
        return unknown("version", "the balancer, an older release, does not tell it")
    said = f"the balancer speaks protocol {found.protocol}"
    if found.protocol == PROTOCOL:
        return ok("version", said)
    said += f", this machine {PROTOCOL}: both need the same edgeserve"
    where = "here" if found.protocol > PROTOCOL else "on the balancer's machine"
    remedy = f"edgeserve --version  # on both: install the newer one {where}"
    return problem("version", "protocol", said, remedy)


def _token(found: Asked) -> Finding:
    join = f"edgeserve join {found.url}"
    match found.tokens:
        case "same" | "none":
            same = found.tokens == "same"
            return ok("token", "the same as the balancer's" if same else "none here")
        case "other":
            said = "the balancer has another fleet token than this machine"
            old = quoted(found.token_file)
            return problem("token", "other", said, f"mv {old} {old}.old && {join}")
        case "not here":
            said = "the balancer has a fleet token, and this machine has none"
            return problem("token", "missing", said, join)
        case "not there":
            said = "the balancer does not prove that it has the fleet token"
            return problem("token", "unproven", said, "edgeserve token show")
        case _:
            return unknown("token", "could not be compared with the balancer's")


def _key(found: Asked) -> Finding:
    if found.unusable:
        remedy = f"{KEY_NEW}  # on the balancer's machine"
        return problem("key", "wrong", found.unusable, remedy)
    if found.key == http.client.UNAUTHORIZED and not found.keyed:
        said = (
            "clients of the balancer need one, and none was named, so that its nodes"
            " are not listed; a node needs none"
        )
        again = f"edgeserve doctor --url {found.url} --api-key-file FILE"
        return unknown("key", said, again)
    if found.key == http.client.UNAUTHORIZED:
        said = "the balancer does not know the API key of this machine"
        return problem("key", "wrong", said, f"{KEY_NEW}  # on the balancer's machine")
    if found.key != http.client.OK:
        return unknown("key", f"cannot be checked: the balancer answers {found.key}")
    return ok("key", "the balancer lets this machine in")
