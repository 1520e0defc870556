"""`edgeserve balancer …`: options become settings, settings become an endpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgeserve.config import BalancerSettings, resolve
from edgeserve.flags import settings_options


@click.group()
def balancer() -> None:
    """Run the endpoint that clients talk to."""


@balancer.command()
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
