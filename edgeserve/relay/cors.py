"""Which web pages may ask from inside a browser, and what browsers are told. Pure.

A browser sends a page's request to any address, but shows the page the answer only if
the answer allows its origin. llama.cpp allows every origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeserve.auth import is_foreign

ANY = "*"
DAY = "86400"

PREFIX = "access-control-"
EXPOSED = (
    "x-edgeserve-request-id, x-edgeserve-node, x-edgeserve-model,"
    " x-edgeserve-attempts, retry-after"
)


@dataclass(frozen=True)
class Cors:
    """`origins` are allowed by name, `*` for all; `here`: this machine's pages too.

    So are programs and extensions, whose origins are no sites.
    """

    origins: frozenset[str] = frozenset()
    here: bool = True

    def allows(self, origin: str) -> bool:
        """Whether pages of `origin`, such as `https://chat.example`, get answers."""
        if ANY in self.origins or origin in self.origins:
            return True
        return self.here and bool(origin) and not is_foreign(origin)

    def headers(self, origin: str) -> dict[str, str]:
        """What an answer says to the browser; nothing where it is not allowed."""
        if not self.allows(origin):
            return {"vary": "origin"}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": EXPOSED,
            "vary": "origin",
        }

    def preflight(self, asked: Mapping[str, str]) -> dict[str, str]:
        """What is answered to `OPTIONS`, by which a browser asks whether it may ask."""
        said = self.headers(asked.get("origin", ""))
        if "access-control-allow-origin" in said:
            wanted = asked.get("access-control-request-headers")
            said |= {
                "access-control-allow-methods": "GET, POST, OPTIONS",
                "access-control-allow-headers": wanted or "authorization, content-type",
                "access-control-max-age": DAY,
            }
        return said
