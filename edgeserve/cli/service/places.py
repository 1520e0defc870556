"""Places of a service: its scope, its folders, and what it is called. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Role = Literal["node", "balancer"]
Scope = Literal["system", "user"]

ROLES: tuple[Role, ...] = ("node", "balancer")

HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
"""What system services do not see (ProtectHome=)."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders of a service, and the variables that name them to it."""

    scope: Scope
    software: Path
    """Has `releases/`, a virtual environment for each, and `current`, a link to one."""
    units: Path
    """Where the system looks for descriptions of services."""
    config: Path
    models: Path
    state: Mapping[Role, Path]
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    """What a service of a user has to know of the environment of the command."""

    @property
    def current(self) -> Path:
        """The link to the release that is used."""
        return self.software / "current"

    @property
    def command(self) -> Path:
        """The command that services run, whichever release is used."""
        return self.current / "bin" / "edgeserve"

    @property
    def token(self) -> Path:
        """The fleet token."""
        return self.config / "token"

    @property
    def keys(self) -> Path:
        """The keys of clients."""
        return self.config / "api-keys"


def system_places(units: Path) -> Places:
    """Return the places of services that the whole machine has."""
    state = Path("/var/lib")
    return Places(
        scope="system",
        software=Path("/opt/edgeserve"),
        units=units,
        config=Path("/etc/edgeserve"),
        models=Path("/srv/edgeserve/models"),
        state={role: state / f"edgeserve-{role}" for role in ROLES},
    )


def is_hidden(path: Path) -> bool:
    """Whether system services cannot see this path."""
    return any(path.is_relative_to(home) for home in HOMES)


def unit_name(role: Role) -> str:
    """Return what systemd calls the service."""
    return f"edgeserve-{role}"
