"""Contestants: EdgeServe before nodes, its peers before bare engines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.asking import Named
from tests.bench.proxy import peers

OURS = "EdgeServe"
TRACE = "trace.jsonl"

ENGINE_CLOSED = "conn-failure empty-response"
"""llama.cpp closes a connection after 5 idle seconds; HAProxy must ask on another."""

TUNED = ("--balance-abs-threshold", "2")
"""As it comes, it gives everything to one engine, whose slots are full long before its
threshold of 64 requests; the emulated machines show that (`make bench-routing`)."""

Command = Callable[[int, Sequence[int], Path], list[str]]


def edgeserve(port: int, nodes: Sequence[int], folder: Path) -> list[str]:
    """Start a balancer as a user does; only discovery is off, and a trace is kept."""
    told = [flag for each in nodes for flag in ("--node", f"http://127.0.0.1:{each}")]
    return [
        *(sys.executable, "-m", "edgeserve", "balancer", "start", "--no-discover"),
        *("--port", str(port), "--state-dir", str(folder / "state"), *told),
        *("--record", str(folder / TRACE)),
    ]


def by_header(response: aiohttp.ClientResponse, _: dict[str, Any]) -> str:
    return response.headers.get("x-edgeserve-node", "")


def by_model(_: aiohttp.ClientResponse, event: dict[str, Any]) -> str:
    """Bare engines give their own name for the model's."""
    return str(event.get("model", ""))


@dataclass(frozen=True)
class Contestant:
    """One balancer: how it is started, and how an answer names its engine."""

    name: str
    command: Command
    nodes: bool = False
    named: Named = by_model


CONTESTANTS = (
    Contestant(OURS, edgeserve, nodes=True, named=by_header),
    Contestant(
        "HAProxy",
        lambda port, engines, folder: peers.haproxy(
            port, engines, folder, "leastconn", "maxconn 2", ENGINE_CLOSED
        ),
    ),
    Contestant(
        "nginx",
        lambda port, engines, folder: peers.nginx(port, engines, folder, "least_conn;"),
    ),
    Contestant(
        "vllm-router",
        lambda port, engines, _: peers.cache_aware(peers.VLLM, port, engines),
    ),
    Contestant(
        "sglang-router",
        lambda port, engines, _: peers.cache_aware(peers.SGLANG, port, engines, *TUNED),
    ),
)
