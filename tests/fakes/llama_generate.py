"""The fake's generations: wait for a slot, read the prompt, write words, go wrong."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.fakes import llama_answers as answers
from tests.fakes.llama_answers import AnswerWriter, Dialect, Job, Timing
from tests.fakes.llama_routes import refuse
from tests.fakes.llama_slots import Slot
from tests.fakes.llama_state import Fault, State

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Event = tuple[str, dict[str, Any]]
"""`("progress", {…})`, `("token", {"text": …})` or `("done", {"timing": …})`."""


def generating(state: State, dialect: Dialect, die: Callable[[], None]) -> Handler:
    """Make the handler of one generating route; `die` kills the whole server."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await state.read(request)
        fault = state.fault()
        if not body.get("messages") and dialect == "chat":
            return refuse(400, "'messages' is required", "invalid_request_error")
        behaviour = state.behaviour
        job = answers.job(dialect, body, behaviour.length, behaviour.logprob)
        if len(job.prompt) >= state.behaviour.context:
            return too_long(job, state.behaviour.context)
        if fault == "error":
            return refuse(500, "made to fail", "server_error")
        if fault == "hang":
            await asyncio.Event().wait()
        number = state.counters.started
        writer = AnswerWriter(job, state.behaviour.model, f"chatcmpl-{number}")
        work = Generation(state, job, fault, request.transport, die)
        try:
            answer = await (streamed if job.stream else gathered)(request, work, writer)
        except (asyncio.CancelledError, ConnectionError):
            state.counters.cancelled += 1
            raise
        if request.transport is not None and not request.transport.is_closing():
            state.counters.finished += 1
        return answer

    return handle


async def gathered(
    request: web.Request, work: Generation, writer: AnswerWriter
) -> web.StreamResponse:
    """Answer at once, at the end."""
    text = ""
    async for kind, value in work.events():
        if kind == "token":
            text += value["text"]
        elif kind == "done":
            return web.json_response(
                writer.whole(text, value["timing"]), dumps=answers.compact
            )
    cut(request.transport)
    return web.Response()  # into the void


async def streamed(
    request: web.Request, work: Generation, writer: AnswerWriter
) -> web.StreamResponse:
    """Answer as it comes. The head goes out when a slot has been found."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    opened = writer.job.dialect != "chat"
    async for kind, value in work.events():
        if not response.prepared:
            await response.prepare(request)
        if kind == "progress":
            await response.write(writer.opening(value))
            continue
        if not opened:
            await response.write(writer.opening())
            opened = True
        if kind == "token":
            await response.write(writer.token(value["text"]))
        else:
            for piece in writer.closing(value["timing"]):
                await response.write(piece)
            await response.write_eof()
            return response
    if work.fault == "close_after_head":
        await response.prepare(request)
    cut(request.transport)
    return response


class Generation:
    """One run on one slot, at the pace the behaviour sets."""

    def __init__(
        self,
        state: State,
        job: Job,
        fault: Fault | None,
        transport: asyncio.Transport | None,
        die: Callable[[], None],
    ) -> None:
        self.job = job
        self.fault = fault
        self._state = state
        self._transport = transport
        self._die = die

    async def events(self) -> AsyncGenerator[Event]:
        """Yield what happens; ends without `done` where the fault cuts it short."""
        async with self._state.slots.take(self.job.prompt) as (slot, cached):
            if self.fault in {"reset", "close_after_head"}:
                return
            cached = cached if self._state.behaviour.cache else 0
            began = now()
            async for event in self._read(slot, cached):
                yield event
            read = now()
            written = 0
            async for text in self._write(slot, read):
                written += 1
                yield "token", {"text": text}
            if self.fault in {"break", "die", "stall"}:
                return
            todo = len(self.job.prompt) - cached
            timing = Timing(cached, todo, read - began, written, now() - read)
            yield "done", {"timing": timing}

    async def _read(self, slot: Slot, cached: int) -> AsyncGenerator[Event]:
        total, done = len(self.job.prompt), cached
        began = now()
        self._state.counters.cached_tokens += cached
        while True:
            if self.job.progress:
                spent = int((now() - began) * 1000)
                shown = {"total": total, "cache": cached, "processed": done}
                yield "progress", {**shown, "time_ms": spent}
            if self._is_held:
                await asyncio.sleep(0.1)
                continue
            if done == total:
                break
            step = min(self._state.behaviour.batch, total - done)
            done += step
            due = began + (done - cached) / self._state.behaviour.prefill
            await self._tick(due)
            self._state.counters.prompt_tokens += step
            slot.cache = list(self.job.prompt[:done])

    @property
    def _is_held(self) -> bool:
        hold = self._state.behaviour.hold
        return self.job.stream and bool(hold) and Path(hold).exists()

    async def _write(self, slot: Slot, began: float) -> AsyncGenerator[str]:
        for number, text in enumerate(self.job.tokens):
            if number == self._state.behaviour.fault_tokens:
                await self._go_wrong()
                if self.fault in {"break", "die"}:
                    return
            await self._tick(began + (number + 1) / self._state.behaviour.decode)
            self._state.counters.predicted_tokens += 1
            slot.cache.append(text.strip())
            yield text

    async def _go_wrong(self) -> None:
        if self.fault == "stall":
            await asyncio.Event().wait()
        if self.fault == "die":
            self._die()

    async def _tick(self, due: float) -> None:
        await self._state.thawed.wait()
        # The rate holds over the whole run, whatever one sleep costs.
        await asyncio.sleep(max(0.0, due - now()))
        await self._state.thawed.wait()
        self._state.counters.decodes += 1


def too_long(job: Job, context: int) -> web.Response:
    """Refuse a prompt past the context, as llama.cpp words it."""
    body = answers.error(
        400,
        f"request ({len(job.prompt)} tokens) exceeds the available context size"
        f" ({context} tokens), try increasing it",
        "exceed_context_size_error",
    )
    body["error"] |= {"n_prompt_tokens": len(job.prompt), "n_ctx": context}
    return web.json_response(body, status=400)


def cut(transport: asyncio.Transport | None) -> None:
    """Break a connection so that the other side sees a reset, not an end."""
    if transport is None or transport.is_closing():
        return
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def now() -> float:
    """The loop's clock, in seconds."""
    return asyncio.get_running_loop().time()
