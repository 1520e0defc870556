"""Companions: what runs elsewhere for an engine, and has to be there while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from edgeserve.errors import EdgeserveError
from edgeserve.orders.groups import GroupMember


class CompanionLost(EdgeserveError):
    """A companion is not there; the sentence says which, and why."""


class Companions(Protocol):
    """The other members of a group; see `node.groups.group`."""

    @property
    def members(self) -> tuple[GroupMember, ...]:
        """All members, the machine of the engine among them."""
        ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """Have them there for one process of the engine. Raises CompanionLost."""
        ...

    def ready(self) -> None:
        """Note that the engine has loaded its model."""
        ...

    async def lost(self) -> str:
        """Wait until one of them is lost; returns which, and why."""
        ...

    async def blamed(self) -> str:
        """Return which one was lost when the engine ended, "" for none."""
        ...


class NoCompanions:
    """The usual case: an engine that needs nothing elsewhere."""

    members: tuple[GroupMember, ...] = ()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Wait for nothing."""
        yield

    def ready(self) -> None:
        """Do nothing."""

    async def lost(self) -> str:
        """Wait for ever."""
        await asyncio.Event().wait()
        return ""

    async def blamed(self) -> str:
        """Return that none was lost."""
        return ""
