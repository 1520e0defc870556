"""Tunings: settings that measured better on this machine, and their files."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import in_words
from edgeserve.reports.hardware import Hardware
from edgeserve.runtime.files import in_a_name, read_json, replace_json
from edgeserve.wire import Launch
from node.engines.base import Engine, Role
from node.engines.devices import Device

log = logging.getLogger(__name__)


DRAFTING = ("speculative", "draft", "draft_tokens")
"""The settings of guessing ahead; a draft model needs all three."""


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a launch that was tuned; None leaves a setting as it is."""

    slots: int | None = None
    batch: int | None = None
    ubatch: int | None = None
    threads: int | None = None
    threads_batch: int | None = None
    spin: int | None = None
    kv_type: str | None = None
    flash_attention: bool | None = None
    speculative: str | None = None
    draft: str | None = None
    draft_tokens: int | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The tuned settings, by their names in the launch."""
        return {k: v for k, v in msgspec.structs.asdict(self).items() if v is not None}

    def unless_set(self, settings: NodeSettings) -> Tuned:
        """Return the tuned settings that the node's settings leave open."""
        given = [name for name in ("slots", "threads", "batch") if vars(settings)[name]]
        if "batch" in given:
            given.append("ubatch")
        if "threads" in given:
            given.append("threads_batch")
        return self.without(*given)

    def without(self, *names: str) -> Tuned:
        """Return all but these settings."""
        return msgspec.structs.replace(self, **dict.fromkeys(names))

    def given(self, drafts: Collection[str]) -> Tuned:
        """Return the settings that are possible with these draft models."""
        return self if not self.draft or self.draft in drafts else self.undrafted

    @property
    def undrafted(self) -> Tuned:
        """The settings without a draft model."""
        return self.without(*DRAFTING) if self.draft else self

    def lighter(self) -> Iterator[Tuned]:
        """Yield all settings, then those that need no more memory than untuned ones."""
        yield self
        if self.draft:
            yield self.undrafted
        yield self.without("slots", "batch", "ubatch", "kv_type", *DRAFTING)


def difference(untuned: Launch, found: Launch) -> Tuned:
    """Return the settings in which `found` differs from `untuned`."""
    return Tuned(
        **{
            name: getattr(found, name)
            for name in Tuned.__struct_fields__
            if getattr(found, name) != getattr(untuned, name)
        }
    )


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens/s: reading a prompt, writing for one stream, and for all slots at once."""

    prefill: float
    decode: float
    aggregate: float


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """The key of a result. `file_bytes` distinguishes a replaced file."""

    machine: str
    engine: str
    variant: str
    file_bytes: int
    role: Role


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The best settings found, and the figures of these and of the untuned ones.

    `failed` is how an engine with these settings ended, if one did; `wanted` is the
    seconds that a full search would have taken, 0 where it was full.
    """

    key: Key
    tuned: Tuned
    untuned: Figures
    best: Figures
    gain: float
    made: str
    failed: str = ""
    wanted: float = 0.0

    @property
    def usable(self) -> Tuned | None:
        """The settings to start with."""
        return None if self.failed else self.tuned

    def figures(self, launch: Launch) -> Figures:
        """Return the figures of a launch: the best only with all that was tuned."""
        changes = self.tuned.changes.items()
        whole = all(getattr(launch, name) == value for name, value in changes)
        return self.best if whole and not self.failed else self.untuned

    def missing(self, drafts: Collection[str]) -> str:
        """Return a sentence where the draft model is not among these."""
        draft = self.usable.draft if self.usable else None
        if not draft or draft in drafts:
            return ""
        return (
            f"{self.key.variant}: its draft model {draft} is not here any more, so that"
            " it starts without; put it back, or tune again"
        )

    @property
    def summary(self) -> str:
        """The result in a few words: `tuned on 2026-01-31: +12 %`."""
        if self.failed:
            return f"tuned on {self.made[:10]}, but it did not start: {self.failed}"
        if not self.tuned.changes:
            return f"tuned on {self.made[:10]}: nothing better was found"
        return f"tuned on {self.made[:10]}: {percent(self.gain)}"


def percent(gain: float) -> str:
    """Write a gain: `+12 %`."""
    return f"{gain:+.0%}".replace("%", " %")


@dataclass(frozen=True)
class Tunings:
    """The results for this machine and engine."""

    machine: str = ""
    engine: str = ""
    results: dict[Key, Result] = field(default_factory=dict[Key, Result])

    def key(self, variant: str, file_bytes: int, role: Role) -> Key:
        """Return the key of a result for that file."""
        return Key(
            machine=self.machine,
            engine=self.engine,
            variant=variant,
            file_bytes=file_bytes,
            role=role,
        )

    def find(self, variant: str, file_bytes: int, role: Role) -> Result | None:
        """Return the result for that file, if it was tuned here."""
        return self.results.get(self.key(variant, file_bytes, role))


def fingerprint(
    hardware: Hardware, devices: Iterable[Device] = (), *, apart: bool = False
) -> str:
    """Return a key of what speeds depend on; `apart`: one engine per GPU.

    Memory is not part of it: whether a result still fits is checked later.
    """
    cpu = hardware.cpu
    parts = (
        hardware.platform.machine,
        cpu.model,
        str(cpu.physical_cores),
        str(cpu.logical_cores),
        *(f"{each.name} {each.description}" for each in devices),
        "apart" if apart else "",
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def load(state_dir: Path, *, machine: str, engine: str) -> Tunings:
    """Return the results for this machine and engine; skip unreadable files."""
    found: dict[Key, Result] = {}
    for file in sorted(_folder(state_dir).glob("*.json")):
        try:
            result = read_json(file, Result)
        except OSError as error:
            log.warning("ignoring %s: %s; delete it", file, in_words(error))
            continue
        if (result.key.machine, result.key.engine) == (machine, engine):
            found[result.key] = result
    return Tunings(machine, engine, found)


def tunings_of(
    engine: Engine,
    hardware: Hardware,
    devices: tuple[Device, ...],
    settings: NodeSettings,
) -> Tunings:
    """Return the results of this machine with this engine."""
    machine = fingerprint(hardware, devices, apart=settings.per_gpu)
    name = f"{engine.kind} {engine.build}"
    return load(settings.state_dir, machine=machine, engine=name)


def save(state_dir: Path, result: Result) -> Path:
    """Write a result; it replaces the one for the same key. Raises OSError."""
    target = _folder(state_dir) / f"{_name(result.key)}.json"
    replace_json(target, result)
    return target


def _folder(state_dir: Path) -> Path:
    return state_dir / "tuned"


def _name(key: Key) -> str:
    digest = hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:12]
    return f"{in_a_name(key.variant)}-{key.role}-{digest}"
