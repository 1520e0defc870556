"""launchd: descriptions of services on macOS, and the commands for them. Pure."""

from __future__ import annotations

import plistlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeserve.cli.service.actions import Action, MakeFolder, Remove, Run, Write
from edgeserve.cli.service.managers.manager import ServiceState
from edgeserve.cli.service.places import Places, Role

STOP_SECONDS = {"node": 60, "balancer": 45}
"""As systemd's units allow; `drain_seconds` is 30."""

AGAIN_SECONDS = 60.0
"""launchd refuses to start what has not ended yet."""

OPEN_FILES = 65536
OWNER_ONLY = 0o077


def label(role: Role) -> str:
    """Return what launchd calls the service."""
    return f"org.edgeserve.{role}"


@dataclass(frozen=True)
class Launchd:
    """launchd, of the machine or of a user."""

    places: Places
    domain: str
    """`system`, or `gui/501` of a user."""
    account: str
    """User that a service of the machine runs as."""
    log_folder: Path

    def file(self, role: Role) -> Path:
        """Return the path of a description."""
        return self.places.units / f"{label(role)}.plist"

    def log(self, role: Role) -> Path:
        """Return the file that gets what the service says."""
        return self.log_folder / f"{role}.log"

    def description(self, role: Role, flags: Sequence[str] = ()) -> str:
        """Return the text of a description."""
        found: dict[str, Any] = {
            "Label": label(role),
            "ProgramArguments": [str(self.places.command), role, "start", *flags],
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 5,
            "ExitTimeOut": STOP_SECONDS[role],
            # `Background` would be slowed down.
            "ProcessType": "Interactive",
            "Umask": OWNER_ONLY,
            "StandardOutPath": str(self.log(role)),
            "StandardErrorPath": str(self.log(role)),
            "SoftResourceLimits": {"NumberOfFiles": OPEN_FILES},
            "EnvironmentVariables": self._variables(role),
        }
        if self.places.scope == "system":
            found["UserName"] = self.account
        return plistlib.dumps(found).decode()

    def _variables(self, role: Role) -> dict[str, str]:
        if self.places.scope == "user":
            return dict(sorted(self.places.variables.items()))
        return {
            "EDGESERVE_CONFIG_DIR": str(self.places.config),
            "EDGESERVE_MODELS_DIR": str(self.places.models),
            "EDGESERVE_STATE_DIR": str(self.places.state[role]),
        }

    def install(self, roles: Sequence[Role], flags: Sequence[str]) -> list[Action]:
        """Write the descriptions, and have them started now and with the machine."""
        writes = [
            Write(
                self.file(role),
                self.description(role, flags if role == "balancer" else ()),
            )
            for role in roles
        ]
        folders = [MakeFolder(self.log_folder)]
        if self.places.scope == "system":
            kept = [self.log_folder, *(self.places.state[role] for role in roles)]
            folders = [MakeFolder(each) for each in kept]
            owned = [*kept, self.places.config]
            argv = ("chown", "-R", self.account, *map(str, owned))
            return [*folders, *writes, Run(argv), *self.restart(roles)]
        return [*folders, *writes, *self.restart(roles)]

    def restart(self, roles: Sequence[Role]) -> list[Action]:
        """End services and start them; `kickstart -k` would not let requests finish."""
        return [
            action
            for role in roles
            for action in (
                self._end(role),
                Run(
                    ("launchctl", "bootstrap", self.domain, str(self.file(role))),
                    again_for=AGAIN_SECONDS,
                ),
            )
        ]

    def uninstall(self, roles: Sequence[Role]) -> list[Action]:
        """End services, and remove their descriptions."""
        ends = [self._end(role) for role in roles]
        return [*ends, *(Remove(self.file(role)) for role in roles)]

    def question(self, role: Role) -> tuple[str, ...]:
        """Return the command whose output `state` reads."""
        return ("launchctl", "print", f"{self.domain}/{label(role)}")

    def state(self, said: str) -> ServiceState:
        """Read the answer to `question`."""
        found = dict(re.findall(r"^\t(state|runs) = (.+)$", said, re.MULTILINE))
        state = found.get("state", "unknown")
        runs = found.get("runs", "")
        return ServiceState(
            running=state == "running",
            state=state,
            restarts=str(max(0, int(runs) - 1)) if runs.isdecimal() else "",
        )

    def logs(
        self, roles: Sequence[Role], lines: int, *, follow: bool
    ) -> tuple[str, ...]:
        """Return the command that shows the log."""
        after = ("-F",) if follow else ()
        return ("tail", "-n", str(lines), *after, *(str(self.log(r)) for r in roles))

    def _end(self, role: Role) -> Run:
        argv = ("launchctl", "bootout", f"{self.domain}/{label(role)}")
        return Run(argv, needed=False)  # it may not run
