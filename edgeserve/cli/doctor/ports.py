"""Ports: whether node and balancer can listen where their settings say."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

import psutil

from edgeserve.cli.doctor.finding import Finding, ok, problem
from edgeserve.cli.doctor.here import Here
from edgeserve.cli.service.places import Role
from edgeserve.config.settings import LOOPBACK


@dataclass(frozen=True, kw_only=True)
class PortUse:
    """A TCP port: whether it is taken, by which process, and whether that is ours."""

    role: Role
    number: int
    taken: bool
    holder: str = ""
    ours: bool = False


def ports(here: Here) -> Iterator[Finding]:
    """Check the port of each role."""
    for role in sorted(here.roles):
        yield port_finding(look(here, role))


def look(here: Here, role: Role) -> PortUse:
    """Look who listens on the port of a role."""
    number = here.settings(role).port
    process = here.running.get(role)
    if number == 0:
        return PortUse(role=role, number=0, taken=False, ours=process is not None)
    pid, taken = listener(number)
    return PortUse(
        role=role,
        number=number,
        taken=taken,
        holder=_named(pid),
        ours=process is not None and pid in {None, process.pid},
    )


def listener(port: int) -> tuple[int | None, bool]:
    """Return which process listens on a port, and whether any does.

    Other users' processes are seen by root only.
    """
    with suppress(psutil.Error, OSError):
        for each in psutil.net_connections(kind="tcp"):
            at: tuple[object, ...] = each.laddr
            if each.status == psutil.CONN_LISTEN and at[1:2] == (port,):
                return each.pid, True
        return None, False
    with closing(socket.socket()) as sock:  # macOS lists connections for root only
        sock.settimeout(1.0)
        return None, sock.connect_ex((LOOPBACK, port)) == 0


def _named(pid: int | None) -> str:
    if pid is None:
        return "another user's process"
    try:
        return f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.Error:
        return f"process {pid}"


def port_finding(found: PortUse) -> Finding:
    """Judge one port. Pure."""
    where = f"port {found.number} of the {found.role}"
    if found.ours:
        return ok("ports", f"the {found.role} runs, on port {found.number or 'any'}")
    if not found.taken:
        return ok("ports", f"{where} is free")
    free = found.number + 10
    return problem(
        "ports",
        "taken",
        f"{where} is taken by {found.holder}",
        f"edgeserve {found.role} start --port {free}",
    )
