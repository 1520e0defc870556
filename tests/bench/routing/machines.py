"""A Pi, a laptop and a GPU box, pretended in one process: nodes and their engines.

Usage: python -m tests.bench.routing.machines

Prints one line of JSON with their ports, and at SIGTERM one with what each has done.
Everything is about ten times as quick as in life, so that a run takes a minute.
"""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack

from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node

MACHINES = {
    "pi": Behaviour(slots=1, prefill=120, decode=20, batch=32, context=8192),
    "laptop": Behaviour(slots=2, prefill=800, decode=80, batch=64, context=8192),
    "gpu": Behaviour(slots=4, prefill=8000, decode=300, batch=256, context=8192),
}


def done(node: FakeNode) -> dict[str, int]:
    """Count what one machine did."""
    counters = node.llama.counters
    return {
        "answers": counters.finished,
        "read": counters.prompt_tokens,
        "cached": counters.cached_tokens,
    }


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as stack:
        nodes = {
            name: await stack.enter_async_context(fake_node(name, behaviour))
            for name, behaviour in MACHINES.items()
        }
        ports = {
            name: (node.origin.port, node.llama.port) for name, node in nodes.items()
        }
        print(json.dumps(ports), flush=True)
        await stop.wait()
        print(
            json.dumps({name: done(node) for name, node in nodes.items()}), flush=True
        )


if __name__ == "__main__":
    asyncio.run(main())
