"""Engine protocol: what the supervisor needs from every kind of engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from edgeserve.orders.groups import LayeredModel
from edgeserve.wire import Ability, Expected, Launch

Role = Literal["generate", "embeddings", "rerank"]
"""What an engine serves; llama.cpp needs one process for each role."""

Pooling = Literal["mean", "cls", "last"]
"""How a text's vectors become one; `rank` is the role `rerank`."""


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """One GGUF in one role, with the settings it will be launched with.

    `id` is unique on the node: the variant, with the suffix `#embeddings` or `#rerank`
    in those roles. `variant` is the full name, `model:LABEL`. `memory` is the planned
    total in bytes. `pooling` is None where the file names it. `layers` counts the
    output layer, too, as llama.cpp does; 0 where it is not known. `created` is the time
    of the file, in Unix seconds. `layered` is what it can be split by. The engine may
    save what its slots hold in the folder `states`; `content` is a hash of its file
    then. `drafts` are the files of models that can draft for it, by variant.
    """

    id: str
    model: str
    variant: str
    path: Path
    role: Role
    abilities: tuple[Ability, ...]
    launch: Launch
    projector: Path | None = None
    pooling: Pooling | None = None
    layers: int = 0
    expected: Expected | None = None
    memory: int = 0
    created: int = 0
    layered: LayeredModel | None = None
    states: Path | None = None
    content: str = ""
    drafts: Mapping[str, Path] = field(default_factory=dict[str, Path])

    def saving_as(self, other: EngineSpec) -> EngineSpec:
        """Return the same, with slots saved as those of another launch of the model."""
        return replace(self, states=other.states, content=other.content)

    @property
    def draft(self) -> Path | None:
        """The file of the model that drafts for it, if one does."""
        return self.drafts.get(self.launch.draft)


@dataclass(frozen=True)
class Command:
    """A process to start: its arguments, and variables to add to its environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


class Engine(Protocol):
    """A way to run llama.cpp's HTTP server."""

    @property
    def kind(self) -> Literal["native", "bundled", "fake"]:
        """The kind of engine; `fake` in tests."""
        ...

    @property
    def build(self) -> str:
        """The build, e.g. `b11549` or a commit; measured speeds are keyed by it."""
        ...

    def command(self, spec: EngineSpec, *, port: int, api_key: str) -> Command:
        """Return the command that serves `spec` on 127.0.0.1:`port` with `api_key`."""
        ...
