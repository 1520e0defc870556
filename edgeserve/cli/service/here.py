"""This machine: which service manager it has, and which services are installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_config_path, user_data_path

from edgeserve.cli.service.managers.launchd import Launchd
from edgeserve.cli.service.managers.manager import ServiceManager
from edgeserve.cli.service.managers.systemd import Systemd
from edgeserve.cli.service.places import ROLES, Places, Role, Scope, system_places
from edgeserve.config.paths import OURS, config_dir, models_dir, state_dir
from edgeserve.errors import CommandError

ROOT = 0


def user_places(units: Path) -> Places:
    """Return the places of services of the user that runs this."""
    folders = dict(zip(OURS, (config_dir(), state_dir(), models_dir()), strict=True))
    kept = ("HF_HOME", "HF_TOKEN_PATH")
    variables = {name: os.environ[name] for name in kept if os.environ.get(name)}
    # All of them: variables of a shell, such as XDG_CONFIG_HOME, reach no service.
    variables |= {name: str(folder.absolute()) for name, folder in folders.items()}
    return Places(
        scope="user",
        software=user_data_path("edgeserve") / "service",
        units=units,
        config=folders[OURS[0]],
        models=folders[OURS[2]],
        state=dict.fromkeys(ROLES, folders[OURS[1]]),
        variables=variables,
    )


def manager_for(scope: Scope) -> ServiceManager:
    """Return this machine's service manager. Raises CommandError where it has none."""
    if sys.platform == "darwin":
        return _launchd(scope)
    if not sys.platform.startswith("linux"):
        raise CommandError(
            "services are installed with systemd or launchd, and this system has"
            " neither; `edgeserve node start` and `balancer start` run anywhere"
        )
    if scope == "system":
        return Systemd(system_places(Path("/etc/systemd/system")))
    try:
        # Not platformdirs' own name: systemd looks there.
        return Systemd(user_places(user_config_path() / "systemd" / "user"))
    except RuntimeError:
        raise CommandError(
            "this user has no home folder for the services; set HOME, or use --system"
        ) from None


def _launchd(scope: Scope) -> Launchd:
    home = Path.home()
    if scope == "user":
        places = user_places(home / "Library" / "LaunchAgents")
        log = home / "Library" / "Logs" / "edgeserve"
        return Launchd(places, f"gui/{os.getuid()}", "", log)
    account = os.environ.get("SUDO_USER", "")
    if not account:
        raise CommandError(
            "services of the machine need a user to run as: use sudo from its account,"
            " or --user"
        )
    places = system_places(Path("/Library/LaunchDaemons"))
    return Launchd(places, "system", account, Path("/var/log/edgeserve"))


def default_scope() -> Scope:
    """Return whose services are meant: of the machine for root, else the user's."""
    return "system" if os.geteuid() == ROOT else "user"


def installed(manager: ServiceManager) -> Sequence[Role]:
    """Return the services that are installed there."""
    return [role for role in ROLES if manager.file(role).exists()]
