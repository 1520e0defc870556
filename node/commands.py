"""`edgeserve node`: the commands that start a node and show its plan."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgeserve.config.options import settings_options, warn_of_unknown_variables
from edgeserve.config.settings import NodeSettings
from edgeserve.config.sources import resolve
from edgeserve.help import Group, SettingsCommand, examples
from edgeserve.terminal import hanging, width
from node.tune.commands import tune


@click.command(
    cls=SettingsCommand,
    epilog=examples(
        ("edgeserve node plan", "for everything in the models folder"),
        ("edgeserve node plan smollm2-135m-instruct", "for the best variant of one"),
        ("edgeserve node plan my.gguf --slots 4 --context 16384", "check if it fits"),
    ),
)
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_options(NodeSettings, aside=("Network", "Access"))
def plan(
    names: tuple[str, ...], as_json: bool, config_file: Path | None, **flags: Any
) -> None:
    """Show what this machine would serve, and start nothing.

    Prints the memory arithmetic, too. A MODEL is named as for `edgeserve node start
    --model`. The exit status is 1 if a model cannot be served.
    """
    flags["models"] = (*names, *flags["models"])
    warn_of_unknown_variables()
    settings = resolve(NodeSettings, file=config_file, flags=flags).settings

    from node.hardware.limits import memory_room
    from node.hardware.sample import Sampler
    from node.planning.prepare import prepared
    from node.planning.report import INDENT, plan_json, plan_lines

    hardware = Sampler()()
    found = prepared(settings, hardware)
    if as_json:
        click.echo(plan_json(found, hardware))
    else:
        limited = memory_room() is not None
        on_demand = settings.on_demand and not settings.models
        for line in plan_lines(found, hardware, limited=limited, on_demand=on_demand):
            indent = INDENT if line.startswith(" ") else 2
            click.echo("\n".join(hanging(line, width(), indent)))
    sys.exit(1 if found.plan.problems else 0)


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
    """Serve this machine's models until it is stopped.

    Ctrl-C or SIGTERM lets running requests finish, a second one ends them.
    """
    warn_of_unknown_variables()
    settings = resolve(NodeSettings, file=config_file, flags=flags).settings

    # The agent imports aiohttp and zeroconf, which `--help` does not need.
    from edgeserve.runtime.lifecycle import run
    from node.app import serve

    sys.exit(run(lambda stop: serve(settings, stop), log_level=settings.log_level))


node.add_command(plan)
node.add_command(tune)
