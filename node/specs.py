"""Settings, files and memory → the engines to run, and what cannot be run and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import msgspec

from edgeserve.config import NodeSettings
from edgeserve.openai import normal
from edgeserve.wire import Ability, Hardware
from node.engines.protocol import EngineSpec, Role
from node.fit import Fitted, Refusal, Room, fit
from node.offload import Device
from node.shelf import Model, Shelf, Unfit, look, scan


@dataclass(frozen=True)
class Wish:
    """A model to be served in a role."""

    model: Model
    role: Role


@dataclass(frozen=True)
class Plan:
    """The engines to run, and a sentence for each thing that cannot be served."""

    specs: tuple[EngineSpec, ...]
    problems: tuple[str, ...] = ()


def plan(
    settings: NodeSettings, hardware: Hardware, devices: Iterable[Device] = ()
) -> Plan:
    """Decide what to serve; `devices` are the GPUs that the engine can use.

    Reads files, so call it off the event loop. Never raises for a model's sake.
    """
    wishes, problems = _wishes(settings)
    places = _places(devices, settings, hardware.cpu.physical_cores)
    return allot(settings, wishes, hardware.memory.available, places, problems)


@dataclass
class Place:
    """Where an engine may run: some cores, some GPUs, and what is free on those.

    `name` tells engines of one model apart; empty where there is but one place.
    """

    cores: int
    gpu_memory: int = 0
    name: str = ""
    devices: tuple[str, ...] = ()


def _places(
    devices: Iterable[Device], settings: NodeSettings, cores: int
) -> tuple[Place, ...]:
    """One place across all GPUs, or one on each."""
    each = tuple(devices)
    if settings.per_gpu and each:
        share = max(1, cores // len(each))
        return tuple(Place(share, d.memory_free, f"@{d.name}", (d.name,)) for d in each)
    return (Place(cores, sum(device.memory_free for device in each)),)


def allot(
    settings: NodeSettings,
    wishes: Iterable[Wish],
    memory: int,
    places: Iterable[Place],
    problems: Iterable[str],
) -> Plan:
    """Give each wish, in order, what memory the ones before it left.

    `memory` is the free main memory in bytes, which all places share.
    """
    specs: dict[str, EngineSpec] = {}
    refused = list(problems)
    for wish, place in product(wishes, tuple(places)):
        model, role = wish.model, wish.role
        id_ = _id(wish) + place.name
        if id_ in specs:
            if specs[id_].path != model.path:
                refused.append(f"{model.path}: {specs[id_].path} has the same name")
            continue
        room = Room(cores=place.cores, memory=memory, gpu_memory=place.gpu_memory)
        found = fit(model.facts, role, settings, room)
        if isinstance(found, Refusal):
            refused.append(f"{model.path}: {found.reason}")
            continue
        specs[id_] = _spec(id_, model, role, found, place)
        memory -= found.memory
        place.gpu_memory -= found.gpu_memory
    return Plan(tuple(specs.values()), tuple(dict.fromkeys(refused)))


def _id(wish: Wish) -> str:
    role = "" if wish.role == "generate" else f"#{wish.role}"
    return wish.model.variant + role


def _spec(
    id_: str, model: Model, role: Role, found: Fitted, place: Place
) -> EngineSpec:
    return EngineSpec(
        id=id_,
        model=model.model,
        variant=model.variant,
        path=model.path,
        role=role,
        abilities=_abilities(role, model),
        launch=msgspec.structs.replace(found.launch, devices=place.devices),
        projector=model.projector if role == "generate" else None,
        pooling=model.pooling if role == "embeddings" else None,
        layers=model.facts.layers + 1,
    )


def _abilities(role: Role, model: Model) -> tuple[Ability, ...]:
    if role != "generate":
        return (role,)
    both: tuple[Ability, ...] = ("chat", "completion")
    return (*both, "vision") if model.projector else both


def _wishes(settings: NodeSettings) -> tuple[list[Wish], list[str]]:
    """Return what is asked for: the named models, and all there are if none is."""
    problems: list[str] = []
    shelf = Shelf()
    try:
        shelf = scan(settings.models_dir)
    except OSError as error:
        said = f"cannot read the models folder {settings.models_dir}: {error.strerror}"
        problems.append(said)
    named = _named(settings, shelf)
    wishes = [Wish(found, role) for found, role in named if isinstance(found, Model)]
    problems += [found.reason for found, _ in named if isinstance(found, Unfit)]
    if not settings.models:
        problems += [each.reason for each in shelf.unfit]
        smallest_first = sorted(shelf.models, key=lambda each: each.facts.file_bytes)
        wishes += [Wish(each, each.role) for each in smallest_first]
    if not wishes and not problems:
        where = settings.models_dir
        problems.append(f"no model in {where}; `edgeserve pull` fetches one")
    return wishes, problems


def _named(settings: NodeSettings, shelf: Shelf) -> list[tuple[Model | Unfit, Role]]:
    asked: tuple[tuple[Role, tuple[str, ...]], ...] = (
        ("generate", settings.models),
        ("embeddings", settings.embedding_models),
        ("rerank", settings.rerank_models),
    )
    return [
        (found, role)
        for role, names in asked
        for name in names
        for found in resolve(name, settings.models_dir, shelf)
    ]


def resolve(name: str, folder: Path, shelf: Shelf) -> Iterator[Model | Unfit]:
    """Yield what a name means: a file, a file in the folder, a model, a variant."""
    for file in (Path(name).expanduser(), folder / name, folder / f"{name}.gguf"):
        if file.is_file():
            yield look(file)
            return
    wanted = normal(name)
    found = [each for each in shelf.models if wanted in {each.model, each.variant}]
    yield from found
    if not found:
        there = ", ".join(each.variant for each in shelf.models) or "nothing"
        why = f"no file and no model {name!r} in {folder}; there is {there}"
        yield Unfit(folder / name, why)
