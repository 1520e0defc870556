"""A balancer as the commands see it: fixed answers over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Stream = Callable[[], Iterable[bytes]]

MODELS = {"data": [{"id": "words", "abilities": ["chat"]}]}


class FakeEndpoint:
    """What it answers, by path, and what it was asked.

    An answer is JSON, or a function that returns the pieces of a stream. `statuses` has
    those other than 200; `left` is set once a client hung up in the middle.
    """

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.statuses: dict[str, int] = {}
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.methods: list[str] = []
        self.left = threading.Event()
        self.url = ""

    def said(self, path: str) -> list[Any]:
        """The bodies that were sent to `path`."""
        return [body for asked, _, body in self.asked if asked == path]


def chat_stream(*words: str, end: Sequence[bytes] = (b"data: [DONE]\n\n",)) -> Stream:
    """Build a streamed chat answer."""
    return lambda: [b": ping\n\n", *map(chat_event, words), *end]


def chat_event(word: str) -> bytes:
    """Build one event of it."""
    event = {"choices": [{"delta": {"content": word}}]}
    return b"data: %b\n\n" % json.dumps(event).encode()


@contextmanager
def fake_endpoint(answers: dict[str, Any]) -> Generator[FakeEndpoint]:
    """Serve until the block ends, on a free port of loopback."""
    endpoint = FakeEndpoint(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(None)

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            self.answer(json.loads(self.rfile.read(length)))

        do_PUT, do_DELETE = do_POST, do_GET  # noqa: N815 - http.server's names

        def answer(self, body: Any) -> None:
            if self.path not in endpoint.answers:
                # Someone who looks for what had this port before.
                self.send_error(404)
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            endpoint.asked.append((self.path, headers, body))
            endpoint.methods.append(self.command)
            found = endpoint.answers[self.path]
            whole = [] if callable(found) else [json.dumps(found).encode()]
            self.send_response(endpoint.statuses.get(self.path, 200))
            self.end_headers()
            try:
                for piece in found() if callable(found) else whole:
                    self.wfile.write(piece)
                    self.wfile.flush()
            except ConnectionError:
                endpoint.left.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
