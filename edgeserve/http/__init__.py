"""HTTP: our own server and client, which pass bytes with little work.

`listen` is the server, `upstream` the client.
"""

from edgeserve.http.client.pool import upstream
from edgeserve.http.server.cors import Cors
from edgeserve.http.server.limits import Limits, limits_of
from edgeserve.http.server.server import Handoff, listen
from edgeserve.http.sockets import bind
from edgeserve.http.types import Answer, Handler, Origin, Request, Response, Upstream

__all__ = [
    "Answer",
    "Cors",
    "Handler",
    "Handoff",
    "Limits",
    "Origin",
    "Request",
    "Response",
    "Upstream",
    "bind",
    "limits_of",
    "listen",
    "upstream",
]
