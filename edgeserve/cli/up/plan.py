"""Plan of `edgeserve up`: the commands of node and balancer, from the settings."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import click

from edgeserve.cli.client import Endpoint
from edgeserve.cli.models.pull import fetched
from edgeserve.cli.up.serve_alone import Plan
from edgeserve.config.paths import admin_key_file
from edgeserve.config.settings import (
    EVERYWHERE,
    LOOPBACK,
    BalancerSettings,
    NodeSettings,
)
from edgeserve.config.sources import Resolved
from edgeserve.errors import SettingsError
from edgeserve.http.sockets import bind
from edgeserve.http.types import Origin
from edgeserve.models.download import CATALOG, DEFAULT, in_place
from edgeserve.network import asked_at

STOP_SECONDS = 10.0
"""Time to end the engines, once running requests are done."""

NEIGHBOURS = 10
"""Ports tried where the default one is taken."""


def planned(
    node: Resolved[NodeSettings],
    balancer: Resolved[BalancerSettings],
    file: Path | None,
    api_key: str | None,
    *,
    lan: bool = False,
) -> Plan:
    """Turn settings into two commands; fetches the default model if it is needed.

    On the LAN, node and balancer listen where their settings and secrets let them.
    """
    if balancer.settings.tls or balancer.settings.tls_cert:
        raise SettingsError(
            "`edgeserve up` serves without TLS, which the settings ask for; use"
            " `edgeserve node start` and `edgeserve balancer start`"
        )
    back_host, front_host = (
        each.settings.host or EVERYWHERE if lan else LOOPBACK
        for each in (node, balancer)
    )
    back = port_near(node, back_host)
    front = port_near(balancer, front_host, but=back)
    wanted = balancer.settings.port
    if wanted not in {0, front}:
        click.echo(f"port {wanted} is not free; using {front}", err=True)
    own, at = (
        Origin(asked_at(host), port).url
        for host, port in ((back_host, back), (front_host, front))
    )
    backend = ["--port", str(back), *engine_flags(node.settings)]
    frontend = ["--port", str(front), "--node", own]
    common = ["--config", str(file)] if file else []
    if lan:
        frontend.append("--approve")
    else:
        backend.append("--no-advertise")
        frontend.append("--no-discover")
        common += ["--host", LOOPBACK]
    if node.origins["log_level"] == "default":
        common += ["--log-level", "warning"]
    this = [sys.executable, "-m", "edgeserve"]
    return Plan(
        node=[*this, "node", "start", *common, *backend],
        balancer=[*this, "balancer", "start", *common, *frontend],
        place=Endpoint(at, api_key, admin_key_file(balancer.settings.state_dir, front)),
        load_seconds=node.settings.load_seconds,
        grace=node.settings.drain_seconds + STOP_SECONDS,
        speaks=lan,
    )


def port_near(
    found: Resolved[NodeSettings] | Resolved[BalancerSettings],
    host: str = LOOPBACK,
    but: int = 0,
) -> int:
    """Return the port of the settings, or a free one near a default port.

    Raises SettingsError where a port that was set is taken.
    """
    port = found.settings.port
    was_set = found.origins["port"] != "default"
    for candidate in range(port, port + NEIGHBOURS):
        try:
            with closing(bind(host, candidate)) as sock:
                free: int = sock.getsockname()[1]
        except SettingsError:
            if was_set:
                raise
            continue
        if free != but:
            return free
    raise SettingsError(
        f"every port from {port} to {port + NEIGHBOURS - 1} is in use;"
        " choose one with --port"
    )


def engine_flags(settings: NodeSettings) -> list[str]:
    """Return the node's flags for its models, slots and context."""
    flags = model_flags(settings)
    for name in settings.embedding_models:
        flags += ["--embedding-model", name]
    if settings.slots:
        flags += ["--slots", str(settings.slots)]
    if settings.context:
        flags += ["--context", str(settings.context)]
    return flags


def model_flags(settings: NodeSettings) -> list[str]:
    """Return the node's model flags: the models that are set, else the default one.

    Models of the catalogue are fetched if they are not in the models folder. Raises
    SettingsError for a file that is not there.
    """
    others = settings.embedding_models or settings.rerank_models
    names = settings.models or (() if others else (DEFAULT.name,))
    folder, flags = settings.models_dir, list[str]()
    for name in names:
        known, file = CATALOG.get(name.lower()), Path(name).expanduser()
        there = file.is_file() or (folder / file).is_file()
        if name.endswith(".gguf") and not there:
            raise SettingsError(f"there is no file {name}, here or in {folder}")
        path = (in_place(known, folder) or fetched(known, folder)) if known else name
        flags += ["--model", str(path)]
    return flags
