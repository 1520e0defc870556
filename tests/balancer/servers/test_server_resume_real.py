"""A killed engine's answer goes on between a node and a llama-server started by hand.

Greedy, the text is that of an engine that nobody killed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from balancer.probes import continuation
from balancer.servers import polling
from edgeserve.config.servers import ServerSetting
from edgeserve.config.settings import NodeSettings
from node.app import serve
from node.engines.process import free_port
from tests.balancer.broken_streams import text_of
from tests.balancer.endpoint import CHAT, Endpoint, a_secret, endpoint
from tests.balancer.engine import KEY, RealEngine, real_engine
from tests.patience import PATIENCE

pytestmark = pytest.mark.engine

NAME = "smollm2-135m-instruct:Q4_1"
BY_HAND = "/by/hand/SmolLM2-135M-Instruct-Q4_1.gguf"
LETTERS = " ".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 6)
ALPHABET: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "Say the alphabet."},
        {"role": "assistant", "content": LETTERS},
        {"role": "user", "content": "Say the alphabet again."},
    ],
    "stream": True,
    "temperature": 0,
    "max_tokens": 200,
}


@asynccontextmanager
async def a_node(model: Path, folder: Path) -> AsyncGenerator[str]:
    """Run a real node with the bundled engine; yields its URL."""
    settings = NodeSettings(
        name="kitchen",
        port=free_port(),
        state_dir=folder,
        models_dir=model.parent,
        models=(str(model),),
        engine="bundled",
        threads=1,
    )
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, stop))
    try:
        yield f"http://127.0.0.1:{settings.port}"
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await serving


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(2 * PATIENCE):
        while not true():
            await asyncio.sleep(0.05)


def engines_beside(hand: RealEngine) -> list[psutil.Process]:
    """Return the processes of the node's engine."""
    return [
        each
        for each in psutil.Process().children(recursive=True)
        if each.pid != hand.process.pid
        and "node.engines.bundled_host" in each.cmdline()
    ]


async def asked(
    here: Endpoint, model: str, killed: list[psutil.Process], *, kitchen: bool
) -> bytes:
    """Ask, and kill the engine that answers as soon as it has begun.

    While the balancer measures the node `kitchen`, the other engine answers.
    """
    async with here.session.post(CHAT, json={**ALPHABET, "model": model}) as answer:
        mistaken = (answer.headers["x-edgeserve-node"] == "kitchen") != kitchen
        body = b""
        while b'"content":"' not in body:
            body += await answer.content.readany()
        for each in () if mistaken else killed:
            each.kill()
        body += await answer.read()
        id_ = answer.headers["x-edgeserve-request-id"]
    if mistaken:
        return await asked(here, model, killed, kitchen=kitchen)
    why = (await here.get(f"/edgeserve/v1/requests/{id_}")).json
    assert len(why["attempts"]) > 1, (why["attempts"][0]["outcome"], body[-300:])
    return body


async def test_greedy_text_is_the_same_when_another_programs_engine_goes_on(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuation, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.1)
    with real_engine(smollm2, BY_HAND) as hand:
        known = ServerSetting(
            url=f"http://127.0.0.1:{hand.port}",
            key_file=str(a_secret(tmp_path, "key", KEY)),
            last_resort=True,
        )
        _, unbroken = hand.post(CHAT, json.dumps(ALPHABET).encode())
        async with (
            a_node(smollm2, tmp_path / "node") as node,
            endpoint(node, server_tables=(known,)) as here,
        ):
            current = here.balancer.state.current

            def engine(kind: str) -> Any:
                found = (each.engine for each in current.candidates)
                return next((each for each in found if each.kind == kind), None)

            await until(lambda: (e := engine("bundled")) and e.state == "ready")
            # An answer of the server has it probed.
            await here.post(CHAT, {**ALPHABET, "model": BY_HAND})
            await until(lambda: "chat" in engine("server").served.resumes)
            async with asyncio.timeout(3 * PATIENCE):
                from_node = await asked(here, NAME, engines_beside(hand), kitchen=True)
            await until(lambda: engine("bundled").state == "ready")
            hands = [psutil.Process(hand.process.pid)]
            async with asyncio.timeout(3 * PATIENCE):
                from_hand = await asked(here, BY_HAND, hands, kitchen=False)

    assert text_of(from_node) == text_of(from_hand) == text_of(unbroken)
    assert from_node.endswith(b"data: [DONE]\n\n")
    assert from_hand.endswith(b"data: [DONE]\n\n")
