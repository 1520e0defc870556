"""Server errors: read an error of any server, in whatever shape it comes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


def error_of(body: bytes, status: int) -> dict[str, Any]:
    """Read an error in any shape: OpenAI's, flat, `detail`, a text, or no JSON."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
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
