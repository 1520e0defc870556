"""`edgeserve balancer …`: options become settings, settings become an endpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgeserve.config import BalancerSettings, resolve
from edgeserve.examples import examples
from edgeserve.flags import settings_options


@click.group()
def balancer() -> None:
    """Run the endpoint that clients talk to."""


@balancer.command(
    epilog=examples(
        ("edgeserve balancer start", "find the nodes by itself, answer on port 8080"),
        ("edgeserve balancer start --node http://pi:8090", "without multicast; repeat"),
        ("edgeserve balancer start --anonymous", "let everyone in, without a key"),
    )
)
@settings_options(BalancerSettings)
def start(config_file: Path | None, **flags: Any) -> None:
    """Serve the fleet's models at one address until told to stop.

    Ctrl-C or SIGTERM lets running requests finish; a second one does not.
    """
    settings = resolve(BalancerSettings, file=config_file, flags=flags).settings

    # The server brings aiohttp and zeroconf: not for `--help`.
    from balancer.server import serve
    from edgeserve.lifecycle import run

    sys.exit(run(lambda stop: serve(settings, stop), log_level=settings.log_level))
