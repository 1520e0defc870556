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
from edgeserve.config.settings import LOOPBACK, BalancerSettings, NodeSettings
from edgeserve.config.sources import Resolved
from edgeserve.errors import SettingsError
from edgeserve.http.sockets import bind
from edgeserve.models.download import CATALOG, DEFAULT, in_place

STOP_SECONDS = 10.0
"""Time to end the engines, once running requests are done."""

NEIGHBOURS = 10
"""Ports tried where the default one is taken."""


def planned(
    node: Resolved[NodeSettings],
    balancer: Resolved[BalancerSettings],
    file: Path | None,
    api_key: str | None,
) -> Plan:
    """Turn settings into two commands; fetches the default model if it is needed."""
    if balancer.settings.tls or balancer.settings.tls_cert:
        raise SettingsError(
            "`edgeserve up` serves without TLS, which the settings ask for; use"
            " `edgeserve node start` and `edgeserve balancer start`"
        )
    back = port_near(node)
    front = port_near(balancer, but=back)
    wanted = balancer.settings.port
    if wanted not in {0, front}:
        click.echo(f"port {wanted} is not free; using {front}", err=True)
    backend = ["--port", str(back), "--no-advertise", *model_flags(node.settings)]
    frontend = ["--port", str(front), "--no-discover", "--node", _url(back)]
    common = ["--host", LOOPBACK, *(["--config", str(file)] if file else [])]
    if node.origins["log_level"] == "default":
        common += ["--log-level", "warning"]
    this = [sys.executable, "-m", "edgeserve"]
    return Plan(
        node=[*this, "node", "start", *common, *backend],
        balancer=[*this, "balancer", "start", *common, *frontend],
        place=Endpoint(
            _url(front), api_key, admin_key_file(balancer.settings.state_dir, front)
        ),
        load_seconds=node.settings.load_seconds,
        grace=node.settings.drain_seconds + STOP_SECONDS,
    )


def _url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def port_near(
    found: Resolved[NodeSettings] | Resolved[BalancerSettings], but: int = 0
) -> int:
    """Return the port of the settings, or a free one near a default port.

    Raises SettingsError where a port that was set is taken.
    """
    port = found.settings.port
    was_set = found.origins["port"] != "default"
    for candidate in range(port, port + NEIGHBOURS):
        try:
            with closing(bind(LOOPBACK, candidate)) as sock:
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
