"""`edgeserve up`: everything on this machine, for the first minute and for one user."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import click

from edgeserve import lifecycle
from edgeserve.alone import Model, Plan, serve
from edgeserve.auth import read_api_keys
from edgeserve.catalog import CATALOG, DEFAULT
from edgeserve.client import Endpoint
from edgeserve.config import (
    LOOPBACK,
    BalancerSettings,
    NodeSettings,
    Resolved,
    resolve,
)
from edgeserve.errors import SettingsError
from edgeserve.examples import examples
from edgeserve.fetch import in_place
from edgeserve.places import config_dir
from edgeserve.pull import fetched
from edgeserve.relay.listen import bound
from edgeserve.saying import say
from edgeserve.strays import warn_of_strays
from edgeserve.welcome import Welcome

STOP_SECONDS = 10.0
"""What ending the engines may take once running requests are done."""

NEIGHBOURS = 10
"""Ports tried where a usual one is taken."""


@click.command(
    epilog=examples(
        ("edgeserve up", "with a small model, fetched the first time (93 MB)"),
        ("edgeserve up --model my-model.gguf", "with your own; repeat for several"),
        ("edgeserve up --port 9000", "on another port"),
    )
)
@click.option("--model", "models", multiple=True, help="GGUF file, or name. Repeat.")
@click.option("--port", type=click.IntRange(0, 65535), help="By default 8080.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file.")
def up(models: tuple[str, ...], port: int | None, file: Path | None) -> None:
    """Serve on this machine alone.

    Starts a node and a balancer with a model, listens on loopback only, says how to
    ask, and stops with Ctrl-C.
    """
    warn_of_strays()
    node = resolve(NodeSettings, file=file, flags={"models": models})
    balancer = resolve(BalancerSettings, file=file, flags={"port": port})
    key_file = balancer.settings.api_key_file or config_dir() / "api-keys"
    keys = read_api_keys(balancer.settings.api_key_file)
    plan = planned(node, balancer, file, keys[0] if keys else None)

    def greet(served: Sequence[Model]) -> None:
        welcome = Welcome(
            url=plan.place.url,
            models=served,
            command="edgeserve" if shutil.which("edgeserve") else sys.argv[0],
            key_file=key_file if keys else None,
        )
        say(welcome.text())

    click.echo("starting; loading a model takes a few seconds", err=True)
    sys.exit(lifecycle.run(partial(serve, plan, greet), log_level="warning"))


def planned(
    node: Resolved[NodeSettings],
    balancer: Resolved[BalancerSettings],
    file: Path | None,
    api_key: str | None,
) -> Plan:
    """Turn settings into two commands; fetches the default model if it is needed."""
    back = free_port(node)
    front = free_port(balancer, but=back)
    if balancer.settings.port not in {0, front}:
        click.echo(
            f"port {balancer.settings.port} is not free; using {front}", err=True
        )
    backend = ["--port", str(back), "--no-advertise", *model_flags(node.settings)]
    frontend = ["--port", str(front), "--no-discover", "--node", _url(back)]
    common = ["--host", LOOPBACK, *(["--config", str(file)] if file else [])]
    if node.origins["log_level"] == "default":
        common += ["--log-level", "warning"]
    this = [sys.executable, "-m", "edgeserve"]
    return Plan(
        node=[*this, "node", "start", *common, *backend],
        balancer=[*this, "balancer", "start", *common, *frontend],
        place=Endpoint(_url(front), api_key),
        load_seconds=node.settings.load_seconds,
        grace=node.settings.drain_seconds + STOP_SECONDS,
    )


def _url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def free_port(
    found: Resolved[NodeSettings] | Resolved[BalancerSettings], but: int = 0
) -> int:
    """Return the port of the settings, or near it where nobody asked for that one.

    Raises SettingsError where a port that was asked for is taken.
    """
    port = found.settings.port
    asked_for = found.origins["port"] != "default"
    for candidate in range(port, port + NEIGHBOURS):
        try:
            with closing(bound(LOOPBACK, candidate)) as sock:
                free: int = sock.getsockname()[1]
        except SettingsError:
            if asked_for:
                raise
            continue
        if free != but:
            return free
    raise SettingsError(
        f"every port from {port} to {port + NEIGHBOURS - 1} is in use;"
        " choose one with --port"
    )


def model_flags(settings: NodeSettings) -> list[str]:
    """Name the models to the node: those asked for, else the default one.

    Known ones are fetched where they are not in the models folder yet. Raises
    SettingsError for a file that is not there.
    """
    others = settings.embedding_models or settings.rerank_models
    names = settings.models or (() if others else (DEFAULT.name,))
    flags = list[str]()
    for name in names:
        known = CATALOG.get(name.lower())
        folder = settings.models_dir
        if name.endswith(".gguf") and not _is_there(Path(name).expanduser(), folder):
            raise SettingsError(f"there is no file {name}, here or in {folder}")
        path = (in_place(known, folder) or fetched(known, folder)) if known else name
        flags += ["--model", str(path)]
    return flags


def _is_there(file: Path, folder: Path) -> bool:
    return file.is_file() or (folder / file).is_file()
