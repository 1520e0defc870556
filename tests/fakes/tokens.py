"""Fleet tokens without a file, for tests."""

from __future__ import annotations

from math import inf

from edgeserve.security.proof import FleetKey, fleet_key
from edgeserve.security.tokens import FleetTokens

TOKEN = "fleet-token-of-the-tests"


class GivenTokens(FleetTokens):
    """Holds the tokens that it is given, the newest first; none: no fleet."""

    def __init__(self, *tokens: str) -> None:
        self._found = tuple((fleet_key(each), inf) for each in tokens)

    def keys(self) -> tuple[FleetKey, ...]:
        """Return the key of each."""
        return tuple(key for key, _ in self._found)
