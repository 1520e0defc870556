"""Simulated engine: slots, batches and prefixes of llama.cpp in virtual time.

Prompts are read in batches that are filled in the order of the slots, behind one token
of each running answer; a batch that has begun is ended first. Without a prompt it is a
fluid model: every answer advances at a constant rate, so that it costs one event and
not one per token.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, exp

from balancer.simulate.cache import Cache, Place, answered, holding
from balancer.simulate.fleets import Machine
from balancer.telemetry.trace import Call

EPSILON = 1e-9


@dataclass(slots=True)
class Run:
    """One request in a slot."""

    call: Call
    slot: int
    cached: int
    started: float
    left: float
    """Tokens of the answer left after the first."""
    processed: int
    """Tokens of the prompt that are read or were cached."""
    began: float = -1.0
    """When its first batch began."""
    first: float = -1.0
    factor: float = 1.0
    delay: float = 0.0
    """Seconds before its first batch, in which a state is saved or restored."""

    @property
    def unread(self) -> int:
        """Tokens of the prompt left to read."""
        return self.call.prompt_tokens - self.processed


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a client of an engine can observe."""

    kind: str
    run: Run


class Engine:
    """One engine: slots, batch and cache in virtual time.

    `batch` is what the running batch reads of each prompt; it is over at `batch_end`.
    Without one, a token of each answer is complete at `stepped`, and one step after the
    other from then on.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.speed = machine.speed
        self.restart()
        self.share = 1.0
        """How many engines of its machine work at once: it is so much slower."""
        self.runs: dict[int, Run] = {}
        self.deferred: deque[tuple[Call, int | None, float]] = deque()
        self.batch: list[tuple[Run, int]] = []
        self.batch_end = 0.0
        self.stepped = 0.0
        self.now = 0.0

    def restart(self) -> None:
        """Begin with an empty cache."""
        slots = [Place() for _ in range(self.machine.slots)]
        self.cache = Cache(slots, self.machine.cache_tokens)

    @property
    def idle(self) -> int:
        """How many slots are idle."""
        return self.machine.slots - len(self.runs)

    def send(
        self,
        call: Call,
        now: float,
        pinned: int | None,
        noise: float,
        delay: float = 0.0,
    ) -> Run | None:
        """Start a request; when every slot is busy, defer it, first in first out."""
        self.advance(now)
        if not self.idle or (pinned is not None and self.cache.slots[pinned].busy):
            self.deferred.append((call, pinned, noise))
            return None
        return self._start(call, pinned, noise, delay)

    def _start(
        self, call: Call, pinned: int | None, noise: float, delay: float = 0.0
    ) -> Run:
        slot, cached = self.cache.take(holding(call), self.now, pinned)
        run = Run(
            call=call,
            slot=slot,
            cached=cached,
            started=self.now,
            left=max(0.0, call.answer_tokens - 1.0),
            processed=cached,
            factor=exp(noise * self.machine.noise),
            delay=delay,
        )
        self.runs[slot] = run
        return run

    def advance(self, now: float) -> None:
        """Let time pass; no event may lie in between."""
        seconds = now - self.now
        self.now = now
        if seconds <= 0 or self.batch:
            return
        step = self._step()
        for run in self._writing():
            run.left -= seconds / (step * run.factor)

    def _writing(self) -> list[Run]:
        return [run for run in self.runs.values() if run.first >= 0]

    def _step(self) -> float:
        """Return the seconds between two tokens of each answer, without prompts."""
        return self.speed.token_seconds(len(self._writing())) * self.share

    def next(self) -> float | None:
        """Return when something happens next, if nothing is sent."""
        if not self.runs:
            return None
        if self.batch:
            return self.batch_end
        writing, step = self._writing(), self._step()
        times = [run.left * run.factor * step for run in writing]
        if len(writing) < len(self.runs):
            steps = ceil((self.now - self.stepped) / step - EPSILON) if writing else 0
            times.append(self.stepped + steps * step - self.now)
        return self.now + max(0.0, min(times))

    def happen(self, now: float) -> list[Event]:
        """Advance to `now`, return the events; free slots take deferred requests."""
        self.advance(now)
        self.stepped = now
        events = self._read()
        for run in self._writing():
            if run.left <= EPSILON:
                events.append(Event("end", run))
                self._end(run)
        while self.deferred and self.idle:
            self._start(*self.deferred.popleft())
        return events + self._fill()

    def _read(self) -> list[Event]:
        """End the batch that runs: each answer has a token, some have their first."""
        if not self.batch:
            return []
        for run in self._writing():
            run.left -= 1
        events: list[Event] = []
        for run, tokens in self.batch:
            run.processed += tokens
            events.append(Event("progress", run))
            if not run.unread:
                run.first = self.now
                events.append(Event("first", run))
        self.batch = []
        return events

    def _fill(self) -> list[Event]:
        """Begin a batch of the prompts that are there, in the order of their slots."""
        room = self.machine.batch - len(self._writing())
        seconds, events = 0.0, list[Event]()
        for _, run in sorted(self.runs.items()):
            tokens = min(run.unread, room)
            if tokens <= 0:
                continue
            if run.began < 0:
                run.began = self.now
                seconds += run.delay
                events.append(Event("began", run))
            room -= tokens
            self.batch.append((run, tokens))
            seconds += self.speed.prefill_seconds(tokens, run.processed) * run.factor
        if self.batch:
            self.batch_end = self.now + max(seconds * self.share, self._step())
        return events

    def _end(self, run: Run) -> None:
        call = run.call
        del self.runs[run.slot]
        self.cache.release(run.slot, answered(call), self.now)
