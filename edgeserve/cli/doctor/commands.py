"""`edgeserve doctor`: the command that examines this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeserve.help import Command, examples
from edgeserve.terminal import width

if TYPE_CHECKING:
    from edgeserve.cli.service.places import Role


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve doctor", "what runs or is set up here decides what is checked"),
        ("edgeserve doctor --url http://nuc:8080", "also compare with that balancer"),
        ("edgeserve doctor node", "as a node, even if none has run here yet"),
        ("edgeserve doctor --json", "for scripts"),
    ),
)
@click.argument("role", required=False, type=click.Choice(["node", "balancer"]))
@click.option("--url", envvar="EDGESERVE_URL", show_envvar=True, help="A balancer.")
@click.option(
    "--api-key-file",
    envvar="EDGESERVE_API_KEY_FILE",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="File with an API key for it.",
)
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(
    role: Role | None,
    url: str | None,
    api_key_file: Path | None,
    file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Find what is wrong on this machine, and say what mends it.

    Run it on a node, on the balancer's machine, or on one that finds neither. It checks
    engine, GPUs, models, memory, folders, disk, ports, token, multicast, the balancer
    with its clock and key, and the nodes. It changes nothing, and takes less than ten
    seconds.

    Each problem has a name, a sentence, and a command to paste. What could not be
    checked has a question mark, and is no problem. Where machines do not find each
    other, run it on both at the same time: each then hears the other, or says why not.

    Exit status: 0 without a problem, 1 with one, 2 for a wrong option.
    """
    from edgeserve.cli.doctor.checks import run
    from edgeserve.cli.doctor.finding import has_problem, lines, summary
    from edgeserve.cli.doctor.here import here
    from edgeserve.config.options import warn_of_unknown_variables

    warn_of_unknown_variables()
    found = run(here(role, file, url, api_key_file))
    if as_json:
        shown = [each.shown() for each in found]
        click.echo(json.dumps(shown, indent=2))
    else:
        for line in lines(found, width()):
            click.echo(line)
        click.echo(summary(found))
    sys.exit(1 if has_problem(found) else 0)
