"""A fake llama-server: real HTTP, made-up words, with speeds, slots, cache and faults.

In a test: `async with fake_llama(Behaviour(decode=20)) as llama:`. As a process:
`python -m tests.fakes.llama --port 9000 --slots 2 --prefill 100 --decode 20`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import get_type_hints

from aiohttp import web

from tests.fakes.llama_answers import Dialect
from tests.fakes.llama_generate import cut, generating
from tests.fakes.llama_routes import gate, routes
from tests.fakes.llama_state import Behaviour, Counters, Fault, Seen, State

__all__ = ["Behaviour", "Counters", "FakeLlama", "Fault", "Seen", "fake_llama"]

GENERATING: dict[str, Dialect] = {
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/completions": "completion",
    "/completion": "native",
    "/completions": "native",
    "/infill": "native",
}


class FakeLlama:
    """A running fake. `behaviour` may be changed while it runs."""

    def __init__(self, behaviour: Behaviour, port: int = 0) -> None:
        self.behaviour = behaviour
        self.port = port
        self.alive = False
        self._state = State(behaviour)
        self._runner = web.AppRunner(
            self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=0
        )

    @property
    def origin(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[Seen]:
        """Every POST that arrived, in order."""
        return self._state.requests

    @property
    def counters(self) -> Counters:
        """What was done so far."""
        return self._state.counters

    @property
    def busy(self) -> int:
        """Slots at work now."""
        return self._state.slots.busy

    @property
    def deferred(self) -> int:
        """Requests waiting for a slot."""
        return len(self._state.slots.queue)

    def freeze(self) -> None:
        """Answer nothing and send nothing, connections open: a machine that hangs."""
        self._state.thawed.clear()

    def thaw(self) -> None:
        """Go on where `freeze` stopped."""
        self._state.thawed.set()

    def kill(self) -> None:
        """Die as by SIGKILL: nothing listens, every connection is cut."""
        if not self.alive:
            return
        self.alive = False
        self._listening.close()
        server = self._runner.server
        for connection in server.connections if server else ():
            cut(connection.transport)

    async def start(self) -> None:
        """Listen; after `kill`, on the same port again, with empty slots."""
        if self._runner.server is None:
            await self._runner.setup()
        server = self._runner.server
        assert server is not None
        self._state.boot()
        sock = socket.create_server(("127.0.0.1", self.port))
        self.port = sock.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(server, sock=sock)
        self.alive = True

    async def stop(self) -> None:
        """Cut everything and be gone."""
        self.thaw()
        self.kill()
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[gate(self._state)], client_max_size=2**27)
        app.add_routes(routes(self._state))
        for path, dialect in GENERATING.items():
            app.router.add_post(path, generating(self._state, dialect, self.kill))
        return app


@asynccontextmanager
async def fake_llama(behaviour: Behaviour | None = None) -> AsyncGenerator[FakeLlama]:
    """Run a fake on a free port for the length of the block."""
    llama = FakeLlama(behaviour or Behaviour())
    await llama.start()
    try:
        yield llama
    finally:
        await llama.stop()


def parser() -> argparse.ArgumentParser:
    """One flag for each field of Behaviour, and how the process itself goes wrong."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--port", type=int, default=0)
    flags.add_argument("--say", default="", help="printed at start")
    flags.add_argument("--exit-after", type=float, help="seconds until exit status 3")
    flags.add_argument("--grows", type=int, help="MiB to take at SIGUSR1")
    flags.add_argument("--deaf", action="store_true", help="ignore SIGTERM")
    kinds = get_type_hints(Behaviour)
    for each in dataclasses.fields(Behaviour):
        flag = "--" + each.name.replace("_", "-")
        if kinds[each.name] is bool:
            flags.add_argument(flag, action=argparse.BooleanOptionalAction)
        else:
            kind = kinds[each.name] if kinds[each.name] in {int, float} else str
            kind = int if each.name == "fault_count" else kind
            flags.add_argument(flag, type=kind, default=each.default)
    return flags


async def serve(given: argparse.Namespace) -> int:
    """Run as a process until SIGTERM, a fault that kills, or `--exit-after`."""
    names = [each.name for each in dataclasses.fields(Behaviour)]
    chosen = {name: getattr(given, name) for name in names}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    key = os.environ.get("LLAMA_API_KEY")
    behaviour = Behaviour(**({"api_key": key} | chosen))
    stop = asyncio.Event()
    if given.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    taken: list[bytes] = []
    if given.grows:
        size = given.grows * 2**20
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: taken.append(b"x" * size))
    llama = FakeLlama(behaviour, given.port)
    await llama.start()
    print(f"listening on {llama.origin}", flush=True)
    try:
        async with asyncio.timeout(given.exit_after):
            while llama.alive and not stop.is_set():
                await asyncio.sleep(0.02)
    except TimeoutError:
        return 3
    finally:
        await llama.stop()
    return 0 if stop.is_set() else 9


def main() -> None:
    """Start a process that looks like llama-server."""
    given = parser().parse_args()
    if given.say:
        print(given.say, file=sys.stderr, flush=True)
    sys.exit(asyncio.run(serve(given)))


if __name__ == "__main__":
    main()
