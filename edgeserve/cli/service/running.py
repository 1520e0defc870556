"""Running services: shows their state and logs, and restarts them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from edgeserve.cli.service.options import found_here, scope_options
from edgeserve.errors import CommandError
from edgeserve.help import Command, examples
from edgeserve.terminal import print_table

if TYPE_CHECKING:
    from edgeserve.cli.service.places import Role, Scope

NOT_SERVING = 3
"""Exit status of `status`, as systemctl's."""


@click.command(
    "status",
    cls=Command,
    epilog=examples(
        ("edgeserve service status", "what runs, since when, whether it answers"),
        ("edgeserve service status || mail -s edgeserve me", "3 if any does not"),
    ),
)
@scope_options
def status(scope: Scope | None) -> None:
    """Show the services of this machine. The exit status is 3 if one does not serve."""
    from edgeserve.cli.service.actions import quietly
    from edgeserve.cli.service.health import port_of
    from edgeserve.cli.service.places import unit_name
    from edgeserve.cli.service.software import Software, version_of

    manager, roles = found_here(scope)
    rows, good = list[Sequence[str]](), True
    for role in roles:
        found = manager.state(quietly(*manager.question(role)) or "")
        port = port_of(role, manager.places)
        answers = found.running and port.answers()
        good &= answers
        said = f"at {port}" if answers else f"no answer at {port}"
        rows.append(
            (unit_name(role), found.state, said, found.restarts or "-", found.since)
        )
    print_table(("service", "state", "serves", "restarts", "since"), rows)
    used = Software(manager.places).used()
    click.echo(f"version {version_of(used) or 'unknown'}, in {used}")
    sys.exit(0 if good else NOT_SERVING)


@click.command(
    "logs",
    cls=Command,
    epilog=examples(
        ("edgeserve service logs -f", "go on with what is said from now on"),
        ("edgeserve service logs --node -n 500", "more lines, of the node alone"),
    ),
)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    default=100,
    show_default=True,
    type=click.IntRange(0),
    help="Lines of the past.",
)
@click.option("--node", "which", flag_value="node", help="Of the node alone.")
@click.option("--balancer", "which", flag_value="balancer", help="Of the balancer.")
@scope_options
def logs(scope: Scope | None, which: str | None, lines: int, *, follow: bool) -> None:
    """Show what the services have logged."""
    manager, roles = found_here(scope)
    chosen: list[Role] = [role for role in roles if which in {None, role}]
    if not chosen:
        raise CommandError(f"the {which} is no service here")
    argv = manager.logs(chosen, lines, follow=follow)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - it replaces this process; no shell
    except OSError as error:
        raise CommandError(f"cannot run {argv[0]}: {error.strerror}") from error


@click.command(
    "restart",
    cls=Command,
    epilog=examples(("edgeserve service restart", "after new settings")),
)
@scope_options
def restart(scope: Scope | None) -> None:
    """Restart the services; running requests may finish."""
    from edgeserve.cli.service.actions import carry_out

    manager, roles = found_here(scope)
    carry_out(manager.restart(roles), dry_run=False)
    click.echo(f"restarted: {' and '.join(roles)}")
