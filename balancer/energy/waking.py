"""Waking: send a machine what wakes it, a magic packet and the owner's command.

The packet goes to networks of this machine only: a node names its card, and no more,
so that it cannot have a balancer send to others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from edgeserve.errors import in_words
from edgeserve.network import Interface, by_name, is_virtual, send_magic_packet
from edgeserve.reports.sleep import NetworkCard

log = logging.getLogger(__name__)

COMMAND_SECONDS = 20.0


def broadcasts(
    cards: Iterable[NetworkCard], own: Mapping[str, tuple[Interface, ...]]
) -> Iterator[tuple[str, str]]:
    """Yield each card's address with each network to send to. Pure.

    That is the card's network, where this machine is in it, else every real one here.
    """
    networks = {
        str(each.network.broadcast_address): is_virtual(name)
        for name, addresses in own.items()
        for each in addresses
        if isinstance(each, ipaddress.IPv4Interface) and not each.ip.is_loopback
    }
    for card in cards:
        if card.broadcast in networks:
            yield card.mac, card.broadcast
            continue
        for broadcast, virtual in networks.items():
            if not virtual:
                yield card.mac, broadcast


def send_packets(cards: Iterable[NetworkCard]) -> str:
    """Send a magic packet for each card; return what is wrong, "" for nothing."""
    targets, problem = list(broadcasts(cards, by_name())), ""
    for mac, broadcast in targets:
        try:
            send_magic_packet(mac, broadcast)
        except (OSError, ValueError) as error:
            problem = f"no magic packet to {broadcast}: {in_words(error)}"
    if not targets:
        return "it has told of no network card that a magic packet could reach"
    return problem


async def run_command(command: str, node: str, cards: Iterable[NetworkCard]) -> str:
    """Run the owner's command for a node; return why it failed, "" for success.

    What the node says reaches it in variables, never as a part of the command.
    """
    mac = next((each.mac for each in cards), "")
    told = {"EDGESERVE_NODE": node, "EDGESERVE_MAC": mac}
    return await asyncio.to_thread(_run, command, {**os.environ, **told})


def _run(command: str, environment: Mapping[str, str]) -> str:
    try:
        process = subprocess.Popen(
            ("sh", "-c", command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"wake_command cannot be run: {in_words(error)}"
    try:
        status = process.wait(COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"wake_command took more than {COMMAND_SECONDS:g} s"
    return f"wake_command ended with status {status}" if status else ""
