"""A fake ggml-rpc-server, and what a fake llama-server does with it.

`worker_program` makes a program of it. It serves one client after the other, answers
the two questions that nodes ask, and sends back any other command's content.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
HELLO, DEVICE_COUNT, ECHO = 14, 15, 100
VERSION = bytes((7, 0, 0, 0))
CAPABILITIES = bytes(24)
EVERY = 0.1


def worker_program(folder: Path, version: bytes = VERSION) -> Path:
    """Write a program that a node takes for ggml-rpc-server."""
    path = folder / "ggml-rpc-server"
    path.write_text(
        f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.fakes.rpc'
        f' --version {version.hex()} "$@"\n'
    )
    path.chmod(0o755)
    return path


def read(sock: socket.socket, count: int) -> bytes:
    """Read so many bytes. Raises ConnectionError."""
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionResetError("hung up")
        data += more
    return data


def command(sock: socket.socket, number: int, content: bytes = b"") -> bytes:
    """Send a command; return its answer."""
    sock.sendall(struct.pack("<BQ", number, len(content)) + content)
    (count,) = struct.unpack("<Q", read(sock, 8))
    return read(sock, count)


def connected(endpoint: str) -> socket.socket:
    """Connect to a worker as llama.cpp does."""
    host, _, port = endpoint.partition(":")
    sock = socket.create_connection((host, int(port)))
    command(sock, HELLO, CAPABILITIES)
    return sock


def attach(endpoints: str) -> None:
    """Be a head: use each worker all the time, and abort where one breaks off.

    Like llama.cpp, it first connects for a question only, and has no time limit.
    """
    for endpoint in endpoints.split(","):
        with connected(endpoint) as sock:
            command(sock, DEVICE_COUNT)
        work = threading.Thread(target=_use, args=(connected(endpoint),), daemon=True)
        work.start()


def _use(sock: socket.socket) -> None:
    try:
        while True:
            content = os.urandom(1000)
            assert command(sock, ECHO, content) == content
            time.sleep(EVERY)
    except OSError:
        print("Remote RPC server crashed or returned malformed response", flush=True)
        os.abort()


def _serve(sock: socket.socket, version: bytes) -> None:
    while True:
        number, count = struct.unpack("<BQ", read(sock, 9))
        content = read(sock, count)
        if number == HELLO:
            content = version + CAPABILITIES
        elif number == DEVICE_COUNT:
            content = struct.pack("<I", 1)
        sock.sendall(struct.pack("<Q", len(content)) + content)


def main() -> None:
    """Serve one client after the other."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--version")
    flags.add_argument("--host")
    flags.add_argument("--port", type=int)
    given, _ = flags.parse_known_args()
    with socket.create_server((given.host, given.port), backlog=1) as listening:
        while True:
            sock, _ = listening.accept()
            print("Accepted client connection", flush=True)
            with sock:
                try:
                    _serve(sock, bytes.fromhex(given.version))
                except OSError:
                    continue


if __name__ == "__main__":
    main()
