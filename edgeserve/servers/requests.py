"""Server requests: the bodies that servers of other programs get. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from edgeserve.json_edit import edited, raw_fields
from edgeserve.servers.profiles import profile_of
from edgeserve.wire import EngineReport

LLAMA_FIELDS = (
    "id_slot", "lora", "cache_prompt", "return_progress", "timings_per_token",
    "n_predict", "n_cmpl", "n_keep", "n_discard", "n_indent", "samplers", "json_schema",
    "post_sampling_probs", "t_max_predict_ms", "return_tokens",
)  # fmt: skip
"""Fields of llama.cpp that other servers do not know; strict ones refuse them."""

_ASSISTANT = b'"assistant"'


def called(engine: EngineReport) -> str:
    """Return the name that a server has for its model."""
    return engine.file or engine.variant


def portable_body(
    body: bytes, engine: EngineReport, put: Mapping[str, object]
) -> bytes:
    """Return a body without llama.cpp's fields, for a server that is no node.

    Fields have the names that its program knows. A last message of the assistant is
    continued, as llama.cpp does, unless the client says otherwise.
    """
    profile, put = profile_of(engine), {**put, "model": called(engine)}
    opens, renames = profile.continues, profile.renames
    if renames:
        given = raw_fields(body)
        put |= {new: given[old] for old, new in renames.items() if old in given}
    if opens and _ASSISTANT in body:
        given = raw_fields(body)
        if given.keys().isdisjoint(opens) and ends_with_assistant(
            given.get("messages")
        ):
            put |= opens
    return edited(body, put=put, drop=(*LLAMA_FIELDS, *renames))


class _Turn(msgspec.Struct):
    role: Any = None


def ends_with_assistant(raw: msgspec.Raw | None) -> bool:
    """Whether the last of these messages is the assistant's."""
    try:
        turns = msgspec.json.decode(raw or b"[]", type=list[_Turn])
    except (msgspec.ValidationError, RecursionError):
        return False
    return bool(turns) and turns[-1].role == "assistant"
