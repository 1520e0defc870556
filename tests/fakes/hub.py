"""A hub on loopback: repositories, redirects, ranges, gates and rate limits."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"
TOKEN = "hf_of_a_reader"


def sha256(content: bytes) -> str:
    """Return the checksum as the hub names it."""
    return hashlib.sha256(content).hexdigest()


@dataclass
class Hub:
    """What it has, and what it does to those who ask."""

    repos: dict[str, dict[str, bytes]] = field(
        default_factory=dict[str, dict[str, bytes]]
    )
    gated: set[str] = field(default_factory=set[str])
    announced: dict[str, str] = field(default_factory=dict[str, str])
    """File → checksum that is told instead of the true one."""
    pointers: set[str] = field(default_factory=set[str])
    """Files of which only the Git LFS pointer is sent."""
    limited: int = 0
    """How many requests get 429 yet."""
    retry_after: str = "0"
    cut_after: int | None = None
    """Bytes after which the next downloads break off."""
    cuts: int = 0
    """How many downloads break off yet."""
    ranges: bool = True
    stay: threading.Event | None = None
    """Before they break off, downloads wait for it, where there is one."""
    held: threading.Event | None = None
    """Downloads wait for it, where there is one."""
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Path and range of each request."""
    tokens: list[str] = field(default_factory=list[str])
    """`authorization` of each request for content, after the redirect."""
    url: str = ""
    content_url: str = ""
    """Where downloads are redirected to; empty for here."""

    def downloads(self) -> list[str]:
        """Return the ranges of the requests for content, in order."""
        return [range_ for path, range_ in self.asked if path.startswith("/cdn/")]

    def content(self, path: str) -> bytes | None:
        """Return a file by its path behind the redirect."""
        _, _, org, name, *file = path.split("/")
        if file[-1] in self.pointers:
            return b"version https://git-lfs.github.com/spec/v1\n"
        return self.repos.get(f"{org}/{name}", {}).get("/".join(file))

    def listing(self, repo: str) -> bytes:
        """Return what the API says of a repository."""
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": "0" * 40,
                "lfs": {
                    "size": len(content),
                    "sha256": self.announced.get(name, sha256(content)),
                    "pointerSize": 135,
                },
            }
            for name, content in self.repos[repo].items()
        ]
        said = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings}
        return json.dumps({**said, "private": False, "tags": []}).encode()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        if not re.match(r"/(api/models|cdn)/|/[^/]+/[^/]+/resolve/", path):
            self.answer(404)  # huggingface_hub asks for more, once a day
            return
        hub.asked.append((path, self.headers.get("range", "")))
        if hub.limited:
            hub.limited -= 1
            self.answer(429, {"Retry-After": hub.retry_after})
        elif path.startswith("/cdn/"):
            hub.tokens.append(self.headers.get("authorization", ""))
            self.send_content(hub.content(path))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/.+", path):
            if self.may(found[1]):
                self.answer(200, {}, hub.listing(found[1]))
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            if self.may(found[1]):
                where = hub.content_url or hub.url
                self.answer(302, {"Location": f"{where}/cdn/{found[1]}/{found[2]}"})
        else:
            self.answer(404)

    def may(self, repo: str) -> bool:
        hub = self.hub
        if repo not in hub.repos:
            self.answer(401, {"X-Error-Code": "RepoNotFound"})
        elif repo in hub.gated and TOKEN not in self.headers.get("authorization", ""):
            self.answer(401, {"X-Error-Code": "GatedRepo"})
        else:
            return True
        return False

    def answer(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_content(self, content: bytes | None) -> None:
        hub = self.hub
        if content is None:
            self.answer(404)
            return
        if hub.held:
            hub.held.wait(30)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        first = int(asked[1]) if asked and hub.ranges else 0
        if first >= len(content):
            self.answer(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        self.send_response(206 if asked and hub.ranges else 200)
        if asked and hub.ranges:
            span = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        self.send_header("ETag", f'"{sha256(content)}"')
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        rest = content[first:]
        if hub.cuts and hub.cut_after is not None:
            hub.cuts -= 1
            self.wfile.write(rest[: hub.cut_after])
            if hub.stay:
                hub.stay.wait(30)
            self.close_connection = True
            return
        self.wfile.write(rest)


@contextmanager
def a_hub(address: tuple[str, int] = ("127.0.0.1", 0)) -> Generator[Hub]:
    """Yield a hub that answers at `url`."""
    hub = Hub()
    handler = type("Answers", (_Answers,), {"hub": hub})
    with ThreadingHTTPServer(address, handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield hub
        finally:
            for each in (hub.held, hub.stay):
                if each:
                    each.set()
            server.shutdown()
            thread.join()
