"""Carry requests and answers between a client and an upstream.

`listen` and `upstream` are the fast relay; `edgeserve.relay.plain` has the same two on
aiohttp alone, the reference that the tests hold them against.
"""

from edgeserve.relay.cors import Cors
from edgeserve.relay.exchange import Handler, Reply, Request
from edgeserve.relay.leave import Leave
from edgeserve.relay.limits import Limits, limits_of
from edgeserve.relay.listen import bound
from edgeserve.relay.pool import upstream
from edgeserve.relay.serve import listen
from edgeserve.relay.upstream import Answer, Origin, Upstream

__all__ = [
    "Answer",
    "Cors",
    "Handler",
    "Leave",
    "Limits",
    "Origin",
    "Reply",
    "Request",
    "Upstream",
    "bound",
    "limits_of",
    "listen",
    "upstream",
]
