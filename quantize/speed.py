"""Measure how fast a model reads and writes here. Runs in the child process."""

from __future__ import annotations

import time
from collections.abc import Callable

from quantize.inference import Model, loaded
from quantize.jobs import Event, Speed, Speeds, Step
from quantize.threads import threads_for


def measure(job: Speed, emit: Callable[[Event], None]) -> None:
    """Repeat: read a prompt, write an answer. One round first warms caches."""
    threads = threads_for(job.threads)
    room = job.prompt + job.answer
    with loaded(job.model, context=room, threads=threads, repack=job.repack) as model:
        _round(model, prompt=min(16, job.prompt), answer=1)
        rounds = list[tuple[float, float]]()
        end = time.monotonic() + job.seconds
        while len(rounds) < job.repeats and (not rounds or time.monotonic() < end):
            rounds.append(_round(model, prompt=job.prompt, answer=job.answer))
            emit(Step(len(rounds), job.repeats))
    emit(
        Speeds(
            prefill=tuple(round(read, 2) for read, _ in rounds),
            decode=tuple(round(wrote, 2) for _, wrote in rounds),
            threads=threads,
            by="the library" if job.repack else "the library without repacking",
        )
    )


def _round(model: Model, *, prompt: int, answer: int) -> tuple[float, float]:
    """Return tokens per second of reading and of writing."""
    model.forget()
    tokens = [(n * 37 + 11) % model.tokens for n in range(prompt)]
    began = time.perf_counter()
    model.decode(tokens, 0, prompt - 1)
    read = time.perf_counter()
    for n in range(answer):
        model.decode([(n * 53 + 7) % model.tokens], prompt + n, 0)
    return prompt / (read - began), answer / (time.perf_counter() - read)
