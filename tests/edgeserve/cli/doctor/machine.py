"""A machine of a test's own, on which one check runs at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeserve.cli.doctor.checks import CHECKS
from edgeserve.cli.doctor.finding import Finding
from edgeserve.cli.doctor.here import here
from edgeserve.cli.doctor.multicast import Heard
from edgeserve.cli.service.places import Role

SECRET = "token-that-is-nowhere-else"


@dataclass
class Machine:
    """A machine of a test's own: folders, and flags as variables."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    role: Role = "node"

    @property
    def token(self) -> Path:
        return self.root / "config" / "token"

    @property
    def models(self) -> Path:
        return self.root / "models"

    def set(self, **settings: str) -> None:
        for name, value in settings.items():
            self.monkeypatch.setenv(f"EDGESERVE_{name.upper()}", value)

    def examine(self, check: str, url: str | None = None) -> list[Finding]:
        """Run one check, for what it finds."""
        examined = here(self.role, None, url, None)
        examined.heard.set_result(Heard())
        return list(CHECKS[check].run(examined))

    def problem(self, check: str, url: str | None = None) -> Finding:
        """Run one check, for its only problem."""
        (found,) = [e for e in self.examine(check, url) if e.state == "problem"]
        return found
