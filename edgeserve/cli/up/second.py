"""A second start: says where EdgeServe serves already, before anything is made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from edgeserve.cli.client import DEFAULT_URL
from edgeserve.cli.service.health import ServicePort
from edgeserve.cli.service.places import Role, unit_name
from edgeserve.config.paths import OURS
from edgeserve.config.settings import EVERYWHERE, BalancerSettings, NodeSettings
from edgeserve.errors import SettingsError
from edgeserve.http.types import Origin
from edgeserve.network import asked_at
from edgeserve.runtime.files import read_text

PROC = "/proc/{pid}/cgroup"

LEFT = re.compile(r"admin-(\d+)\.key")
"""What a balancer leaves in its state folder: `edgeserve.config.paths` has the name."""


def refuse_second(node: NodeSettings, balancer: BalancerSettings) -> None:
    """Raise SettingsError where a node runs with this state folder, or as a service."""
    _refuse_beside_services()
    # Imported here: it would slow down `--help`.
    from node.discovery.identity import NodeRuns, no_node_in

    try:
        with no_node_in(node.state_dir):
            return
    except NodeRuns as error:
        url = next(_serving(balancer), None)
        if url is None:
            raise SettingsError(
                f"a node runs here already, and keeps its state in {node.state_dir};"
                " `edgeserve service status` shows services, `edgeserve doctor` what"
                " runs; stop it first"
            ) from error
        at = "" if url == DEFAULT_URL else f" --url {url}"
        raise SettingsError(
            f"EdgeServe runs here already, at {url}; `edgeserve nodes{at}` shows it,"
            " `edgeserve service status` whether it is a service; to start it with"
            " other options, stop it first"
        ) from error


def _refuse_beside_services() -> None:
    """Raise SettingsError where the whole machine has a service that runs.

    It has another state folder. Who names one to this command wants both.
    """
    if os.environ.get(OURS[1]):
        return
    # Imported here: it imports the options of both commands.
    from edgeserve.cli.doctor.here import running_processes

    for process in running_processes():
        if is_service(process.pid, process.role):
            raise SettingsError(
                f"EdgeServe runs here already: {unit_name(process.role)} is a service"
                " of the whole machine; `edgeserve service status --system` shows it."
                f" To serve beside it, set {OURS[1]} to another folder"
            )


def is_service(pid: int, role: Role) -> bool:
    """Whether a process is a service of the whole machine, by its control group."""
    try:
        groups = read_text(Path(PROC.format(pid=pid)))
    except OSError:
        return False
    return f"/system.slice/{unit_name(role)}.service" in groups


def _serving(settings: BalancerSettings) -> Iterator[str]:
    """Yield where balancers with this state folder answer, the latest first."""
    host = asked_at(settings.host or EVERYWHERE)
    for port in _ports(settings.state_dir):
        if ServicePort("balancer", host, port).answers():
            yield Origin(host, port, bool(settings.tls or settings.tls_cert)).url


def _ports(folder: Path) -> list[int]:
    """Return the ports for which balancers have left a key, the latest first."""
    left = list[tuple[float, int]]()
    for each in folder.glob("admin-*.key"):
        if found := LEFT.fullmatch(each.name):
            with suppress(OSError):
                left.append((each.stat().st_mtime, int(found[1])))
    return [port for _, port in sorted(left, reverse=True)]
