"""Quantizer library: call llama.cpp's quantizer, and turn its log into events.

Only the log has the progress, the type each tensor gets, and the cause of a failure.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from edgeserve.models.blocks import canonical
from quantize.worker.imatrix_file import Importance, read_importance
from quantize.worker.messages import (
    Done,
    Emit,
    Failed,
    Quantize,
    TensorBegun,
    TensorEnded,
    TensorMisfit,
)

TensorEvent = TensorBegun | TensorEnded | TensorMisfit

_BEGUN = re.compile(r"\[ *(\d+)/ *(\d+)\] (\S+) +- \[[^]]*\], type = *(\w+), ")
_CONVERTED = re.compile(r"converting to +(\w+) \.\. ")
_DRY = re.compile(r"size = +[\d.]+ MiB -> +[\d.]+ MiB \((\w+)\)$")
_SIZE = re.compile(r"size = +[\d.]+ MiB")
_MISFIT = re.compile(
    r"warning: (\S+) +- ncols +\d+ not divisible by +\d+"
    r" \(required for type +(\w+)\).*-> falling back to +(\w+)"
)
_PROBLEM = re.compile(r"error|fail|disabled|requires an imatrix|unsupported", re.I)


@dataclass
class LogReader:
    """Parser of the log: takes it in pieces and returns the events that each completes.

    `problems` has the lines that say why a run failed.
    """

    problems: list[str] = field(default_factory=list[str])
    _line: str = ""
    _tensor: str | None = None
    _kind: str = ""

    @property
    def reason(self) -> str:
        """Why a run failed."""
        return "; ".join(self.problems[-3:]) or "llama.cpp gave no reason"

    def feed(self, text: str) -> list[TensorEvent]:
        """Parse the next piece of the log."""
        events = list[TensorEvent]()
        for piece in text.splitlines(keepends=True):
            self._line += piece
            events.extend(self._begin())
            if piece.endswith("\n"):
                events.extend(self._end(self._line.rstrip()))
                self._line = ""
        return events

    def _begin(self) -> list[TensorEvent]:
        found = _BEGUN.search(self._line)
        if not found or found[3] == self._tensor:
            return []
        self._tensor, self._kind = found[3], found[4]
        return [TensorBegun(int(found[1]), int(found[2]), found[3])]

    def _end(self, line: str) -> list[TensorEvent]:
        if self._tensor is None or not _SIZE.search(line):
            return self._other(line)
        found = _DRY.search(line) or _CONVERTED.search(line)
        kind = found[1] if found else self._kind
        tensor, self._tensor = self._tensor, None
        return [TensorEnded(tensor, _canonical(kind))]

    def _other(self, line: str) -> list[TensorEvent]:
        found = _MISFIT.search(line)
        if found:
            return [TensorMisfit(found[1], _canonical(found[2]), _canonical(found[3]))]
        if _PROBLEM.search(line):
            self.problems.append(line.strip(" ="))
        return []


def _canonical(kind: str) -> str:
    return canonical(kind) or kind


def load() -> ModuleType:
    """Import the library, which is an extra."""
    # Not an import statement: type checkers run where the extra is not installed.
    return importlib.import_module("llama_cpp")


def quantize(job: Quantize, emit: Emit) -> None:
    """Run one job; emit events while llama.cpp writes its log."""
    lib = load()
    reader = LogReader()

    def on_log(_level: int, text: bytes, _data: object) -> None:
        for event in reader.feed(text.decode(errors="replace")):
            emit(event)

    callback = lib.llama_log_callback(on_log)
    lib.llama_log_set(callback, None)
    parameters, keep_alive = _parameters(lib, job)
    status = lib.llama_model_quantize(
        os.fsencode(job.source), os.fsencode(job.target), ctypes.byref(parameters)
    )
    del keep_alive
    emit(Done() if status == 0 else Failed(reader.reason))


def _parameters(lib: Any, job: Quantize) -> tuple[Any, list[Any]]:
    """Fill the C structure; the list keeps alive the objects it points to."""
    fields = lib.llama_model_quantize_default_params()
    fields.ftype = job.ftype
    fields.nthread = job.threads
    fields.dry_run = job.dry_run
    fields.allow_requantize = job.allow_requantize
    keep_alive = list[Any]()
    if job.overrides:
        fields.tt_overrides = _overrides(lib, job.overrides, keep_alive)
    if job.imatrix:
        importance = read_importance(job.imatrix)
        fields.imatrix = _importance(lib, importance, keep_alive)
        fields.kv_overrides = _provenance(lib, job.imatrix, importance, keep_alive)
    return fields, keep_alive


def _overrides(
    lib: Any, overrides: tuple[tuple[str, int], ...], keep_alive: list[Any]
) -> Any:
    array = (lib.llama_model_tensor_override * (len(overrides) + 1))()
    for entry, (pattern, kind) in zip(array, overrides, strict=False):
        entry.pattern, entry.type = pattern.encode(), kind
    array[len(overrides)].pattern = None
    array[len(overrides)].type = lib.GGML_TYPE_COUNT
    keep_alive.append(array)
    return ctypes.cast(array, ctypes.POINTER(lib.llama_model_tensor_override))


def _importance(lib: Any, importance: Importance, keep_alive: list[Any]) -> Any:
    array = (lib.llama_model_imatrix_data * (len(importance.values) + 1))()
    for entry, (name, values) in zip(array, importance.values.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    keep_alive.extend([array, importance])
    return ctypes.cast(array, ctypes.POINTER(lib.llama_model_imatrix_data))


def _provenance(
    lib: Any, file: str, importance: Importance, keep_alive: list[Any]
) -> Any:
    """Add the metadata keys that llama-quantize writes and the library does not."""
    texts = {
        "quantize.imatrix.file": file,
        "quantize.imatrix.dataset": importance.dataset,
    }
    counts = {
        "quantize.imatrix.entries_count": len(importance.values),
        "quantize.imatrix.chunks_count": importance.chunks,
    }
    array = (lib.llama_model_kv_override * (len(texts) + len(counts) + 1))()
    entries = iter(array)
    for key, text in texts.items():
        entry = next(entries)
        entry.key, entry.tag = key.encode(), lib.LLAMA_KV_OVERRIDE_TYPE_STR
        entry.value.val_str = text.encode()[-127:]
    for key, count in counts.items():
        entry = next(entries)
        entry.key, entry.tag = key.encode(), lib.LLAMA_KV_OVERRIDE_TYPE_INT
        entry.value.val_i64 = count
    keep_alive.append(array)
    return ctypes.cast(array, ctypes.POINTER(lib.llama_model_kv_override))
