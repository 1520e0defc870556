"""Web: looks a file up at its URL, before it is downloaded."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx2
from huggingface_hub import get_session
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

from edgeserve.models.download import Show
from edgeserve.models.pull.arrival import Incoming
from edgeserve.models.pull.hub import in_sentences
from edgeserve.models.pull.transfer import (
    TIMEOUT,
    Address,
    check_way,
    download,
    length,
    patiently,
)


def found(url: str, target: Path, show: Show) -> Incoming:
    """Plan to download a file; its size and version are asked now.

    Raises NotFetched.
    """
    address = Address(url=url, name=target.name, guarded=True)
    with in_sentences(url):
        answer = patiently(partial(_asked, address), target.name, show)
    size, tag = length(answer), answer.headers.get("etag", "")
    key = hashlib.sha256(f"{url} {tag} {size}".encode()).hexdigest()
    fill = partial(_fill, replace(address, size=size))
    return Incoming(target=target, size=size, key=f"web-{key}", fill=fill)


def _asked(address: Address) -> httpx2.Response:
    """Ask for the file, and read the head of the answer only."""
    with get_session().stream(
        "GET",
        address.url,
        headers={"Accept-Encoding": "identity"},
        timeout=TIMEOUT,
        follow_redirects=True,
    ) as answer:
        hf_raise_for_status(answer)
        check_way(address, answer)
        return answer


def _fill(address: Address, part: Path, show: Show) -> None:
    with in_sentences(address.url):
        download(address, part, show)
