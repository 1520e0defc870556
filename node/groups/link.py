"""Link: measure the network to another node, through the channel that a group uses."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil

from edgeserve.errors import EdgeserveError, NodeLost
from edgeserve.http.client.raw import Connecting, raw_stream
from edgeserve.http.raw import RawStream
from edgeserve.http.types import origins_of
from edgeserve.orders.groups import ECHO, MeasureLink, NodeLink

log = logging.getLogger(__name__)

TRIPS = 15
SMALL_BYTES, LARGE_BYTES = 2**18, 2**22
"""What is sent first, and then where that took less than `QUICK_SECONDS`."""

QUICK_SECONDS = 0.2
MOST_BYTES = 2**24
MOST_SECONDS = 20.0
DONE = b"ok\n"
LINE = 32
NET = Path("/sys/class/net")


async def measured(order: MeasureLink, nodes: Connecting) -> NodeLink:
    """Measure the link to a node at the first address where it answers.

    Raises NodeLost.
    """
    errors = list[str]()
    for origin in origins_of(order.node, order.urls):
        try:
            async with (
                asyncio.timeout(MOST_SECONDS),
                raw_stream(nodes, origin, ECHO, b"") as stream,
            ):
                return await _measured(stream)
        except (EdgeserveError, OSError, TimeoutError) as error:
            errors.append(str(error) or f"no answer within {MOST_SECONDS:g} s")
    raise NodeLost(
        "; ".join(dict.fromkeys(errors)) or f"no address of {order.node} is known"
    )


async def _measured(stream: RawStream) -> NodeLink:
    trips = [await _trip(stream, 0) for _ in range(TRIPS)]
    trip = median(trips)
    count = SMALL_BYTES
    taken = await _trip(stream, count)
    if taken < QUICK_SECONDS:
        count = LARGE_BYTES
        taken = await _trip(stream, count)
    name = stream.transport.get_extra_info("sockname")
    return NodeLink(
        round_trip=trip,
        bytes_per_second=count / max(taken - trip, 1e-6),
        wired=await asyncio.to_thread(is_wired, str(name[0]) if name else ""),
    )


async def _trip(stream: RawStream, count: int) -> float:
    """Send so many bytes, and wait until they are there; returns the seconds."""
    began = perf_counter()  # the loop's time may have no parts of a millisecond
    await stream.send(b"%d\n" % count + bytes(count))
    await stream.until(b"\n", LINE)
    return perf_counter() - began


async def echo(stream: RawStream) -> None:
    """Take bytes of another node and say so, until it hangs up."""
    while True:
        count = int(await stream.until(b"\n", LINE))
        if not 0 <= count <= MOST_BYTES:
            raise ConnectionAbortedError("more bytes than may be sent at once")
        await stream.skip(count)
        await stream.send(DONE)


def is_wired(address: str, net: Path = NET) -> bool:
    """Whether the interface that has this address is no wireless one."""
    name = _interface(address.removeprefix("::ffff:").partition("%")[0])
    folder = net / name
    radio = (folder / "wireless").exists() or (folder / "phy80211").exists()
    return not (name and radio)


def _interface(address: str) -> str:
    """Return the name of the interface that has an address, "" where it is unknown."""
    try:
        found = psutil.net_if_addrs()
    except OSError:
        return ""
    for name, entries in found.items():
        for each in entries:
            inet = each.family in {socket.AF_INET, socket.AF_INET6}
            if inet and each.address.partition("%")[0] == address:
                return name
    return ""
