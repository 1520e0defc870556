"""Dashboard files: the page and what it loads, with headers that shut out all else.

The page is bundled and has no secrets: it is sent without a key, and asks for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path

from aiohttp import web

from edgeserve.errors import EdgeserveError

FOLDER = Path(__file__).parent / "static"
PAGE = "index.html"
PATH = "/dashboard/{name:.+}"

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""Content types. A file of any other kind is not sent."""

HEADERS = {
    "cache-control": "no-cache",  # the ETag spares the transfer
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "vary": "accept",  # on `/`, programs get another answer
}


class NoSuchFile(EdgeserveError):
    """The dashboard has no file of that name."""

    status = 404
    code = "file_not_found"
    kind = "invalid_request_error"


def wants_page(headers: Mapping[str, str]) -> bool:
    """Whether a browser asks, to show a page to its user. Pure."""
    return "text/html" in headers.get("accept", "").lower()


async def page(request: web.Request) -> web.Response:
    """Send the page."""
    return _sent(request, PAGE)


async def file(request: web.Request) -> web.Response:
    """Send a file that the page loads."""
    return _sent(request, request.match_info["name"])


def _sent(request: web.Request, name: str) -> web.Response:
    content = contents().get(name)
    if content is None:
        raise NoSuchFile(f"the dashboard has no file {name[:80]!r}")
    tag = sha256(content).hexdigest()[:32]
    headers = HEADERS | {"etag": f'"{tag}"'}
    if any(each.value in {tag, "*"} for each in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    kind = KINDS[Path(name).suffix]
    return web.Response(body=content, headers=headers | {"content-type": kind})


@cache
def contents() -> dict[str, bytes]:
    """Return every file by its name. They are read when the first one is asked for."""
    return {
        each.relative_to(FOLDER).as_posix(): each.read_bytes()
        for each in FOLDER.rglob("*.*")
        if each.suffix in KINDS
    }
