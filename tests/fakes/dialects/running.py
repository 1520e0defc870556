"""Running fakes: a server of a dialect, what it was asked, and how it is to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.fakes.dialects.base import Dialect
from tests.fakes.dialects.desktops import DESKTOPS
from tests.fakes.dialects.engines import ENGINES
from tests.fakes.dialects.server import Answer, Asked, LightServer, answer

DIALECTS: tuple[Dialect, ...] = (*ENGINES, *DESKTOPS)


@dataclass
class FakeDialect:
    """A running server. `key`: what it wants. `failing`: what all POSTs get.

    `cut`: after so many events its engine dies. `asked`: the POSTs that came; `looked`:
    the paths of the GETs.
    """

    dialect: Dialect
    key: str = ""
    failing: Answer | None = None
    cut: int | None = None
    asked: list[Asked] = field(default_factory=list[Asked])
    looked: list[str] = field(default_factory=list[str])
    server: LightServer = field(init=False)

    def __post_init__(self) -> None:
        self.server = LightServer(self._answer, self.dialect.version)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.server.url

    async def _answer(self, asked: Asked) -> Answer:
        wanted = f"Bearer {self.key}" if self.dialect.guards(asked.path) else ""
        if self.key and wanted not in {"", asked.headers.get("authorization")}:
            return answer(self.dialect.failing_key, self.dialect.refused)
        if asked.method == "GET":
            self.looked.append(asked.path)
            return self.dialect.answer(asked)
        self.asked.append(asked)
        if self.failing is not None:
            return self.failing
        found = self.dialect.answer(asked)
        if self.cut is None or isinstance(found.body, bytes):
            return found
        pieces = [*found.body[: self.cut], *self.dialect.died()]
        return Answer(found.status, pieces, found.type, found.headers)


@asynccontextmanager
async def fake_dialect(
    dialect: Dialect,
    *,
    key: str = "",
    failing: Answer | None = None,
    cut: int | None = None,
    gate: asyncio.Event | None = None,
) -> AsyncGenerator[FakeDialect]:
    """Serve until the block ends."""
    fake = FakeDialect(dialect, key, failing, cut)
    fake.server.gate = gate
    await fake.server.start()
    try:
        yield fake
    finally:
        await fake.server.stop()
