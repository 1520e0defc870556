"""`edgeserve node …`: options become settings, settings become a running node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgeserve.config import NodeSettings, resolve
from edgeserve.examples import examples
from edgeserve.flags import settings_options
from edgeserve.help import Group, SettingsCommand
from edgeserve.strays import warn_of_strays
from node.plan_command import plan
from node.tune.command import tune


@click.group(cls=Group)
def node() -> None:
    """Run the agent on a machine that holds models."""


@node.command(
    cls=SettingsCommand,
    epilog=examples(
        ("edgeserve node start", "serve every model in the models folder that fits"),
        ("edgeserve node start --model my.gguf", "this one; repeat for several"),
        ("edgeserve node start --balancer http://nuc:8080", "without multicast"),
    ),
)
@settings_options(NodeSettings)
def start(config_file: Path | None, **flags: Any) -> None:
    """Serve this machine's models until told to stop.

    Ctrl-C or SIGTERM lets running requests finish; a second one does not.
    """
    warn_of_strays()
    settings = resolve(NodeSettings, file=config_file, flags=flags).settings

    # The agent brings aiohttp and zeroconf: not for `--help`.
    from edgeserve.lifecycle import run
    from node.agent import serve

    sys.exit(run(lambda stop: serve(settings, stop), log_level=settings.log_level))


node.add_command(plan)
node.add_command(tune)
