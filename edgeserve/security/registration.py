"""Registration messages: how a node makes itself known, and a machine asks to join."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """A node's address, sent to a balancer where multicast is blocked.

    `id` is the node's: at an address such as Docker's another node may answer. An empty
    `url` registers nothing: both sides learn whether their tokens are equal. `proof`
    covers the balancer's `nonce`, see `edgeserve.security.proof`.
    """

    url: str
    id: str | None = None
    nonce: str = ""
    proof: str = ""

    @property
    def content(self) -> str:
        """What the proof covers beside the nonce."""
        return f"{self.url}\n{self.id or ''}"


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """The balancer's answer to a node that wants to register, and its PROTOCOL."""

    nonce: str
    protocol: int | None = None  # older releases tell none


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """The balancer's answer. `problem` says why it cannot use the node.

    `proof` shows that the balancer holds the fleet token, too.
    """

    problem: str | None = None
    proof: str = ""


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A machine without the fleet token asks to be let in; nothing of it is secret.

    The balancer connects to `port` at the address that this comes from, and expects
    the certificate of `id`. `knock` is 16 bytes in hex, see `edgeserve.security.join`.
    """

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    knock: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """Lets a machine in that asks to join; `code` is the one that was compared."""

    code: str
