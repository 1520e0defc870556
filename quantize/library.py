"""llama.cpp's quantizer, called through llama-cpp-python. Runs in the child process."""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from quantize.imatrix import Importance, read_importance
from quantize.jobs import Done, Event, Failed, Quantize
from quantize.log import LogReader

Emit = Callable[[Event], None]


def load() -> ModuleType:
    """Import the library; it is an extra and compiles for ten minutes."""
    # Not an import statement: checkers run where the extra is not installed.
    return importlib.import_module("llama_cpp")


def quantize(job: Quantize, emit: Emit) -> None:
    """Run one job to its end; the log becomes events as it is written."""
    lib = load()
    reader = LogReader()

    def on_log(_level: int, text: bytes, _data: object) -> None:
        for event in reader.feed(text.decode(errors="replace")):
            emit(event)

    callback = lib.llama_log_callback(on_log)
    lib.llama_log_set(callback, None)
    parameters, kept = _parameters(lib, job)
    status = lib.llama_model_quantize(
        os.fsencode(job.source), os.fsencode(job.target), ctypes.byref(parameters)
    )
    del kept
    emit(Done() if status == 0 else Failed(_why(reader)))


def _why(reader: LogReader) -> str:
    return "; ".join(reader.problems[-3:]) or "llama.cpp gave no reason"


def _parameters(lib: Any, job: Quantize) -> tuple[Any, list[Any]]:
    """Fill the C structure; the list keeps alive what it points to."""
    fields = lib.llama_model_quantize_default_params()
    fields.ftype = job.ftype
    fields.nthread = job.threads
    fields.dry_run = job.dry_run
    fields.allow_requantize = job.allow_requantize
    kept = list[Any]()
    if job.overrides:
        fields.tt_overrides = _overrides(lib, job.overrides, kept)
    if job.imatrix:
        importance = read_importance(job.imatrix)
        fields.imatrix = _importance(lib, importance, kept)
        fields.kv_overrides = _provenance(lib, job.imatrix, importance, kept)
    return fields, kept


def _overrides(
    lib: Any, overrides: tuple[tuple[str, int], ...], kept: list[Any]
) -> Any:
    array = (lib.llama_model_tensor_override * (len(overrides) + 1))()
    for entry, (pattern, kind) in zip(array, overrides, strict=False):
        entry.pattern, entry.type = pattern.encode(), kind
    array[len(overrides)].pattern = None
    array[len(overrides)].type = lib.GGML_TYPE_COUNT
    kept.append(array)
    return ctypes.cast(array, ctypes.POINTER(lib.llama_model_tensor_override))


def _importance(lib: Any, importance: Importance, kept: list[Any]) -> Any:
    array = (lib.llama_model_imatrix_data * (len(importance.values) + 1))()
    for entry, (name, values) in zip(array, importance.values.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    kept.extend([array, importance])
    return ctypes.cast(array, ctypes.POINTER(lib.llama_model_imatrix_data))


def _provenance(lib: Any, file: str, importance: Importance, kept: list[Any]) -> Any:
    """Write the keys that llama-quantize writes; the library by itself does not."""
    words = {
        "quantize.imatrix.file": file,
        "quantize.imatrix.dataset": importance.dataset,
    }
    counts = {
        "quantize.imatrix.entries_count": len(importance.values),
        "quantize.imatrix.chunks_count": importance.chunks,
    }
    array = (lib.llama_model_kv_override * (len(words) + len(counts) + 1))()
    entries = iter(array)
    for key, word in words.items():
        entry = next(entries)
        entry.key, entry.tag = key.encode(), lib.LLAMA_KV_OVERRIDE_TYPE_STR
        entry.value.val_str = word.encode()[-127:]
    for key, count in counts.items():
        entry = next(entries)
        entry.key, entry.tag = key.encode(), lib.LLAMA_KV_OVERRIDE_TYPE_INT
        entry.value.val_i64 = count
    kept.append(array)
    return ctypes.cast(array, ctypes.POINTER(lib.llama_model_kv_override))
