"""Order to let a node's machine sleep. Pure.

The node decides: it refuses where its owner has not allowed it, or while the machine is
in use. What wakes it is a magic packet, or a command of the balancer's.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

SLEEP = "/edgeserve/v1/sleep"


class SleepOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a node to let its machine sleep.

    `by` is the id of the balancer, which wakes it first; `why` is for logs. With `now`
    a request that has just ended is no reason to stay awake.
    """

    by: Annotated[str, msgspec.Meta(max_length=64)] = ""
    now: bool = False
    why: Annotated[str, msgspec.Meta(max_length=300)] = ""
