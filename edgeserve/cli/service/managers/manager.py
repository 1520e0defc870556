"""Service manager: what systemd and launchd have in common. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeserve.cli.service.actions import Action
from edgeserve.cli.service.places import Places, Role


@dataclass(frozen=True)
class ServiceState:
    """What the manager says of a service; fields that it does not know are empty."""

    running: bool
    state: str
    restarts: str = ""
    since: str = ""


class ServiceManager(Protocol):
    """What starts services with the machine, and again when they end."""

    @property
    def places(self) -> Places:
        """The folders of its services."""
        ...

    def file(self, role: Role) -> Path:
        """Return the path of the description of a service."""
        ...

    def install(self, roles: Sequence[Role], flags: Sequence[str]) -> list[Action]:
        """Describe and start services; `flags` are for the balancer."""
        ...

    def restart(self, roles: Sequence[Role]) -> list[Action]:
        """Restart services."""
        ...

    def uninstall(self, roles: Sequence[Role]) -> list[Action]:
        """End services and remove their descriptions."""
        ...

    def question(self, role: Role) -> tuple[str, ...]:
        """Return the command whose output `state` reads."""
        ...

    def state(self, said: str) -> ServiceState:
        """Read the answer to `question`."""
        ...

    def logs(
        self, roles: Sequence[Role], lines: int, *, follow: bool
    ) -> tuple[str, ...]:
        """Return the command that shows the log."""
        ...
