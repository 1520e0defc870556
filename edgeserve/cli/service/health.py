"""Health of services and containers: asks each on its own port whether it serves."""

from __future__ import annotations

import http.client
import json
import shlex
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from edgeserve.cli.service.places import ROLES, Places, Role, system_places
from edgeserve.config.settings import EVERYWHERE, BalancerSettings, NodeSettings
from edgeserve.config.sources import resolve
from edgeserve.errors import CommandError
from edgeserve.help import Command, examples
from edgeserve.network import asked_at

ASK_SECONDS = 5.0
BETWEEN_SECONDS = 1.0
IN_A_ROW = 3
"""Answers one after another, so that one that ends soon after its start is noticed."""

HEALTH = "/health"


@dataclass(frozen=True)
class ServicePort:
    """Where a service listens."""

    role: Role
    host: str
    number: int

    def __str__(self) -> str:
        """Return it as in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.number}"

    def answers(self) -> bool:
        """Whether it says that it serves, with TLS or without."""
        return any(self._says_ok(connect) for connect in (self._plain, self._tls))

    def _plain(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.number, timeout=ASK_SECONDS)

    def _tls(self) -> http.client.HTTPConnection:
        # Its certificate is its own; nothing is sent but the question.
        any_ = ssl.create_default_context()
        any_.check_hostname = False
        any_.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(
            self.host, self.number, timeout=ASK_SECONDS, context=any_
        )

    def _says_ok(self, connect: Callable[[], http.client.HTTPConnection]) -> bool:
        connection = connect()
        try:
            connection.request("GET", HEALTH)
            response = connection.getresponse()
            body = json.loads(response.read())
            return response.status == 200 and isinstance(body, dict)
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()


def port_of(role: Role, places: Places) -> ServicePort:
    """Return where a service listens, by its settings file. Raises SettingsError."""
    found = _settings(role, places)
    return ServicePort(role, asked_at(found.host or EVERYWHERE), found.port)


def _settings(role: Role, places: Places) -> NodeSettings | BalancerSettings:
    """Return what the service reads: its own file, and no environment but its own."""
    file, environ = places.config / "edgeserve.toml", dict(places.variables)
    shape: type[NodeSettings | BalancerSettings] = (
        NodeSettings if role == "node" else BalancerSettings
    )
    if not file.exists():
        return shape()
    return resolve(shape, file=file, environ=environ).settings


def silent(ports: Iterable[ServicePort], seconds: float) -> list[ServicePort]:
    """Wait until all answer several times in a row; return those that do not."""
    ends = time.monotonic() + seconds
    return [each for each in ports if not _steady(each, ends)]


def _steady(port: ServicePort, ends: float) -> bool:
    good = 0
    while True:
        good = good + 1 if port.answers() else 0
        if good == IN_A_ROW:
            return True
        if time.monotonic() >= ends:
            return False
        time.sleep(BETWEEN_SECONDS)


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve health", "whatever runs here"),
        ("edgeserve health balancer", "the balancer has to run, too"),
    ),
)
@click.argument("role", required=False, type=click.Choice(ROLES))
def health(role: Role | None) -> None:
    """Ask the node or balancer that runs here whether it serves.

    For health checks of containers and for scripts: one question on the port that its
    own settings name. It has this terminal's state folder, or that of a service of the
    whole machine. `edgeserve doctor` looks for causes.

    Exit status: 0 if all of them serve, 1 if one does not or none runs.
    """
    running = running_ports(role)
    ours = {port: folder for port, folder in running.items() if _is_ours(port, folder)}
    if not ours:
        raise CommandError(_none(role, running.values()))
    good = True
    for port in ours:
        answers = port.answers()
        good &= answers
        click.echo(
            f"{port.role} {'serves' if answers else 'gives no answer'} at {port}"
        )
    sys.exit(0 if good else 1)


def _is_ours(port: ServicePort, folder: Path) -> bool:
    """Whether it has the state folder of this terminal, or of a service."""
    shape = NodeSettings if port.role == "node" else BalancerSettings
    service = system_places(Path()).state[port.role]
    return folder in {resolve(shape).settings.state_dir, service}


def _none(role: Role | None, elsewhere: Iterable[Path]) -> str:
    """Say that none runs, and which variable leads to those that do."""
    said = f"no {role or 'node or balancer'} runs here"
    folder = next(iter(elsewhere), None)
    if folder is None:
        return said
    return (
        f"{said} with this state folder, but one with another:"
        f" EDGESERVE_STATE_DIR={shlex.quote(str(folder))} edgeserve health"
    )


def running_ports(role: Role | None) -> dict[ServicePort, Path]:
    """Return where the processes of this machine or container listen, with folders."""
    # It imports the options of both commands.
    from edgeserve.cli.doctor.here import resolved, running_processes

    shapes = {"node": NodeSettings, "balancer": BalancerSettings}
    found = dict[ServicePort, Path]()
    for process in running_processes():
        if role in {None, process.role}:
            settings = resolved(shapes[process.role], process, None).settings
            host = asked_at(settings.host or EVERYWHERE)
            port = ServicePort(process.role, host, settings.port)
            found[port] = settings.state_dir
    return found
