"""What a balancer says of the requests that wait there. Pure."""

from __future__ import annotations

import msgspec

WAITING = "/edgeserve/v1/waiting"


class WaitingRequests(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests of a balancer wait, for each engine that could answer them.

    What is not named does not wait. A balancer says it again and again while others
    use the engines, so that the node lets it have its turn.
    """

    balancer: str
    engines: dict[str, int]
