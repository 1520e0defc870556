"""RPC protocol: the two questions of it that a node itself asks `ggml-rpc-server`.

Everything else of it is said between llama.cpp's own two programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from edgeserve.config.settings import LOOPBACK
from edgeserve.errors import in_words
from node.engines.base import Engine
from node.engines.native import Native
from node.engines.process import free_port

log = logging.getLogger(__name__)

PROGRAM = "ggml-rpc-server"

NO_PROGRAM = (
    "this node has no llama.cpp with RPC, so it can be no member of a group;"
    " `edgeserve engine build` makes one"
)

HELLO, DEVICE_COUNT = 14, 15
"""Commands; the first one has always this number."""

CAPABILITIES = bytes(24)
"""What the transport could do beside TCP: nothing."""

ASK_SECONDS = 30.0
"""A GPU's driver may take long to start."""

PAUSE = 0.02


@dataclass(frozen=True)
class Hello:
    """What a worker's process says of itself: its version of RPC, and its devices."""

    version: str
    devices: int


def program(engine: Engine | None) -> Path | None:
    """Return the program beside an engine; None where there is none."""
    if not isinstance(engine, Native):
        return None
    path = engine.path.resolve().with_name(PROGRAM)
    return path if path.exists() else None


def version(path: Path) -> str:
    """Return a program's version of RPC, "" where it does not run. Takes a moment.

    It tells its client only: so it is started, asked and ended.
    """
    port = free_port()
    where = ("--host", LOOPBACK, "--port", str(port), "--threads", "1")
    try:
        running = subprocess.Popen(
            [str(path), *where, "--device", "CPU"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        log.warning("cannot run %s: %s", path, in_words(error))
        return ""
    try:
        return _asked(running, port).version
    except (OSError, TimeoutError) as error:
        log.warning("%s does not answer: %s", path, in_words(error))
        return ""
    finally:
        running.kill()
        running.wait()


def _asked(running: subprocess.Popen[bytes], port: int) -> Hello:
    """Ask as soon as it listens. Raises OSError, TimeoutError."""
    deadline = time.monotonic() + ASK_SECONDS
    while time.monotonic() < deadline:
        if running.poll() is not None:
            raise ConnectionError(f"it ended with status {running.returncode}")
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection((LOOPBACK, port), timeout=ASK_SECONDS) as sock,
        ):
            sock.sendall(QUESTION)
            with sock.makefile("rb") as answer:
                return _hello(answer.read(ANSWER))
        time.sleep(PAUSE)
    raise TimeoutError(f"no answer within {ASK_SECONDS:g} s")


async def hello(port: int) -> Hello:
    """Ask a worker's process. Raises ConnectionError where it does not listen yet."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(QUESTION)
        return _hello(await reader.readexactly(ANSWER))
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("it hung up") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _command(number: int, content: bytes = b"") -> bytes:
    return struct.pack("<BQ", number, len(content)) + content


QUESTION = _command(HELLO, CAPABILITIES) + _command(DEVICE_COUNT)
ANSWER = 8 + 4 + len(CAPABILITIES) + 8 + 4


def _hello(data: bytes) -> Hello:
    if len(data) < ANSWER:
        raise ConnectionResetError("it hung up")
    major, minor, patch = data[8:11]
    (devices,) = struct.unpack("<I", data[-4:])
    return Hello(f"{major}.{minor}.{patch}", devices)
