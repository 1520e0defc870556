"""Fleet tokens without a file, for tests."""

from __future__ import annotations

from math import inf

from edgeserve.http import upstream
from edgeserve.http.channel.opening import FleetChannel
from edgeserve.http.types import origin_of
from edgeserve.security.proof import FleetKey, fleet_key
from edgeserve.security.tokens import FleetTokens
from edgeserve.wire import NodeReport, decode
from tests.patience import PATIENCE

TOKEN = "fleet-token-of-the-tests"


class GivenTokens(FleetTokens):
    """Holds the tokens that it is given, the newest first; none: no fleet."""

    def __init__(self, *tokens: str) -> None:
        self._found = tuple((fleet_key(each), inf) for each in tokens)

    def keys(self) -> tuple[FleetKey, ...]:
        """Return the key of each."""
        return tuple(key for key, _ in self._found)


async def report_of(url: str, *tokens: str) -> NodeReport:
    """Ask a real node for its report, as a balancer with the tokens may."""
    async with (
        upstream(
            connect_seconds=PATIENCE, channel=FleetChannel(GivenTokens(*tokens))
        ) as pool,
        pool.ask(origin_of(url, 0), "GET", "/edgeserve/v1/node", {}) as answer,
    ):
        return decode(await answer.read(), NodeReport)
