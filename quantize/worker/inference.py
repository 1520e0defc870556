"""Inference in the worker: evaluate a model by llama-cpp-python, and measure speed."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeserve.models.comparison import Speeds
from edgeserve.runtime.threads import threads_for
from quantize.worker.library import load
from quantize.worker.messages import Emit, Speed, Step


class CannotLoad(Exception):
    """llama.cpp cannot load or evaluate the model; the message says why."""


class Model:
    """One loaded model with one sequence; `loaded` makes it."""

    def __init__(self, lib: Any, model: Any, context: Any) -> None:
        self.lib = lib
        self.context = context
        self.vocabulary = lib.llama_model_get_vocab(model)
        self.tokens = int(lib.llama_vocab_n_tokens(self.vocabulary))

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text, with the special tokens that the model adds."""
        raw = text.encode()
        count = -self._tokenize(raw, None, 0)
        buffer = (self.lib.llama_token * count)()
        self._tokenize(raw, buffer, count)
        return list(buffer)

    def _tokenize(self, raw: bytes, buffer: Any, count: int) -> int:
        """Fill `buffer`; return the number of tokens, negative if it is too small."""
        lib = self.lib
        return int(
            lib.llama_tokenize(
                self.vocabulary, raw, len(raw), buffer, count, True, True
            )
        )

    def first_token(self) -> int | None:
        """Return the token that begins every text, if the model has one."""
        if not self.lib.llama_vocab_get_add_bos(self.vocabulary):
            return None
        return int(self.lib.llama_vocab_bos(self.vocabulary))

    def forget(self) -> None:
        """Clear the KV cache."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def decode(self, tokens: Sequence[int], at: int, wanted_from: int) -> None:
        """Evaluate `tokens` at position `at`; keep logits from `wanted_from` on."""
        batch = self.lib.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for n, token in enumerate(tokens):
                batch.token[n], batch.pos[n] = token, at + n
                batch.n_seq_id[n], batch.seq_id[n][0] = 1, 0
                batch.logits[n] = n >= wanted_from
            if self.lib.llama_decode(self.context, batch) != 0:
                raise CannotLoad("llama.cpp could not evaluate a batch")
            self.lib.llama_synchronize(self.context)
        finally:
            self.lib.llama_batch_free(batch)

    def logits(self, rows: int) -> NDArray[np.float32]:
        """Return the logits of the last batch; valid until the next batch."""
        pointer = self.lib.llama_get_logits(self.context)
        return np.ctypeslib.as_array(pointer, shape=(rows, self.tokens))


@contextmanager
def loaded(path: str, *, context: int, threads: int, repack: bool) -> Generator[Model]:
    """Keep a model loaded while the block runs. Raises CannotLoad.

    Without `repack` the weights keep the layout of the file. This is slower but never
    uses AMX, whose set-up GCC 12 miscompiles, so that llama.cpp crashes on newer Xeons
    (ggml-org/llama.cpp#26954).
    """
    lib = load()
    errors = list[str]()

    def remember(level: int, text: bytes, _data: object) -> None:
        if level == ERROR:
            errors.append(text.decode(errors="replace").strip())

    callback = lib.llama_log_callback(remember)
    lib.llama_log_set(callback, None)
    lib.llama_backend_init()
    parameters = lib.llama_model_default_params()
    parameters.use_extra_bufts = repack
    model = lib.llama_model_load_from_file(os.fsencode(path), parameters)
    if not model:
        raise CannotLoad(f"{path} cannot be loaded: {'; '.join(errors[-2:])}")
    state = lib.llama_init_from_model(model, _settings(lib, context, threads))
    if not state:
        lib.llama_model_free(model)
        raise CannotLoad(f"{path}: no context of {context}: {'; '.join(errors[-2:])}")
    try:
        yield Model(lib, model, state)
    finally:
        lib.llama_free(state)
        lib.llama_model_free(model)


def _settings(lib: Any, context: int, threads: int) -> ctypes.Structure:
    settings = lib.llama_context_default_params()
    settings.n_ctx = settings.n_batch = context
    settings.n_ubatch = min(context, 512)
    settings.n_threads = settings.n_threads_batch = threads
    return settings  # type: ignore[no-any-return]  # ctypes structures are untyped


ERROR = 4
"""GGML_LOG_LEVEL_ERROR."""


def measure(job: Speed, emit: Emit) -> None:
    """Measure prefill and decode speed in rounds; a first short round warms caches."""
    threads = threads_for(job.threads)
    context = job.prompt + job.answer
    with loaded(
        job.model, context=context, threads=threads, repack=job.repack
    ) as model:
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
    """Return tokens per second of prefill and of decode."""
    model.forget()
    tokens = [(n * 37 + 11) % model.tokens for n in range(prompt)]
    began = time.perf_counter()
    model.decode(tokens, 0, prompt - 1)
    read = time.perf_counter()
    for n in range(answer):
        model.decode([(n * 53 + 7) % model.tokens], prompt + n, 0)
    return prompt / (read - began), answer / (time.perf_counter() - read)
