"""Sleep of a node's machine: whether it may, what stops it, what wakes it. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

How = Literal["suspend", "stop", "command"]
"""What the machine does: keep its memory, switch itself off, or run a command."""

Mac = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
Address = Annotated[str, msgspec.Meta(max_length=64)]


class NetworkCard(msgspec.Struct, frozen=True, kw_only=True):
    """A wired or wireless card of the machine.

    `broadcast` is the address that reaches its network. `wakes`: a magic packet wakes
    the machine; None where that cannot be read.
    """

    mac: Mac
    broadcast: Address
    wakes: bool | None = None


class Sleep(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of its machine's sleep; only nodes that may sleep say it.

    `in_use` says why it must stay awake now, "" where nothing needs it. `asleep`: it
    sleeps since it said this, by the order of the balancer `by`.
    """

    how: How
    in_use: str = ""
    asleep: bool = False
    by: str = ""
    cards: tuple[NetworkCard, ...] = ()
