"""Upgrade: a new release beside the old one, taken back where it does not serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click

from edgeserve.cli.service.actions import Failed
from edgeserve.cli.service.health import port_of, silent
from edgeserve.cli.service.managers.manager import ServiceManager
from edgeserve.cli.service.places import Role, unit_name
from edgeserve.cli.service.software import Software, made, version_of
from edgeserve.errors import CommandError
from edgeserve.runtime.files import alone_in


class RolledBack(CommandError):
    """The new release did not serve; the old one is used again."""


@dataclass(frozen=True)
class Upgrade:
    """The services of this machine, and what their next release is made from."""

    manager: ServiceManager
    software: Software
    roles: Sequence[Role]
    source: str
    python: str
    seconds: float
    """Time for a service to answer after its restart."""

    def run(self, say: Callable[[str], None] = click.echo) -> None:
        """Make the release, use it, ask the services. Raises RolledBack."""
        with alone_in(self.software.places.software):
            self._upgraded(say)

    def _upgraded(self, say: Callable[[str], None]) -> None:
        old = self.software.used()
        if old is None:
            raise CommandError(
                f"{self.software.places.current} leads to no release;"
                " `edgeserve service install` makes one"
            )
        say("installing the new release beside the old one; services go on meanwhile")
        new = made(self.software, self.source, self.python)
        before, after = version_of(old), version_of(new)
        say(
            f"version {after}, after {before or 'one that says no version'}; restarting"
        )
        self.software.use(new).do()
        if why := self._fault():
            self.software.use(old).do()
            again = self._fault()
            self.software.forget(new)
            raise RolledBack(
                f"{why} (`edgeserve service logs` says why); rolled back to version"
                f" {before}, which"
                + (f" does not serve either: {again}" if again else " serves again")
            )
        for each in self.software.older(old, new):
            self.software.forget(each)
        say(f"version {after} serves; the one before is kept in {old}")

    def _fault(self) -> str:
        """Restart the services; return what is wrong afterwards."""
        try:
            for each in self.manager.restart(self.roles):
                each.do()
        except Failed as error:
            return str(error)
        ports = [port_of(role, self.manager.places) for role in self.roles]
        bad = silent(ports, self.seconds)
        where = " and ".join(f"{unit_name(each.role)} at {each}" for each in bad)
        return f"{where}: no answer within {self.seconds:g} s" if bad else ""
