"""Transfer: completes an unfinished file by HTTP, from where it stopped."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

from edgeserve.errors import in_words
from edgeserve.models.download import MIB, NotFetched, Show
from edgeserve.models.pull.sources import safe

TRIES = 5
"""Without a byte in between."""

LIMITED = (429, 503)
LONGEST_WAIT, USUAL_WAIT = 900, 5
"""Seconds before the next try where the server limits the rate."""

TIMEOUT = httpx2.Timeout(30)

Wait = Callable[[float], None]


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


WAIT: ContextVar[Wait] = ContextVar("WAIT", default=_sleep)
"""How to wait before the next try; a serving process has to end meanwhile."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a file is. `guarded`: the content is not verified, so its way must be."""

    url: str
    name: str
    size: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    guarded: bool = False


class _Broken(Exception):
    """The answer was not what is missing, or not all of it."""


def patiently(call: Callable[[], T], what: str, show: Show) -> T:
    """Call until the server does not limit the rate. Raises what `call` does."""
    for _ in range(TRIES):
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code not in LIMITED:
                raise
            seconds = wait_asked(error.response.headers)
            if seconds > LONGEST_WAIT:
                raise
            show(f"{what}: the server limits the rate, waiting {seconds} s", 0, 0)
            WAIT.get()(seconds)
    return call()


def wait_asked(headers: Mapping[str, str]) -> int:
    """Return the seconds that a server asks to wait."""
    after = headers.get("retry-after", "").strip()
    if not after.isdecimal():
        # The hub's own: `"api";r=0;t=55`.
        found = re.search(r";\s*t=(\d+)", headers.get("ratelimit", ""))
        after = found[1] if found else str(USUAL_WAIT)
    return int(after)


def download(address: Address, part: Path, show: Show) -> None:
    """Complete `part`. Raises NotFetched, HfHubHTTPError, TransportError, OSError."""
    failures, most = 0, part.stat().st_size
    while True:
        try:
            patiently(lambda: _once(address, part, show), address.name, show)
        except (httpx2.TransportError, _Broken) as error:
            done = part.stat().st_size
            failures = 0 if done > most else failures + 1
            most = max(done, most)
            if failures >= TRIES:
                raise NotFetched(
                    f"{address.name}: the connection breaks again and again"
                    f" ({in_words(error)}); what has come is kept, and"
                    " the same command goes on from there"
                ) from error
            show(f"{address.name}: the connection broke, going on", 0, 0)
            WAIT.get()(min(2**failures - 1, 8))
        else:
            return


def _once(address: Address, part: Path, show: Show) -> None:
    """Ask for what is missing, and append it."""
    done = part.stat().st_size
    if done and done == address.size:
        return
    headers = {**address.headers, "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    with get_session().stream(
        "GET", address.url, headers=headers, timeout=TIMEOUT, follow_redirects=True
    ) as answer:
        if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.write_bytes(b"")  # longer than the file: what was kept is of another
            raise _Broken("what was kept did not fit")
        hf_raise_for_status(answer)
        check_way(address, answer)
        _append(address, part, answer, show)


def check_way(address: Address, answer: httpx2.Response) -> None:
    """Raise NotFetched where a redirect left https."""
    if address.guarded and not safe(urlsplit(str(answer.url))):
        raise NotFetched(f"{address.url} leads to {answer.url}, which is not https")


def _append(address: Address, part: Path, answer: httpx2.Response, show: Show) -> None:
    first, total = _range(answer)
    if address.size and total and total != address.size:
        raise NotFetched(
            f"{address.name}: the server has {total} bytes of it where {address.size}"
            " were announced; a mirror may have only its Git LFS pointer"
        )
    total = address.size or total
    with part.open("r+b") as sink:
        sink.truncate(first)  # a server without ranges begins again
        done = shown = sink.seek(first)
        # In pieces as they come: what a larger buffer holds is lost when it breaks.
        for piece in answer.iter_raw():
            done += sink.write(piece)
            if done >= shown + MIB or done == total:
                show(f"{address.name}: downloading", done, total or done)
                shown = done
    if total and done < total:
        raise _Broken("the answer ended early")


def _range(answer: httpx2.Response) -> tuple[int, int | None]:
    """Return where an answer begins in the file, and the file's size."""
    found = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("content-range", "")
    )
    if answer.status_code == HTTPStatus.PARTIAL_CONTENT and found:
        return int(found[1]), int(found[2]) if found[2] != "*" else None
    return 0, length(answer)


def length(answer: httpx2.Response) -> int | None:
    """Return the length of a whole answer, if it says so."""
    said = answer.headers.get("content-length", "")
    return int(said) if said.isdecimal() else None
