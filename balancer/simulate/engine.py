"""Simulated engine: slots, batches and prefixes of llama.cpp in virtual time.

A fluid model: between two events every sequence advances at a constant rate, so that a
request costs a handful of events and not one per token.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import exp

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
    reading: float
    """Seconds of prefill left, without other requests."""
    left: float
    """Tokens of the answer left after the first."""
    first: float = -1.0
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a client of an engine can observe."""

    kind: str
    run: Run


class Engine:
    """One engine: slots, batch and cache in virtual time."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.speed = machine.speed
        self.cache = Cache(
            [Place() for _ in range(machine.slots)], machine.cache_tokens
        )
        self.runs: dict[int, Run] = {}
        self.deferred: deque[tuple[Call, int | None, float]] = deque()
        self.now = 0.0

    @property
    def idle(self) -> int:
        """How many slots are idle."""
        return self.machine.slots - len(self.runs)

    def send(
        self, call: Call, now: float, pinned: int | None, noise: float
    ) -> Run | None:
        """Start a request; when every slot is busy, defer it, first in first out."""
        self.advance(now)
        if not self.idle or (pinned is not None and self.cache.slots[pinned].busy):
            self.deferred.append((call, pinned, noise))
            return None
        return self._start(call, pinned, noise)

    def _start(self, call: Call, pinned: int | None, noise: float) -> Run:
        slot, cached = self.cache.take(holding(call), self.now, pinned)
        factor = exp(noise * self.machine.noise)
        seconds = self.speed.prefill_seconds(call.prompt_tokens - cached, cached)
        left = max(0.0, call.answer_tokens - 1.0)
        run = Run(
            call=call,
            slot=slot,
            cached=cached,
            started=self.now,
            reading=seconds * factor,
            left=left,
            factor=factor,
        )
        self.runs[slot] = run
        return run

    def advance(self, now: float) -> None:
        """Let time pass; no event may lie in between."""
        seconds = now - self.now
        self.now = now
        if seconds <= 0 or not self.runs:
            return
        reader = self._reader()
        rate = self._rate(reader is not None)
        for run in self.runs.values():
            if run.first >= 0:
                run.left -= seconds * rate / run.factor
        if reader is not None:
            reader.reading -= seconds

    def _reader(self) -> Run | None:
        """Return the run whose prompt is read: the one in the lowest slot."""
        reading = [slot for slot, run in self.runs.items() if run.first < 0]
        return self.runs[min(reading)] if reading else None

    def _rate(self, reading: bool) -> float:
        """Return tokens/s of each sequence; one per batch while a prompt is read."""
        sequences = sum(1 for run in self.runs.values() if run.first >= 0)
        rate = 1 / self.speed.token_seconds(sequences)
        if reading:
            rate = min(rate, 1 / (self.machine.batch * self.speed.prefill))
        return rate

    def next(self) -> float | None:
        """Return when something happens next, if nothing is sent."""
        if not self.runs:
            return None
        reader = self._reader()
        rate = self._rate(reader is not None)
        times = [
            run.left * run.factor / rate for run in self.runs.values() if run.first >= 0
        ]
        if reader is not None:
            times.append(reader.reading)
        return self.now + max(0.0, min(times))

    def happen(self, now: float) -> list[Event]:
        """Advance to `now`, return the events; free slots take deferred requests."""
        self.advance(now)
        events: list[Event] = []
        for run in list(self.runs.values()):
            if run.first < 0 and run.reading <= EPSILON:
                run.first = now
                events.append(Event("first", run))
            if run.first >= 0 and run.left <= EPSILON:
                events.append(Event("end", run))
                self._end(run)
        while self.deferred and self.idle:
            call, pinned, noise = self.deferred.popleft()
            events.append(Event("began", self._start(call, pinned, noise)))
        return events

    def _end(self, run: Run) -> None:
        call = run.call
        del self.runs[run.slot]
        self.cache.release(run.slot, answered(call), self.now)
