"""`edgeserve up`: the command that serves on this machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from edgeserve.cli.up.plan import planned
from edgeserve.cli.up.serve_alone import Model, serve
from edgeserve.cli.up.welcome import Welcome
from edgeserve.config.options import warn_of_unknown_variables
from edgeserve.config.paths import config_dir
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.config.sources import resolve
from edgeserve.help import examples
from edgeserve.runtime import lifecycle
from edgeserve.runtime.log import say
from edgeserve.security.tokens import read_api_keys


@click.command(
    epilog=examples(
        ("edgeserve up", "with a small model, fetched the first time (93 MB)"),
        ("edgeserve up --model my-model.gguf", "with your own; repeat for several"),
        ("edgeserve up --port 9000", "on another port"),
    )
)
@click.option(
    "--model", "models", multiple=True, help="GGUF file, or name. Repeatable."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="TCP port; by default 8080."
)
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file.")
def up(models: tuple[str, ...], port: int | None, file: Path | None) -> None:
    """Serve on this machine alone.

    Starts a node and a balancer with a model, listens on loopback only, says how to
    ask, and stops with Ctrl-C.
    """
    warn_of_unknown_variables()
    node = resolve(NodeSettings, file=file, flags={"models": models})
    balancer = resolve(BalancerSettings, file=file, flags={"port": port})
    key_file = balancer.settings.api_key_file or config_dir() / "api-keys"
    keys = read_api_keys(balancer.settings.api_key_file)
    plan = planned(node, balancer, file, keys[0].value if keys else None)
    if not keys and plan.place.key_file:
        key_file = plan.place.key_file

    def greet(served: Sequence[Model]) -> None:
        welcome = Welcome(
            url=plan.place.url,
            models=served,
            command="edgeserve" if shutil.which("edgeserve") else sys.argv[0],
            key_file=key_file if keys or asks(balancer.settings) else None,
        )
        say(welcome.text())

    click.echo("starting; loading a model takes a few seconds", err=True)
    sys.exit(lifecycle.run(partial(serve, plan, greet), log_level="warning"))


def asks(settings: BalancerSettings) -> bool:
    """Whether the balancer has keys of clients, and asks for them."""
    from balancer.clients.store import all_keys, store_in

    try:
        has_keys = bool(all_keys(store_in(settings.state_dir)))
    except OSError:
        has_keys = True  # it lets no client in without one
    return has_keys and not settings.anonymous
