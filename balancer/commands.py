"""`edgeserve balancer`: the command that turns options into a running balancer."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from edgeserve.config.options import settings_options, warn_of_unknown_variables
from edgeserve.config.paths import refuse_closed
from edgeserve.config.settings import BalancerSettings
from edgeserve.config.sources import resolve
from edgeserve.help import Group, SettingsCommand, examples


@click.group(cls=Group)
def balancer() -> None:
    """Run the endpoint that clients talk to."""


@balancer.command(
    cls=SettingsCommand,
    epilog=examples(
        ("edgeserve balancer start", "find the nodes by itself, answer on port 8080"),
        ("edgeserve balancer start --node http://pi:8090", "without multicast; repeat"),
        ("edgeserve balancer start --takeover", "restart without losing a request"),
    ),
)
@click.option(
    "--takeover",
    is_flag=True,
    help="Take over the port of the running balancer, which ends; no request fails.",
)
@settings_options(BalancerSettings)
def start(config_file: Path | None, *, takeover: bool, **flags: Any) -> None:
    """Serve the fleet's models at one address until told to stop.

    Ctrl-C or SIGTERM lets running requests finish; a second one does not.
    """
    warn_of_unknown_variables()
    settings = resolve(BalancerSettings, file=config_file, flags=flags).settings
    refuse_closed(settings.state_dir)

    # The server imports aiohttp and zeroconf, which `--help` does not need.
    from balancer.app import serve
    from balancer.persistence.handover import handover_socket, inherited
    from edgeserve.runtime.lifecycle import run

    with ExitStack() as stack:
        handover = None
        if takeover:
            path = handover_socket(settings.state_dir, settings.port)
            handover = stack.enter_context(inherited(path))
        status = run(
            lambda stop: serve(settings, stop, handover), log_level=settings.log_level
        )
    sys.exit(status)
