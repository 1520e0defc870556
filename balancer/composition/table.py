"""Route table: the routes of the settings file, and those that were set at run time.

The latter are kept in a file of the state folder. One that is damaged costs these
routes, with a warning: clients then get 404 for their names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from edgeserve.config.routes import ModelRoute, WrongRoute, collision, route_from
from edgeserve.errors import BadRequest, EdgeserveError, in_words
from edgeserve.runtime.files import read_json
from edgeserve.runtime.stored import store

log = logging.getLogger(__name__)

FILE = "routes.json"

MOST_ROUTES = 1000
"""Routes that can be set at run time."""


class UnknownModelRoute(EdgeserveError):
    """No route has that name."""

    status = 404
    code = "route_not_found"
    kind = "invalid_request_error"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        there = ", ".join(known) or "none"
        super().__init__(f"no route is called {name!r}; there are: {there}")


class RouteOfFile(EdgeserveError):
    """The route belongs to the settings file."""

    status = 409
    code = "route_of_file"
    kind = "invalid_request_error"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"route {name} is in the settings file, under [[route]]; change it there"
            " and restart the balancer"
        )


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file."""

    routes: list[dict[str, Any]]


class RouteTable:
    """All routes; `by_name` has those that count now, by name in normal spelling."""

    def __init__(self, fixed: Iterable[ModelRoute] = (), folder: Path | None = None):
        self._path = folder / FILE if folder else None
        self._fixed = {each.name: each for each in fixed}
        self._writing = asyncio.Lock()
        self.by_name: dict[str, ModelRoute] = dict(self._fixed)
        for route in _kept(self._path) if self._path else ():
            self._admit(route)

    def _admit(self, route: ModelRoute) -> None:
        """Take in a route that was kept, unless the settings now contradict it."""
        problem = collision((*self.by_name.values(), route))
        if problem:
            log.warning("%s: left out: %s", self._path, problem)
        else:
            self.by_name[route.name] = route

    def of_file(self, route: ModelRoute) -> bool:
        """Whether it is in the settings file."""
        return route.name in self._fixed

    async def put(self, route: ModelRoute) -> None:
        """Set a route. Raises RouteOfFile, BadRequest, NotStored."""
        async with self._writing:
            if route.name in self._fixed:
                raise RouteOfFile(route.name)
            routes = {**self.by_name, route.name: route}
            if problem := collision(routes.values()):
                raise BadRequest(problem)
            if len(routes) - len(self._fixed) > MOST_ROUTES:
                raise BadRequest(f"there are {MOST_ROUTES} routes, the most there may")
            await self._become(routes)

    async def remove(self, name: str) -> None:
        """Remove one. Raises UnknownModelRoute, RouteOfFile, NotStored."""
        async with self._writing:
            if name in self._fixed:
                raise RouteOfFile(name)
            if name not in self.by_name:
                raise UnknownModelRoute(name, self.by_name)
            kept = {key: each for key, each in self.by_name.items() if key != name}
            await self._become(kept)

    async def _become(self, routes: dict[str, ModelRoute]) -> None:
        self.by_name = routes  # at once: the disk may take its time
        if self._path is None:
            return
        own = [each for name, each in routes.items() if name not in self._fixed]
        await store(self._path, _Stored(routes=[each.shown() for each in own]))


def _kept(path: Path) -> list[ModelRoute]:
    """Read the file; none without one, nor from one that is damaged."""
    try:
        return [route_from(each) for each in read_json(path, _Stored).routes]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, WrongRoute) as error:
        log.warning("routes that were set are lost: %s: %s", path, in_words(error))
        return []
