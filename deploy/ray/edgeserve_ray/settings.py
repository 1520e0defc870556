"""Settings of an application: `key=value` arguments of `serve run`, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What both engines need.

    `name`: the model's name for clients. `slots`: requests that one replica answers at
    once. `context`: tokens of each. `cpus` and `gpus`: what Ray reserves for a replica.
    """

    model: str
    name: str = ""
    slots: int = 4
    context: int = 4096
    min_replicas: int = 1
    max_replicas: int = 2
    cpus: float = 1
    gpus: float = 0
    start_seconds: float = 900
    upscale_seconds: float = 10
    downscale_seconds: float = 300

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        if not self.model:
            raise ValueError("`model` must name a model")
        for key in ("slots", "context", "max_replicas"):
            if getattr(self, key) < 1:
                raise ValueError(f"`{key}` must be at least 1")
        if not 0 <= self.min_replicas <= self.max_replicas:
            raise ValueError("`min_replicas` must be between 0 and `max_replicas`")

    @property
    def served(self) -> str:
        """The model's name for clients: by default its last part, without `.gguf`."""
        last = self.name or self.model.rstrip("/").rpartition("/")[2]
        return last.removesuffix(".gguf")


class LlamaCppSettings(EngineSettings, frozen=True, kw_only=True):
    """`model` is the path of a GGUF file, the same on every machine of the cluster."""

    threads: int = 0
    gpu_layers: int = 0
    llama_server: str = ""


class VllmSettings(EngineSettings, frozen=True, kw_only=True):
    """`model` is what `vllm serve` takes; `flags`: more of its flags, in one text."""

    slots: int = 64
    flags: str = ""


_Settings = TypeVar("_Settings", bound=EngineSettings)


def settings_of(kind: type[_Settings], given: Mapping[str, Any]) -> _Settings:
    """Return what arguments say. Raises ValueError naming the wrong one."""
    known = kind.__struct_fields__
    for key in given:
        if key not in known:
            raise ValueError(f"unknown argument `{key}`; known: {', '.join(known)}")
    return msgspec.convert(dict(given), kind, strict=False)
