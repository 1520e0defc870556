"""Server errors: read an error of any server, in whatever shape it comes. Pure.

A success may be an error, too, or no answer at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from edgeserve.wire import MALFORMED


def error_of(body: bytes, status: int) -> dict[str, Any]:
    """Read an error in any shape: OpenAI's, flat, `detail`, a text, or no JSON."""
    try:
        found = msgspec.json.decode(body)
    except MALFORMED:
        return error(body[:200].decode(errors="replace").strip(), status)
    if not isinstance(found, dict):
        return error(str(found)[:200], status)
    inner = found.get("error", found)
    if isinstance(inner, str):
        return error(inner, status, found.get("error_type"))
    if not isinstance(inner, Mapping):
        inner = found
    sentence = inner.get("message") or inner.get("detail") or found.get("detail")
    if not isinstance(sentence, str):
        sentence = str(sentence or inner)[:400]
    code = inner.get("code")
    number = code if isinstance(code, int) and 400 <= code < 600 else status
    return error(sentence, number, inner.get("type"))


def error(sentence: str, code: int, kind: object = None) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    usual = "server_error" if code >= 500 else "invalid_request_error"
    shown = kind if isinstance(kind, str) else usual
    return {"message": sentence or "no reason given", "type": shown, "code": code}


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None


class _Success(msgspec.Struct):
    """A chat or completion has choices; embeddings have data."""

    error: Any = None
    choices: list[_Choice] | None = None
    data: list[dict[str, Any]] | None = None


_successes = msgspec.json.Decoder(_Success)


def no_answer(body: bytes, kind: str, *, embeds: bool) -> str:
    """Say what came instead of an answer, and what to do; "" where it is one.

    `kind`: its content type. `embeds`: embeddings were requested.
    """
    if not body.strip():
        return "with an empty body: see its log"
    try:
        found = _successes.decode(body)
    except msgspec.ValidationError as wrong:
        return f"with fields of other types ({wrong}): see its log"
    except MALFORMED:
        return f"with {kind or 'no content type'}, no JSON object: is its URL right?"
    if found.error is not None:
        said = error_of(body, 500)["message"][:200]
        return f"with an error ({said}): is its URL right?"
    texts = found.choices or ()
    told = bool(texts) and all(e.message or e.text is not None for e in texts)
    if found.data if embeds else told:
        return ""
    return "without any answer in it: see its log"
