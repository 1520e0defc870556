"""Options of `edgeserve service`: which services are meant, and their software."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeserve.errors import CommandError

if TYPE_CHECKING:
    from edgeserve.cli.service.managers.manager import ServiceManager
    from edgeserve.cli.service.places import Role, Scope

F = TypeVar("F", bound=Callable[..., Any])


def scope_options(command: F) -> F:
    """Add `--user` and `--system`."""
    for name, text in (
        ("system", "Services of the machine; the default for root."),
        ("user", "Services of this user; the default otherwise."),
    ):
        command = click.option(f"--{name}", "scope", flag_value=name, help=text)(
            command
        )
    return command


def source_options(command: F) -> F:
    """Add what new software is made from, and `--dry-run`."""
    command = click.option(
        "--dry-run", is_flag=True, help="Show what would be written and run."
    )(command)
    command = click.option(
        "--python",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Python 3.11 or later to use, if not the one that runs this.",
    )(command)
    return click.option(
        "--from",
        "source",
        metavar="PLACE",
        help="Clone, wheel or git URL; by default what this EdgeServe came from.",
    )(command)


def source_of(given: str | None) -> str:
    """Return what software is made from. Raises CommandError."""
    from edgeserve.cli.service.software import checked_source, source_of_this

    return checked_source(given) if given else source_of_this()


def found_here(scope: Scope | None) -> tuple[ServiceManager, Sequence[Role]]:
    """Return the services of a scope; without one, the first that has any.

    Raises CommandError where there are none.
    """
    from edgeserve.cli.service.here import default_scope, installed, manager_for

    first = scope or default_scope()
    other: Scope = "user" if first == "system" else "system"
    for each in (first,) if scope else (first, other):
        manager = manager_for(each)
        if roles := installed(manager):
            return manager, roles
    raise CommandError(
        "no services are installed here; `edgeserve service install` does that"
    )
