"""`edgeserve node plan`: what this machine would run, and why, without running it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgeserve.columns import hanging, width
from edgeserve.config import NodeSettings, resolve
from edgeserve.examples import examples
from edgeserve.flags import settings_options
from edgeserve.help import SettingsCommand
from edgeserve.strays import warn_of_strays


@click.command(
    cls=SettingsCommand,
    epilog=examples(
        ("edgeserve node plan", "for everything in the models folder"),
        ("edgeserve node plan smollm2-135m-instruct", "for the best variant of one"),
        ("edgeserve node plan my.gguf --slots 4 --context 16384", "would that fit?"),
    ),
)
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_options(NodeSettings, aside=("Network", "Who may ask"))
def plan(
    names: tuple[str, ...], as_json: bool, config_file: Path | None, **flags: Any
) -> None:
    """Show what this machine would serve, and start nothing.

    Prints the arithmetic, too.
    A MODEL is named as for `edgeserve node start --model`. Exit status 1 if any cannot
    be served.
    """
    flags["models"] = (*names, *flags["models"])
    warn_of_strays()
    settings = resolve(NodeSettings, file=config_file, flags=flags).settings

    from node.hardware import Sampler
    from node.limits import memory_room
    from node.prepare import prepared
    from node.show_plan import INDENT, plan_json, plan_lines

    hardware = Sampler()()
    found = prepared(settings, hardware)
    if as_json:
        click.echo(plan_json(found, hardware))
    else:
        for line in plan_lines(found, hardware, limited=memory_room() is not None):
            indent = INDENT if line.startswith(" ") else 2
            click.echo("\n".join(hanging(line, width(), indent)))
    sys.exit(1 if found.plan.problems else 0)
