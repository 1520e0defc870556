"""Desired models: what the node was told to do with models, kept over restarts."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from edgeserve.errors import BadRequest, in_words
from edgeserve.openai import normal
from edgeserve.orders.engines import DesiredModel
from edgeserve.runtime.files import read_json, replace_json
from node.models.selection import Wishes

log = logging.getLogger(__name__)

MOST = 10_000
"""Models that are kept at most; each is a name that a balancer has sent."""


class DesiredFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file."""

    models: tuple[DesiredModel, ...]


class DesiredModels:
    """What is desired of each model. A damaged file is a warning, and nothing."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "models.json"
        self._models = {each.model: each for each in _load(self._path).models}

    @property
    def models(self) -> tuple[DesiredModel, ...]:
        """All that was said, by model."""
        return tuple(self._models[name] for name in sorted(self._models))

    @property
    def wishes(self) -> Wishes:
        """The names that are pinned and forbidden."""
        return Wishes(
            frozenset(each.model for each in self.models if each.pinned),
            frozenset(each.model for each in self.models if each.forbidden),
        )

    def keep_alive(self, model: str, variant: str, usual: float) -> float:
        """Return the idle seconds after which it is unloaded; 0 for never.

        What is said of the variant counts before what is said of the model.
        """
        for name in (variant, model):
            said = self._models.get(name)
            if said is not None and said.keep_alive is not None:
                return said.keep_alive
        return usual

    def take(self, said: DesiredModel) -> None:
        """Take in what is desired of a model. Raises BadRequest."""
        if said.pinned and said.forbidden:
            raise BadRequest("a model cannot be both pinned and forbidden")
        name = normal(said.model)
        if not name:
            raise BadRequest("name the `model`")
        if said.usual:
            self._models.pop(name, None)
        elif len(self._models) >= MOST and name not in self._models:
            raise BadRequest(f"{MOST} models have wishes; withdraw some")
        else:
            self._models[name] = msgspec.structs.replace(said, model=name)

    def save(self) -> None:
        """Write the file; where that fails, it is known until the node restarts."""
        try:
            replace_json(self._path, DesiredFile(models=self.models))
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, in_words(error))


def _load(path: Path) -> DesiredFile:
    try:
        return read_json(path, DesiredFile)
    except FileNotFoundError:
        return DesiredFile(models=())
    except OSError as error:
        log.warning("ignoring %s: %s; pin the models again", path, in_words(error))
        return DesiredFile(models=())
