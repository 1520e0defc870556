"""The fake is worth as much as it resembles the real server: the two, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.wire import Launch
from node.engines.bundled import bundled
from tests.fakes.engines import a_spec, watching
from tests.fakes.llama import Behaviour, fake_llama

HELLO = [{"role": "user", "content": "Say hello to my little friend."}]
BEGUN = [*HELLO, {"role": "assistant", "content": "w0 w1 w2"}]
STREAM = {"stream": True, "return_progress": True}
USAGE = {"stream_options": {"include_usage": True}}

QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 3}),
    ("/v1/chat/completions", {"messages": BEGUN, "max_tokens": 3}),
    ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 3, **STREAM}),
    ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 3, **STREAM, **USAGE}),
    ("/v1/chat/completions", {"messages": BEGUN, "max_tokens": 3, "stream": True}),
    ("/v1/completions", {"prompt": "one two", "max_tokens": 3}),
    ("/v1/completions", {"prompt": "one two", "max_tokens": 3, "stream": True}),
    ("/completion", {"prompt": "one two", "n_predict": 3}),
    ("/completion", {"prompt": "one two", "n_predict": 3, **STREAM}),
    ("/tokenize", {"content": "one two"}),
    ("/v1/embeddings", {"input": "one"}),
    ("/v1/chat/completions", {}),
    ("/v1/chat/completions", {"messages": [HELLO[0]] * 900}),
    ("/nowhere", {}),
]

GREEDY = {"temperature": 0}
"""What is sampled may be half an emoji, of which a stream says nothing yet."""

LOOSE = frozenset(
    ("generation_settings", "prompt", "has_new_line", "stopping_word", "tokens_cached",
     "id_slot", "tokens_predicted", "tokens_evaluated", "tokens")
)  # fmt: skip
"""Fields of the native answer that the fake leaves out, or gives once only."""


def shape(value: Any) -> Any:
    """Return what an answer looks like: its keys, and types in place of values."""
    if isinstance(value, Mapping):
        return {key: shape(each) for key, each in value.items() if key not in LOOSE}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) else type(value).__name__


def events(text: str) -> list[Any]:
    """Return the shapes of a stream's events, repetitions left out."""
    found: list[Any] = []
    for line in text.splitlines():
        data = line.removeprefix("data: ")
        if line.startswith("data: "):
            one = data if data == "[DONE]" else shape(json.loads(data))
            found += [] if found[-1:] == [one] else [one]
    return found


async def ask(url: str, key: str, path: str, body: Mapping[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(url, headers=headers) as session,
        session.post(path, json=body) as answer,
    ):
        text = await answer.text()
        kind = answer.headers["Content-Type"].partition(";")[0]
        streams = kind == "text/event-stream"
        said = events(text) if streams else shape(json.loads(text))
        return answer.status, kind, said


@pytest.mark.engine
async def test_the_fake_answers_in_the_shapes_of_the_real_server(
    smollm2: Path, tmp_path: Path
) -> None:
    launch = Launch(slots=1, context=2048, batch=256, threads=2)
    settings = NodeSettings(state_dir=tmp_path)
    behaviour = Behaviour(slots=1, context=2048, api_key="k")
    async with (
        watching(bundled(), a_spec(path=smollm2, launch=launch), settings) as (
            supervisor,
            watched,
        ),
        fake_llama(behaviour) as fake,
    ):
        await watched.until("ready")
        for path, body in QUESTIONS:
            body = {**body, **GREEDY}
            real = await ask(supervisor.origin.url, supervisor.api_key, path, body)

            assert await ask(fake.origin, "k", path, body) == real, (path, body)


async def test_a_continued_answer_goes_on_where_it_stopped() -> None:
    async with fake_llama() as fake, aiohttp.ClientSession(fake.origin) as session:
        body = {"messages": BEGUN, "max_tokens": 2}
        async with session.post("/v1/chat/completions", json=body) as answer:
            said = await answer.json()

    assert said["choices"][0]["message"]["content"] == "w0 w1 w2 w3 w4"


async def test_a_repeated_prompt_is_cached() -> None:
    body = {"messages": HELLO, "max_tokens": 1}
    counted = list[tuple[int, int]]()
    async with fake_llama() as fake, aiohttp.ClientSession(fake.origin) as session:
        for _ in range(2):
            async with session.post("/v1/chat/completions", json=body) as answer:
                usage = (await answer.json())["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            counted.append((cached, usage["prompt_tokens"]))

    assert counted == [(0, 9), (8, 9)]


async def test_a_stream_that_is_held_begins_when_it_is_let_go(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    body = {"messages": HELLO, "max_tokens": 1, **STREAM}
    async with (
        fake_llama(Behaviour(hold=str(hold))) as fake,
        aiohttp.ClientSession(fake.origin) as session,
        session.post("/v1/chat/completions", json=body) as answer,
    ):
        held = [await answer.content.readline() for _ in range(6)]
        hold.unlink()
        rest = await answer.text()

    assert b"w0" not in b"".join(held)
    assert "w0" in rest
