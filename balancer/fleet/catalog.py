"""Model catalog: the models that clients may call, with state and variants. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from balancer.fleet.engines import ASLEEP, EngineCandidate

ModelState = Literal["loaded", "loading", "available"]
"""`available`: it is on the disk of a node, which loads it when it is asked for."""

STATES: tuple[ModelState, ...] = ("loaded", "loading", "available")
"""Best first."""


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """A model or a variant. `variants` are those of a model, in the order of names.

    `nodes` have it loaded, on those of `loading` it loads, those of `on_demand` would
    load it. `progress` is the best of its loads, where its state is `loading`.
    `context` and `slots` are those of its engines in the best state, `memory` is the
    largest need of one, in bytes. `created` is the time of its newest file, in Unix
    seconds.
    """

    name: str
    state: ModelState
    progress: float | None
    nodes: tuple[str, ...]
    loading: tuple[str, ...]
    on_demand: tuple[str, ...]
    abilities: tuple[str, ...]
    context: int
    slots: int
    memory: int
    created: int
    variants: tuple[CatalogEntry, ...] = ()


def catalog(candidates: Iterable[EngineCandidate]) -> list[CatalogEntry]:
    """List each model that can be called, in the order of names."""
    found: dict[str, dict[str, list[_Callable]]] = {}
    for each in candidates:
        if state := state_of(each):
            model, variant = each.listed
            engines = found.setdefault(model, {}).setdefault(variant, [])
            engines.append(_Callable(each, state))
    return [_model(name, found[name]) for name in sorted(found)]


def entries(listed: Iterable[CatalogEntry]) -> Iterator[CatalogEntry]:
    """Yield each model, and its variants after it."""
    for each in listed:
        yield each
        yield from (other for other in each.variants if other.name != each.name)


def state_of(candidate: EngineCandidate) -> ModelState | None:
    """Return what its engine adds to its model's state; None: no request can use it."""
    if candidate.unavailable is not None and not candidate.temporary:
        return None
    if candidate.unavailable == ASLEEP:
        return "available"
    match candidate.engine.state:
        case "ready" | "busy":
            return "loaded"
        case "loading":
            return "loading"
        case "absent" | "leaving":
            return "available"
        case _:
            return None


@dataclass(frozen=True)
class _Callable:
    candidate: EngineCandidate
    state: ModelState


def _model(name: str, variants: dict[str, list[_Callable]]) -> CatalogEntry:
    listed = tuple(_entry(each, variants[each]) for each in sorted(variants))
    return _entry(name, [each for found in variants.values() for each in found], listed)


def _entry(
    name: str, found: Sequence[_Callable], variants: tuple[CatalogEntry, ...] = ()
) -> CatalogEntry:
    state = _best(found)
    best = [each.candidate.engine for each in found if each.state == state]
    engines = [each.candidate.engine for each in found]
    progress = max((each.progress or 0.0 for each in best), default=0.0)
    return CatalogEntry(
        name=name,
        state=state,
        progress=progress if state == "loading" else None,
        nodes=_nodes(found, "loaded"),
        loading=_nodes(found, "loading"),
        on_demand=_nodes(found, "available"),
        abilities=tuple(sorted({a for each in engines for a in each.abilities})),
        context=max(each.context for each in best),
        slots=sum(each.slots for each in best),
        memory=max(each.memory for each in engines),
        created=max(each.created for each in engines),
        variants=variants,
    )


def _best(found: Iterable[_Callable]) -> ModelState:
    ranks = [STATES.index(each.state) for each in found]
    return STATES[min(ranks)]


def _nodes(found: Iterable[_Callable], state: ModelState) -> tuple[str, ...]:
    return tuple(sorted({e.candidate.node for e in found if e.state == state}))
