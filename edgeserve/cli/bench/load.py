"""Benchmark load: streams that ask one question after another, as chats."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from edgeserve.errors import in_words

PATH = "/v1/chat/completions"
LONGEST_SECONDS = 600.0
"""Of one answer."""

TEXT = """
time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work
number night point home water room mother area money story fact month lot right study
book eye job word business issue side kind head house service friend father power hour
game line end member law car city name team
"""
WORDS = TEXT.split()
"""Words that most tokenizers have as one token each, with the space before it."""

OURS = ("ignore_eos", "min_tokens")
"""Fields that make an answer as long as asked; strict servers refuse them."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is measured: a chat endpoint, how it is reached, and a model of it.

    `ssl` is what aiohttp takes: True for certificates that are trusted.
    """

    url: str
    model: str
    headers: dict[str, str]
    ssl: aiohttp.Fingerprint | bool = True


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What each request asks: words of the prompt, tokens of the answer."""

    prompt: int
    answer: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One request. Seconds by one clock; `first` and `last` content, tokens counted.

    `error` is a sentence where there is no whole answer.
    """

    asked: float
    first: float = 0.0
    last: float = 0.0
    prompt: int = 0
    answer: int = 0
    error: str = ""


class _Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk)


def session() -> aiohttp.ClientSession:
    """Return a session in which no request waits for another's connection."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=LONGEST_SECONDS),
    )


async def measured(
    client: aiohttp.ClientSession,
    target: Target,
    ask: Ask,
    *,
    streams: int,
    requests: int,
    seconds: float,
    done: Callable[[], None],
) -> list[Sample]:
    """Ask `requests` times, `streams` at once; after `seconds` nothing more is asked.

    `done` is called with each answer.
    """
    waiting = iter(range(requests))
    end = time.perf_counter() + seconds
    samples = list[Sample]()

    async def stream() -> None:
        for _ in waiting:
            if time.perf_counter() >= end:
                return
            samples.append(await asked(client, target, ask))
            done()

    await asyncio.gather(*(stream() for _ in range(streams)))
    return samples


async def asked(client: aiohttp.ClientSession, target: Target, ask: Ask) -> Sample:
    """Ask once. A failure is in the sample."""
    begun = time.perf_counter()
    try:
        return await _asked(client, target, _body(target, ask), begun)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return Sample(asked=begun, error=in_words(error))


def _body(target: Target, ask: Ask) -> dict[str, Any]:
    dice = random.SystemRandom()  # a prompt that was asked before may be cached
    words = " ".join(dice.choices(WORDS, k=ask.prompt))
    return {
        "model": target.model,
        "messages": [{"role": "user", "content": words}],
        "max_tokens": ask.answer,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "min_tokens": ask.answer,
    }


async def _asked(
    client: aiohttp.ClientSession, target: Target, body: dict[str, Any], begun: float
) -> Sample:
    first = last = 0.0
    pieces, usage = 0, _Usage()
    async with client.post(
        target.url + PATH, json=body, headers=target.headers, ssl=target.ssl
    ) as response:
        if response.status in {400, 422} and any(each in body for each in OURS):
            plain = {key: each for key, each in body.items() if key not in OURS}
            await response.read()
            return await _asked(client, target, plain, begun)
        if response.status != 200:
            said = _reason(await response.text())
            return Sample(asked=begun, error=f"{response.status}: {said}")
        async for chunk in _chunks(response):
            now = time.perf_counter()
            if chunk.error:
                return Sample(asked=begun, error=str(chunk.error)[:200])
            usage = chunk.usage or usage
            if _has_content(chunk.choices or ()):
                pieces += 1
                first, last = first or now, now
    if not pieces:
        return Sample(asked=begun, error="the answer is empty")
    return Sample(
        asked=begun,
        first=first,
        last=last,
        prompt=usage.prompt_tokens,
        answer=usage.completion_tokens or pieces,
    )


def _reason(text: str) -> str:
    """Return the sentence in an error of OpenAI's shape, else the text. Pure."""
    with suppress(msgspec.DecodeError, LookupError, TypeError):
        text = str(msgspec.json.decode(text)["error"]["message"])
    return text[:200]


async def _chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[_Chunk]:
    async for line in response.content:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data.startswith(b"{"):
                yield _decoder.decode(data)


def _has_content(choices: Sequence[_Choice]) -> bool:
    return any(
        each.delta
        and (each.delta.content or each.delta.reasoning_content or each.delta.reasoning)
        for each in choices
    )
