"""A whole node without models that adopts servers of other programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.wire import NodeReport, decode
from node.adoption import finding
from node.engines.process import free_port
from tests.node.served import served
from tests.patience import PATIENCE


@dataclass
class Adopter:
    """A running node, and a client of it that needs no token."""

    client: aiohttp.ClientSession
    stop: asyncio.Event
    port: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def until(self, adopted: int) -> NodeReport:
        """Wait until it reports so many servers."""
        async with asyncio.timeout(PATIENCE):
            while True:
                async with self.client.get("/edgeserve/v1/node") as answer:
                    report = decode(await answer.read(), NodeReport)
                if len(report.servers) == adopted:
                    return report
                await asyncio.sleep(0.02)

    async def draining(self) -> None:
        """Wait until it takes no new requests."""
        async with asyncio.timeout(PATIENCE):
            while True:
                async with self.client.get("/health") as answer:
                    if (await answer.json())["status"] == "draining":
                        return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def adopter(folder: Path, *urls: str, **more: Any) -> AsyncGenerator[Adopter]:
    """Run one called `den`."""
    fields: dict[str, Any] = {
        "name": "den",
        "port": free_port(),
        "state_dir": folder / "den",
        "models_dir": folder / "none",
        "advertise": False,
    }
    settings = NodeSettings(**(fields | {"adopt_urls": urls} | more))
    async with served(settings) as (client, stop):
        yield Adopter(client, stop, settings.port)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nodes look often."""
    monkeypatch.setattr(finding, "EVERY_SECONDS", 0.02)
    monkeypatch.setattr(finding, "AGAIN_SECONDS", 0.02)
