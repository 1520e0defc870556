"""This machine: which processes of EdgeServe run here, and the settings that they have.

The settings are those of a running process, by its command line and environment: a
service has other folders than the terminal from which it is examined.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import psutil

from edgeserve.cli.service.places import ROLES, Role
from edgeserve.config.paths import config_dir
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.config.sources import Resolved, resolve
from edgeserve.errors import SettingsError
from edgeserve.http.types import parts_of
from edgeserve.security.tokens import FleetTokens

if TYPE_CHECKING:
    from edgeserve.cli.doctor.multicast import Heard

STARTS: Mapping[str, Role] = {"node start": "node", "balancer start": "balancer"}

MINE: Mapping[Role, tuple[str, ...]] = {
    "node": ("node.json", "node.pem", "engines"),
    "balancer": ("clients.db", "learned.json", "nodes.json", "routes.json"),
}
"""What a node or a balancer that has run here leaves in its state folder."""


@dataclass(frozen=True, kw_only=True)
class RunningProcess:
    """A node or balancer that runs here. `environ` is None where only root reads it."""

    role: Role
    pid: int
    uid: int
    arguments: tuple[str, ...]
    environ: Mapping[str, str] | None


@dataclass(frozen=True, kw_only=True)
class Here:
    """What is examined. `heard` is what mDNS brings, while other checks run."""

    roles: frozenset[Role]
    sure: bool
    """Whether something of EdgeServe runs, or has run or been set up here."""
    running: Mapping[Role, RunningProcess]
    several: frozenset[Role]
    """The roles of which more than one process runs; `running` has the examined one."""
    config: Path
    """The configuration folder of what runs, else of this terminal."""
    node: Resolved[NodeSettings]
    balancer: Resolved[BalancerSettings]
    url: str | None
    """The balancer that was named, if one was."""
    api_key_file: Path | None
    heard: Future[Heard] = field(default_factory=lambda: Future())

    def settings(self, role: Role) -> NodeSettings | BalancerSettings:
        """Return the settings of one role."""
        return self.node.settings if role == "node" else self.balancer.settings

    @property
    def token_file(self) -> Path:
        """The file of the fleet token, which may be missing."""
        return self._named_token_file or self.config / "token"

    @property
    def _named_token_file(self) -> Path | None:
        role: Role = "node" if "node" in self.roles else "balancer"
        return self.settings(role).token_file

    def tokens(self) -> FleetTokens | None:
        """Return the fleet tokens; None where there are none. Raises SettingsError."""
        if self._named_token_file is None and not os.path.lexists(self.token_file):
            return None
        return FleetTokens(self.token_file)


def here(
    role: Role | None, file: Path | None, url: str | None, key: Path | None
) -> Here:
    """Look at this machine. Raises SettingsError."""
    if url:
        parts_of(url)
    processes = [*running_processes()]
    count: Counter[Role] = Counter(each.role for each in processes)
    several = frozenset[Role](each for each in count if count[each] > 1)
    running: dict[Role, RunningProcess] = {e.role: e for e in reversed(processes)}
    for each in several:
        running[each] = nearest([e for e in processes if e.role == each], file, url)
    node = resolved(NodeSettings, running.get("node"), file)
    balancer = resolved(BalancerSettings, running.get("balancer"), file)
    folders: Mapping[Role, Path] = {
        "node": node.settings.state_dir,
        "balancer": balancer.settings.state_dir,
    }
    has_run: set[Role] = {each for each in ROLES if _is_set_up(each, folders[each])}
    found: set[Role] = {role} if role else set(running) or has_run
    return Here(
        roles=frozenset(found or ROLES),
        sure=bool(role or found),
        running=running,
        several=several,
        config=_config(running.values()),
        node=node,
        balancer=balancer,
        url=url,
        api_key_file=key,
    )


def nearest(
    processes: Sequence[RunningProcess], file: Path | None, url: str | None
) -> RunningProcess:
    """Return the one at `url`, else with this terminal's folder, or its port."""
    role = processes[0].role
    shape: type[Any] = NodeSettings if role == "node" else BalancerSettings
    mine = resolve(shape, file=file).settings
    port = parts_of(url)[1] if url and role == "balancer" else None

    def closeness(process: RunningProcess) -> tuple[bool, ...]:
        try:
            theirs = resolved(shape, process, file).settings
        except SettingsError:
            return (False,)
        same = (port, mine.state_dir, mine.port)
        its = (theirs.port, theirs.state_dir, theirs.port)
        return tuple(a == b for a, b in zip(same, its, strict=True))

    return max(processes, key=closeness)


def _config(running: Iterable[RunningProcess]) -> Path:
    folders = ((each.environ or {}).get("EDGESERVE_CONFIG_DIR") for each in running)
    return next((Path(folder) for folder in folders if folder), config_dir())


def _is_set_up(role: Role, folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in MINE[role])


def running_processes() -> Iterator[RunningProcess]:
    """Yield the nodes and balancers in this machine's or container's network."""
    for process in psutil.process_iter():
        try:
            role, arguments = started(process.cmdline())
            if role is None or not _same_network(process.pid):
                continue
            uid = process.uids().effective
        except (psutil.Error, OSError):
            continue
        try:
            environ: Mapping[str, str] | None = process.environ()
        except (psutil.Error, OSError):
            environ = None
        yield RunningProcess(
            role=role,
            pid=process.pid,
            uid=uid,
            arguments=arguments,
            environ=environ,
        )


def started(argv: Sequence[str]) -> tuple[Role | None, tuple[str, ...]]:
    """Return which process a command line starts, and its options. Pure."""
    for at, word in enumerate(argv[:4]):
        if word.rpartition("/")[2] == "edgeserve":
            role = STARTS.get(" ".join(argv[at + 1 : at + 3]))
            return role, tuple(argv[at + 3 :])
    return None, ()


def _same_network(pid: int) -> bool:
    """Whether a process is in our network namespace; those of others hide it."""
    try:
        theirs = os.stat(f"/proc/{pid}/ns/net")  # noqa: PTH116 - it leads nowhere
        ours = os.stat("/proc/self/ns/net")  # noqa: PTH116 - as well
    except OSError:
        return True
    return theirs.st_ino == ours.st_ino


def resolved(
    shape: type[Any], process: RunningProcess | None, file: Path | None
) -> Resolved[Any]:
    """Return the settings of a running process, else those that would count here."""
    if process is None:
        return resolve(shape, file=file)
    environ = {**os.environ, **(process.environ or {})}
    if process.environ is not None:
        environ = {
            name: value
            for name, value in environ.items()
            if name in process.environ or not name.startswith("EDGESERVE_")
        }
    flags = _flags(process)
    named = flags.pop("config_file", None)
    return resolve(
        shape,
        file=file or named or _settings_file(environ),
        environ=environ,
        flags={**_places(shape, environ), **_set(flags)},
    )


def _flags(process: RunningProcess) -> dict[str, Any]:
    # Each makes dozens of options: only the one that is needed.
    command: click.Command
    if process.role == "node":
        from node.commands import start as command
    else:
        from balancer.commands import start as command
    words = list(process.arguments)
    context: click.Context = command.make_context("", words, resilient_parsing=True)
    return {k: v for k, v in context.params.items() if k != "takeover"}


def _set(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value not in (None, ())}


def _settings_file(environ: Mapping[str, str]) -> Path | None:
    """Return the settings file in the process's own folder, if there is one."""
    folder = environ.get("EDGESERVE_CONFIG_DIR")
    path = Path(folder) / "edgeserve.toml" if folder else None
    return path if path and path.is_file() else None


def _places(shape: type[Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the folders that only variables tell, as flags; others are settings."""
    folder = environ.get("EDGESERVE_MODELS_DIR")
    return {"models_dir": Path(folder)} if shape is NodeSettings and folder else {}
