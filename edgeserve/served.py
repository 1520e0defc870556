"""Served engines: what is known of an engine of a server that is no node. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

WidthSource = Literal["set", "told", "assumed", "learned"]
"""Where it is known from how many requests a server answers at once."""

CacheKind = Literal["slots", "shared", "unknown"]
"""How it keeps prompts: `slots`: one for each slot, as llama.cpp; `shared`: blocks that
all its requests share; `unknown`: none, until its answers count cached tokens."""


BEHIND = "balancers"
"""Key in a balancer's list of models, for other balancers: see `Served.behind`."""

Continued = Literal["chat", "completion"]
"""Ways to go on with a broken answer: a last message of the assistant, or a prompt."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a server tells of an engine, and what was learned of it.

    `most` bounds a width that is learned. Only whole blocks of `block` tokens are found
    in a shared cache. A prompt of `too_long` tokens was refused, 0 where none was.
    It was seen to go on with a broken answer (`resumes`) or to begin anew (`restarts`).
    `behind`: the ids of the balancers on the way to it, where a balancer lists it.
    """

    width: WidthSource = "assumed"
    most: int = 0
    cache: CacheKind = "unknown"
    block: int = 1
    too_long: int = 0
    resumes: tuple[Continued, ...] = ()
    restarts: tuple[Continued, ...] = ()
    behind: tuple[str, ...] = ()

    @property
    def learns_width(self) -> bool:
        """Whether its width is to be learned."""
        return self.width in {"assumed", "learned"}


def first_trust(served: Served | None) -> float:
    """How much of a hit is expected before the first one: not each server caches."""
    return float(served is None or served.cache != "unknown")
