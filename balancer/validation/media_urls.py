"""Media URLs: which of a request's images and files an engine may fetch. Pure.

llama.cpp fetches every URL that begins with `http`, in an image, an audio or a video
part, and follows redirects. So a client could have a machine of the fleet ask any
address that it can reach. Only hosts that the settings name are asked, by URLs that
every parser reads alike. A host that is named is trusted with its redirects too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from edgeserve.errors import BadRequest
from edgeserve.openai import fields

_MEDIA = re.compile(r"(?:input_|output_)?(?:image|audio|video|file)(?:_url)?|document")
"""Types of content that may be fetched, or be files."""

_FETCHED = re.compile(r"\s*(?:https?:|http|file:)", re.IGNORECASE)

_PLAIN_URL = re.compile(
    r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[!-\[\]-~]*)?"
)
"""Without user, backslash or blank: what is the host is the same to every parser."""

SHOWN = 200


def check_media(body: bytes, hosts: Collection[str]) -> None:
    """Raise BadRequest where a part of the request is at a host that is not allowed."""
    if _may_have_media(body):
        for url in _urls(fields(body)):
            _check(url, hosts)


def _may_have_media(body: bytes) -> bool:
    """Whether to decode it: most bodies have none of these words."""
    return (
        b"image" in body
        or b"audio" in body
        or b"video" in body
        or b'file"' in body
        # Letters that no encoder escapes, but that may hide one of the words.
        or (b"\\u00" in body and (b"\\u006" in body or b"\\u007" in body))
    )


def _check(url: str, hosts: Collection[str]) -> None:
    shown = url[:SHOWN]
    found = _PLAIN_URL.fullmatch(url)
    if found is None:
        raise BadRequest(f"{shown!r} is refused; send the content as a data: URL")
    if found[1].lower() not in hosts:
        raise BadRequest(
            f"{shown!r} is not fetched; send the content as a data: URL, or allow the"
            f" host with `media_hosts` of the balancer"
        )


def _urls(value: Any) -> Iterator[str]:
    """Yield what an engine might fetch, of all parts at any depth."""
    waiting: list[tuple[Any, bool]] = [(value, False)]
    while waiting:
        each, inside = waiting.pop()
        if isinstance(each, str):
            if inside and _FETCHED.match(each):
                yield each
        elif isinstance(each, list):
            waiting += [(one, inside) for one in each]
        elif isinstance(each, dict):
            kind = each.get("type")
            media = isinstance(kind, str) and _MEDIA.fullmatch(kind) is not None
            for key, one in each.items():
                part = inside or media or key in _FIELDS
                waiting.append((one, part and key not in _TEXTS))


_FIELDS = frozenset(("image_url", "audio_url", "video_url", "file_url"))
_TEXTS = frozenset(("type", "text", "title", "context", "filename", "name", "detail"))
"""Fields of such parts that are for the model, not for a fetch."""
