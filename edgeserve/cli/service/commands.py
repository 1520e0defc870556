"""`edgeserve service`: the commands that install, show, renew and remove services."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeserve.cli.service.options import (
    found_here,
    scope_options,
    source_of,
    source_options,
)
from edgeserve.cli.service.running import logs, restart, status
from edgeserve.help import Group, examples
from edgeserve.models.download import DEFAULT

if TYPE_CHECKING:
    from edgeserve.cli.service.managers.manager import ServiceManager
    from edgeserve.cli.service.places import Role, Scope


@click.group(
    cls=Group,
    headings={
        "Software": ("install", "upgrade", "uninstall"),
        "Services": ("status", "logs", "restart"),
    },
)
def service() -> None:
    """Keep node and balancer running, as services.

    systemd or launchd starts them with the machine. They have software of their own: a
    clone or a virtual environment that is removed or changed does not touch them.
    """


@service.command(
    "install",
    epilog=examples(
        ("edgeserve service install", "node and balancer, of this user"),
        ("sudo edgeserve service install --node", "of the machine, the node alone"),
        ("edgeserve service install --approve", "new machines may ask to join"),
        ("edgeserve service install --dry-run", "show what it would do"),
    ),
)
@click.option("--both", "which", flag_value="both", help="Node and balancer (default).")
@click.option("--node", "which", flag_value="node", help="The node alone.")
@click.option("--balancer", "which", flag_value="balancer", help="The balancer alone.")
@scope_options
@click.option(
    "--approve", is_flag=True, help="Let new machines ask the balancer to join."
)
@source_options
def install(
    which: str | None,
    scope: Scope | None,
    source: str | None,
    python: Path | None,
    *,
    approve: bool,
    dry_run: bool,
) -> None:
    """Install services, and start them.

    Makes a virtual environment for them, a fleet token and a key where there are none,
    and starts them now and with the machine. The same command again renews their
    descriptions; `edgeserve service upgrade` renews the software.
    """
    from edgeserve.cli.service.actions import carry_out
    from edgeserve.cli.service.here import default_scope, manager_for
    from edgeserve.cli.service.install import Installation
    from edgeserve.cli.service.places import ROLES
    from edgeserve.cli.service.software import Software, base_python
    from edgeserve.config.paths import config_dir

    manager = manager_for(scope or default_scope())
    roles: list[Role] = [role for role in ROLES if which in {None, "both", role}]
    software = Software(manager.places)
    installation = Installation(
        manager=manager,
        software=software,
        roles=roles,
        source="" if software.used() else source_of(source),
        python=base_python(manager.places, python),
        flags=("--approve",) if approve else (),
        own_config=config_dir(),
    )
    actions = installation.actions()
    if not dry_run:
        click.echo("installing; this takes about a minute the first time", err=True)
    carry_out(actions, dry_run=dry_run)
    if not dry_run:
        click.echo("\n".join(_afterwards(manager, roles)))


def _afterwards(manager: ServiceManager, roles: Sequence[Role]) -> list[str]:
    """Say what to do next."""
    from edgeserve.cli.service.install import has_models
    from edgeserve.config.paths import models_dir

    places = manager.places
    lines = [f"installed and started: {' and '.join(roles)}"]
    if "balancer" in roles:
        lines.append(f"  keys of clients: {places.keys}")
    if "node" in roles and not has_models(places.models):
        folder = shlex.quote(str(places.models))
        pull = f"edgeserve pull {DEFAULT.name} --models-dir {folder}"
        lines.append(f"  no models in {places.models} yet: {pull}")
        if has_models(models_dir()):
            own = shlex.quote(str(models_dir()))
            lines.append(f"  or take yours along: cp -r {own}/. {folder}/")
    return [*lines, "  `edgeserve service status` shows them, `logs -f` what they say"]


@service.command(
    "upgrade",
    epilog=examples(
        ("git pull && edgeserve service upgrade", "from the clone it came from"),
        ("edgeserve service upgrade --from edgeserve-0.2.0-py3-none-any.whl", ""),
    ),
)
@scope_options
@source_options
@click.option(
    "--seconds",
    default=60.0,
    show_default=True,
    type=click.FloatRange(1, 3600),
    help="Time for the new version to answer.",
)
def upgrade(
    scope: Scope | None,
    source: str | None,
    python: Path | None,
    seconds: float,
    *,
    dry_run: bool,
) -> None:
    """Install a new version beside the old one, and go over to it.

    Then asks each service on its port. Where one does not answer, the old version is
    used again, and the exit status is 1. Settings, keys and models stay as they are.
    """
    from edgeserve.cli.service.actions import carry_out
    from edgeserve.cli.service.software import Software, base_python
    from edgeserve.cli.service.upgrade import Upgrade

    manager, roles = found_here(scope)
    software = Software(manager.places)
    place, base = source_of(source), base_python(manager.places, python)
    if dry_run:
        new = software.next()
        steps = [*software.make(new, place, base), software.use(new)]
        carry_out([*steps, *manager.restart(roles)], dry_run=True)
        return
    Upgrade(manager, software, roles, place, base, seconds).run()


@service.command(
    "uninstall",
    epilog=examples(
        ("edgeserve service uninstall", "models, settings and keys stay"),
        ("edgeserve service uninstall --models", "removes the models, too"),
    ),
)
@scope_options
@click.option("--models", is_flag=True, help="Remove the models as well.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be run.")
def uninstall(scope: Scope | None, *, models: bool, yes: bool, dry_run: bool) -> None:
    """End the services, and remove them and their software.

    Models stay unless --models is given; so do settings, token, keys and what was
    learned. The last line says where they are.
    """
    from edgeserve.cli.service.actions import carry_out
    from edgeserve.cli.service.install import model_files, removal

    manager, roles = found_here(scope)
    places = manager.places
    if models and not (yes or dry_run):
        count = len(model_files(places.models))
        click.confirm(f"Remove {count} model files in {places.models}?", abort=True)
    actions = removal(manager, roles, models=models)
    carry_out(actions, dry_run=dry_run)
    if not dry_run:
        kept = [places.config, *dict.fromkeys(places.state.values())]
        kept += [] if models else [places.models]
        click.echo(f"removed; left: {', '.join(map(str, kept))}")


for each in (status, logs, restart):
    service.add_command(each)
