"""The one line that says a node can be used, and with what."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager

from edgeserve.background import background, declared
from edgeserve.wire import EngineReport
from node.state import NodeState

ANSWERING = frozenset(("ready", "busy"))
STARTING = frozenset(("loading",))

READY = declared("ready line", "on-failure")


@asynccontextmanager
async def saying_when_ready(
    state: NodeState, url: str, say: Callable[[str], None]
) -> AsyncGenerator[None]:
    """Say the line, once, as soon as no engine is still loading and one answers."""
    async with background() as tasks:
        tasks.start(READY, lambda: _wait(state, url, say))
        yield


async def _wait(state: NodeState, url: str, say: Callable[[str], None]) -> None:
    async with aclosing(state.feed.follow()) as news:
        async for _ in news:
            if said := line(state.name, url, state.engines().values()):
                say(said)
                return


def line(name: str, url: str, engines: Iterable[EngineReport]) -> str | None:
    """Name what is served, or return None while there is more to come. Pure."""
    engines = tuple(engines)
    if any(each.state in STARTING for each in engines):
        return None
    answering = [each for each in engines if each.state in ANSWERING]
    if not answering:
        return None
    served = ", ".join(f"{each.id} ({_slots(each.slots)})" for each in answering)
    return f"{name} at {url} serves {served}"


def _slots(number: int) -> str:
    return f"{number} slot" if number == 1 else f"{number} slots"
