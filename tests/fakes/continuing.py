"""A server of another program that writes one answer, and goes on with it or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from balancer.probes.continuation import ASKED, TOKENS
from tests.fakes.servers import DONE, FakeServer, Json, chunk, response, serving

COUNTED = ("One", ", two", ", three", ", four", ", five", ", six")
QUESTION = "Count"
"""A prompt: what follows it is text of the answer."""


def rest_of(
    pieces: Sequence[str], given: str, *, trims: bool = False, strips: bool = False
) -> list[str]:
    """Return what a server writes behind a text.

    `trims`: it drops white space at the end of the text; `strips`: also at the start of
    what it writes.
    """
    given = given.rstrip() if trims else given
    if not "".join(pieces).startswith(given):
        return list(pieces)
    left, rest = len(given), list[str]()
    for each in pieces:
        if left < len(each):
            rest.append(each[left:])
        left = max(0, left - len(each))
    if strips and rest:
        rest[0] = rest[0].lstrip()
    return rest


def written(pieces: Sequence[str], *, chat: bool = True, role: bool = False) -> bytes:
    """Write a stream of such pieces; `role`: it is in every chunk."""
    return b"".join(events(pieces, chat=chat, role=role))


def events(
    pieces: Sequence[str], *, chat: bool = True, role: bool = False
) -> list[bytes]:
    """Write the events of a stream; the first has no text."""
    if not chat:
        texts = [_text(each) for each in ("", *pieces)]
        return [*texts, _text("", "stop"), DONE]
    who = {"role": "assistant"} if role else {}
    head = chunk({"role": "assistant", "content": ""})
    texts = [chunk({**who, "content": each}) for each in pieces]
    return [head, *texts, chunk({}, "stop"), DONE]


def _text(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
    event = {"id": "c1", "object": "text_completion", "created": 1, "model": "m"}
    return b"data: %b\n\n" % json.dumps({**event, "choices": [choice]}).encode()


@dataclass
class WritingServer(FakeServer):
    """A fake whose answer to every question is `pieces`.

    `opens`: fields without which it closes the assistant's message and begins anew,
    None where it always does; prompts always go on. `trims`, `strips`: see `rest_of`.
    `breaks`: where its next streams break off, after so many pieces, `mark` what it
    says then; probes do not break. `gate`: streams wait for it.
    """

    pieces: Sequence[str] = COUNTED
    opens: Mapping[str, object] | None = field(default_factory=dict[str, object])
    trims: bool = False
    strips: bool = False
    breaks: list[int] = field(default_factory=list[int])
    mark: bytes | None = None

    @property
    def probes(self) -> list[Json]:
        """The probes that it got."""
        return [body for _, _, body in self.asked if body.get("max_tokens") == TOKENS]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            self.looked.append(request.path)
            return response(self.answers.get(request.path, (404, b"Not Found")))
        body = json.loads(await request.read())
        self.asked.append((request.path, request.headers, body))
        given = self._given(body)
        rest = rest_of(self.pieces, given, trims=self.trims, strips=self.strips)
        if body.get("stream"):
            return await self._streamed(request, body, rest)
        message = {"role": "assistant", "content": "".join(rest)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return response({"id": "c", "model": "m", "choices": [choice]})

    def _given(self, body: Json) -> str:
        if "prompt" in body:
            asked = str(ASKED["completion"][2]["prompt"])
            return str(body["prompt"]).removeprefix(QUESTION).removeprefix(asked)
        last = body["messages"][-1]
        if last["role"] != "assistant" or self.opens is None:
            return ""
        if any(body.get(key) != value for key, value in self.opens.items()):
            return ""
        return str(last["content"])

    async def _streamed(
        self, request: web.Request, body: Json, rest: Sequence[str]
    ) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        if self.gate is not None:
            await self.gate.wait()
        parts = events(rest, chat="messages" in body)
        probe = body.get("max_tokens") == TOKENS
        stop = self.breaks.pop(0) if self.breaks and not probe else None
        await answer.write(b"".join(parts if stop is None else parts[: stop + 1]))
        if stop is not None and self.mark is None:
            assert request.transport is not None
            request.transport.abort()
        elif stop is not None:
            await answer.write(self.mark or b"")
        return answer


def writing_server(
    answers: Json, **fields: Any
) -> AbstractAsyncContextManager[WritingServer]:
    """Serve until the block ends."""
    return serving(WritingServer(dict(answers), **fields))
