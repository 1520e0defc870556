"""systemd: the commands that install, ask and end its services. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeserve.cli.service.actions import Action, Remove, Run, Write
from edgeserve.cli.service.managers.manager import ServiceState
from edgeserve.cli.service.managers.units import unit
from edgeserve.cli.service.places import Places, Role, unit_name

PROPERTIES = "ActiveState,SubState,NRestarts,ActiveEnterTimestamp"

NO_LINGER = (
    "services of this user end with its last session, and start with the first one:"
    " `sudo loginctl enable-linger $USER` changes that"
)


@dataclass(frozen=True)
class Systemd:
    """systemd, of the machine or of a user."""

    places: Places

    def file(self, role: Role) -> Path:
        """Return the path of a unit."""
        return self.places.units / f"{unit_name(role)}.service"

    def install(self, roles: Sequence[Role], flags: Sequence[str]) -> list[Action]:
        """Write the units; have them started now and with the machine."""
        actions: list[Action] = [
            Write(
                self.file(role),
                unit(role, self.places, flags if role == "balancer" else ()),
            )
            for role in roles
        ]
        actions.append(self._run("daemon-reload"))
        if self.places.scope == "user":
            linger = ("loginctl", "enable-linger")
            actions.append(Run(linger, needed=False, otherwise=NO_LINGER))
        # Restarted, not only started: an older one may run.
        names = [unit_name(role) for role in roles]
        return [*actions, self._run("enable", *names), *self.restart(roles)]

    def restart(self, roles: Sequence[Role]) -> list[Action]:
        """Restart services, or start them."""
        return [self._run("restart", *(unit_name(role) for role in roles))]

    def uninstall(self, roles: Sequence[Role]) -> list[Action]:
        """End services, and remove their units."""
        names = [unit_name(role) for role in roles]
        return [
            self._run("disable", "--now", *names),
            *(Remove(self.file(role)) for role in roles),
            self._run("daemon-reload"),
        ]

    def question(self, role: Role) -> tuple[str, ...]:
        """Return the command whose output `state` reads."""
        asked = ("show", f"{unit_name(role)}.service", f"--property={PROPERTIES}")
        return (*self._systemctl(), *asked)

    def state(self, said: str) -> ServiceState:
        """Read the answer to `question`."""
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        state, sub = found.get("ActiveState", "unknown"), found.get("SubState", "")
        return ServiceState(
            running=state == "active",
            state=f"{state} ({sub})" if sub else state,
            restarts=found.get("NRestarts", ""),
            since=found.get("ActiveEnterTimestamp", ""),
        )

    def logs(
        self, roles: Sequence[Role], lines: int, *, follow: bool
    ) -> tuple[str, ...]:
        """Return the command that shows the log."""
        units = [word for role in roles for word in ("--unit", unit_name(role))]
        if self.places.scope == "user":
            units = [word.replace("--unit", "--user-unit") for word in units]
        after = ("--follow",) if follow else ("--no-pager",)
        return ("journalctl", *units, "--lines", str(lines), *after)

    def _systemctl(self) -> tuple[str, ...]:
        return ("systemctl", *(("--user",) if self.places.scope == "user" else ()))

    def _run(self, *words: str) -> Run:
        return Run((*self._systemctl(), *words))
