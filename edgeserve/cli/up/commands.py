"""`edgeserve up`: the command that serves on this machine, or to the LAN."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from edgeserve.cli.up.lan import (
    LanWelcome,
    has_keys,
    keys_file,
    lan_url,
    make_secrets,
)
from edgeserve.cli.up.plan import planned
from edgeserve.cli.up.second import refuse_second
from edgeserve.cli.up.serve_alone import Model, Plan, serve
from edgeserve.cli.up.welcome import Welcome
from edgeserve.config.options import warn_of_unknown_variables
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.config.sources import resolve
from edgeserve.help import Command, examples
from edgeserve.runtime import lifecycle
from edgeserve.runtime.log import say
from edgeserve.security.tokens import read_api_keys


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve up", "with a small model, fetched the first time (93 MB)"),
        ("edgeserve up --model my-model.gguf", "with your own; repeat for several"),
        ("edgeserve up --model my.gguf --slots 4 --context 8192", "four at once"),
        ("edgeserve up --port 9000", "on another port"),
        ("edgeserve up --lan", "for the household: other machines may ask and join"),
    ),
)
@click.option(
    "--lan",
    is_flag=True,
    help="Serve the network: makes a fleet token and a key where there are none, and"
    " says how phones ask and other machines join.",
)
@click.option(
    "--model", "models", multiple=True, help="GGUF file, or name. Repeatable."
)
@click.option(
    "--embedding-model",
    "embedding_models",
    multiple=True,
    help="The same, for /v1/embeddings.",
)
@click.option("--slots", metavar="N", help="Requests that a model answers at once.")
@click.option("--context", metavar="N", help="Context of each of them, in tokens.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="TCP port; by default 8080."
)
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file.")
def up(*, lan: bool, port: int | None, file: Path | None, **flags: Any) -> None:
    """Serve on this machine, or with --lan the whole network.

    Starts a node and a balancer with a model, says how to ask, and stops with Ctrl-C.
    Without --lan it listens on loopback only. The same command again uses what the
    first one made.
    """
    warn_of_unknown_variables()
    node = resolve(NodeSettings, file=file, flags=flags)
    balancer = resolve(BalancerSettings, file=file, flags={"port": port})
    settings = balancer.settings
    refuse_second(node.settings, settings)
    if lan:
        for made in make_secrets(node.settings, settings):
            click.echo(made, err=True)
    keys = read_api_keys(settings.api_key_file)
    plan = planned(node, balancer, file, keys[0].value if keys else None, lan=lan)
    key_file = keys_file(settings)
    if not keys and plan.place.key_file:
        key_file = plan.place.key_file
    needed = bool(keys) or asks(settings)
    at = lan_url(settings, urlsplit(plan.place.url).port or 0) if lan else ""
    greet = partial(greeting, plan, key_file if needed else None, at)

    click.echo("starting; loading a model takes a few seconds", err=True)
    sys.exit(lifecycle.run(partial(serve, plan, greet), log_level="warning"))


def greeting(
    plan: Plan, key_file: Path | None, lan: str, served: Sequence[Model]
) -> None:
    """Say that `served` can be asked, on the LAN at the URL `lan`."""
    here = plan.place.url
    command = "edgeserve" if shutil.which("edgeserve") else sys.argv[0]
    if lan:
        welcome: Welcome = LanWelcome(
            url=lan,
            here=here,
            models=served,
            command=command,
            key_file=key_file,
            shared=key_file != plan.place.key_file,
            terminal=sys.stdout.isatty(),
        )
    else:
        welcome = Welcome(url=here, models=served, command=command, key_file=key_file)
    say(welcome.text())


def asks(settings: BalancerSettings) -> bool:
    """Whether the balancer has keys of clients, and asks for them."""
    return has_keys(settings) and not settings.anonymous
