"""Install and uninstall: what is written and run for services of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeserve.cli.secrets import KEY_NAME, OWNER_ONLY
from edgeserve.cli.service.actions import Action, MakeFolder, Remove, Write
from edgeserve.cli.service.managers.manager import ServiceManager
from edgeserve.cli.service.places import Places, Role
from edgeserve.cli.service.software import Software
from edgeserve.errors import CommandError
from edgeserve.runtime.files import read_text
from edgeserve.security.tokens import new_secret

PRIVATE, OPEN = 0o700, 0o755


@dataclass(frozen=True)
class Installation:
    """Services that are wanted, and what their software is made from."""

    manager: ServiceManager
    software: Software
    roles: Sequence[Role]
    source: str
    python: str
    flags: Sequence[str] = ()
    """Flags of the balancer's command."""
    own_config: Path = Path()
    """Configuration folder of the command; token and keys there are taken along."""

    @property
    def places(self) -> Places:
        """The folders of the services."""
        return self.manager.places

    def actions(self) -> list[Action]:
        """Return what has to be done, in this order. Raises CommandError."""
        secrets = self._secrets()
        folders = [MakeFolder(self.places.software), MakeFolder(self.places.models)]
        return [
            *folders,
            *self._software(),
            *secrets,
            *self.manager.install(self.roles, self.flags),
        ]

    def _software(self) -> list[Action]:
        if self.software.used():
            return []
        release = self.software.next()
        made = self.software.make(release, self.source, self.python)
        return [*made, self.software.use(release)]

    def _secrets(self) -> list[Action]:
        """Return what makes token and key, or takes those of `own_config` along."""
        found: list[Action] = []
        if not self.places.token.exists():
            found.append(self._secret(self.places.token, self._token()))
        if "balancer" in self.roles and not self.places.keys.exists():
            taken = _text(self.own_config / "api-keys")
            key = taken or f"# {KEY_NAME}\n{new_secret('key')}\n"
            found.append(self._secret(self.places.keys, key))
        # Services of the machine read the settings there as users of their own.
        mode = PRIVATE if self.places.scope == "user" else OPEN
        return [MakeFolder(self.places.config, mode), *found]

    def _token(self) -> str:
        if taken := _text(self.own_config / "token"):
            return taken
        if "balancer" not in self.roles:
            raise CommandError(
                f"there is no {self.places.token}: this machine belongs to no fleet"
                f" yet. `edgeserve join URL --token-file {self.places.token}` asks its"
                " balancer for the token"
            )
        return f"{new_secret('fleet')}\n"

    def _secret(self, path: Path, text: str) -> Write:
        return Write(path, text, mode=OWNER_ONLY, secret=True)


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        return ""


def removal(
    manager: ServiceManager, roles: Sequence[Role], *, models: bool
) -> list[Action]:
    """Return what ends services, and removes them and their software."""
    places = manager.places
    actions = [*manager.uninstall(roles), Remove(places.software)]
    if models:
        actions += [Remove(each) for each in model_files(places.models)]
    return actions


def model_files(folder: Path) -> list[Path]:
    """Return the models in a folder: files, and links to those of other programs."""
    return sorted(folder.rglob("*.gguf")) if folder.is_dir() else []


def has_models(folder: Path) -> bool:
    """Whether a folder has any model."""
    return bool(model_files(folder))
